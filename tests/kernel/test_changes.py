"""Limits and processes that change while they are looked at."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kernel import agent, cgroups
from kernel.cgroups import MIB, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TIMES = 100

# Moves a process from cgroup to cgroup until killed: argv is its PID, the seconds that it stays, and for each
# cgroup its procs files joined by commas.
_MOVER = """
import itertools, sys, time
for files in itertools.cycle(sys.argv[3:]):
    for name in files.split(","):
        with open(name, "w") as file:
            file.write(sys.argv[1])
    time.sleep(float(sys.argv[2]))
"""

# Moves a process into ever new cgroups, each with the limits of the first, and removes the one that it left.
_REPLACER = """
import itertools, os, shutil, sys
pid, *tops = sys.argv[1:]
limits = [name.split("=") for name in os.environ["LIMITS"].split(",")]
def make(top, name):
    new = os.path.join(top, name)
    os.mkdir(new)
    for file, value in limits:
        if os.path.exists(os.path.join(new, file)):
            with open(os.path.join(new, file), "w") as target:
                target.write(value)
for number in itertools.count():
    for top in tops:
        make(top, f"c{number}")
    for top in tops:
        with open(os.path.join(top, f"c{number}", "cgroup.procs"), "w") as file:
            file.write(pid)
    for top in tops:
        if number:
            os.rmdir(os.path.join(top, f"c{number - 1}"))
