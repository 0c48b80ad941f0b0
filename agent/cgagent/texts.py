"""The text of each setting, from wherever it is given: its option, its environment twin, a config file."""

from __future__ import annotations

from cgagent.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from cgagent.parser import Arguments

    T = TypeVar("T")

# Sections of settings whose options are written as exporters write theirs: --web.listen-address.
DOTTED = ("web", "log", "path")


def option_of(name: str) -> str:
    """The option of the setting `name`, as a person writes it."""
    section, _, key = name.partition("_")
    if section in DOTTED:
        # exporters call this one so: --web.config.file
        return f"--{section}.{'config.file' if key == 'config_file' else key.replace('_', '-')}"
    return "--" + name.replace("_", "-")


class Texts:
    """The text of each setting, and what to call its place in errors: option, else environment, else config file."""

    def __init__(
        self, arguments: Arguments, environ: Mapping[str, str], file: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        self.arguments = arguments
        self.environ = environ
        self._file = file or {}

    def __call__(self, name: str) -> tuple[str, str] | None:
        """The text of the setting `name` and its place; None: not given."""
        given = getattr(self.arguments, name, None)
        if given is not None:
            return (",".join(given) if isinstance(given, list) else given), option_of(name)
        variable = f"CGAGENT_{name.upper()}"
        if self.environ.get(variable):
            return self.environ[variable], variable
        return self.in_file(name)

    def in_file(self, name: str) -> tuple[str, str] | None:
        """The same of the config file alone."""
        return self._file.get(name)

    def text(self, name: str) -> str | None:
        """The bare text."""
        found = self(name)
        return found[0] if found else None

    def parsed(self, name: str, parse: Callable[[str, str], T], default: T) -> T:
        """The setting as `parse` understands its text and place."""
        found = self(name)
        return parse(*found) if found else default

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of `choices`, the first by default."""
        return self.parsed(name, lambda text, what: parse_choice(text, what, choices), choices[0])


def parse_choice(text: str, what: str, choices: Sequence[str]) -> str:
    """`text` if it is one of `choices`.

    Raises:
        UsageError: it is not.
    """
    if text not in choices:
        raise UsageError(f"{what}: '{text}' is not known", f"choose one of {', '.join(choices)}")
    return text
