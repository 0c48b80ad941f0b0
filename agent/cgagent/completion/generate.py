"""Make the completion scripts anew: `python -m cgagent.completion.generate`. Needs shtab, a development tool.

It walks COMMANDS, so a new command or option is completed once this has run; a test says when it has to.
"""

from __future__ import annotations

import os
from argparse import Action, ArgumentParser

from cgagent.cli import COMMANDS, parser_of
from cgagent.completion import SHELLS
from cgagent.helptext import repeat

# The version that made the scripts in the repository: another writes them a little differently.
SHTAB = "1.13.0"

# The words after `exec --`: names of programs, by each shell's own means.
_PREAMBLE = {"bash": '_cgagent_programs() { compgen -A command -- "$1"; }\n'}
_PROGRAMS = {"bash": "_cgagent_programs", "zsh": "_command_names -e", "fish": "(__fish_complete_command)"}


def scripts() -> dict[str, str]:
    """The script of each shell in SHELLS."""
    import shtab

    top = ArgumentParser(prog="cgagent", allow_abbrev=False)
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers()
    for name, (_, text) in COMMANDS.items():
        for action in repeat(parser_of(name), commands.add_parser(name, help=text)):
            _describe(action)
    helper = commands.add_parser("help", help="the options of a command")
    helper.add_argument("command", choices=list(COMMANDS))
    return {shell: shtab.complete(top, shell, preamble=_PREAMBLE.get(shell, "")) for shell in SHELLS}


def _describe(action: Action) -> None:
    """Tell shtab what the values of an argument are, which its metavar says: choices, a file, a directory."""
    import shtab

    metavar = str(action.metavar)
    known: dict[str, object] = {"PATH": shtab.FILE, "FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
    if "|" in metavar and metavar.replace("|", "").isalnum() and metavar.islower():
        action.choices = metavar.split("|")
    elif metavar in known:
        action.complete = known[metavar]  # type: ignore[attr-defined]  # shtab's own attribute
    elif action.nargs == "...":
        action.complete = _PROGRAMS  # type: ignore[attr-defined]


def main() -> None:
    """Write the scripts beside this module."""
    for shell, text in scripts().items():
        with open(os.path.join(os.path.dirname(__file__), f"cgagent.{shell}"), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