"""


def test_explain_tells_the_limits_of_the_moment(top: Group, sleeper: Callable[..., int]) -> None:
    pid = str(sleeper(top))
    for quota, size in ((100_000, 128), (150_000, 64), (50_000, 256)):
        top.set_quota(quota)
        top.set_memory(size * MIB)

        limits = agent.explain("--pid", pid)["limits"]

        assert (limits["cpu"]["cores"], limits["memory"]["bytes"]) == (quota / 100_000, size * MIB)


def test_a_process_moved_to_another_cgroup_is_explained_there(top: Group, sleeper: Callable[..., int]) -> None:
    first, second = top.child("first"), top.child("second")
    first.set_quota(100_000)
    second.set_quota(200_000)
    pid = sleeper(first)
    assert agent.explain("--pid", str(pid))["limits"]["cpu"]["cores"] == 1.0

    second.move(pid)

    explained = agent.explain("--pid", str(pid))
    assert explained["limits"]["cpu"]["cores"] == 2.0
    assert explained["limits"]["cpu"]["source"] == second.quota_file


@pytest.mark.parametrize("stay", ["0.2", "0"], ids=["five times a second", "without a pause"])
def test_a_process_that_moves_all_the_time_is_never_explained_with_a_wrong_mix(
    top: Group, sleeper: Callable[..., int], start: Callable[..., subprocess.Popen[str]], stay: str
) -> None:
    limits = {"first": (100_000, 64 * MIB), "second": (150_000, 128 * MIB), "third": (200_000, 256 * MIB)}
    groups = {name: top.child(name) for name in limits}
    for name, (quota, size) in limits.items():
        groups[name].set_quota(quota)
        groups[name].set_memory(size)
    pid = sleeper(groups["first"])
    mover = start(
        [sys.executable, "-c", _MOVER, str(pid), stay, *(",".join(group.procs()) for group in groups.values())]
    )
    while "/third" not in cgroups.read(f"/proc/{pid}/cgroup"):
        assert mover.poll() is None
    by_cpu_path = {groups[name].path("cpu"): quota / 100_000 for name, (quota, _) in limits.items()}
    by_memory_path = {groups[name].path("memory"): size for name, (_, size) in limits.items()}

    seen: set[str] = set()
    known = 0
    while len(seen) < 2:  # a hundred times may pass while the mover waits for a CPU
        for done in agent.repeat(TIMES, "explain", "-o", "json", "--pid", str(pid)):
            assert done.returncode == 0, done.stderr
            explained = agent.document(done.stdout)
            cpu, memory = explained["limits"]["cpu"], explained["limits"]["memory"]
            seen.add(agent.path_of(explained, "cpu"))
            if "unreadable" in agent.findings(explained):
                # It never stood still while its limits were read: that is said, and nothing is guessed.
                assert (cpu["cores"], memory["bytes"], explained["env"]) == (None, None, {})
                continue
            assert cpu["cores"] == by_cpu_path[agent.path_of(explained, "cpu")]
            assert cpu["binding"] == agent.path_of(explained, "cpu")
            assert memory["bytes"] == by_memory_path[agent.path_of(explained, "memory")]
            known += 1
    assert known or stay == "0", "at this pace there is time to read"


def test_cgroups_removed_while_they_are_read_never_look_unlimited(
    top: Group, sleeper: Callable[..., int], start: Callable[..., subprocess.Popen[str]]
) -> None:
    controllers = ("cpu", "memory")
    group = top.child("changing", controllers)
    pid = sleeper(top.child("resting", controllers))
    tops = sorted({group.directories[one] for one in controllers})
    if group.version("cpu") == 2:
        for one in controllers:
            with open(f"{tops[0]}/cgroup.subtree_control", "w", encoding="ascii") as file:
                file.write(f"+{one}")
        wanted = f"cpu.max=150000 100000,memory.max={128 * MIB}"
    else:
        wanted = f"cpu.cfs_quota_us=150000,memory.limit_in_bytes={128 * MIB}"
    mover = start(
        [sys.executable, "-c", _REPLACER, str(pid), *tops], env=agent.environment({"LIMITS": wanted}), stderr=-1
    )
    while "changing" not in agent.path_of(agent.explain("--pid", str(pid)), "memory"):
        assert mover.poll() is None, mover.stderr and mover.stderr.read()

    paths: set[str] = set()
    while len(paths) < 2:
        for done in agent.repeat(TIMES, "explain", "-o", "json", "--pid", str(pid)):
            assert done.returncode == 0, done.stderr
            explained = agent.document(done.stdout)
            told = explained["limits"]["cpu"]["cores"], explained["limits"]["memory"]["bytes"]
            if "unreadable" in agent.findings(explained):
                assert (told, explained["env"]) == ((None, None), {})
            else:
                assert told == (1.5, 128 * MIB), "a removed cgroup was taken for one without limits"
            paths.add(agent.path_of(explained, "cpu"))
    for done in agent.repeat(TIMES // 4, "write", "--env-file", "-", "--pid", str(pid)):
        assert done.stderr.count("\n") <= 1
        if done.returncode == 0:
            assert f"GOMEMLIMIT='{128 * MIB * 9 // 10}'" in done.stdout, done.stderr
        else:
            assert (done.returncode, done.stdout) == (1, "")
    assert mover.poll() is None, mover.stderr and mover.stderr.read()


def test_processes_that_end_while_they_are_explained_cost_one_line_at_the_most(top: Group) -> None:
    top.set_quota(100_000)
    codes = set()
    for number in range(12):
        with subprocess.Popen(top.enter(["sleep", f"{number / 100}"])) as brief:
            done = agent.run([*agent.CGAGENT, "explain", "-o", "json", "--pid", str(brief.pid)])
        codes.add(done.returncode)
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert done.stderr.count("\n") == 1
            assert f"{brief.pid}" in done.stderr
    assert codes <= {0, 1}


def test_a_process_that_is_gone_is_one_clear_line() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()

    done = agent.run([*agent.CGAGENT, "explain", "--pid", str(gone.pid)])

    assert done.returncode == 1
    assert done.stderr == f"cgagent explain: there is no process {gone.pid}: give the PID of a running process\n"


def test_a_zombie_is_explained_or_refused_in_one_line(top: Group) -> None:
    zombie = subprocess.Popen(top.enter(["true"]))
    try:
        while True:
            with open(f"/proc/{zombie.pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    break
        done: Any = agent.run([*agent.CGAGENT, "explain", "-o", "json", "--pid", str(zombie.pid)])
    finally:
        zombie.wait()
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)
