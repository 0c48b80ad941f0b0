"""The files of cgroup v1 directories (kernel: Documentation/admin-guide/cgroup-v1/, scheduler/sched-bwc.rst)."""

from __future__ import annotations

from cgagent.cgroup.dialect import UNLIMITED, Bound, Quota, field, number, throttling, working_set
from cgagent.cgroup.numbers import INT64_MAX, cpu_list, flat_keyed, one_line, unsigned
from cgagent.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.dialect import Get, Number

LIMIT_FILES = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes", "cpuset.cpus")
# cpuacct.stat counts in USER_HZ, which is 100 on every architecture that Go runs on.
_USER_HZ = 100


def cpu_quota(get: Get) -> Quota | None:
    """`cpu.cfs_quota_us` and `cpu.cfs_period_us`, microseconds; a quota of -1 is none. The root has no files."""
    name = "cpu.cfs_quota_us"
    text = get(name)
    if text is None:
        return None
    line = one_line(text)
    if line == "-1":
        return Quota(name, line, None, None)
    quota = unsigned(line, name, INT64_MAX)
    period_name = "cpu.cfs_period_us"
    period_text = get(period_name)
    if period_text is None:
        raise MalformedError(period_name, "", "expected a period beside the quota")
    period_line = one_line(period_text)
    period = unsigned(period_line, period_name, INT64_MAX)
    if period == 0:
        raise MalformedError(period_name, period_line, "expected a period above 0")
    if quota == 0:
        raise MalformedError(name, line, "expected a quota above 0, or -1")
    return Quota(name, f"{line} {period_line}", quota, period)


def memory_bounds(get: Get) -> list[Bound]:
    """`memory.limit_in_bytes`, and `hierarchical_memory_limit` of `memory.stat`, which knows unseen ancestors."""
    bounds = []
    text = get("memory.limit_in_bytes")
    if text is not None:
        bounds.append(_bound("memory.limit_in_bytes", one_line(text)))
    fields = flat_keyed(get("memory.stat") or "")
    if "hierarchical_memory_limit" in fields:
        bounds.append(_bound("memory.stat", fields["hierarchical_memory_limit"]))
    return bounds


def _bound(name: str, line: str) -> Bound:
    size = unsigned(line, name)
    return Bound(name, line, None if size >= UNLIMITED else size)


def cpuset(get: Get) -> tuple[str, frozenset[int]] | None:
    """`cpuset.effective_cpus`, or `cpuset.cpus` on kernels before 3.17, which lack it."""
    for name in ("cpuset.effective_cpus", "cpuset.cpus"):
        text = get(name)
        if text is not None and one_line(text):
            return name, cpu_list(text, name)
    return None


def cpu_settings(get: Get) -> dict[str, int | None]:
    """Shares (2 to 262144, shared out among siblings) and burst in microseconds. Shown, never computed with."""
    return {"shares": number(get, "cpu.shares"), "burst_us": number(get, "cpu.cfs_burst_us")}


def cpu_usage(get: Get) -> dict[str, Number]:
    """`cpuacct.usage` (nanoseconds) and `cpuacct.stat` (ticks): CPU seconds used."""
    usage = number(get, "cpuacct.usage")
    fields = flat_keyed(get("cpuacct.stat") or "")
    return {
        "usage_seconds": None if usage is None else usage / 1e9,
        "user_seconds": field(fields, "user", "cpuacct.stat", _USER_HZ),
        "system_seconds": field(fields, "system", "cpuacct.stat", _USER_HZ),
    }


def cpu_throttling(get: Get) -> dict[str, Number]:
    """`cpu.stat`, which counts throttled time in nanoseconds."""
    return throttling(flat_keyed(get("cpu.stat") or ""), "throttled_time", 10**9)


def memory_usage(get: Get) -> dict[str, Number]:
    """Bytes charged now and at the most, what they are, and swap, which v1 counts together with memory."""
    usage, both_usage = number(get, "memory.usage_in_bytes"), number(get, "memory.memsw.usage_in_bytes")
    limit, both_limit = number(get, "memory.limit_in_bytes"), number(get, "memory.memsw.limit_in_bytes")
    fields = flat_keyed(get("memory.stat") or "")
    return {
        "usage_bytes": usage,
        "working_set_bytes": working_set(usage, fields, "total_inactive_file"),
        "peak_bytes": number(get, "memory.max_usage_in_bytes"),
        "anon_bytes": field(fields, "total_rss", "memory.stat"),
        "file_bytes": field(fields, "total_cache", "memory.stat"),
        "high_bytes": None,
        "swap_usage_bytes": None if both_usage is None or usage is None else max(0, both_usage - usage),
        "swap_limit_bytes": None if both_limit is None or limit is None else max(0, both_limit - limit),
    }


def memory_events(get: Get) -> dict[str, int]:
    """`memory.failcnt` (how often the limit was hit) and `oom_kill` of `memory.oom_control` (since 4.13)."""
    events = {}
    hits = number(get, "memory.failcnt")
    if hits is not None:
        events["max"] = hits
    control = flat_keyed(get("memory.oom_control") or "")
    if "oom_kill" in control:
        events["oom_kill"] = unsigned(control["oom_kill"], "memory.oom_control")
    return events
