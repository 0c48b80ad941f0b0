"""Files written whole or not at all."""

from __future__ import annotations

import os
import stat
import time

from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_STALE_SECONDS = 60.0

_HINTS = {
    "No space left on device": "free some space there",
    "Read-only file system": "mount a writable volume there, such as an emptyDir",
    "Permission denied": "let this user write to the directory",
    "No such file or directory": "create the directory first",
    "Not a directory": "name a file in a directory",
    "Is a directory": "name a file",
    "File name too long": "give a shorter name",
}


def replace(path: str, data: bytes, mode: int) -> None:
    """Make `path` a file with `data` and permissions `mode`.

    A temporary file in the same directory is written, flushed and renamed, so a reader sees the old file or
    the new one, whatever happens meanwhile. A symbolic link to a file, a FIFO or a stranger's file under that
    name is replaced, not followed; a device, or a link to what is no file, is refused.

    Raises:
        CgagentError: the file could not be written; the old one is as it was.
    """
    if _leads_to_no_file(path):
        raise CgagentError(f"cannot write {path}: it is no file to replace", "name a file, or - to print")
    directory, name = os.path.split(path)
    directory = directory or "."
    temporary = os.path.join(directory, f".{name}.cgagent-{os.urandom(6).hex()}")
    renamed = False
    try:
        _write_flushed(temporary, data, mode)
        os.rename(temporary, path)
        renamed = True
        _flush_directory(directory)
    except OSError as error:
        raise failure("write", path, error, _HINTS) from None
    finally:
        if not renamed:
            _remove(temporary)
    _remove_stale(directory, f".{name}.cgagent-")


def _leads_to_no_file(path: str) -> bool:
    """Whether replacing `path` would break a device (/dev/null), or a name that stands for a stream (/dev/stdout)."""
    try:
        own, target = os.lstat(path).st_mode, os.stat(path).st_mode
        if stat.S_ISLNK(own):
            return not stat.S_ISREG(target) or os.readlink(path).startswith("/proc/")
    except OSError:
        return False
    return stat.S_ISCHR(own) or stat.S_ISBLK(own)


def _write_flushed(path: str, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was never made, or the file system is gone: the failure that led here is told


def _flush_directory(directory: str) -> None:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # a directory may be writable and not readable
    try:
        os.fsync(fd)
    except OSError:
        pass  # some file systems can't; the rename itself was atomic
    finally:
        os.close(fd)


def _remove_stale(directory: str, prefix: str) -> None:
    """Remove temporary files that a writer left when it was killed between creating and renaming one."""
    oldest = time.time() - _STALE_SECONDS
    try:
        names = [name for name in os.listdir(directory) if name.startswith(prefix)]
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        try:
            if os.lstat(path).st_mtime < oldest:
                os.unlink(path)
        except OSError:
            pass  # another writer was faster, or it is not ours to remove


def failure(verb: str, path: str, error: OSError, hints: Mapping[str, str]) -> CgagentError:
    """What to tell of a file that could not be read or written; `hints` by the system's words for the error."""
    reason = error.strerror or str(error)
    return CgagentError(f"cannot {verb} {path}: {reason.lower()}", hints.get(reason, "name another file"))
