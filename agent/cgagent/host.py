"""The one window on /proc and /sys: bounded text, and why where there is none.

A `Host` has a root: `/` for the machine we are on, a directory for a captured or mounted tree. Below a
root other than `/` every symbolic link is followed as a chroot would, so that a captured tree (or another
process's /proc/PID/root, which that process arranged) never leads to a file of the live machine.
"""

from __future__ import annotations

import errno
import os
import stat

from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ABSENT = "absent"
DENIED = "not permitted"
VANISHED = "vanished"
UNSUITABLE = "unsuitable"

MOUNTINFO_LIMIT = 64 << 20  # 10,000 overlayfs mounts with long lower directories are some 20 MB
FILE_LIMIT = 1 << 20
_MAX_LINKS = 40  # as the kernel's MAXSYMLINKS

# A file that a kernel version lacks, or that the kernel offers and refuses to read (PSI switched off).
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP, errno.ENAMETOOLONG)
_DENIED = (errno.EACCES, errno.EPERM)
# kernfs says ENODEV for an open file whose cgroup was removed, procfs ESRCH for a process that ended.
_VANISHED = (errno.ENODEV, errno.ESRCH)


class ReadError(CgagentError):
    """A file could not be read.

    Attributes:
        path: the file, as seen below the host's root.
        kind: ABSENT, DENIED, VANISHED or UNSUITABLE (not a regular file, too large, an input/output error).
    """

    def __init__(self, path: str, kind: str, detail: str) -> None:
        super().__init__(f"cannot read {path}: {detail}")
        self.path = path
        self.kind = kind
        self.detail = detail

    @classmethod
    def of(cls, path: str, error: OSError) -> ReadError:
        number = error.errno
        kind = UNSUITABLE
        if number in _ABSENT:
            kind = ABSENT
        elif number in _DENIED:
            kind = DENIED
        elif number in _VANISHED:
            kind = VANISHED
        return cls(path, kind, (error.strerror or str(error)).lower())


class Host:
    """Files of one machine, or of a captured or mounted tree of one."""

    holds_one = False  # whether it knows of one process alone, `self`
    about: Mapping[str, object] | None = None  # what is known of a capture beside its files

    def __init__(self, root: str = "/", shown_below: str = "", places: dict[str, str] | None = None) -> None:
        """`places` says where parts of the live machine are mounted instead: `/proc`, `/sys`, and `/` for the rest."""
        self.root = root.rstrip("/") or "/"
        self._shown_below = shown_below
        self._directories: dict[str, str] = {}
        self._places = {part: place.rstrip("/") for part, place in (places or {}).items() if place != part}

    @property
    def live(self) -> bool:
        """Whether this is the machine we run on, not a captured tree."""
        return self.root == "/"

    def shown(self, path: str) -> str:
        """`path` as a person should see it: a captured tree's own name for it, a process's below /proc/PID/root."""
        return self._shown_below + (self._placed(path) if self._places else path)

    def read(self, path: str, limit: int = FILE_LIMIT) -> str:
        """The text of `path`, an absolute path below the root; bytes that are no UTF-8 become surrogates.

        Raises:
            ReadError: it is absent, not permitted, vanished meanwhile, no regular file, or over `limit` bytes.
        """
        return self.content(path, limit).decode("utf-8", "surrogateescape")

    def content(self, path: str, limit: int) -> bytes:
        """As `read`, the bytes as they stand."""
        try:
            fd = self.open(path)
            try:
                return _read_all(fd, path, limit)
            finally:
                os.close(fd)
        except OSError as error:
            raise ReadError.of(path, error) from None

    def open(self, path: str) -> int:
        """A descriptor of `path`, an absolute path below the root, to read from.

        Raises:
            ReadError: it is no regular file.
            OSError: it can't be opened.
        """
        # O_NONBLOCK: a FIFO in a captured tree must not hold us.
        fd = os.open(self.locate(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ReadError(path, UNSUITABLE, "not a regular file")
        return fd

    def read_if_there(self, path: str, limit: int = FILE_LIMIT) -> str | None:
        """As `read`, but None where the file is absent (this kernel or this level has no such file)."""
        try:
            return self.read(path, limit)
        except ReadError as error:
            if error.kind == ABSENT:
                return None
            raise

    def is_directory(self, path: str) -> bool:
        """Whether `path` is a directory that may be looked at."""
        try:
            return stat.S_ISDIR(os.stat(self.locate(path)).st_mode)
        except OSError:
            return False

    def affinity(self, pid: str) -> frozenset[int] | None:
        """The CPUs that the process may run on as sched_getaffinity(2) says; None for a captured tree."""
        if not self.live:
            return None
        try:
            return frozenset(os.sched_getaffinity(0 if pid == "self" else int(pid)))
        except OSError:
            return None

    def environment(self, pid: str) -> dict[str, str] | None:
        """The variables that process `pid` was started with; None where they may not be read."""
        try:
            text = self.read(f"/proc/{pid}/environ")
        except ReadError:
            return None
        pairs = (entry.partition("=") for entry in text.split("\0"))
        return {name: value for name, _, value in pairs if name}

    def locate(self, path: str) -> str:
        """Where `path` is found: itself on the live machine, else its place below the root, links followed."""
        if self.live:
            return self._placed(path) if self._places else path
        directory, _, name = path.rstrip("/").rpartition("/")
        return self._follow(name, self._locate_directory(directory))

    def _placed(self, path: str) -> str:
        """Where a path of the live machine is, if the part of it that holds the path is mounted elsewhere."""
        for part in ("/proc", "/sys"):
            if path == part or path.startswith(f"{part}/"):
                return self._places.get(part, part) + path[len(part) :]
        return self._places.get("/", "") + path

    def _locate_directory(self, path: str) -> str:
        """Where a directory is found. Each is looked up once: a cgroup and its ancestors are many on one path."""
        names: list[str] = []
        while path and path not in self._directories:
            path, _, name = path.rpartition("/")
            names.append(name)
        found = self._directories.get(path, self.root)
        for name in reversed(names):
            path = f"{path}/{name}"
            found = self._directories[path] = self._follow(name, found)
        return found

    def _follow(self, path: str, start: str = "") -> str:
        """Resolve `path` component by component from `start`, a resolved path; links stay below the root."""
        done = start or self.root
        todo = [part for part in reversed(path.split("/")) if part]
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                done = done.rpartition("/")[0] if done != self.root else self.root
                continue
            step = f"{done}/{part}"
            try:
                target = os.readlink(step)
            except OSError:
                done = step
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                done = self.root
            todo.extend(piece for piece in reversed(target.split("/")) if piece)
        return done


def _read_all(fd: int, path: str, limit: int) -> bytes:
    # No size is asked for: procfs and cgroupfs say 0 or 4096 whatever the file holds.
    first = os.read(fd, 65536)
    pieces, size = [first], len(first)
    while pieces[-1]:
        pieces.append(os.read(fd, 1 << 20))
        size += len(pieces[-1])
        if size > limit:
            raise ReadError(path, UNSUITABLE, f"more than {limit} bytes")
    return b"".join(pieces)
