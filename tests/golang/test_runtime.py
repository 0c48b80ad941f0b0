"""What real Go runtimes make of it: they run with exactly what was decided.

What a program reports is compared with the rules of design section 3 and with `explain -o json` in its cgroup.
"""

from __future__ import annotations

import json
import os
import re

import pytest

from kernel import agent
from kernel.cgroups import MIB, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CPUS = len(os.sched_getaffinity(0))
OFF = (1 << 63) - 1  # math.MaxInt64: what the runtime reports where no memory limit is set

# quota in thousandths of a CPU, memory in MiB, CPUs of the cpuset
LIMITS: dict[str, tuple[int | None, int | None, str | None]] = {
    "half a CPU": (500, 64, None),
    "one CPU": (1000, 128, None),
    "a bit more than one": (1001, 200, None),
    "two and a half": (2500, 333, None),
    "five": (5000, None, None),
    "memory alone": (None, 100, None),
    "cpuset narrower than the quota": (1500, 128, "0"),
    "cpuset alone": (None, 128, "1"),
}


def limit(group: Group, name: str) -> tuple[int | None, int | None]:
    """Set the limits `name`; return what GOMAXPROCS and GOMEMLIMIT have to become."""
    thousandths, mebibytes, cpus = LIMITS[name]
    if cpus is not None and CPUS < 2:
        pytest.skip("a narrower cpuset needs two CPUs")
    procs = None
    if thousandths is not None:
        group.set_quota(thousandths * 100)
        procs = min(-(-thousandths // 1000), CPUS)
    if cpus is not None:
        group.set_cpus(cpus)
        procs = 1
    if mebibytes is not None:
        group.set_memory(mebibytes * MIB)
    return procs, None if mebibytes is None else mebibytes * MIB * 9 // 10


def reported(done: Any) -> dict[str, Any]:
    """The program's report."""
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


@pytest.mark.parametrize("name", LIMITS)
def test_go_runs_with_the_decision(top: Group, go_program: str, name: str, tmp_path: str) -> None:
    """Started by exec, and by a shell that sources the file of write; `set -a` exports what is assigned there."""
    procs, memory = limit(top, name)
    decision = agent.explain(group=top)["decision"]
    assert (decision["GOMAXPROCS"]["value"], decision["GOMEMLIMIT"]["value"]) == (procs, memory)
    file = os.path.join(tmp_path, "go.env")
    agent.succeed([*agent.CGAGENT, "write", "--env-file", file], top)
    sourced = ["sh", "-c", 'set -a; . "$1"; set +a; exec "$2"', "launch", file, go_program]

    for command in ([*agent.CGAGENT, "exec", "--", go_program], sourced):
        report = reported(agent.succeed(command, top))

        assert report["gomemlimit"] == (OFF if memory is None else memory)
        if procs is not None:
            assert report["gomaxprocs"] == procs


def test_the_launcher_that_the_help_of_write_shows_works(top: Group, go_program: str, tmp_path: str) -> None:
    procs, memory = limit(top, "one CPU")
    file = os.path.join(tmp_path, "go.env")
    agent.succeed([*agent.CGAGENT, "write", "--env-file", file], top)
    shown = re.search(r"sh -c '([^']*)'", agent.succeed([*agent.CGAGENT, "write", "--help"]).stdout)
    assert shown is not None
    script = shown[1].replace("/run/cgagent/go.env", file)

    report = reported(agent.succeed(["sh", "-c", script, "launch", go_program], top))

    assert (report["gomaxprocs"], report["gomemlimit"]) == (procs, memory)


def test_the_shell_format_needs_no_set_a(top: Group, go_program: str, tmp_path: str) -> None:
    procs, memory = limit(top, "one CPU")
    file = os.path.join(tmp_path, "go.env")
    agent.succeed([*agent.CGAGENT, "write", "--format", "shell", "--env-file", file], top)

    report = reported(agent.succeed(["sh", "-c", '. "$1"; exec "$2"', "launch", file, go_program], top))

    assert (report["gomaxprocs"], report["gomemlimit"]) == (procs, memory)


def test_exec_takes_the_values_of_a_file(top: Group, go_program: str, tmp_path: str) -> None:
    """The file was written for these limits; the program starts elsewhere, as an application container does."""
    procs, memory = limit(top, "one CPU")
    file = os.path.join(tmp_path, "go.env")
    agent.succeed([*agent.CGAGENT, "write", "--env-file", file], top)

    report = reported(agent.succeed([*agent.CGAGENT, "exec", "--env-file", file, "--", go_program]))

    assert (report["gomaxprocs"], report["gomemlimit"]) == (procs, memory)


def test_variables_that_are_set_already_are_what_go_gets(top: Group, go_program: str) -> None:
    limit(top, "one CPU")
    mine = {"GOMAXPROCS": "7", "GOMEMLIMIT": "48MiB"}

    report = reported(agent.succeed([*agent.CGAGENT, "exec", "--", go_program], top, mine))

    assert (report["gomaxprocs"], report["gomemlimit"]) == (7, 48 * MIB)


def test_override_decides_anew(top: Group, go_program: str) -> None:
    procs, memory = limit(top, "one CPU")
    mine = {"GOMAXPROCS": "7", "GOMEMLIMIT": "48MiB"}

    report = reported(agent.succeed([*agent.CGAGENT, "exec", "--override", "--", go_program], top, mine))

    assert (report["gomaxprocs"], report["gomemlimit"]) == (procs, memory)


def test_a_limit_of_the_pod_that_go_itself_does_not_see(top: Group, go_program: str) -> None:
    """No Go reads the quota of an ancestor."""
    if CPUS < 2:
        pytest.skip("with one CPU there is nothing to tell")
    container = top.child("container")
    top.set_quota(100_000)
    top.set_memory(96 * MIB)

    alone = reported(agent.succeed([go_program], container))  # its own cgroup has no limit
    report = reported(agent.succeed([*agent.CGAGENT, "exec", "--", go_program], container))

    assert (alone["gomaxprocs"], alone["gomemlimit"]) == (CPUS, OFF)
    assert (report["gomaxprocs"], report["gomemlimit"]) == (1, 96 * MIB * 9 // 10)


@pytest.mark.parametrize("thousandths", [500, 1500, 2500])
def test_the_rounding_named_go_is_what_go_does_by_itself(top: Group, go_program: str, thousandths: int) -> None:
    """From 1.25 on; before, the runtime looks at no quota and takes every CPU."""
    top.set_quota(thousandths * 100)
    alone = reported(agent.succeed([go_program], top))

    words = [*agent.CGAGENT, "exec", "--cpu-rounding", "go", "--", go_program]
    report = reported(agent.succeed(words, top))

    assert report["gomaxprocs"] == min(CPUS, max(2, -(-thousandths // 1000)))
    assert alone["gomaxprocs"] == (CPUS if alone["version"].startswith("go1.24.") else report["gomaxprocs"])


def test_the_go_program_is_recognised_with_its_version(top: Group, go_program: str) -> None:
    limit(top, "one CPU")

    explained = agent.explain("--binary", go_program, group=top)

    version = go_program.rpartition("limits-")[2].rpartition("-")[0]
    assert explained["go"]["version"] == f"go{version}"
    assert explained["go"]["module"] == "example.com/cgagent/limits"
    assert ("gomaxprocs-freezes-go" in agent.findings(explained)) is (version != "1.24.11")
