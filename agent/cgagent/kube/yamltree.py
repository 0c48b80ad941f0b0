"""YAML as a tree whose nodes know where they stand in the text.

A manifest is edited by putting text in at a node and nowhere else, so comments, order and style of all that is not
touched stay as they are. The nodes are made from PyYAML's events, which know nothing of tags' meaning and run
nothing; aliases stay aliases.
"""

from __future__ import annotations

import math

from cgagent.errors import CgagentError
from cgagent.record import Record
from cgagent.yamltext import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAP, SEQ, SCALAR, ALIAS = "map", "seq", "scalar", "alias"
_DEPTH_LIMIT = 60
_NULLS = ("", "~", "null", "Null", "NULL")
_TRUE = ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
# What a document may grow to where its aliases are written out.
_WEIGHT_LIMIT = 1_000_000


class TreeError(CgagentError):
    """Text that is no YAML, or YAML that is not taken."""


class Node(Record):
    """A value in the text.

    Attributes:
        kind: MAP, SEQ, SCALAR or ALIAS.
        flow: whether a collection is written in brackets.
        start, end: offsets of its first character, and behind the last one of its content.
        column, line: of its start, counted from 0.
        text: of a scalar its value, of an alias its anchor's name.
        plain: whether a scalar has no quotes.
        keys, items: of a mapping its keys and values, of a sequence its items.
        marked: whether it has an anchor or a tag.
    """

    __slots__ = ("column", "end", "flow", "items", "keys", "kind", "line", "marked", "plain", "start", "text")

    def __init__(self, kind: str, event: Any) -> None:
        start, end = event.start_mark, event.end_mark
        self.kind = kind
        self.start: int = start.index
        self.end: int = end.index
        self.column: int = start.column
        self.line: int = start.line
        self.flow = bool(getattr(event, "flow_style", False))
        self.text: str = (event.anchor if kind == ALIAS else getattr(event, "value", "")) or ""
        self.plain = kind == SCALAR and not event.style
        tag = getattr(event, "tag", None)
        self.marked = kind != ALIAS and (event.anchor is not None or tag not in (None, "!"))
        self.keys: list[Node] = []
        self.items: list[Node] = []

    @property
    def is_null(self) -> bool:
        """Whether nothing is given: `key:`, `~`, `null`."""
        return self.kind == SCALAR and self.plain and self.text in _NULLS

    def entry(self, key: str) -> int | None:
        """The index of the entry `key` of a mapping."""
        return next((at for at, one in enumerate(self.keys) if one.kind == SCALAR and one.text == key), None)

    def get(self, key: str) -> Node | None:
        """The value of the entry `key`; None where there is none, or this is no mapping."""
        at = self.entry(key)
        return None if at is None else self.items[at]


class Document:
    """One document: its root, and its anchored nodes by name."""

    def __init__(self, root: Node, anchors: dict[str, Node]) -> None:
        self.root = root
        self._anchors = anchors

    def value(self, node: Node) -> object:
        """`node` as plain values, as Kubernetes' tools read it (sigs.k8s.io/yaml).

        Raises:
            TreeError: it has merge keys, duplicate keys, keys that are no plain words, or grows too large.
        """
        return _Values(self._anchors).of(node)


def documents(text: str) -> list[Document]:
    """The documents in `text`, without those that are empty. Offsets count the characters of `text`.

    Raises:
        TreeError: it is no YAML.
    """
    try:
        return list(_Builder(events(_parseable(text))).documents())
    except TreeError:
        raise
    except CgagentError as error:
        hint = "a template has to be rendered first" if "{{" in text else ""
        raise TreeError(error.message, hint) from None


def _parseable(text: str) -> str:
    """`text` of the same length without what JSON has and YAML has not: tabs between words."""
    return text.replace("\t", " ") if text.lstrip()[:1] in ("{", "[") else text


class _Builder:
    def __init__(self, stream: Iterator[object]) -> None:
        self._events = stream
        self._anchors: dict[str, Node] = {}

    def documents(self) -> Iterator[Document]:
        for event in self._events:
            if type(event).__name__ == "DocumentStartEvent":
                self._anchors = {}
                root = self._node(next(self._events), 0)
                if not root.is_null:
                    yield Document(root, self._anchors)

    def _node(self, event: Any, depth: int) -> Node:
        name = type(event).__name__
        if depth > _DEPTH_LIMIT:
            raise TreeError(f"line {event.start_mark.line + 1}: nested more than {_DEPTH_LIMIT} deep")
        if name == "AliasEvent":
            return Node(ALIAS, event)
        kind = {"MappingStartEvent": MAP, "SequenceStartEvent": SEQ}.get(name, SCALAR)
        node = Node(kind, event)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if kind != SCALAR:
            self._fill(node, depth)
        return node

    def _fill(self, node: Node, depth: int) -> None:
        close = "MappingEndEvent" if node.kind == MAP else "SequenceEndEvent"
        while type(event := next(self._events)).__name__ != close:
            if node.kind == MAP:
                node.keys.append(self._node(event, depth + 1))
                event = next(self._events)
            node.items.append(self._node(event, depth + 1))
        if node.flow:
            node.end = event.end_mark.index  # type: ignore[attr-defined]
        elif node.items:
            # PyYAML ends a block where the next one starts, behind comments and empty lines.
            node.end = node.items[-1].end


class _Values:
    def __init__(self, anchors: dict[str, Node]) -> None:
        self._anchors = anchors
        self._weight = 0

    def of(self, node: Node) -> object:
        self._weight += 1
        if self._weight > _WEIGHT_LIMIT:
            raise TreeError("its aliases grow too large")
        if node.kind == ALIAS:
            return self._aliased(node)
        if node.kind == SCALAR:
            return resolve(node.text) if node.plain else node.text
        if node.kind == SEQ:
            return [self.of(one) for one in node.items]
        return self._mapping(node)

    def _aliased(self, node: Node) -> object:
        target = self._anchors.get(node.text)
        # A later anchor of the same name would be the wrong one.
        if target is None or target.start > node.start or target.end > node.start:
            raise TreeError(f"line {node.line + 1}: the alias *{node.text} does not refer to one anchor before it")
        return self.of(target)

    def _mapping(self, node: Node) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in zip(node.keys, node.items, strict=True):
            if key.kind != SCALAR or (key.plain and key.text == "<<"):
                what = "a merge key (<<)" if key.kind == SCALAR else "a key that is no plain word"
                raise TreeError(f"line {key.line + 1}: {what} is not read: write it out")
            if key.text in found:
                raise TreeError(f"line {key.line + 1}: {key.text} is given twice")
            found[key.text] = self.of(value)
        return found


def resolve(text: str) -> object:
    """What an unquoted scalar means to sigs.k8s.io/yaml: null, a truth value, a number, or else the text itself."""
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    start = text.lstrip("+-")[:1]
    return _number(text) if start.isdigit() or start == "." else text


def _number(text: str) -> object:
    plain = text.replace("_", "") if text[0] != "." else text
    digits = plain.lstrip("+-").lower()
    try:
        if digits.isascii() and digits.isdigit() and (digits[0] != "0" or not digits.strip("01234567")):
            return int(plain, 8) if len(digits) > 1 and digits[0] == "0" else int(plain)
        if digits[:2] in ("0x", "0o", "0b"):
            return int(plain, 0)
        if digits.isascii() and "_" not in digits and (number := float(plain)) not in (math.inf, -math.inf):
            return number
    except ValueError:
        pass
    return text
