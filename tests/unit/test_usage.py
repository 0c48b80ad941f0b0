"""Usage of the cgroups where limits were found: it decides nothing, so a bad file costs its own numbers alone."""

from __future__ import annotations

import pytest

from cgagent.cgroup.reading import read_limits
from cgagent.cgroup.usage import Usage, pressure, read_usage
from cgagent.errors import MalformedError
from cgagent.host import Host
from support.trees import build, machine, v2

STAT = "usage_usec 1000000\nnr_periods {}\nnr_throttled {}\nthrottled_usec 5\n"


def _usage(tmp_path: object, files: dict[str, str]) -> Usage:
    return read_usage(read_limits(Host(build(tmp_path, files))))


def test_usage_is_that_of_the_process_own_cgroup(tmp_path: object) -> None:
    files = {
        "/a/b/cpu.stat": STAT.format(10, 1),
        "/a/cpu.stat": STAT.format(20, 2),
        "/a/b/memory.current": "1000\n",
        "/a/memory.current": "9000\n",
        "/a/b/pids.current": "3\n",
        "/a/b/pids.max": "max\n",
    }
    usage = _usage(tmp_path, v2(files, "/a/b"))
    assert usage.cpu["usage_seconds"] == 1.0
    assert usage.throttling["periods"] == 10
    assert usage.memory["usage_bytes"] == 1000
    assert usage.pids == {"current": 3, "limit": None}
    assert usage.errors == []


def test_throttling_and_memory_are_also_told_of_every_level_that_has_a_limit(tmp_path: object) -> None:
    files = {
        "/a/b/cpu.max": "max 100000\n",
        "/a/b/cpu.stat": STAT.format(10, 1),
        "/a/cpu.max": "100000 100000\n",
        "/a/cpu.stat": STAT.format(20, 2),
        "/a/memory.max": "10000\n",
        "/a/memory.current": "9000\n",
    }
    usage = _usage(tmp_path, v2(files, "/a/b"))
    assert {path: one["throttled_periods"] for path, one in usage.throttling_by_path.items()} == {"/a": 2}
    assert {path: one["usage_bytes"] for path, one in usage.memory_by_path.items()} == {"/a": 9000}


def test_a_malformed_file_costs_its_own_numbers_alone(tmp_path: object) -> None:
    files = {"/cpu.stat": STAT.format("many", 1), "/memory.current": "1000\n", "/pids.current": "lots\n"}
    usage = _usage(tmp_path, v2(files))
    assert set(usage.throttling.values()) == {None}
    assert usage.pids == {"current": None, "limit": None}
    assert usage.memory["usage_bytes"] == 1000
    assert len(usage.errors) == 2
    assert "/sys/fs/cgroup/cpu.stat is malformed" in usage.errors[0]


def test_a_malformed_file_among_several_of_one_controller_costs_its_own_numbers_alone(tmp_path: object) -> None:
    files = {"/memory.current": "1000\n", "/memory.peak": "the most\n", "/memory.stat": "inactive_file 100\n"}
    usage = _usage(tmp_path, v2(files))
    assert (usage.memory["usage_bytes"], usage.memory["working_set_bytes"]) == (1000, 900)
    assert usage.memory["peak_bytes"] is None
    assert len(usage.errors) == 1


def test_cpu_accounting_may_stand_on_another_v1_hierarchy(tmp_path: object) -> None:
    mounts = "30 21 0:30 / /cg/cpu rw - cgroup cgroup rw,cpu\n31 21 0:31 / /cg/cpuacct rw - cgroup cgroup rw,cpuacct\n"
    files = machine("2:cpu:/a\n1:cpuacct:/b\n", mounts)
    files["/cg/cpu/a/cpu.shares"] = "512\n"
    files["/cg/cpuacct/b/cpuacct.usage"] = "3000000000\n"
    usage = _usage(tmp_path, files)
    assert (usage.cpu["shares"], usage.cpu["usage_seconds"]) == (512, 3.0)


def test_a_strangers_usage_is_not_told(tmp_path: object) -> None:
    files = machine("0::/b\n", "25 21 0:22 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    files["/sys/fs/cgroup/memory.current"] = "1000\n"
    files["/sys/fs/cgroup/cpu.stat"] = STAT.format(1, 1)
    usage = _usage(tmp_path, files)
    assert (usage.memory, usage.cpu, usage.pids) == ({}, {}, {})


def test_pressure_is_microseconds_waited_in_seconds() -> None:
    text = "some avg10=0.00 avg60=1.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n"
    assert pressure({"cpu.pressure": text}.get, "cpu.pressure") == {"some_seconds": 2.5, "full_seconds": 0.5}


def test_pressure_may_lack_a_line_or_be_absent() -> None:
    assert pressure({"p": "some avg10=0.00 total=1000000\n"}.get, "p") == {"some_seconds": 1.0}
    assert pressure(dict[str, str]().get, "p") == {}
    with pytest.raises(MalformedError, match=r"^p is malformed"):
        pressure({"p": "some total=lots\n"}.get, "p")


def test_pressure_of_a_hybrid_machine_is_that_of_its_v2_cgroup(tmp_path: object) -> None:
    mounts = "30 21 0:30 / /cg/cpu rw - cgroup cgroup rw,cpu\n34 21 0:34 / /cg/unified rw - cgroup2 cgroup2 rw\n"
    files = machine("1:cpu:/a\n0::/u\n", mounts)
    files["/cg/cpu/a/cpu.shares"] = "512\n"
    files["/cg/unified/u/memory.pressure"] = "some avg10=0.00 total=1000000\n"
    assert _usage(tmp_path, files).pressure == {"memory": {"some_seconds": 1.0}}
