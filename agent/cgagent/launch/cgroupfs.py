"""Files and directories of cgroupfs: write, read, and remove for good, with what still runs in them."""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# For whoever finds cgroups read-only.
READ_ONLY_HINT = "start the outer container with --privileged, or go without the limits with --best-effort"

_SIGKILL = 9
_PATIENCE = 2.0  # seconds that a killed process may take to leave its cgroup


def write(path: str, text: str) -> None:
    """Write to a file of cgroupfs, whose every write(2) is one command."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def read(path: str) -> str:
    """The text of a file of cgroupfs; empty where it can't be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    data = b""
    try:
        while piece := os.read(fd, 65536):
            data += piece
    except OSError:
        pass  # removed meanwhile, or a file that this kernel does not serve
    finally:
        os.close(fd)
    return data.decode("utf-8", "replace")


def remove(directories: list[str]) -> list[str]:
    """Remove cgroup directories, killing what is in them; return those that could not be removed."""
    left = [one for one in directories if not rmdir(one)]
    if not left:
        return []
    deadline = time.monotonic() + _PATIENCE
    pause = 0.0005
    while left and time.monotonic() < deadline:
        for directory in left:
            kill(directory)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
        left = [one for one in left if not remove_empty(one)]
    return left


def kill(directory: str) -> None:
    """Send SIGKILL to every process in a cgroup and below, thawing it first: v1's frozen processes can't die."""
    for cgroup in _below(directory):
        try:
            if os.path.exists(f"{cgroup}/freezer.state"):
                write(f"{cgroup}/freezer.state", "THAWED")
            write(f"{cgroup}/cgroup.kill", "1")
            continue
        except OSError:
            pass
        for word in read(f"{cgroup}/cgroup.procs").split():
            # 0 is a process that our PID namespace does not show; kill(0) would be our own group.
            if word.isdigit() and int(word) > 1 and int(word) != os.getpid():
                try:
                    os.kill(int(word), _SIGKILL)
                except OSError:
                    pass


def _below(directory: str) -> Iterator[str]:
    """The cgroup and those below it, innermost first."""
    for cgroup, _, _ in os.walk(directory, topdown=False):
        yield cgroup


def remove_empty(directory: str) -> bool:
    """Remove a cgroup and those below it as far as no process is in them; whether all are gone."""
    return all([rmdir(cgroup) for cgroup in _below(directory)])  # noqa: C419 every one is to be tried


def is_populated(directory: str) -> bool:
    """Whether a process is in a cgroup or in one below it."""
    return any(read(f"{cgroup}/cgroup.procs") for cgroup in _below(directory))


def rmdir(directory: str) -> bool:
    """Remove one cgroup; whether it is gone."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        return error.errno == errno.ENODEV
    return True
