"""The threads whose calls wait: their numbers inside the container, their state, their memory."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.shown.notify import Listener, Notification

_LONGEST_STATUS = 65536
_PATH_MAX = 4096
_STAT_PPID, _STAT_STARTTIME, _STAT_PROCESSOR = 1, 19, 36  # proc(5), counted from field 3 on


class GoneError(Exception):
    """The thread has ended, and its call needs no answer any more."""


class RefusedError(Exception):
    """The call fails with this error number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Memory:
    """A waiting caller's memory, to read what its call points at and to write the answer.

    The kernel's advice: open, then ask whether the caller still waits. If so, what is open is its own
    (seccomp_unotify(2), under "Design goals").
    """

    def __init__(self, processes: int, listener: Listener, call: Notification) -> None:
        try:
            self._fd = os.open(f"{call.pid}/mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=processes)
        except (FileNotFoundError, ProcessLookupError):
            raise GoneError from None
        if not listener.is_valid(call):
            self.close()
            raise GoneError

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`."""
        try:
            data = os.pread(self._fd, size, address)
        except (OSError, OverflowError):
            raise RefusedError(errno.EFAULT) from None
        if len(data) < size:
            raise RefusedError(errno.EFAULT)
        return data

    def string(self, address: int) -> bytes:
        """The path at `address`, without the byte that ends it."""
        try:
            text, end, _ = os.pread(self._fd, _PATH_MAX, address).partition(b"\0")
        except (OSError, OverflowError):
            raise RefusedError(errno.EFAULT) from None
        if not end:
            raise RefusedError(errno.ENAMETOOLONG if len(text) == _PATH_MAX else errno.EFAULT)
        return text

    def write(self, address: int, data: bytes) -> None:
        """Put `data` at `address`."""
        try:
            written = os.pwrite(self._fd, data, address)
        except (OSError, OverflowError):
            raise RefusedError(errno.EFAULT) from None
        if written < len(data):
            raise RefusedError(errno.EFAULT)


class Threads:
    """Threads and processes as the container numbers them.

    `processes` is our own /proc, `inside` the container's, `depth` how many PID namespaces lie above the latter's.
    """

    def __init__(self, processes: int, inside: int, depth: int) -> None:
        self.processes = processes
        self._inside = inside
        self._depth = depth

    def inner(self, pid: int) -> tuple[int, int]:
        """The number inside of our `pid`, and its process's.

        Raises:
            GoneError: it has ended.
        """
        status = _read(self.processes, f"{pid}/status")
        return self._number(status, b"\nNSpid:"), self._number(status, b"\nNStgid:")

    def _number(self, status: bytes, name: bytes) -> int:
        words = _words(status, name)
        if len(words) <= self._depth:
            raise GoneError
        return int(words[self._depth])

    def find(self, pid: int, asked: int) -> int:
        """The number inside of the thread that our `pid` calls `asked`; 0 where there is none.

        In a PID namespace that was made inside, numbers are others: there a process finds its own threads alone.

        Raises:
            GoneError: `pid` has ended.
        """
        status = _read(self.processes, f"{pid}/status")
        if len(_words(status, b"\nNSpid:")) == self._depth + 1:
            try:
                os.stat(str(asked), dir_fd=self._inside)
            except OSError:
                return 0
            return asked
        for number in self._threads_of(self._number(status, b"\nNStgid:")):
            if int(_words(_read(self._inside, f"{number}/status"), b"\nNSpid:")[-1]) == asked:
                return int(number)
        return 0

    def _threads_of(self, process: int) -> list[str]:
        try:
            fd = os.open(f"{process}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._inside)
        except (FileNotFoundError, ProcessLookupError):
            raise GoneError from None
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def started(self, number: int) -> int:
        """When the thread started: with this a number names one thread for ever.

        Raises:
            GoneError: it has ended.
        """
        return int(_stat(self._inside, number)[_STAT_STARTTIME])

    def processor(self, number: int) -> int:
        """The machine's CPU that it was last seen on."""
        return int(_stat(self._inside, number)[_STAT_PROCESSOR])

    def above(self, number: int) -> int:
        """Whose settings a thread began with: its process's first thread's, and that one's parent's; 0 for nobody."""
        leader = int(_words(_read(self._inside, f"{number}/status"), b"\nTgid:")[0])
        return leader if leader != number else int(_stat(self._inside, number)[_STAT_PPID])


def namespace_depth(pid: int) -> int:
    """How many PID namespaces, ours among them, lie above the one in which `pid` is: NSpid of /proc/PID/status."""
    with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        status = file.read(_LONGEST_STATUS)
    return len(_words(status, b"\nNSpid:")) - 1


def _words(status: bytes, name: bytes) -> list[bytes]:
    start = status.find(name) + len(name)
    return status[start : status.find(b"\n", start)].split()


def _stat(directory: int, number: int) -> list[bytes]:
    return _read(directory, f"{number}/stat").rpartition(b")")[2].split()


def _read(directory: int, path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            return os.read(fd, _LONGEST_STATUS)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        raise GoneError from None
