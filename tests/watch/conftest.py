"""Fixtures for tests of the sidecar on real cgroups; they skip, with the reason, where none can be made."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

import pytest

from kernel.cgroups import Group, read
from kernel.conftest import top, writable
from watch.sidecar import Sidecar, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["top", "writable"]


@pytest.fixture
def place() -> Iterator[str]:
    """A directory in memory that every user reaches: what a `medium: Memory` emptyDir is."""
    with tempfile.TemporaryDirectory(prefix="cgagent-test-", dir="/dev/shm") as path:
        os.chmod(path, 0o777)
        yield path


@pytest.fixture
def sidecar(place: str) -> Iterator[Callable[..., Sidecar]]:
    """Start `cgagent watch`, in a cgroup if one is given; it is killed when the test ends."""
    started: list[Sidecar] = []

    def start(*options: str, group: Group | None = None, **settings: Any) -> Sidecar:
        one = Sidecar(place, options, group, **settings)
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def run_in(place: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program under a name of its own, in a cgroup; it is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(group: Group, name: str, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        program = f"{place}/{name}"
        if not os.path.exists(program):
            shutil.copy("/bin/sleep", program)
        process = subprocess.Popen(group.enter([*prefix, program, *(words or ("600",))]), text=True)
        started.append(process)
        wait_until(lambda: read(f"/proc/{process.pid}/comm") == name[:15], f"{name} is in its cgroup and runs")
        return process

    yield start
    for one in started:
        one.kill()
        one.wait()
