"""Fixtures for tests that make real cgroups; they skip, with the reason, where none can be made."""

from __future__ import annotations

import os
import subprocess

import pytest

from kernel import agent, cgroups
from kernel.cgroups import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Look = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def writable() -> None:
    """Skip where this machine gives no cgroup with CPU and memory limits."""
    if os.geteuid() != 0:
        pytest.skip("making cgroups needs root")
    for controller in ("cpu", "memory"):
        if cgroups.holder(controller) is None:
            pytest.skip(f"no cgroup mount here has the {controller} controller")
    try:
        probe = Group(f"{cgroups.PREFIX}{os.getpid()}-probe")
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    probe.remove()


@pytest.fixture
def top(writable: None, request: pytest.FixtureRequest) -> Iterator[Group]:  # noqa: ARG001 asked for its effect
    """A cgroup for the test alone, right below the mount roots; removed with all that is in it."""
    name = f"{cgroups.PREFIX}{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**6}"
    group = Group(name)
    try:
        yield group
    finally:
        group.remove()


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[..., subprocess.Popen[str]]:
    """Start a command, in a cgroup if one is given; it is killed when the test ends."""

    def run(command: list[str], group: Group | None = None, **options: Any) -> subprocess.Popen[str]:
        words = command if group is None else group.enter(command)
        merged: dict[str, Any] = {"env": agent.environment(), "stdout": subprocess.PIPE, "text": True} | options
        process: subprocess.Popen[str] = subprocess.Popen(words, **merged)
        request.addfinalizer(lambda: _end(process))
        return process

    return run


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture
def sleeper(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., int]:
    """Start a process that only waits, in a cgroup; returns its PID once it is there."""

    def run(group: Group, prefix: tuple[str, ...] = ()) -> int:
        process = start([*prefix, "sh", "-c", "echo here; exec sleep 600"], group)
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        return process.pid

    return run


@pytest.fixture(params=["from inside", "by pid"])
def look(request: pytest.FixtureRequest, sleeper: Callable[..., int]) -> Look:
    """Explain a cgroup: by a process in it about itself, or from outside about a process in it."""

    def inside(group: Group, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
        command = [*prefix, *agent.CGAGENT, "explain", "-o", "json"]
        return agent.document(agent.succeed(command, group).stdout)

    def by_pid(group: Group, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
        return agent.explain("--pid", str(sleeper(group, prefix)))

    return inside if request.param == "from inside" else by_pid
