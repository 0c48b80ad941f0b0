"""`cgagent config`: check a config file of `watch`, or print an example of one."""

from __future__ import annotations

import sys

from cgagent.commands.options import say
from cgagent.errors import UsageError
from cgagent.parser import Arguments, meant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Parser

ACTIONS = ("check", "example")

DESCRIPTION = "Check a config file of cgagent watch, or print an example with every key."
EPILOG = """\
examples:
  cgagent config check /etc/cgagent/watch.yaml
  cgagent config example > watch.yaml

exit codes: 0 the file can be used; 2 wrong usage; 78 it can't: the message names file, line and key.
"""


def configure(parser: Parser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("action", metavar="|".join(ACTIONS), help="check FILE, or print an example")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the file to check")


def run(arguments: Arguments) -> int:
    """Check or print; return the exit code."""
    action, path = arguments.action, arguments.file
    if action not in ACTIONS:
        raise UsageError(f"'{action}' is not an action", meant(action, ACTIONS) or f"give {' or '.join(ACTIONS)}")
    if action == "example":
        if path is not None:
            raise UsageError(f"'{path}' is one word too many", "cgagent config example prints to standard output")
        from cgagent.watch.example import EXAMPLE

        sys.stdout.write(EXAMPLE)
        return 0
    if path is None:
        raise UsageError("FILE is missing", "write cgagent config check FILE")
    _check(path)
    print(f"{path}: ok")
    return 0


def _check(path: str) -> None:
    from cgagent.texts import Texts
    from cgagent.watch.config import parse, read_text
    from cgagent.watch.settings import Settings

    content = parse(read_text(path), path)
    try:
        Settings(Texts(Arguments(), {}, content.texts), content.hooks).check_together()
    except UsageError as error:
        # An option or the environment may add what is missing here.
        say("config", f"{path} can't be used by itself: {error.line()}")
