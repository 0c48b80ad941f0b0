"""A process is followed: found once, read anew each time, and looked for anew once it runs another program."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from cgagent.golang.live import Program
from cgagent.golang.live.follower import Follower
from support import go_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def followed() -> Iterator[Follower]:
    one = Follower()
    yield one
    one.close()


def procs(one: Follower, pid: int) -> int | None:
    running, why = one.running(str(pid))
    assert running is not None, why
    return running.gomaxprocs


def test_a_program_is_searched_once(followed: Follower, public: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = go_program.start(go_program.build(f"{public}/program"))
    searched = []

    def search(pid: str) -> Program:
        searched.append(pid)
        return Program(pid)

    monkeypatch.setattr("cgagent.golang.live.follower.Program", search)
    try:
        assert [procs(followed, process.pid) for _ in range(3)] == [7, 7, 7]
    finally:
        process.kill()
        process.wait()
    assert searched == [str(process.pid)]
    assert followed.running(str(process.pid)) == (None, None), "it has ended"


def test_what_comes_to_run_a_go_program_is_found_in_the_end(followed: Follower, public: str) -> None:
    second = go_program.build(f"{public}/second", gomaxprocs=2)
    process = subprocess.Popen(["sh", "-c", f"read line; exec {second}"], stdin=subprocess.PIPE)
    try:
        assert followed.running(str(process.pid)) == (None, None)
        process.stdin.write(b"\n")  # type: ignore[union-attr]  # it has one
        process.stdin.flush()  # type: ignore[union-attr]
        deadline = time.monotonic() + 30
        while os.readlink(f"/proc/{process.pid}/exe") != second:
            assert time.monotonic() < deadline
        # What was no Go program is looked at again after a while.
        assert followed.running(str(process.pid)) == (None, None)
        followed._not_before = 0.0
        assert procs(followed, process.pid) == 2
    finally:
        process.kill()
        process.communicate()


def test_another_process_is_another_program(followed: Follower, public: str) -> None:
    programs = [go_program.build(f"{public}/{number}", gomaxprocs=number) for number in (1, 2)]
    processes = [go_program.start(path) for path in programs]
    try:
        assert [procs(followed, one.pid) for one in processes] == [1, 2]
    finally:
        for one in processes:
            one.kill()
            one.wait()


def test_why_a_program_is_not_understood_is_told(followed: Follower, public: str) -> None:
    process = go_program.start(go_program.build(f"{public}/program", version="go1.99.0"))
    try:
        for _ in range(2):
            assert followed.running(str(process.pid)) == (None, "built by go1.99.0: Go 1.21 to 1.27 are understood")
    finally:
        process.kill()
        process.wait()
