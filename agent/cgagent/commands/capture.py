"""`cgagent capture`: take a container's layout along, for `explain --root` and `run --replay`."""

from __future__ import annotations

import os
import sys

from cgagent import wholefile
from cgagent.capture.archive import pack
from cgagent.capture.layout import OUTSIDE
from cgagent.capture.take import outside, take
from cgagent.commands.options import pid_of, say
from cgagent.errors import CgagentError, UsageError
from cgagent.host import MOUNTINFO_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.capture.layout import Capture
    from cgagent.parser import Arguments, Parser

DESCRIPTION = (
    "Write the cgroup layout that a process sees to one small file: its cgroups and mounts, limits and\n"
    "statistics of every level, the machine's CPUs and memory. Environment and command lines are not in it."
)
EPILOG = """\
examples:
  cgagent capture orders.tar.gz                         what this shell, or this container, sees
  cgagent capture --pid 4711 orders.tar.gz              what another process sees
  cgagent capture --blank-paths -                       to standard output, other people's mount paths blanked
  kubectl exec POD -c cgagent -- cgagent capture - > orders.tar.gz
  cgagent explain --root orders.tar.gz                  read it, here or elsewhere

exit codes: 0 written; 1 there is nothing to read, or the file can't be written; 2 wrong usage.
"""


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("file", metavar="FILE.tar.gz", help="the file to write; - is standard output")
    parser.add_argument("--pid", metavar="N", help="capture what a running process sees instead of this one")
    parser.add_argument(
        "--blank-paths", action="store_true", help="blank the mounts in mountinfo that are neither cgroup's nor common"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there already")
    parser.add_argument("--quiet", action="store_true", help="say nothing when all is well")


def run(arguments: Arguments) -> int:
    """Write the capture; return the exit code."""
    path = arguments.file
    pid = pid_of(arguments.pid)
    _check(path, arguments.force)
    foreign = outside(pid)
    inside = _as_it_reads_them(pid) if foreign else None
    capture = take(pid, inside, blank=arguments.blank_paths)
    if foreign and inside is None:
        capture.meta.view = OUTSIDE
    data = pack(capture)
    if path == "-":
        sys.stdout.write("")  # of a closed one this fails with words for people, the buffer's write does not
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        wholefile.replace(path, data, 0o644)
    if not arguments.quiet:
        _tell(capture, path, len(data))
    return 0


def _check(path: str, force: bool) -> None:
    if not path:
        raise UsageError("FILE.tar.gz is empty", "name the file to write, or - for standard output")
    if path == "-":
        if os.isatty(1):
            raise UsageError("standard output is a terminal", "send it to a file: cgagent capture - > FILE.tar.gz")
        return
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory", "name a file in it")
    if os.path.lexists(path) and not force:
        raise CgagentError(f"{path} is there already", "name another file, or replace it with --force")


def _tell(capture: Capture, path: str, size: int) -> None:
    meta = capture.meta
    where = "standard output" if path == "-" else path
    count = len(capture.files)
    say("capture", f"{where}: {count} files of process {meta.pid}, {-(-size // 1024)} KiB")
    if meta.view == OUTSIDE:
        text = "its cgroup namespace can't be entered: cgroup paths are as seen from here, not as it reads them itself"
        say("capture", text)
    if meta.missing:
        names = ", ".join(sorted(meta.missing)[:3])
        more = f" and {len(meta.missing) - 3} more" if len(meta.missing) > 3 else ""
        say("capture", f"could not be read, and noted so: {names}{more}")


def _as_it_reads_them(pid: str) -> tuple[str, str] | None:
    """The process's cgroup and mountinfo as it reads them itself, by a child in its cgroup namespace; None: refused.

    In both files paths are relative to the reader's namespace: a container that is Docker's `/` reads as
    `/docker/ID` from outside, and what a program makes of that is something else.
    """
    try:
        from cgagent.launch.syscalls import CLONE_NEWCGROUP, setns
    except ImportError:
        return None  # a Python without ctypes
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            setns(os.open(f"/proc/{pid}/ns/cgroup", os.O_RDONLY), CLONE_NEWCGROUP)
            with open(writer, "wb") as pipe:
                for name in ("cgroup", "mountinfo"):
                    with open(f"/proc/{pid}/{name}", "rb") as file:
                        pipe.write(file.read(MOUNTINFO_LIMIT) + b"\0")
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as pipe:
        texts = pipe.read().decode("utf-8", "surrogateescape").split("\0")
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass  # who started us has SIGCHLD ignored: the kernel has reaped it
    return (texts[0], texts[1]) if len(texts) == 3 else None
