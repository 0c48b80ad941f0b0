"""`cgagent completion`: print the script that completes cgagent's words in a shell."""

from __future__ import annotations

import os
import sys

from cgagent import completion
from cgagent.errors import UsageError
from cgagent.parser import meant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments, Parser

DESCRIPTION = "Print the completion script of a shell: commands, options and their choices, file names."
EPILOG = """\
examples:
  source <(cgagent completion bash)                                         in ~/.bashrc
  cgagent completion zsh > "${fpath[1]}/_cgagent"                           then start a new shell
  cgagent completion fish > ~/.config/fish/completions/cgagent.fish
"""


def configure(parser: Parser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("shell", metavar="|".join(completion.SHELLS), help="the shell")


def run(arguments: Arguments) -> int:
    """Print the script; return the exit code."""
    shell: str = arguments.shell
    if shell not in completion.SHELLS:
        hint = meant(shell, completion.SHELLS) or f"choose one of {', '.join(completion.SHELLS)}"
        raise UsageError(f"there is no completion for '{shell}'", hint)
    with open(os.path.join(os.path.dirname(completion.__file__), f"cgagent.{shell}"), encoding="utf-8") as file:
        sys.stdout.write(file.read())
    return 0
