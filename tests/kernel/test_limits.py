"""Real limits at real levels: what was set is what explain tells, from inside the cgroup and from outside.

The expected numbers are those that the test itself wrote to the kernel, through the rules of design section 3.
"""

from __future__ import annotations

import os

import pytest

from kernel import agent, cgroups
from kernel.cgroups import MIB, NO_QUOTA, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Look = Callable[..., dict[str, Any]]

CPUS = len(os.sched_getaffinity(0))


def below(chain: list[dict[str, Any]], top: Group) -> list[dict[str, Any]]:
    """The links of a chain that are the test's own; what is above belongs to the machine."""
    return [link for link in chain if f"{link['path']}/".startswith(f"{top.path('cpu')}/")]


def nested(top: Group) -> tuple[Group, Group]:
    """A pod's cgroup in `top` and its container's."""
    pod = top.child("pod")
    return pod, pod.child("container")


# quota_us, period_us of the outermost, middle and innermost cgroup; which binds; its cores
QUOTAS = {
    "the container's own": ([(NO_QUOTA, 100_000), (300_000, 100_000), (75_000, 50_000)], 2, 1.5),
    "the pod's": ([(400_000, 100_000), (50_000, 100_000), (250_000, 100_000)], 1, 0.5),
    "the pod's, the container has none": ([(NO_QUOTA, 100_000), (125_000, 100_000), (NO_QUOTA, 100_000)], 1, 1.25),
    "the outermost": ([(10_000, 10_000), (150_000, 100_000), (200_000, 100_000)], 0, 1.0),
    "the outermost, more than 2 CPUs": ([(250_000, 100_000), (NO_QUOTA, 100_000), (NO_QUOTA, 50_000)], 0, 2.5),
}


def loosens(quotas: list[tuple[int, int]]) -> bool:
    """Whether some inner level has a larger quota than one above it."""
    cores = [quota / period for quota, period in quotas if quota != NO_QUOTA]
    return cores != sorted(cores, reverse=True)


