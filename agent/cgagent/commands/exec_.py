"""`cgagent exec`: set the variables, then become the command: same PID, same file descriptors."""

from __future__ import annotations

import os
import signal
import sys

from cgagent import envfile
from cgagent.commands.options import TWINS_HELP, Settled, add_limits, add_policy, say
from cgagent.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, CgagentError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import NoReturn

DESCRIPTION = "Set GOMAXPROCS and GOMEMLIMIT for the limits that bind here, then become COMMAND (same PID)."
EPILOG = f"""\
{TWINS_HELP}

examples:
  cgagent exec -- ./orders --port 8080
  cgagent exec --memory-reserve 64Mi -- ./service-with-cgo
  cgagent exec --env-file /run/cgagent/go.env -- ./orders    take the values from a file that write or watch made

exit codes: those of COMMAND; 126 found but not executable; 127 not found; 1 a limit can't be known;
2 wrong usage; 3 no limit found and --require-limits given.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--env-file", metavar="PATH", help="take the values from this env file instead of deciding")
    add_policy(parser)
    add_limits(parser)
    parser.add_argument("command", nargs="...", metavar="-- COMMAND", help="what to become, with its arguments")


def run(arguments: Namespace) -> int:
    """Become the command; does not return but for errors."""
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        del command[0]
    if not command:
        raise UsageError("COMMAND is missing", "write it after --, as in: cgagent exec -- ./orders")
    if arguments.env_file is not None:
        env = _from_file(arguments)
    else:
        settled = Settled(arguments)
        code = settled.check("exec")
        if code:
            return code
        env = settled.decision.env()
    _become(command, {**os.environ, **env})


def _from_file(arguments: Namespace) -> dict[str, str]:
    path: str = arguments.env_file
    text = envfile.read(path)
    if text is None:
        if arguments.on_error == "ignore":
            say("exec", f"{path} is not there: nothing set")
            return {}
        raise CgagentError(f"cannot read {path}: no such file", "cgagent write makes it")
    env = envfile.parse(text, path)
    return env if arguments.override else {name: value for name, value in env.items() if not os.environ.get(name)}


def _become(command: list[str], environ: dict[str, str]) -> NoReturn:
    # Python ignores these two at start; the command must have them as every program expects.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606 no shell is the point
    except FileNotFoundError:
        raise CgagentError(f"{command[0]}: not found", "check the name and PATH", EXIT_NOT_FOUND) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CgagentError(f"{command[0]}: {reason}", "", EXIT_NOT_EXECUTABLE) from None
