"""Whatever happens, the env file is whole, and in the end it says what the last limits say."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import threading
import time

import pytest

from kernel.cgroups import MIB, Group
from watch.sidecar import UNBOUND, Sidecar, read_env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., Sidecar]
    RunIn = Callable[..., subprocess.Popen[str]]

FLIPS = 10_000
# Sizes of whole pages, each with a GOMEMLIMIT of its own.
SIZES = [(64 + number) * MIB for number in range(32)]
# What a long run may add: buffers that grow to their final size, once.
GROWTH_KIB = 1024


class Flipper:
    """Sets memory limits as fast as it can, in a thread, and knows the last one."""

    def __init__(self, group: Group) -> None:
        self.last = 0
        self._group = group
        self._going = True
        self._thread = threading.Thread(target=self._flip)
        self._thread.start()

    def _flip(self) -> None:
        while self._going:
            self.last = random.choice(SIZES)
            self._group.set_memory(self.last)

    def stop(self) -> int:
        """Stop; the last limit."""
        self._going = False
        self._thread.join()
        return self.last


def _limit(size: int) -> int:
    return size * 9 // 10


def test_ten_thousand_flips_end_in_the_last_one_and_leave_nothing_behind(top: Group, sidecar: Start) -> None:
    top.set_memory(SIZES[0])
    agent = sidecar("--settle", "0ms", "--log.level", "error", group=top).ready()
    for size in SIZES * 3:  # until every buffer has its size
        top.set_memory(size)
    agent.shows(UNBOUND, _limit(SIZES[-1]))
    before = agent.at_rest()

    for number in range(FLIPS):
        top.set_memory(SIZES[number % len(SIZES)])
        if number % 50 == 0:
            agent.env()

    agent.shows(UNBOUND, _limit(SIZES[(FLIPS - 1) % len(SIZES)]))
    after = agent.at_rest()
    assert (after[0], after[1]) == (before[0], before[1])
    assert after[2] - before[2] < GROWTH_KIB
    assert agent.stop() == 0


def test_quota_and_memory_flips_of_three_levels_end_in_the_last_ones(top: Group, sidecar: Start) -> None:
    leaf = top.child("pod").child("container")
    levels = [leaf, leaf.parent, top]
    top.set_quota(100_000)
    agent = sidecar(group=leaf).ready()

    last: dict[int, int] = {}
    for number in range(1000):
        level = number % 3
        group = levels[level]
        assert group is not None
        last[level] = SIZES[number % len(SIZES)]
        group.set_memory(last[level])

    agent.shows(1, _limit(min(last.values())))


@pytest.mark.parametrize("number", range(10))
def test_sigterm_amid_changes_ends_it_at_once_with_a_whole_file(top: Group, sidecar: Start, number: int) -> None:
    top.set_memory(SIZES[0])
    agent = sidecar("--settle", "0ms", group=top).ready()
    flipper = Flipper(top)
    try:
        time.sleep(0.02 + number * 0.003)
        assert agent.stop() == 0
    finally:
        flipper.stop()
    procs, memory = agent.env()
    assert procs == UNBOUND
    assert memory in [_limit(size) for size in SIZES]
    assert os.listdir(os.path.dirname(agent.env_file)) == ["go.env"]


def test_sigterm_within_the_settle_time_still_writes_the_change(top: Group, sidecar: Start) -> None:
    top.set_memory(64 * MIB)
    agent = sidecar("--settle", "30s", group=top).ready()

    top.set_memory(96 * MIB)
    time.sleep(0.3)
    start = time.monotonic()
    assert agent.stop() == 0

    assert time.monotonic() - start < 25, "it waited for the settle time"
    assert agent.env() == (UNBOUND, _limit(96 * MIB))


@pytest.mark.parametrize("number", range(10))
def test_sigkill_amid_changes_leaves_a_whole_file_and_the_next_life_mends_it(
    top: Group, sidecar: Start, number: int
) -> None:
    top.set_memory(SIZES[0])
    agent = sidecar("--settle", "0ms", group=top).ready()
    flipper = Flipper(top)
    try:
        time.sleep(0.02 + number * 0.003)
        agent.send(signal.SIGKILL)
        assert agent.end() == -signal.SIGKILL
    finally:
        last = flipper.stop()
    assert agent.env()[1] in [_limit(size) for size in SIZES]

    again = sidecar(group=top)
    again.shows(UNBOUND, _limit(last))


@pytest.fixture
def small_disk(place: str) -> Iterator[str]:
    """A file system of 64 KiB."""
    path = f"{place}/small"
    os.mkdir(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_keeps_the_old_file_until_there_is_room(top: Group, sidecar: Start, small_disk: str) -> None:
    top.set_memory(64 * MIB)
    agent = sidecar(group=top, env_file=f"{small_disk}/go.env").ready()
    filler = f"{small_disk}/filler"
    with open(filler, "wb", buffering=0) as file:
        while file.write(bytes(65536)) == 65536:  # less, or an error, once it is full
            pass

    top.set_memory(96 * MIB)
    agent.says("no space left on device")
    assert agent.env() == (UNBOUND, _limit(64 * MIB))
    os.unlink(filler)

    agent.shows(UNBOUND, _limit(96 * MIB))
    assert sorted(os.listdir(small_disk)) == ["go.env"]
    assert agent.stop() == 0


def test_a_read_only_directory_keeps_the_old_file_until_it_is_writable(
    top: Group, sidecar: Start, small_disk: str
) -> None:
    top.set_memory(64 * MIB)
    agent = sidecar(group=top, env_file=f"{small_disk}/go.env").ready()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    top.set_memory(96 * MIB)
    agent.says("read-only file system")
    assert agent.env() == (UNBOUND, _limit(64 * MIB))
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)

    agent.shows(UNBOUND, _limit(96 * MIB))


def test_a_file_that_somebody_removes_or_spoils_is_made_good(top: Group, sidecar: Start) -> None:
    top.set_memory(64 * MIB)
    agent = sidecar(group=top).ready()

    with open(agent.env_file, "w", encoding="ascii") as file:
        file.write("GOMEMLIMIT='1")
    agent.until(lambda: _is(agent, _limit(64 * MIB)), "a whole file again")
    for spoil in (os.unlink, _replace_by_symlink, _replace_by_fifo):
        spoil(agent.env_file)
        agent.until(lambda: _is(agent, _limit(64 * MIB)), f"a file again after {spoil.__name__}")


def _replace_by_symlink(path: str) -> None:
    os.symlink("/etc/passwd", f"{path}.link")
    os.rename(f"{path}.link", path)


def _replace_by_fifo(path: str) -> None:
    os.mkfifo(f"{path}.fifo")
    os.rename(f"{path}.fifo", path)


def _is(agent: Sidecar, memory: int) -> bool:
    try:
        # Nobody may wait at a FIFO.
        return stat.S_ISREG(os.lstat(agent.env_file).st_mode) and agent.env() == (UNBOUND, memory)
    except (AssertionError, OSError):
        return False


def test_an_application_killed_every_100_ms_is_followed_to_its_last_cgroup(
    top: Group, sidecar: Start, run_in: RunIn
) -> None:
    name = f"dying{os.getpid()}"
    group = top.child("c0", ("cpu", "memory"))
    group.set_memory(SIZES[0])
    target = run_in(group, name)
    agent = sidecar("--target", "auto", "--target-name", name, "--settle", "10ms").ready()
    before = agent.at_rest()

    for number in range(1, 31):
        time.sleep(0.1)
        target.kill()
        target.wait()
        group.remove()
        group = top.child(f"c{number}", ("cpu", "memory"))
        group.set_memory(SIZES[number])
        target = run_in(group, name)
        read_env(agent.env_file)

    agent.shows(UNBOUND, _limit(SIZES[30]))
    after = agent.at_rest()
    assert (after[0], after[1]) == (before[0], before[1])
    group.set_memory(SIZES[3])
    agent.shows(UNBOUND, _limit(SIZES[3]))
