"""The words of a command line: options declared once, parsed by one loop.

argparse and what it imports (re, enum, gettext, shutil, locale) cost as much time as the bare interpreter, so
`write` and `exec` do not load it. `add_argument` takes the part of argparse's keywords that the commands use;
`cgagent.helptext` repeats the declarations to a real ArgumentParser for `--help` and for shell completion.
"""

from __future__ import annotations

from cgagent.errors import UsageError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Protocol

    class Command(Protocol):
        """What a module in `cgagent.commands` offers."""

        DESCRIPTION: str
        EPILOG: str

        def configure(self, parser: Parser) -> None: ...

        def run(self, arguments: Arguments) -> int: ...


HELP = ("-h", "--help")
REST = "..."  # argparse.REMAINDER: the words from this argument on, whatever they look like


class Argument(Record):
    """One option or positional argument, declared as for argparse.

    Attributes:
        names: `("-o", "--output")`; of a positional argument its one name.
        dest: the attribute that it fills.
        metavar: what its value is called in messages; of `a|b` the choices.
        action: `store`, `store_const`, `store_true` or `append`.
        nargs: of a positional argument None (one word), `?`, `*`, `+` or REST.
        keywords: all of them, as argparse takes them.
    """

    __slots__ = ("action", "const", "default", "dest", "keywords", "metavar", "names", "nargs")

    def __init__(self, names: tuple[str, ...], keywords: dict[str, Any]) -> None:
        long = next((name for name in names if name.startswith("--")), names[0])
        self.names = names
        self.dest: str = keywords.get("dest") or long.lstrip("-").replace("-", "_")
        self.action: str = keywords.get("action", "store")
        self.metavar: str = keywords.get("metavar") or self.dest.upper()
        self.nargs: str | None = keywords.get("nargs")
        self.const: object = keywords.get("const", True)
        self.default: object = keywords.get("default", False if self.action == "store_true" else None)
        self.keywords = keywords

    @property
    def takes_value(self) -> bool:
        """Whether a word belongs to the option."""
        return self.action in ("store", "append")


class Arguments:
    """What the command line says: an attribute for each argument that was declared."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Group:
    """Arguments that `--help` shows under one title."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.arguments: list[Argument] = []

    def add_argument(self, *names: str, **keywords: Any) -> None:
        """Declare an argument, in the words of `argparse.ArgumentParser.add_argument`."""
        self.arguments.append(Argument(names, keywords))


class Parser(Group):
    """The arguments of one command."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__("")
        self.prog = prog
        self.description = description
        self.epilog = epilog
        self.groups: list[Group] = [self]

    def add_argument_group(self, title: str) -> Group:
        """A group whose arguments `--help` shows under `title`."""
        self.groups.append(Group(title))
        return self.groups[-1]

    def parse(self, words: Sequence[str]) -> Arguments | None:
        """The arguments in `words`; None where they ask for help.

        Raises:
            UsageError: an option is not known, lacks its value or takes none, or words are missing or too many.
        """
        declared = list(self)
        options = {name: one for one in declared for name in one.names if name.startswith("-")}
        positional = [one for one in declared if not one.names[0].startswith("-")]
        arguments = Arguments()
        for one in declared:
            setattr(arguments, one.dest, one.default)
        loose: list[str] = []
        queue = list(reversed(words))
        while queue:
            word = queue.pop()
            if word == "--" or (not _is_option(word) and positional and positional[0].nargs == REST):
                loose += [*([] if word == "--" else [word]), *reversed(queue)]
                break
            if not _is_option(word):
                loose.append(word)
            elif word in HELP:
                return None
            else:
                self._option(word, queue, options, arguments)
        self._positional(loose, positional, arguments)
        return arguments

    def _option(self, word: str, queue: list[str], options: dict[str, Argument], arguments: Arguments) -> None:
        """Take one option, with its value from the same word or from the next one in `queue`."""
        if word.startswith("--"):
            name, sign, value = word.partition("=")
        else:
            name, sign, value = word[:2], word[2:3], word[2:].removeprefix("=")
        argument = options.get(name)
        if argument is None:
            raise UsageError(f"{name} is not an option", meant(name, (*options, *HELP)) or self._see_help())
        if not argument.takes_value:
            setattr(arguments, argument.dest, argument.const)
            if sign and word.startswith("--"):
                raise UsageError(f"{name} takes no value", f"write {name} alone")
            if sign:
                queue.append(f"-{word[2:]}")  # -it is -i -t
            return
        if not sign:
            if not queue or (_is_option(queue[-1]) and not queue[-1][1:2].isdigit()):
                raise UsageError(f"{name}: its value is missing", f"write {name} {argument.metavar}")
            value = queue.pop()
        if argument.action == "append":
            setattr(arguments, argument.dest, [*(getattr(arguments, argument.dest) or []), value])
        else:
            setattr(arguments, argument.dest, value)

    def _positional(self, loose: list[str], positional: list[Argument], arguments: Arguments) -> None:
        """Hand the words that belong to no option to the positional arguments, in their order."""
        for argument in positional:
            if argument.nargs in (REST, "*", "+"):
                setattr(arguments, argument.dest, list(loose))
                if not loose and argument.nargs == "+":
                    raise UsageError(f"{argument.metavar} is missing", self._see_help())
                loose = []
            elif loose:
                setattr(arguments, argument.dest, loose.pop(0))
            elif argument.nargs != "?":
                raise UsageError(f"{argument.metavar} is missing", self._see_help())
        if loose:
            raise UsageError(f"'{loose[0]}' is one word too many", self._see_help())

    def _see_help(self) -> str:
        return f"see '{self.prog} --help'"

    def __iter__(self) -> Iterator[Argument]:
        """Every argument of every group."""
        return (argument for group in self.groups for argument in group.arguments)


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-")


def meant(word: str, known: Sequence[str]) -> str:
    """A hint at the one of `known` that `word` is probably a slip of; empty if none is near."""
    from difflib import get_close_matches  # loaded for a mistake only

    close = get_close_matches(word, known, 1)
    return f"did you mean {close[0]}?" if close else ""
