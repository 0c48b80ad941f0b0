"""`cgagent wait`: end when the env file is there, for a postStart hook that holds back the containers behind it."""

from __future__ import annotations

import os
import stat
import time

from cgagent.errors import CgagentError, UsageError
from cgagent.units import parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments, Parser

DESCRIPTION = "Wait until the env file has been written."
EPILOG = """\
The file is written under another name and renamed: where it is, it is whole.

examples:
  cgagent wait --env-file /run/cgagent/go.env                    a sidecar's postStart hook
  cgagent wait --env-file /run/cgagent/go.env --timeout 10s && set -a && . /run/cgagent/go.env

exit codes: 0 it is there; 1 it is not in time; 2 wrong usage.
"""
_DEFAULT = "60s"
# The first look comes right after the sidecar's start, which takes a tenth of a second where it has a CPU.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--env-file", metavar="PATH", help="the file to wait for")
    parser.add_argument("--timeout", metavar="TIME", help=f"for so long, such as 500ms, 10s, 2m (default {_DEFAULT})")


def run(arguments: Arguments) -> int:
    """Wait; return the exit code."""
    path = arguments.env_file or os.environ.get("CGAGENT_ENV_FILE")
    if not path:
        raise UsageError("--env-file is missing", "name the file to wait for")
    if os.path.isdir(path):
        raise UsageError(f"--env-file: {path} is a directory", "name a file in it")
    timeout = arguments.timeout if arguments.timeout is not None else _DEFAULT
    deadline = time.monotonic() + parse_duration(timeout, "--timeout")
    pause = _FIRST_PAUSE
    while not _is_there(path):
        left = deadline - time.monotonic()
        if left <= 0:
            raise CgagentError(f"{path} is not there after {timeout}", "see the log of the container that writes it")
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)
    return 0


def _is_there(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
