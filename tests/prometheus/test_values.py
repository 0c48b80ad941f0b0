"""The metrics of a real cgroup, held to the kernel's own files as this module reads them: v1 here, v2 in a machine."""

from __future__ import annotations

import os
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cgagent.metrics.collectors import registry_of
from cgagent.metrics.exposition import encode_text
from kernel import cgroups
from kernel.cgroups import MIB, Group, read, write
from support.sidecar import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any

# Two busy processes on half a CPU are throttled; one of them holds some memory.
_WORK = ("sh", "-c", "while :; do :; done & x=$(head -c 20000000 /dev/zero | tr '\\0' x); while :; do :; done")
TICK = os.sysconf("SC_CLK_TCK")


def _page(pid: int) -> dict[str, float]:
    parse: Any = text_string_to_metric_families
    page = encode_text(registry_of(Source(pid=str(pid)))).decode()
    return {
        sample.name.removeprefix("cgagent_") + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in parse(page)
        for sample in family.samples
    }


def _flat(path: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in read(path).splitlines())}


def _number(path: str) -> int:
    return int(read(path))


def _kernel(group: Group) -> dict[str, float]:
    """Counters as the kernel has them now."""
    cpu, memory = group.directories["cpu"], group.directories["memory"]
    stat = _flat(f"{cpu}/cpu.stat")
    found: dict[str, float] = {
        "cpu_cfs_periods_total": stat["nr_periods"],
        "cpu_cfs_throttled_periods_total": stat["nr_throttled"],
    }
    if group.version("cpu") == 1:
        used = _flat(f"{group.directories['cpuacct']}/cpuacct.stat")
        found["cpu_usage_seconds_total"] = _number(f"{group.directories['cpuacct']}/cpuacct.usage") / 1e9
        found["cpu_user_seconds_total"] = used["user"] / TICK
        found["cpu_system_seconds_total"] = used["system"] / TICK
        found["cpu_cfs_throttled_seconds_total"] = stat["throttled_time"] / 1e9
    else:
        found["cpu_usage_seconds_total"] = stat["usage_usec"] / 1e6
        found["cpu_user_seconds_total"] = stat["user_usec"] / 1e6
        found["cpu_system_seconds_total"] = stat["system_usec"] / 1e6
        found["cpu_cfs_throttled_seconds_total"] = stat["throttled_usec"] / 1e6
    if group.version("memory") == 1:
        found["memory_events_total max"] = _number(f"{memory}/memory.failcnt")
    else:
        events = _flat(f"{memory}/memory.events")
        found |= {f"memory_events_total {event}": count for event, count in events.items()}
        for resource in ("cpu", "memory", "io"):
            for line in read(f"{memory}/{resource}.pressure").splitlines() if _has_pressure(memory, resource) else ():
                kind = {"some": "waiting", "full": "stalled"}[line.split()[0]]
                found[f"pressure_{kind}_seconds_total {resource}"] = int(line.rpartition("=")[2]) / 1e6
    return found


def _has_pressure(directory: str, resource: str) -> bool:
    try:
        return bool(read(f"{directory}/{resource}.pressure"))
    except OSError:
        return False


@pytest.fixture
def busy(top: Group, start: Callable[..., subprocess.Popen[str]]) -> tuple[Group, int]:
    top.set_quota(50_000)
    top.set_memory(256 * MIB)
    process = start(list(_WORK), top)
    throttled = f"{top.directories['cpu']}/cpu.stat"
    deadline = time.monotonic() + 120
    while not _flat(throttled)["nr_throttled"] and time.monotonic() < deadline:
        time.sleep(0.1)
    return top, process.pid


def test_counters_lie_between_what_the_kernel_says_before_and_after(busy: tuple[Group, int]) -> None:
    group, pid = busy
    before, page, after = _kernel(group), _page(pid), _kernel(group)
    # What v1's cpuacct.stat says in ticks goes back now and then, as user and system time are shared out anew.
    slack = 2 / TICK
    wrong = {
        name: (before[name], page.get(name), after[name])
        for name in before
        if not before[name] - slack <= page.get(name, -1) <= after[name] + slack
    }
    assert wrong == {}
    assert page["cpu_cfs_throttled_periods_total"] > 0
    assert page["cpu_usage_seconds_total"] > 0


def test_gauges_are_what_was_set(busy: tuple[Group, int]) -> None:
    group, pid = busy
    if "pids" in group.directories:
        write(f"{group.directories['pids']}/pids.max", 123)
    page = _page(pid)
    assert page["cpu_limit_cores"] == 0.5
    assert page["memory_limit_bytes"] == 256 * MIB
    assert page["gomaxprocs"] == 1
    assert page["gomemlimit_bytes"] == 256 * MIB * 9 // 10
    assert page[f"cgroup_info {cgroups.mode()}"] == 1
    assert page.get("pids_limit") == (123 if "pids" in group.directories else None)
    assert 0 < page["memory_working_set_bytes"] <= page["memory_usage_bytes"] <= 256 * MIB
    assert page["memory_usage_bytes"] <= page.get("memory_peak_bytes", 256 * MIB)
    assert page["cpu_allowed_cpus"] == len(os.sched_getaffinity(0))


def test_memory_high_is_told_where_there_is_one(busy: tuple[Group, int]) -> None:
    group, pid = busy
    if group.version("memory") == 1:
        assert "memory_high_bytes" not in _page(pid)
        pytest.skip("cgroup v1 has no memory.high; the page has no such metric, as it should")
    assert "memory_high_bytes" not in _page(pid)
    write(f"{group.directories['memory']}/memory.high", 200 * MIB)
    page = _page(pid)
    assert page["memory_high_bytes"] == 200 * MIB
    assert page["memory_limit_bytes"] == 200 * MIB


def test_an_oom_kill_is_counted(
    top: Group, start: Callable[..., subprocess.Popen[str]], sleeper: Callable[..., int]
) -> None:
    top.set_memory(32 * MIB)
    survivor = sleeper(top)
    # A slow kernel takes more victims than one: the survivor is to be the last of them.
    start(["sh", "-c", "echo 1000 >/proc/self/oom_score_adj; x=$(head -c 200000000 /dev/zero | tr '\\0' x)"], top)
    deadline = time.monotonic() + 240
    while not _page(survivor)["memory_events_total oom_kill"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _page(survivor)["memory_events_total oom_kill"] >= 1
