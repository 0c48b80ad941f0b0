"""Changes of files seen by inotify, on ordinary files; tests/watch has the cgroups."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from cgagent.watch import changes as changes_module
from cgagent.watch import log as log_module
from cgagent.watch.changes import Changes, Place, directory_place
from cgagent.watch.log import Log
from cgagent.watch.wake import CONFIG, LIMITS, OBSERVER, STOP, TARGET, Wake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 60.0
MODIFIED = 0x2


class Told(Log):
    """A log that is read back: level and message of each line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def _write(self, level: str, message: str, fields: dict[str, object]) -> None:
        self.lines.append((level, f"{message} {fields}"))


@pytest.fixture
def wake() -> Iterator[Wake]:
    one = Wake()
    yield one
    one.close()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def changes(wake: Wake, told: Told) -> Iterator[Changes]:
    one = Changes(wake, told)
    yield one
    one.close()


def _file(path: Path, text: str = "1") -> Place:
    path.write_text(text, encoding="ascii")
    return Place(str(path), MODIFIED, LIMITS)


def test_a_write_is_noted_and_a_read_is_not(tmp_path: Path, wake: Wake, changes: Changes) -> None:
    limit = _file(tmp_path / "limit")
    assert changes.follow([limit])

    (tmp_path / "limit").read_text(encoding="ascii")
    os.stat(limit.path)
    assert wake.wait(0.1) == set()
    (tmp_path / "limit").write_text("2", encoding="ascii")
    assert wake.wait(PATIENCE) == {LIMITS}


def test_following_the_same_again_adds_nothing(tmp_path: Path, changes: Changes) -> None:
    places = [_file(tmp_path / name) for name in "abc"]
    assert changes.follow(places)
    assert not changes.follow(places)


def test_a_file_that_is_not_there_yet_is_watched_once_it_is(tmp_path: Path, wake: Wake, changes: Changes) -> None:
    limit = Place(str(tmp_path / "limit"), MODIFIED, LIMITS)
    assert not changes.follow([limit])
    assert not changes.blind
    _file(tmp_path / "limit")
    assert changes.follow([limit])
    (tmp_path / "limit").write_text("2", encoding="ascii")
    assert wake.wait(PATIENCE) == {LIMITS}


def test_a_file_that_is_made_again_is_another_and_is_watched_anew(tmp_path: Path, wake: Wake, changes: Changes) -> None:
    limit = _file(tmp_path / "limit")
    changes.follow([limit])
    (tmp_path / "other").write_text("3", encoding="ascii")
    os.rename(tmp_path / "other", tmp_path / "limit")
    time.sleep(0.05)
    wake.wait(0)
    assert changes.follow([limit])
    (tmp_path / "limit").write_text("4", encoding="ascii")
    assert wake.wait(PATIENCE) == {LIMITS}


def test_what_is_no_longer_followed_is_no_longer_noted(tmp_path: Path, wake: Wake, changes: Changes) -> None:
    one, other = _file(tmp_path / "one"), _file(tmp_path / "other")
    changes.follow([one, other])
    changes.follow([other])
    wake.wait(0.05)
    (tmp_path / "one").write_text("2", encoding="ascii")
    assert wake.wait(0.1) == set()


