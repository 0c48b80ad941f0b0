"""The files of a cgroup v2 directory (kernel: Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

from cgagent.cgroup.dialect import UNLIMITED, Bound, Quota, field, number, throttling, working_set
from cgagent.cgroup.numbers import INT64_MAX, cpu_list, flat_keyed, one_line, unsigned
from cgagent.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.dialect import Get, Number

_DEFAULT_PERIOD_US = 100_000
LIMIT_FILES = ("cpu.max", "memory.max", "memory.high", "cpuset.cpus.effective")


def cpu_quota(get: Get) -> Quota | None:
    """`cpu.max`: `$MAX $PERIOD` in microseconds, `max` for no quota. The root cgroup has no such file."""
    text = get("cpu.max")
    if text is None:
        return None
    line = one_line(text)
    fields = line.split(" ")
    if len(fields) > 2:
        raise MalformedError("cpu.max", line, "expected QUOTA PERIOD")
    period = unsigned(fields[1], "cpu.max", INT64_MAX) if len(fields) == 2 else _DEFAULT_PERIOD_US
    quota = None if fields[0] == "max" else unsigned(fields[0], "cpu.max", INT64_MAX)
    if period == 0 or quota == 0:
        raise MalformedError("cpu.max", line, "expected a quota and a period above 0")
    return Quota("cpu.max", line, quota, period)


def memory_bounds(get: Get) -> list[Bound]:
    """`memory.max` (beyond it the OOM killer) and `memory.high` (beyond it reclaim and throttling)."""
    return [bound for name in ("memory.max", "memory.high") if (bound := _bound(get, name))]


def _bound(get: Get, name: str) -> Bound | None:
    text = get(name)
    if text is None:
        return None
    line = one_line(text)
    size = None if line == "max" else unsigned(line, name)
    return Bound(name, line, None if size is None or size >= UNLIMITED else size)


def cpuset(get: Get) -> tuple[str, frozenset[int]] | None:
    """`cpuset.cpus.effective`: the CPUs that the cgroup has, its ancestors' sets included."""
    name = "cpuset.cpus.effective"
    text = get(name)
    return None if text is None else (name, cpu_list(text, name))


def cpu_settings(get: Get) -> dict[str, int | None]:
    """Weight (1 to 10000, shared out among siblings) and burst in microseconds. Shown, never computed with."""
    return {"weight": number(get, "cpu.weight"), "burst_us": number(get, "cpu.max.burst")}


def cpu_usage(get: Get) -> dict[str, Number]:
    """`cpu.stat` (microseconds): CPU seconds used."""
    fields = flat_keyed(get("cpu.stat") or "")
    return {
        "usage_seconds": field(fields, "usage_usec", "cpu.stat", 10**6),
        "user_seconds": field(fields, "user_usec", "cpu.stat", 10**6),
        "system_seconds": field(fields, "system_usec", "cpu.stat", 10**6),
    }


def cpu_throttling(get: Get) -> dict[str, Number]:
    """`cpu.stat`, which counts throttled time in microseconds."""
    return throttling(flat_keyed(get("cpu.stat") or ""), "throttled_usec", 10**6)


def memory_usage(get: Get) -> dict[str, Number]:
    """Bytes charged now and at the most, what they are, and swap."""
    usage = number(get, "memory.current")
    fields = flat_keyed(get("memory.stat") or "")
    return {
        "usage_bytes": usage,
        "working_set_bytes": working_set(usage, fields, "inactive_file"),
        "peak_bytes": number(get, "memory.peak"),
        "anon_bytes": field(fields, "anon", "memory.stat"),
        "file_bytes": field(fields, "file", "memory.stat"),
        "high_bytes": number(get, "memory.high"),
        "swap_usage_bytes": number(get, "memory.swap.current"),
        "swap_limit_bytes": number(get, "memory.swap.max"),
    }


def memory_events(get: Get) -> dict[str, int]:
    """`memory.events`: how often `low`, `high`, `max`, `oom`, `oom_kill` happened here or below."""
    events = flat_keyed(get("memory.events") or "")
    return {key: unsigned(value, "memory.events") for key, value in events.items()}