@pytest.mark.parametrize(("quotas", "binding", "cores"), QUOTAS.values(), ids=QUOTAS)
def test_the_smallest_quota_of_all_levels_binds(
    top: Group, look: Look, quotas: list[tuple[int, int]], binding: int, cores: float
) -> None:
    if top.version("cpu") == 1 and loosens(quotas):
        pytest.skip("v1 refuses a quota above that of a parent")
    levels = (top, *nested(top))
    raws = [level.set_quota(*quota) for level, quota in zip(levels, quotas, strict=True)]

    explained = look(levels[2])

    cpu = explained["limits"]["cpu"]
    assert cpu["cores"] == cores
    assert (cpu["quota_us"], cpu["period_us"]) == quotas[binding]
    assert cpu["source"] == levels[binding].quota_file
    assert cpu["binding"] == levels[binding].path("cpu")
    told = [(link["path"], link["file"], link["raw"], link["cores"]) for link in below(cpu["chain"], top)]
    set_there = [
        (level.path("cpu"), level.quota_file, raw, None if quota == NO_QUOTA else quota / period)
        for level, raw, (quota, period) in zip(levels, raws, quotas, strict=True)
    ]
    assert told == set_there[::-1]
    assert explained["decision"]["GOMAXPROCS"]["value"] == min(-int(-cores // 1), CPUS)
    assert explained["env"]["GOMAXPROCS"] == str(min(-int(-cores // 1), CPUS))
    assert ("ancestor-binds" in agent.findings(explained)) is (binding != 2)


# MiB of the outermost, middle and innermost cgroup; which binds
MEMORY = {
    "the container's own": ([None, 256, 128], 2),
    "the pod's": ([512, 96, 128], 1),
    "the outermost, alone": ([192, None, None], 0),
}


@pytest.mark.parametrize(("sizes", "binding"), MEMORY.values(), ids=MEMORY)
def test_the_smallest_memory_limit_of_all_levels_binds(
    top: Group, look: Look, sizes: list[int | None], binding: int
) -> None:
    levels = (top, *nested(top))
    for level, size in zip(levels, sizes, strict=True):
        if size is not None:
            level.set_memory(size * MIB)
    limit = (sizes[binding] or 0) * MIB

    explained = look(levels[2])

    memory = explained["limits"]["memory"]
    assert memory["bytes"] == limit
    assert memory["source"] == levels[binding].memory_file
    assert memory["binding"] == levels[binding].path("memory")
    chain = {link["file"]: link["bytes"] for link in memory["chain"]}
    for level, size in zip(levels, sizes, strict=True):
        assert chain[level.memory_file] == (None if size is None else size * MIB)
    assert explained["env"]["GOMEMLIMIT"] == str(limit * 9 // 10)
    assert ("ancestor-binds" in agent.findings(explained)) is (binding != 2)


def test_v1_refuses_a_quota_above_that_of_a_parent(top: Group) -> None:
    """Why some of the cases above are not there on v1: should a kernel change this, they have to be."""
    if top.version("cpu") != 1:
        pytest.skip("v2 accepts it")
    top.set_quota(100_000)
    with pytest.raises(OSError, match="Invalid argument"):
        top.child("container").set_quota(200_000)


def test_quota_and_memory_may_bind_at_different_levels(top: Group, look: Look) -> None:
    pod, container = nested(top)
    pod.set_memory(100 * MIB)
    container.set_memory(200 * MIB)
    pod.set_quota(150_000)
    container.set_quota(100_000)

    limits = look(container)["limits"]

    assert (limits["cpu"]["source"], limits["cpu"]["cores"]) == (container.quota_file, 1.0)
    assert (limits["memory"]["source"], limits["memory"]["bytes"]) == (pod.memory_file, 100 * MIB)


def test_no_limit_at_any_level_leaves_both_variables_unset(top: Group, look: Look) -> None:
    outside = agent.explain()
    if outside["limits"]["cpu"]["cores"] is not None or outside["limits"]["memory"]["bytes"] is not None:
        pytest.skip("this machine's own outermost cgroups are limited")

    explained = look(top)

    assert explained["limits"]["cpu"]["cores"] is None
    assert explained["limits"]["cpu"]["source"] is None
    assert explained["limits"]["memory"]["bytes"] is None
    assert explained["env"] == {}
    assert {"no-cpu-limit", "no-memory-limit"} <= set(agent.findings(explained))


def test_a_memory_limit_beyond_the_machine_is_none(top: Group, look: Look) -> None:
    total = explain_total()
    top.set_memory(total + 4096)
    inner = top.child("inner")
    inner.set_memory(64 * MIB)

    outer_only = look(top.child("sibling"))
    assert outer_only["limits"]["memory"]["bytes"] is None
    assert "limit-beyond-machine" in agent.findings(outer_only)
    assert look(inner)["limits"]["memory"]["bytes"] == 64 * MIB


def explain_total() -> int:
    """MemTotal in bytes."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        return int(next(line for line in lines if line.startswith("MemTotal:")).split()[1]) * 1024


def test_a_cpuset_narrower_than_the_quota_bounds_gomaxprocs(top: Group, look: Look) -> None:
    if CPUS < 2:
        pytest.skip("a narrower cpuset needs two CPUs")
    top.set_cpus("0")
    container = top.child("container")
    container.set_quota(200_000)

    explained = look(container)

    cpu = explained["limits"]["cpu"]
    assert cpu["cores"] == 2.0
    assert cpu["allowed_cpus"] == 1
    assert cpu["cpuset"]["cpus"] == "0"
    assert explained["env"]["GOMAXPROCS"] == "1"
    assert "cpuset-narrower" in agent.findings(explained)


def test_a_cpuset_alone_sets_gomaxprocs(top: Group, look: Look) -> None:
    if CPUS < 2:
        pytest.skip("a narrower cpuset needs two CPUs")
    last = f"1-{CPUS - 1}" if CPUS > 2 else "1"
    top.set_cpus(last)

    explained = look(top)

    assert explained["limits"]["cpu"]["cores"] is None
    assert explained["limits"]["cpu"]["allowed_cpus"] == CPUS - 1
    assert explained["limits"]["cpu"]["cpuset"]["cpus"] == last
    assert explained["env"]["GOMAXPROCS"] == str(CPUS - 1)


def test_affinity_bounds_gomaxprocs_like_a_cpuset(top: Group, look: Look) -> None:
    if CPUS < 2:
        pytest.skip("a narrower affinity needs two CPUs")
    top.set_quota(200_000)

    explained = look(top, ("taskset", "-c", "1"))

    assert explained["limits"]["cpu"]["affinity"] == "1"
    assert explained["limits"]["cpu"]["allowed_cpus"] == 1
    assert explained["env"]["GOMAXPROCS"] == "1"


def test_the_swap_limit_is_shown_beside_the_memory_limit(top: Group, look: Look) -> None:
    if not os.path.exists(top.file("memory.memsw.limit_in_bytes", "memory.swap.max")):
        pytest.skip("this kernel does not account for swap")
    top.set_memory(128 * MIB)
    top.set_swap(32 * MIB)

    explained = look(top)

    assert explained["limits"]["memory"]["bytes"] == 128 * MIB
    assert explained["usage"]["memory"]["swap_limit_bytes"] == 32 * MIB


def test_the_pids_limit_and_the_pids_are_shown(top: Group, look: Look) -> None:
    if top.version("pids") is None:
        pytest.skip("this kernel has no pids controller")
    cgroups.write(f"{top.directories['pids']}/pids.max", 321)

    pids = look(top)["usage"]["pids"]

    assert pids == {"current": 1, "limit": 321}


def test_burst_and_shares_are_shown_and_never_computed_with(top: Group, look: Look) -> None:
    top.set_quota(150_000)
    burst = top.file("cpu.cfs_burst_us", "cpu.max.burst")
    if not os.path.exists(burst):
        pytest.skip("this kernel knows no burst")
    cgroups.write(burst, 40_000)
    cgroups.write(top.file("cpu.shares", "cpu.weight"), 512)

    explained = look(top)

    assert explained["usage"]["cpu"]["burst_us"] == 40_000
    assert explained["usage"]["cpu"]["shares" if top.version("cpu") == 1 else "weight"] == 512
    assert explained["limits"]["cpu"]["cores"] == 1.5


def test_a_limit_below_one_cpu_is_told(top: Group, look: Look) -> None:
    top.set_quota(30_000)

    explained = look(top)

    assert explained["env"]["GOMAXPROCS"] == "1"
    assert "cpu-below-one" in agent.findings(explained)


def test_a_quota_beyond_the_machine_is_told_and_bounded_by_its_cpus(top: Group, look: Look) -> None:
    top.set_quota((CPUS + 3) * 100_000)

    explained = look(top)

    assert explained["limits"]["cpu"]["cores"] == CPUS + 3
    assert explained["env"]["GOMAXPROCS"] == str(CPUS)
    assert "limit-beyond-machine" in agent.findings(explained)


def test_every_hierarchy_of_the_process_is_listed_with_its_mount(top: Group, look: Look) -> None:
    hierarchies = look(top)["cgroup"]["hierarchies"]

    assert len(hierarchies) == len(cgroups.read("/proc/self/cgroup").split("\n"))
    for controller in top.controllers:
        mount = cgroups.holder(controller)
        assert mount is not None
        told = [one for one in hierarchies if one["mount"] == mount.point]
        assert [one["path"] for one in told] == [top.path(controller)]


def test_write_makes_the_file_that_the_limits_ask_for(top: Group, tmp_path: os.PathLike[str]) -> None:
    top.set_quota(150_000)
    top.set_memory(256 * MIB)
    file = os.path.join(tmp_path, "go.env")

    agent.succeed([*agent.CGAGENT, "write", "--env-file", file], top)

    lines = cgroups.read(file).split("\n")
    assert lines[1:] == [f"GOMAXPROCS='{min(2, CPUS)}'", f"GOMEMLIMIT='{256 * MIB * 9 // 10}'"]
    assert f"cpu 1.5 cores ({top.quota_file}), memory 256Mi ({top.memory_file})" in lines[0]


def test_the_environment_of_the_other_process_is_heeded(top: Group, start: Callable[..., Any]) -> None:
    top.set_quota(100_000)
    top.set_memory(256 * MIB)
    variables = agent.environment({"GOMAXPROCS": "7", "GOMEMLIMIT": "300MiB"})
    process = start(["sh", "-c", "echo here; exec sleep 600"], top, env=variables)
    process.stdout.readline()

    explained = agent.explain("--pid", str(process.pid))

    assert explained["env"] == {}
    assert explained["decision"]["GOMAXPROCS"]["kept"] == "7"
    assert explained["decision"]["GOMAXPROCS"]["value"] == 1
    assert {"gomaxprocs-disagrees", "gomemlimit-above-limit"} <= set(agent.findings(explained))
