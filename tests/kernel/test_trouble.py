"""Trouble that is really caused: throttling, OOM kills, usage at and above the limit; explain tells it."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from kernel import agent, cgroups
from kernel.cgroups import MIB, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Start = Callable[..., subprocess.Popen[str]]

_BUSY = "while True: pass"
_HOLD = """
import sys, time
held = bytearray(int(sys.argv[1]))
for at in range(0, len(held), 4096):
    held[at] = 1
print("held", flush=True)
time.sleep(600)
"""


def throttled_periods(group: Group) -> int:
    """`nr_throttled` of cpu.stat."""
    lines = cgroups.read(f"{group.directories['cpu']}/cpu.stat").split("\n")
    return int(dict(line.split(" ") for line in lines)["nr_throttled"])


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for the kernel; a test that waits longer than any machine needs has failed."""
    deadline = time.monotonic() + agent.TIMEOUT
    while not true():
        assert time.monotonic() < deadline, "what the test caused did not happen"
        time.sleep(0.05)


def hold(start: Start, group: Group, size: int, prefix: tuple[str, ...] = ()) -> int:
    """Start a process in `group` that holds `size` bytes of memory; returns its PID once it does."""
    process = start([*prefix, sys.executable, "-c", _HOLD, str(size)], group)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process.pid


def test_a_busy_loop_under_a_quota_is_told_as_throttled(top: Group, start: Start) -> None:
    top.set_quota(10_000)
    busy = start([sys.executable, "-c", _BUSY], top)
    wait_until(lambda: throttled_periods(top) >= 10)
    before = throttled_periods(top)

    explained = agent.explain("--pid", str(busy.pid))

    after = throttled_periods(top)
    throttling = explained["usage"]["cpu"]["throttling"]
    assert before <= throttling["throttled_periods"] <= after
    assert throttling["throttled_periods"] <= throttling["periods"]
    assert throttling["throttled_seconds"] > 0
    assert explained["usage"]["cpu"]["usage_seconds"] > 0
    finding = agent.findings(explained)["cpu-throttled"]
    assert finding["level"] == "warning"
    told = explained["usage"]["cpu"]["throttling_by_path"][top.path("cpu")]
    assert f"{told['throttled_periods']} of {told['periods']}" in finding["message"]
    assert finding["message"].endswith(f"at {top.path('cpu')}")


def test_throttling_by_an_ancestor_is_told_with_its_name(top: Group, start: Start) -> None:
    top.set_quota(10_000)
    busy = start([sys.executable, "-c", _BUSY], top.child("container"))
    wait_until(lambda: throttled_periods(top) >= 10)

    finding = agent.findings(agent.explain("--pid", str(busy.pid)))["cpu-throttled"]

    assert finding["message"].endswith(f"at {top.path('cpu')}")


def test_an_idle_process_under_a_quota_is_not_told_as_throttled(top: Group, sleeper: Callable[..., int]) -> None:
    top.set_quota(100_000)

    explained = agent.explain("--pid", str(sleeper(top)))

    assert explained["usage"]["cpu"]["throttling"]["throttled_periods"] == 0
    assert "cpu-throttled" not in agent.findings(explained)


def test_an_oom_kill_is_told_to_those_who_survive(top: Group, start: Start, sleeper: Callable[..., int]) -> None:
    top.set_memory(48 * MIB)
    if os.path.exists(top.file("memory.memsw.limit_in_bytes", "memory.swap.max")):
        top.set_swap(0)
    pid = str(sleeper(top))
    quiet = agent.explain("--pid", pid)
    assert quiet["usage"]["memory"]["events"]["oom_kill"] == 0
    assert "oom-kills" not in agent.findings(quiet)

    greedy = start([sys.executable, "-c", _HOLD, str(256 * MIB)], top)
    assert greedy.wait(agent.TIMEOUT) == -signal.SIGKILL

    explained = agent.explain("--pid", pid)
    assert explained["usage"]["memory"]["events"]["oom_kill"] == 1
    finding = agent.findings(explained)["oom-kills"]
    assert finding["level"] == "critical"
    assert "48Mi" in finding["message"]
    assert explained["findings"][0]["level"] == "critical"


def test_memory_near_the_limit_is_told(top: Group, start: Start) -> None:
    top.set_memory(128 * MIB)
    if os.path.exists(top.file("memory.memsw.limit_in_bytes", "memory.swap.max")):
        top.set_swap(0)

    explained = agent.explain("--pid", str(hold(start, top, 117 * MIB)))

    memory = explained["usage"]["memory"]
    assert 117 * MIB <= memory["usage_bytes"] <= 128 * MIB
    assert memory["peak_bytes"] is None or memory["peak_bytes"] >= memory["usage_bytes"]
    assert agent.findings(explained)["memory-near-limit"]["level"] == "warning"


def test_memory_near_a_parents_limit_is_told_with_its_name(top: Group, start: Start) -> None:
    top.set_memory(128 * MIB)
    container = top.child("container")
    container.set_memory(512 * MIB)

    explained = agent.explain("--pid", str(hold(start, container, 117 * MIB)))

    assert top.path("memory") in agent.findings(explained)["memory-near-limit"]["message"]


def test_a_limit_set_below_the_usage(top: Group, start: Start) -> None:
    # The kernel would rather kill than be over a limit; what it may not kill stays above it on v2.
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        old = file.read()
    command = ("sh", "-c", 'echo -1000 > /proc/self/oom_score_adj; exec "$@"', "unkillable")
    pid = hold(start, top, 64 * MIB, command)
    try:
        top.set_memory(32 * MIB)
        accepted = True
    except OSError:
        accepted = False
    assert cgroups.read("/proc/self/oom_score_adj") == old.strip()

    explained = agent.explain("--pid", str(pid))

    if top.version("memory") == 1:
        assert not accepted, "v1 refuses a limit below what can't be reclaimed"
        assert explained["limits"]["memory"]["bytes"] != 32 * MIB
    else:
        assert explained["limits"]["memory"]["bytes"] == 32 * MIB
        assert explained["usage"]["memory"]["usage_bytes"] >= 64 * MIB
        assert agent.findings(explained)["memory-near-limit"]["level"] == "critical"


@pytest.mark.parametrize("share", [0.5])
def test_memory_well_below_the_limit_is_no_finding(top: Group, start: Start, share: float) -> None:
    top.set_memory(128 * MIB)

    explained = agent.explain("--pid", str(hold(start, top, int(share * 128 * MIB))))

    assert "memory-near-limit" not in agent.findings(explained)
    assert explained["usage"]["memory"]["anon_bytes"] >= share * 128 * MIB
