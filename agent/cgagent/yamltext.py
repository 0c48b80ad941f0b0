"""YAML, written and read: the one home of PyYAML, imported when it is needed.

What is read is a stranger's text. It is taken apart event by event and nothing is constructed from it: scalars stay
the text that they are (what `no` or `0777` means is for whoever knows the key), aliases and tags are refused, and
size and depth are bounded.
"""

from __future__ import annotations

from cgagent.errors import EXIT_CONFIG, CgagentError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SIZE_LIMIT = 64 << 10
_DEPTH_LIMIT = 10
_EMPTY = ("", "~", "null", "Null", "NULL")


class Node(Record):
    """A value and the line where it starts.

    Attributes:
        value: text, a list of nodes, or a dict of key -> node; None where nothing is given (`key:`, `~`, `null`).
        line: counted from 1; of a mapping's entry its key's line.
    """

    __slots__ = ("line", "value")

    def __init__(self, value: str | list[Node] | dict[str, Node] | None, line: int) -> None:
        self.value = value
        self.line = line


def dump(value: object) -> str:
    """`value` (dicts, lists, strings, numbers, None) as a YAML document; keys keep their order."""
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    return text


def load(text: str, file: str) -> Node:
    """The one document in `text`; an empty one has the value None. `file` is named in errors, with the line.

    Raises:
        CgagentError: it is no YAML, or has a duplicate key, an alias, a tag, more than one document, or is too
            large or too deep. The exit code is that of a bad configuration.
    """
    if len(text) > SIZE_LIMIT:
        raise _error(file, 0, f"more than {SIZE_LIMIT} bytes")
    import yaml

    try:
        events = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        root = _Builder(file, events).document()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise _error(file, line, error.problem or "not YAML") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise _error(file, 0, str(error).partition("\n")[0]) from None
    return root


def events(text: str) -> Iterator[Any]:
    """PyYAML's events of `text`, for those who edit it in place; by libyaml where PyYAML has it.

    Raises:
        CgagentError: it is no YAML; the message names the line.
    """
    import yaml

    try:
        yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise CgagentError(f"{line}{error.problem or 'not YAML'}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise CgagentError(str(error).partition("\n")[0]) from None


def _error(file: str, line: int, problem: str) -> CgagentError:
    where = f"{file}:{line}" if line else file
    return CgagentError(f"{where}: {problem}", exit_code=EXIT_CONFIG)


class _Builder:
    """Nodes from PyYAML's events, which say start and end of everything and never recurse."""

    def __init__(self, file: str, events: Iterator[object]) -> None:
        self._file = file
        self._events = events
        self._line = 1

    def document(self) -> Node:
        root: Node | None = None
        kind, _ = self._next()
        while kind != "StreamEndEvent":
            if kind == "DocumentStartEvent":
                if root is not None:
                    raise _error(self._file, self._line, "a second document: one is read")
                root = self._node(*self._next(), depth=0)
            kind, _ = self._next()
        return root or Node(None, 1)

    def _next(self) -> tuple[str, object]:
        event: Any = next(self._events)
        self._line = event.start_mark.line + 1
        return type(event).__name__, event

    def _node(self, kind: str, event: object, depth: int) -> Node:
        line = self._line
        if kind == "AliasEvent":
            raise _error(self._file, line, "aliases (*name) are not read: write the value out")
        if getattr(event, "tag", None) not in (None, "!"):
            raise _error(self._file, line, "tags (!name) are not read")
        if depth > _DEPTH_LIMIT:
            raise _error(self._file, line, f"nested more than {_DEPTH_LIMIT} deep")
        if kind == "MappingStartEvent":
            return Node(self._mapping(depth), line)
        if kind == "SequenceStartEvent":
            return Node(self._sequence(depth), line)
        text: str = getattr(event, "value", "")
        return Node(None if getattr(event, "style", None) is None and text in _EMPTY else text, line)

    def _mapping(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while (step := self._next())[0] != "MappingEndEvent":
            key = self._node(*step, depth=depth + 1)
            if not isinstance(key.value, str):
                raise _error(self._file, key.line, "a key has to be a plain word")
            if key.value in entries:
                raise _error(
                    self._file, key.line, f"{key.value} is given twice, first in line {entries[key.value].line}"
                )
            value = self._node(*self._next(), depth=depth + 1)
            entries[key.value] = Node(value.value, key.line)
        return entries

    def _sequence(self, depth: int) -> list[Node]:
        items = []
        while (step := self._next())[0] != "SequenceEndEvent":
            items.append(self._node(*step, depth=depth + 1))
        return items
