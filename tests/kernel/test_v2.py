"""What only cgroup v2 has: memory.high, PSI, partitions, controllers that a parent does not hand down."""

from __future__ import annotations

import os

import pytest

from kernel import agent, cgroups
from kernel.cgroups import MIB, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Look = Callable[..., dict[str, Any]]

CPUS = len(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(
    (mount := cgroups.holder("memory")) is None or mount.version != 2, reason="memory is not on cgroup v2 here"
)


def at(group: Group, name: str) -> str:
    """The full name of a file of a v2 cgroup."""
    return f"{group.directories['memory']}/{name}"


def test_memory_high_below_memory_max_binds(top: Group, look: Look) -> None:
    cgroups.write(at(top, "memory.max"), 256 * MIB)
    cgroups.write(at(top, "memory.high"), 192 * MIB)

    explained = look(top)

    memory = explained["limits"]["memory"]
    assert (memory["bytes"], memory["source"]) == (192 * MIB, at(top, "memory.high"))
    chain = {link["file"]: link["bytes"] for link in memory["chain"]}
    assert chain[at(top, "memory.max")] == 256 * MIB
    assert chain[at(top, "memory.high")] == 192 * MIB
    assert explained["env"]["GOMEMLIMIT"] == str(192 * MIB * 9 // 10)
    assert "192Mi" in agent.findings(explained)["memory-high-below-max"]["message"]


def test_memory_high_of_a_parent_binds_below_the_containers_max(top: Group, look: Look) -> None:
    container = top.child("container")
    cgroups.write(at(top, "memory.high"), 96 * MIB)
    cgroups.write(at(container, "memory.max"), 128 * MIB)

    explained = look(container)

    assert explained["limits"]["memory"]["source"] == at(top, "memory.high")
    assert "ancestor-binds" in agent.findings(explained)


def test_memory_high_above_memory_max_does_not_bind(top: Group, look: Look) -> None:
    cgroups.write(at(top, "memory.max"), 128 * MIB)
    cgroups.write(at(top, "memory.high"), 256 * MIB)

    explained = look(top)

    assert explained["limits"]["memory"]["source"] == at(top, "memory.max")
    assert "memory-high-below-max" not in agent.findings(explained)


def test_memory_of_nothing_at_all_is_a_limit(top: Group, sleeper: Callable[..., int]) -> None:
    """memory.high accepts 0; that leaves Go nothing, which is said and not written."""
    pid = str(sleeper(top))
    cgroups.write(at(top, "memory.high"), 0)

    explained = agent.explain("--pid", pid)

    assert explained["limits"]["memory"]["bytes"] == 0
    assert "GOMEMLIMIT" not in explained["env"]
    assert "reserve-exceeds-limit" in agent.findings(explained)
    assert agent.run([*agent.CGAGENT, "write", "--env-file", "-", "--pid", pid]).returncode == 1


def test_a_level_without_the_controller_is_bounded_by_the_levels_above(top: Group, look: Look) -> None:
    """The pod's memory is limited, and its cgroup.subtree_control hands only cpu down."""
    container = top.child("container", ["cpu"])
    assert not os.path.exists(f"{container.directories['cpu']}/memory.max")
    cgroups.write(at(top, "memory.max"), 128 * MIB)
    container.set_quota(100_000)

    explained = look(container)

    assert explained["limits"]["memory"]["bytes"] == 128 * MIB
    assert explained["limits"]["memory"]["binding"] == top.path("memory")
    assert explained["limits"]["cpu"]["source"] == container.quota_file
    assert "controller-not-visible" not in agent.findings(explained)


def test_a_level_without_any_controller_is_bounded_by_the_levels_above(top: Group, look: Look) -> None:
    top.set_quota(150_000)
    top.set_memory(128 * MIB)
    bare = f"{top.directories['memory']}/bare"
    os.mkdir(bare)
    group = top.child("bare", [])
    group.directories["memory"] = bare

    limits = look(group)["limits"]

    assert (limits["cpu"]["cores"], limits["memory"]["bytes"]) == (1.5, 128 * MIB)


def test_pressure_is_shown_where_the_kernel_keeps_it(top: Group, look: Look) -> None:
    if not os.path.exists(at(top, "cpu.pressure")):
        pytest.skip("this kernel keeps no PSI")
    try:
        cgroups.read(at(top, "memory.pressure"))
    except OSError as error:
        pytest.skip(f"PSI is off: {error}")

    pressure = look(top)["usage"]["pressure"]

    assert set(pressure) >= {"cpu", "memory"}
    assert set(pressure["memory"]) == {"some_seconds", "full_seconds"}
    assert all(seconds >= 0 for kind in pressure.values() for seconds in kind.values())


def test_pressure_grows_with_throttling(top: Group, start: Callable[..., Any]) -> None:
    if not os.path.exists(at(top, "cpu.pressure")):
        pytest.skip("this kernel keeps no PSI")
    top.set_quota(20_000)
    loop = "import time; end = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint('done', flush=True)"
    busy = start(["python3", "-c", f"{loop}\ntime.sleep(600)"], top)
    assert busy.stdout.readline() == "done\n"

    pressure = agent.explain("--pid", str(busy.pid))["usage"]["pressure"]

    assert pressure["cpu"]["some_seconds"] > 0.01


def partition(group: Group, cpus: str) -> None:
    """Make the cgroup a cpuset partition that has `cpus` for itself."""
    group.set_cpus(cpus)
    file = f"{group.directories['cpuset']}/cpuset.cpus.partition"
    if not os.path.exists(file):
        pytest.skip("this kernel has no cpuset partitions")
    cgroups.write(file, "root")
    if cgroups.read(file) != "root":
        pytest.skip(f"no partition can be made here: {cgroups.read(file)}")


def test_a_partition_takes_its_cpus_from_its_siblings(writable: None, request: pytest.FixtureRequest) -> None:
    assert writable is None
    if CPUS < 4:
        pytest.skip("a partition beside others needs four CPUs")
    exclusive, rest = Group(f"{cgroups.PREFIX}{os.getpid()}-exclusive"), Group(f"{cgroups.PREFIX}{os.getpid()}-rest")
    request.addfinalizer(exclusive.remove)
    request.addfinalizer(rest.remove)

    partition(exclusive, f"1-{CPUS - 3}")

    for group, count in ((exclusive, CPUS - 3), (rest, 3)):
        explained = agent.explain(group=group)
        assert explained["limits"]["cpu"]["allowed_cpus"] == count
        assert explained["env"]["GOMAXPROCS"] == str(count)


def test_a_cpuset_given_to_a_parent_is_effective_in_the_child(top: Group, look: Look) -> None:
    if CPUS < 4:
        pytest.skip("needs four CPUs")
    top.set_cpus("0-2")
    child = top.child("child")
    assert cgroups.read(f"{child.directories['cpuset']}/cpuset.cpus") == ""

    explained = look(child)

    assert explained["limits"]["cpu"]["allowed_cpus"] == 3
    assert explained["env"]["GOMAXPROCS"] == "3"


def test_only_max_in_cpu_max_is_no_quota(top: Group, look: Look) -> None:
    cgroups.write(top.quota_file, "max 50000")

    cpu = look(top)["limits"]["cpu"]

    assert cpu["cores"] is None
    assert [link["raw"] for link in cpu["chain"] if link["path"] == top.path("cpu")] == ["max 50000"]


def test_sixteen_levels_deep(top: Group, look: Look) -> None:
    groups = [top]
    for depth in range(16):
        groups.append(groups[-1].child(f"level-{depth}", ["cpu", "memory"]))
    groups[5].set_quota(120_000)
    groups[9].set_memory(80 * MIB)

    limits = look(groups[-1])["limits"]

    assert (limits["cpu"]["source"], limits["cpu"]["cores"]) == (groups[5].quota_file, 1.2)
    assert (limits["memory"]["source"], limits["memory"]["bytes"]) == (groups[9].memory_file, 80 * MIB)


def test_a_threaded_cgroup_is_bounded_by_its_domain(top: Group, sleeper: Callable[..., int]) -> None:
    """In a threaded cgroup only cpu, cpuset and pids exist; memory belongs to the domain above."""
    top.set_memory(128 * MIB)
    top.set_quota(200_000)
    threaded = f"{top.directories['memory']}/threaded"
    pid = sleeper(top)
    os.mkdir(threaded)
    try:
        cgroups.write(f"{threaded}/cgroup.type", "threaded")
        cgroups.write(f"{threaded}/cgroup.procs", pid)
    except OSError as error:
        pytest.skip(f"no threaded cgroup can be made here: {error}")

    limits = agent.explain("--pid", str(pid))["limits"]

    assert limits["memory"]["bytes"] == 128 * MIB
    assert limits["cpu"]["cores"] == 2.0
