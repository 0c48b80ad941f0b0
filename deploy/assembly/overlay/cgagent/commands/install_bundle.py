"""`cgagent install-bundle`: copy this program into a directory that another container starts it from."""

from __future__ import annotations

import os
import sys

from cgagent.commands.options import say
from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments, Parser

DESCRIPTION = "Copy this program, which needs no libc, shell or Python, into DIR, where another container starts it."
EPILOG = """\
The copy is written beside its name and renamed: a container that starts meanwhile finds the old one or the new one.

examples:
  cgagent install-bundle /cgagent      in an init container; the application's command is then
                                       /cgagent/cgagent exec -- the original command

exit codes: 0 copied; 1 it can't be; 2 wrong usage.
"""
_CHUNK = 1 << 20


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--quiet", action="store_true", help="say nothing when all is well")
    parser.add_argument("directory", metavar="DIR", help="an existing directory, such as a volume")


def run(arguments: Arguments) -> int:
    """Copy; return the exit code."""
    path = os.path.join(arguments.directory, "cgagent")
    temporary = f"{path}.{os.getpid()}"
    try:
        size = _copy(sys.executable, temporary)
        os.rename(temporary, path)
    except OSError as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        reason = (error.strerror or str(error)).lower()
        raise CgagentError(f"cannot write {path}: {reason}", "name a directory that this user may write to") from None
    if not arguments.quiet:
        say("install-bundle", f"{path}: {size} bytes")
    return 0


def _copy(source: str, target: str) -> int:
    """Copy a program; return its size in bytes."""
    done = 0
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    try:
        # Whatever the umask: another user is to start it.
        os.fchmod(writing, 0o755)
        while data := os.read(reading, _CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(writing, view) :]
            done += len(data)
    finally:
        os.close(reading)
        os.close(writing)
    return done
