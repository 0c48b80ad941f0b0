"""Changes of files, seen by inotify.

The agent's own reads must raise no events, so each watch asks the kernel for what it needs and nothing else:
`IN_MODIFY` on the files that hold limits, entries that come and go in a directory whose files are swapped
(Kubernetes renames `..data`). Other files of a cgroup's directory may change many times a second.
"""

from __future__ import annotations

import errno
import os

from cgagent.cgroup import v1, v2
from cgagent.record import Record
from cgagent.watch.wake import EVENTS, LIMITS, OBSERVER, Wake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from watchdog.observers.inotify_c import InotifyEvent, WatchDescriptor

    from cgagent.cgroup.process import Standing
    from cgagent.watch.inotify import Reader
    from cgagent.watch.log import Log

# inotify(7)
_MODIFIED = 0x2
_ATTRIBUTES = 0x4  # its number of links among them: it was removed, or replaced by a rename
_CLOSED_AFTER_WRITE = 0x8
_MOVED_TO = 0x80
_CREATED = 0x100
_DELETED = 0x200
_MOVED_SELF = 0x800
_ARRIVED = _CLOSED_AFTER_WRITE | _MOVED_TO | _CREATED | _DELETED

_CONTROLLERS = ("cpu", "memory", "cpuset", "pids")
# A cgroup has the files of one dialect; the other's are simply not there. v1's cpuset.cpus is v2's name too.
_LIMIT_FILES = tuple(dict.fromkeys((*v1.LIMIT_FILES, *v2.LIMIT_FILES, "pids.max")))
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH)


class Place(Record):
    """Something to watch.

    Attributes:
        path: a file or directory.
        mask: the inotify events that count.
        kind: what to note in `Wake` when one comes.
    """

    __slots__ = ("kind", "mask", "path")

    def __init__(self, path: str, mask: int, kind: str) -> None:
        self.path = path
        self.mask = mask
        self.kind = kind


def limit_places(standing: Standing) -> Iterator[Place]:
    """The files that hold a process's limits, at every visible level, and what tells that its cgroup is deserted."""
    hierarchies = {id(one): one for name in _CONTROLLERS if (one := standing.hierarchy_of(name))}
    for hierarchy in hierarchies.values():
        for depth, level in enumerate(hierarchy.levels):
            for host, directory in level.directories:
                yield from _directory_places(host.locate(directory), hierarchy.controllers, innermost=depth == 0)


def _directory_places(place: str, controllers: tuple[str, ...], *, innermost: bool) -> Iterator[Place]:
    """What to watch in one cgroup's directory, which has the files of `controllers`; of all of them if it is empty."""
    for name in _LIMIT_FILES:
        if not controllers or name.partition(".")[0] in controllers:
            yield Place(f"{place}/{name}", _MODIFIED, LIMITS)
    if innermost:
        # v2: `populated` turns 0 when the last process has gone; the target may have been moved elsewhere.
        yield Place(f"{place}/cgroup.events", _MODIFIED, LIMITS)
        yield Place(f"{place}/memory.events", _MODIFIED, EVENTS)


def directory_place(path: str, kind: str) -> Place:
    """A directory whose files are written, replaced or swapped."""
    return Place(path, _ARRIVED, kind)


def file_place(path: str, kind: str) -> Place:
    """A file that may be written, replaced or removed."""
    return Place(path, _MODIFIED | _ATTRIBUTES | _MOVED_SELF, kind)


class Changes:
    """Keeps one inotify watch for each place, whatever comes and goes.

    Attributes:
        blind: whether something can't be watched, so that only polling sees its changes.
    """

    def __init__(self, wake: Wake, log: Log) -> None:
        self.blind = False
        self._wake = wake
        self._log = log
        self._reader: Reader | None = None
        self._watches: dict[Place, _Watch] = {}

    def follow(self, places: Iterable[Place]) -> set[str]:
        """Watch exactly `places`, those that are there; return the kinds of those that were not watched before."""
        problem, added = self._ready(), set()
        wanted = {} if problem else {place: inode for place in places if (inode := _inode(place.path))}
        stale = [place for place, watch in self._watches.items() if watch.dead or wanted.get(place) != watch.inode]
        for place in stale:
            self._forget(place)
        for place, inode in wanted.items():
            if self._reader and place not in self._watches:
                trouble = self._add(self._reader, place, inode)
                problem = problem or trouble
                if not trouble:
                    added.add(place.kind)
        self._tell(problem)
        return added

    def restart(self) -> None:
        """The thread that reads has ended: what it left is given back, and `follow` starts another."""
        self._log.warning("the inotify thread has ended and is started again")
        self._discard()

    def close(self) -> None:
        """Watch nothing any more."""
        self._discard()

    def _ready(self) -> str:
        """Have a reader that runs; why there is none, or an empty text."""
        try:
            if self._reader is None:
                self._reader = _reader(lambda: self._wake.note(OBSERVER), self._log)
            if not self._reader.is_alive():
                self._reader.start()
        except ImportError as error:
            return f"{error}: watchdog 7.1 or newer is needed"
        except RuntimeError as error:
            return str(error)  # no more threads are allowed
        except OSError as error:
            return _reason(error)
        return ""

    def _add(self, reader: Reader, place: Place, inode: tuple[int, int]) -> str:
        watch = _Watch(place, inode, self._wake)
        try:
            watch.wd = reader.watch(place.path, place.mask, watch)
        except OSError as error:
            return "" if error.errno in _ABSENT else f"{place.path}: {_reason(error)}"
        if watch.wd == -1:
            self._drop(watch)
            return f"{place.path}: permission denied"
        self._watches[place] = watch
        return ""

    def _forget(self, place: Place) -> None:
        watch = self._watches.pop(place)
        if not watch.dead:
            self._drop(watch)

    def _drop(self, watch: _Watch) -> None:
        if self._reader is not None:
            try:
                self._reader.unwatch(watch.wd, watch)
            except OSError:
                pass  # the kernel has dropped it already

    def _discard(self) -> None:
        self._watches.clear()
        if self._reader is not None:
            self._reader.discard()
            self._reader = None

    def _tell(self, problem: str) -> None:
        """One warning when following turns into polling, one line when it turns back."""
        if problem and not self.blind:
            self._log.warning("not every change can be seen at once, polling instead", reason=problem)
        elif self.blind and not problem:
            self._log.info("every change is seen at once again")
        self.blind = bool(problem)


class _Watch:
    """What watchdog calls back for one place, from its own thread."""

    def __init__(self, place: Place, inode: tuple[int, int], wake: Wake) -> None:
        self.inode = inode
        self.wd = -1
        self.dead = False
        self._kind = place.kind
        self._wake = wake

    def on_event(self, event: InotifyEvent) -> None:  # noqa: ARG002 watchdog's signature
        """An event of the mask that was asked for."""
        self._wake.note(self._kind)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:  # noqa: ARG002 watchdog's signature
        """The file is gone: what is there now is looked at anew."""
        self.dead = True
        self._wake.note(self._kind)

    def on_queue_overflow(self) -> None:
        """Events were lost: any of them may have been ours."""
        self._wake.note(self._kind)


def _inode(path: str) -> tuple[int, int] | None:
    """What tells a file from another of the same name: a cgroup that is made again is another."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _reason(error: OSError) -> str:
    limits = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}
    reason = (error.strerror or str(error)).lower()
    return f"{reason}: raise {limits[error.errno]}" if error.errno in limits else reason


def _reader(ended: Callable[[], None], log: Log) -> Reader:
    from cgagent.watch.inotify import Reader

    return Reader(ended, log)