def test_a_swapped_directory_of_files_is_noted(tmp_path: Path, wake: Wake, changes: Changes) -> None:
    changes.follow([directory_place(str(tmp_path), CONFIG)])
    os.symlink("..1", tmp_path / "..data_tmp")
    os.rename(tmp_path / "..data_tmp", tmp_path / "..data")
    assert wake.wait(PATIENCE) == {CONFIG}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _until(condition: Callable[[], bool]) -> None:
    """Wait: threads that end, of earlier tests too, take their time on a busy machine."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closing_gives_everything_back(tmp_path: Path, wake: Wake, told: Told) -> None:
    threads, descriptors = threading.active_count(), _descriptors()
    for _ in range(20):
        one = Changes(wake, told)
        one.follow([_file(tmp_path / "limit")])
        one.close()
    _until(lambda: threading.active_count() <= threads and _descriptors() <= descriptors)


def test_no_command_inherits_a_descriptor(tmp_path: Path, changes: Changes) -> None:
    changes.follow([_file(tmp_path / "limit")])
    # Other threads open and close files meanwhile: ls may miss one, and says so by its exit code.
    ours = subprocess.run(["ls", "-l", f"/proc/{os.getpid()}/fd"], capture_output=True, text=True, check=False)
    theirs = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False)
    assert "inotify" in ours.stdout
    assert "inotify" not in theirs.stdout


def test_a_thread_that_dies_is_noted_and_replaced_without_a_trace(
    tmp_path: Path, wake: Wake, told: Told, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = _file(tmp_path / "limit")
    changes.follow([limit])
    descriptors = _descriptors()
    fails = [True]

    def on_event(self: changes_module._Watch, _event: object) -> None:
        if fails.pop() if fails else False:
            raise RuntimeError("a fault in a library")
        self._wake.note(self._kind)

    monkeypatch.setattr(changes_module._Watch, "on_event", on_event)
    (tmp_path / "limit").write_text("2", encoding="ascii")

    assert wake.wait(PATIENCE) == {OBSERVER}
    fails.clear()
    changes.restart()
    assert changes.follow([limit])
    (tmp_path / "limit").write_text("3", encoding="ascii")
    assert wake.wait(PATIENCE) == {LIMITS}
    _until(lambda: _descriptors() <= descriptors)
    assert [level for level, _ in told.lines] == ["error", "warning"]


@pytest.mark.parametrize(
    ("number", "setting"), [(errno.EMFILE, "max_user_instances"), (errno.ENFILE, "too many open files")]
)
def test_without_inotify_it_is_blind_says_so_once_and_recovers(
    number: int,
    setting: str,
    tmp_path: Path,
    told: Told,
    changes: Changes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = _file(tmp_path / "limit")
    real = changes_module._reader

    def refuse(*_: object) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(changes_module, "_reader", refuse)
    for _ in range(3):
        assert not changes.follow([limit])
    assert changes.blind
    assert [level for level, _ in told.lines] == ["warning"]
    assert setting in told.lines[0][1]

    monkeypatch.setattr(changes_module, "_reader", real)
    assert changes.follow([limit])
    assert not changes.blind
    assert [level for level, _ in told.lines] == ["warning", "info"]


def test_an_older_watchdog_means_polling(
    tmp_path: Path, told: Told, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "cgagent.watch.inotify", raising=False)
    monkeypatch.setitem(sys.modules, "watchdog.observers.inotify_c", None)
    assert not changes.follow([_file(tmp_path / "limit")])
    assert changes.blind
    assert "watchdog 7.1 or newer is needed" in told.lines[0][1]


def test_no_thread_to_be_had_means_polling_and_leaks_nothing(
    tmp_path: Path, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = _file(tmp_path / "limit")

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        changes.follow([limit])
        descriptors = _descriptors()
        for _ in range(10):
            changes.follow([limit])
        assert changes.blind
        assert _descriptors() <= descriptors
    assert changes.follow([limit])
    assert not changes.blind


def test_events_that_the_kernel_had_no_room_for_count_as_changes(tmp_path: Path, wake: Wake, changes: Changes) -> None:
    changes.follow([_file(tmp_path / "limit")])
    for watch in changes._watches.values():
        watch.on_queue_overflow()
    assert wake.wait(PATIENCE) == {LIMITS}


def test_everything_that_is_noted_while_nobody_waits_is_found(wake: Wake) -> None:
    for _ in range(100_000):  # more than the pipe takes
        wake.note(LIMITS)
    wake.note(STOP)
    assert wake.wait(0) == {LIMITS, STOP}
    deadline = time.monotonic() + PATIENCE
    while wake.wait(0):  # what is left in the pipe wakes once more, and says nothing
        assert time.monotonic() < deadline
    assert wake.wait(0.05) == set()


def test_a_process_that_ended_wakes(wake: Wake) -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    fd = os.pidfd_open(pid)
    try:
        assert wake.wait(PATIENCE, fd) == {TARGET}
    finally:
        os.waitpid(pid, 0)
        os.close(fd)


def test_a_log_to_nowhere_is_no_hindrance(tmp_path: Path, wake: Wake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_STDERR", 987654)
    one = Changes(wake, Log())
    one.restart()
    assert one.follow([_file(tmp_path / "limit")])
    one.close()
