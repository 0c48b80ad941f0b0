"""`cgagent exec`: set the variables, then become the command: same PID, same file descriptors."""

from __future__ import annotations

# What `signal` wraps in enums, whose making would take a fifth of the whole start.
import _signal  # type: ignore[import-not-found]
import os
import sys

from cgagent.commands.options import ON_ERROR, TWINS_HELP, Settled, add_limits, add_policy, say
from cgagent.errors import EXIT_NO_LIMITS, CgagentError, UsageError, not_started
from cgagent.host import Host, ReadError
from cgagent.policy import parse_yes
from cgagent.texts import Texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cgagent.parser import Arguments, Parser

# What PEP 538 makes of LC_CTYPE where the locale is C.
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
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


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--env-file", metavar="PATH", help="take the values from this env file instead of deciding")
    add_policy(parser)
    add_limits(parser)
    parser.add_argument("command", nargs="...", metavar="-- COMMAND", help="what to become, with its arguments")


def run(arguments: Arguments) -> int:
    """Become the command; return only to stop short of it, with the exit code."""
    command: list[str] = arguments.command
    if not command or not command[0]:
        raise UsageError("COMMAND is missing", "write it after --, as in: cgagent exec -- ./orders")
    if arguments.env_file is not None:
        env = _from_file(arguments.env_file, Texts(arguments, os.environ))
    else:
        settled = Settled(arguments, binary=_found(command[0]))
        code = settled.check("exec")
        env = None if code else settled.decision.env()
    return EXIT_NO_LIMITS if env is None else _become(command, {**_inherited(), **env})


def _from_file(path: str, texts: Texts) -> dict[str, str] | None:
    """The variables to set from the env file at `path`; None where it has none and limits are required."""
    from cgagent import envfile

    ignore = texts.choice("on_error", ON_ERROR) == "ignore"
    override, required = (texts.parsed(name, parse_yes, False) for name in ("override", "require_limits"))
    try:
        text = envfile.read(path)
        if text is None:
            raise CgagentError(f"cannot read {path}: no such file", "cgagent write makes it")
        env = envfile.parse(text, path)
    except CgagentError as error:
        if not ignore:
            raise
        say("exec", f"nothing set: {error.message}")
        env = {}
    if required and not env:
        say("exec", f"{path} sets no variable, and --require-limits asks for one")
        return None
    for name in [] if override else [name for name in env if os.environ.get(name)]:
        say("exec", f"{name} left alone: the environment has '{os.environ[name]}' (--override takes the file's)")
        del env[name]
    return env


def _inherited() -> dict[str, str]:
    """The environment as it was handed to us: Python adds LC_CTYPE where the locale is C (PEP 538)."""
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") in _COERCED:
        try:
            original = Host().read("/proc/self/environ")
        except ReadError:
            return environ
        if not f"\0{original}".count("\0LC_CTYPE="):
            del environ["LC_CTYPE"]
    return environ


def _become(command: list[str], environ: dict[str, str]) -> NoReturn:
    # Python ignores these two from its start; the command must have them as every program expects.
    before = {number: _signal.signal(number, _signal.SIG_DFL) for number in (_signal.SIGPIPE, _signal.SIGXFSZ)}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606 no shell is the point
    except OSError as error:
        for number, handler in before.items():
            _signal.signal(number, handler)
        from shutil import which

        raise not_started(command[0], error, found=which(command[0]) is not None) from None


def _found(name: str) -> str | None:
    """The file that `name` is found as, for a look at what built it; None where it is not found."""
    if "/" in name:
        return name
    paths = (os.path.join(directory, name) for directory in os.get_exec_path())
    return next((path for path in paths if os.access(path, os.X_OK)), None)
