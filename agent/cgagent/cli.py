"""The command line: finds the command, parses its words, runs it, prints what failed.

Start-up is a budget (design section 8): a command's modules are imported when it runs, argparse for `--help`
alone. Every failure that a person can act on is a `CgagentError` and becomes one line on stderr.
"""

from __future__ import annotations

import os
import sys

from cgagent import __version__
from cgagent.errors import EXIT_FAILURE, EXIT_USAGE, CgagentError, UsageError, printable
from cgagent.parser import HELP, Parser, meant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cgagent.parser import Command


# name -> (module below cgagent.commands, one line of help)
COMMANDS = {
    "explain": ("explain", "what was seen, what was decided, why, and what is wrong"),
    "write": ("write", "detect, decide, and write the env file"),
    "exec": ("exec_", "set the variables, then become a command"),
    "watch": ("watch", "the sidecar: keep the env file current, run hooks, serve metrics"),
    "config": ("config", "check a config file of watch, or print an example"),
    "run": ("run", "run a command in new namespaces under a container's limits"),
    "capture": ("capture", "take a container's layout along, for explain --root and run --replay"),
    "tune": ("tune", "bring a new memory limit to a running Go program, without a restart"),
    "top": ("top", "what every Go process here really runs with, live"),
    "wait": ("wait", "wait until an env file is there"),
    "inject": ("inject", "add cgagent to Kubernetes manifests"),
    "uninject": ("uninject", "take it out again, to the byte"),
    "webhook": ("webhook", "inject at admission"),
    "completion": ("completion", "print the completion script of a shell"),
}

_DESCRIPTION = "Makes Go services aware of the resources their container really has."
_EPILOG = """\
examples:
  cgagent explain                                   why is this container throttled or OOM-killed?
  cgagent write --env-file /run/cgagent/go.env      for the launcher of a Go service
  cgagent exec -- ./orders --port 8080              start a Go service with the right values
  cgagent help write                                every option of a command

exit codes: 0 done; 1 failed; 2 wrong usage; 3 no limits found (--require-limits);
78 bad configuration file; exec and run end as the command ended.
"""
_INTERRUPTED = 128 + 2  # as a shell reports SIGINT
# A word of 100,000 letters is told by its two ends.
_HEAD, _TAIL = 700, 300


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name); return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = f"cgagent {words[0]}" if words and words[0] in COMMANDS else "cgagent"
    return guarded(name, lambda: _dispatch(words))


def guarded(name: str, act: Callable[[], int]) -> int:
    """The exit code of `act`, or of what it failed by, which is told in one line after `name`."""
    _prepare_streams()
    try:
        code = act()
        sys.stdout.flush()
        return code
    except CgagentError as error:
        _complain(f"{name}: {error.line()}")
        return error.exit_code
    except KeyboardInterrupt:
        _forget_stdout()
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`cgagent explain | head -1`): nothing is wrong with us.
        _forget_stdout()
        return EXIT_FAILURE
    except OSError as error:
        # What has no name is what we print to: a file of a person's choice fails with a CgagentError.
        where, hint = error.filename, ""
        if where is None:
            where, hint = "cannot write to standard output", ": send it to where it can be written"
        _complain(printable(f"{name}: {where}: {(error.strerror or str(error)).lower()}{hint}"))
        _forget_stdout()
        return EXIT_FAILURE


def parser_of(name: str) -> Parser:
    """The parser of the command `name`, a key of COMMANDS."""
    command = _module(name)
    parser = Parser(f"cgagent {name}", command.DESCRIPTION, command.EPILOG)
    command.configure(parser)
    return parser


def _module(name: str) -> Command:
    # Not importlib's import_module: loading that package takes 0.3 ms.
    path = f"cgagent.commands.{COMMANDS[name][0]}"
    __import__(path)
    module: Command = sys.modules[path]
    return module


def _dispatch(words: list[str]) -> int:
    if not words:
        sys.stderr.write(_overview())
        return EXIT_USAGE
    name, *rest = words
    if name == "help":
        # `cgagent help write` is `cgagent write --help`.
        return _dispatch([*rest[:1], "--help"])
    if name in HELP:
        sys.stdout.write(_overview())
        return 0
    if name == "--version":
        print(f"cgagent {__version__}")
        return 0
    if name not in COMMANDS:
        known = (*COMMANDS, "help", *HELP, "--version")
        kind = "an option" if name.startswith("-") else "a command"
        raise UsageError(f"'{name}' is not {kind}", meant(name, known) or f"the commands are {', '.join(COMMANDS)}")
    parser = parser_of(name)
    arguments = parser.parse(rest)
    if arguments is None:
        from cgagent.helptext import help_text

        sys.stdout.write(help_text(parser))
        return 0
    return _module(name).run(arguments)


def _overview() -> str:
    listing = "\n".join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items())
    usage = "usage: cgagent COMMAND [options]\n       cgagent help COMMAND | --version"
    return f"{usage}\n\n{_DESCRIPTION}\n\ncommands:\n{listing}\n\n{_EPILOG}"


def _prepare_streams() -> None:
    """Make stdout and stderr fit to print on, whatever text and whoever closed them."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull)  # noqa: SIM115 writing to it fails, and that is told
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 or print() would take stdout instead
    # File names and cgroup paths may hold bytes that are no UTF-8; printing them must not fail.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _complain(text: str) -> None:
    """Print for a person; a stderr that is full or gone is no reason to fail in another way."""
    if len(text) > 2 * (_HEAD + _TAIL):
        text = f"{text[:_HEAD]} ... {text[-_TAIL:]}"
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def _forget_stdout() -> None:
    """Point stdout at /dev/null, or the interpreter complains, or waits, for its buffer on the way out."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
