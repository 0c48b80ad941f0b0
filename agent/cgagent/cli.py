"""The command line: finds the command, builds that command's parser alone, runs it, prints what failed.

Start-up is a budget (design section 8): a command's modules are imported when it runs, and only its own
parser is built. Every failure that a person can act on is a `CgagentError` and becomes one line on stderr.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from importlib import import_module

from cgagent import __version__
from cgagent.errors import EXIT_FAILURE, EXIT_USAGE, CgagentError, UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, Protocol

    class Command(Protocol):
        """What a module in `cgagent.commands` offers."""

        DESCRIPTION: str
        EPILOG: str

        def configure(self, parser: ArgumentParser) -> None: ...

        def run(self, arguments: object) -> int: ...


# name -> (module below cgagent.commands, one line of help)
COMMANDS = {
    "explain": ("explain", "what was seen, what was decided, why, and what is wrong"),
    "write": ("write", "detect, decide, and write the env file"),
    "exec": ("exec_", "set the variables, then become a command"),
}

_EPILOG = """\
examples:
  cgagent explain                                   why is this container throttled or OOM-killed?
  cgagent write --env-file /run/cgagent/go.env      for the launcher of a Go service
  cgagent exec -- ./orders --port 8080              start a Go service with the right values

exit codes: 0 done; 1 failed; 2 wrong usage; 3 no limits found (--require-limits);
78 bad configuration file; exec and run end as the command ended.
"""


class Parser(ArgumentParser):
    """An ArgumentParser whose errors are the project's own, and one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "), f"see '{self.prog} --help'")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name); return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # File names and cgroup paths may hold bytes that are no UTF-8; printing them must not fail.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    name = f"cgagent {words[0]}" if words and words[0] in COMMANDS else "cgagent"
    try:
        code = _dispatch(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except CgagentError as error:
        print(f"{name}: {error.line()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`cgagent explain | head -1`): nothing is wrong with us.
        _forget_stdout()
        return EXIT_FAILURE
    except OSError as error:
        print(f"{name}: {printable(str(error))}", file=sys.stderr)
        _forget_stdout()
        return EXIT_FAILURE


def _dispatch(words: list[str]) -> int:
    if not words:
        _top_parser().print_help(sys.stderr)
        return EXIT_USAGE
    if words[0] not in COMMANDS:
        return _without_command(words)
    module_name, _ = COMMANDS[words[0]]
    command: Command = import_module(f"cgagent.commands.{module_name}")
    parser = Parser(
        prog=f"cgagent {words[0]}",
        description=command.DESCRIPTION,
        epilog=command.EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.configure(parser)
    return command.run(parser.parse_args(words[1:]))


def _without_command(words: list[str]) -> int:
    if words[0] == "help":
        # `cgagent help write` is `cgagent write --help`.
        return _dispatch([*words[1:2], "--help"])
    if not words[0].startswith("-"):
        raise UsageError(f"'{words[0]}' is not a command", f"the commands are {', '.join(COMMANDS)}")
    _top_parser().parse_args(words)
    return EXIT_USAGE


def _top_parser() -> Parser:
    listing = "\n".join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items())
    parser = Parser(
        prog="cgagent",
        usage="cgagent [--version] COMMAND [options]",
        description=f"Makes Go services aware of the resources their container really has.\n\n{listing}",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cgagent {__version__}")
    return parser


def _forget_stdout() -> None:
    """Point stdout at /dev/null, or the interpreter complains about its buffer on the way out."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
