"""Where a capture is read from: a FILE.tar.gz, or a directory that one was unpacked in, or any captured tree."""

from __future__ import annotations

import os
import stat

from cgagent.capture.archive import ARCHIVE_BYTES, assemble, unpack
from cgagent.capture.layout import (
    FILE_BYTES,
    FILES,
    MACHINE_FILES,
    META,
    PROCESS_FILES,
    TOTAL_BYTES,
    TREE,
    Capture,
    CaptureError,
    Meta,
    check_path,
)
from cgagent.host import Host, ReadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ANEW = "name a file that cgagent capture wrote, or the directory that it was unpacked in"


def load(path: str) -> Capture:
    """The capture in the file or directory `path`; of a tree without a meta document what its files tell.

    Raises:
        CaptureError: it is none, damaged, hostile, or may not be read. The message names `path`.
    """
    try:
        if os.path.isdir(path):
            return _directory(path)
        return unpack(Host().content(path, ARCHIVE_BYTES))
    except CaptureError as error:
        raise CaptureError(f"{path}: {error.message}", error.hint) from None
    except ReadError as error:
        raise CaptureError(f"cannot read {error.path}: {error.detail}", _ANEW) from None
    except OSError as error:
        raise CaptureError(f"cannot read {path}: {(error.strerror or str(error)).lower()}", _ANEW) from None


def _directory(path: str) -> Capture:
    unpacked = os.path.isfile(os.path.join(path, META))
    host = Host(os.path.join(path, TREE) if unpacked else path)
    files: dict[str, bytes] = {}
    directories: set[str] = set()
    total = 0
    for name, is_directory in _walk(host):
        check_path(name)
        if is_directory:
            directories.add(name)
        else:
            files[name] = host.content(name, FILE_BYTES)
            total += len(files[name])
        if len(files) + len(directories) > FILES or total > TOTAL_BYTES:
            raise CaptureError(f"it holds more than {FILES} files or {TOTAL_BYTES >> 20} MiB", _ANEW)
    if unpacked:
        return assemble(Host().content(os.path.join(path, META), FILE_BYTES), files, directories)
    if not any(name.startswith("/proc/self/") for name in files):
        raise CaptureError("it holds no proc/self", _ANEW)
    return _without_meta(files, directories)


def _walk(host: Host) -> Iterator[tuple[str, bool]]:
    """Paths of `host` that a capture holds, and whether each is a directory; devices are left out.

    Links are followed within the tree: `self` to a process, `cpu` to `cpu,cpuacct`.
    """
    # By name, not all of /proc and /sys: it might be the root of a whole machine.
    queue = [*PROCESS_FILES, *MACHINE_FILES, "/sys/fs/cgroup"]
    while queue:
        path = queue.pop()
        try:
            place = host.locate(path)
            mode = os.lstat(place).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            yield path, True
            queue += [f"{path}/{name}" for name in os.listdir(place)]
        elif stat.S_ISREG(mode):
            yield path, False


def _without_meta(files: dict[str, bytes], directories: set[str]) -> Capture:
    capture = Capture(Meta(), files, directories)
    capture.meta.learn(capture)
    return capture
