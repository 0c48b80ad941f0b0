"""Manifests edited in place: text is put in, and taken out again, and not a byte of the rest is touched."""

from __future__ import annotations

from cgagent.kube import render
from cgagent.kube.yamltree import MAP, SEQ, Node, TreeError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgagent.kube.additions import Addition

    Piece = tuple[int, str]  # an offset, and what goes there


class Insertion(Record):
    """Text to be put in before the character at `offset`; of several there, that of the deepest parent goes first."""

    __slots__ = ("depth", "offset", "text")

    def __init__(self, offset: int, depth: int, text: str) -> None:
        self.offset = offset
        self.depth = depth
        self.text = text


def inserted(text: str, insertions: Sequence[Insertion]) -> str:
    """`text` with all of `insertions`."""
    pieces, done = [], 0
    for one in sorted(insertions, key=lambda one: (one.offset, -one.depth)):
        pieces += [text[done : one.offset], one.text]
        done = one.offset
    return "".join([*pieces, text[done:]])


def removed(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """`text` without `spans`."""
    pieces, done = [], 0
    for start, end in sorted(spans):
        pieces.append(text[done:start])
        done = max(done, end)
    left = "".join(pieces)
    if done == len(text) and spans and not text.endswith("\n"):
        # What did not end with a newline before lines were added does not now.
        left = left.removesuffix("\n").removesuffix("\r")
    return left + text[done:]


class Editor:
    """What has to be put into `text`, or taken out of it, for changes below `root`."""

    def __init__(self, text: str, root: Node, step: int) -> None:
        """`step`: how many columns lists stand in from their key in this document."""
        self._text = text
        self._root = root
        self._step = step
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._added: dict[int, int] = {}

    def insertions(self, additions: Sequence[Addition]) -> list[Insertion]:
        """The text that `additions` are; none of them goes into what another one has added.

        Raises:
            TreeError: a place for them can't be edited: it is an alias, has an anchor, or holds a written-out null.
        """
        self._added = {}
        return [self._insertion(one) for one in additions]

    def _insertion(self, addition: Addition) -> Insertion:
        *way, last = addition.path
        parent = self._root
        for step in way:
            # The addition was made from this tree: the way is there.
            parent = parent.items[step if isinstance(step, int) else parent.entry(step) or 0]
        if parent.kind not in (MAP, SEQ) or parent.marked:
            raise TreeError(f"line {parent.line + 1}: an alias, an anchor or a tag stands where cgagent has to add")
        before = self._added.get(parent.start, 0)
        self._added[parent.start] = before + 1
        offset, text = self._piece(parent, last, addition.value, before)
        return Insertion(offset, len(way), text)

    def _piece(self, parent: Node, last: str | int, value: object, before: int) -> Piece:
        """Where a new entry of `parent` goes, and its text; `before` were put in there already."""
        if isinstance(last, int):
            return self._item(parent, last - before, value, before)
        at = parent.entry(last)
        if at is not None:
            return self._instead_of_null(parent, at, value)
        if parent.flow:
            return self._flow_last(parent, f"{render.flow(last)}: {render.flow(value)}", before)
        return self._lines(parent.end, render.block({last: value}, parent.keys[0].column, self._step))

    def _item(self, parent: Node, at: int, value: object, before: int) -> Piece:
        """An item; `at` is where it goes among those that the text has."""
        if at < len(parent.items):
            return self._item_before(parent, parent.items[at], value)
        if parent.flow:
            return self._flow_last(parent, render.flow(value), before)
        return self._lines(parent.end, render.block([value], parent.column, self._step))

    def _item_before(self, parent: Node, item: Node, value: object) -> Piece:
        if parent.flow:
            return item.start, f"{render.flow(value)}, "
        start = self._text.rfind("\n", 0, item.start) + 1
        if self._text[start : item.start].strip() != "-":
            raise TreeError(f"line {item.line + 1}: its '-' stands on another line")
        lines = render.block([value], parent.column, self._step)
        return start, "".join(line + self._newline for line in lines)

    def _flow_last(self, parent: Node, text: str, before: int) -> Piece:
        """Behind the last entry, or right behind the opening bracket."""
        if parent.items:
            return parent.items[-1].end, f", {text}"
        return parent.start + 1, f", {text}" if before else text

    def _instead_of_null(self, parent: Node, at: int, value: object) -> Piece:
        """The value of a key that has none: `env:` and nothing behind it."""
        null, column = parent.items[at], parent.keys[at].column
        if parent.flow or null.text or null.marked or not isinstance(value, (dict, list)):
            raise TreeError(f"line {null.line + 1}: {parent.keys[at].text} is null: leave the key out")
        indent = column + (self._step if isinstance(value, list) else 2)
        return self._lines(null.end, render.block(value, indent, self._step))

    def _lines(self, end: int, lines: list[str]) -> Piece:
        """Whole lines behind the line in which content ends at `end`."""
        newline = self._newline
        if end and self._text[end - 1] == "\n":  # a block scalar, which ends behind its last line
            return end, "".join(line + newline for line in lines)
        stop = self._text.find("\n", end)
        if stop < 0:
            return len(self._text), "".join(newline + line for line in lines)
        return stop + 1, "".join(line + newline for line in lines)

    def removals(self, paths: Sequence[Sequence[str]], created: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
        """The spans of what stands at `paths`, and of the entries at `created` that hold nothing else.

        A step names an entry of a mapping, or in a list the item whose `name` it is; `:N` are the words in front of
        a command that start it by cgagent, N when they were put in. What is not there is passed over, and so is what
        somebody has put there instead since.
        """
        gone: dict[int, set[int]] = {}
        nodes: dict[int, Node] = {}

        def mark(parent: Node, places: set[int]) -> None:
            nodes[parent.start] = parent
            gone.setdefault(parent.start, set()).update(places)

        for path in paths:
            found = self._places(path)
            if found and not (path[-2:-1] == ["env"] and _is_set_otherwise(*found)):
                mark(*found)
        for path in sorted(created, key=len, reverse=True):
            found = self._places(path)
            if found is None:
                continue
            parent, places = found
            value = parent.items[min(places)]
            if value.items and gone.get(value.start, set()) == set(range(len(value.items))):
                del gone[value.start]
                mark(parent, places)
        return [span for start, places in gone.items() for span in self._spans(nodes[start], places)]

    def _places(self, path: Sequence[str]) -> tuple[Node, set[int]] | None:
        """The collection that the last step of `path` leads into, and the indices there."""
        parent = self._root
        for step in path[:-1]:
            at = _index(parent, step)
            if at is None:
                return None
            parent = parent.items[at]
        last = path[-1]
        if parent.kind == SEQ and last.startswith(":") and last[1:].isdigit():
            count = _words_of_ours(parent)
            return (parent, set(range(count))) if count else None
        at = _index(parent, last)
        return None if at is None else (parent, {at})

    def _spans(self, parent: Node, places: set[int]) -> list[tuple[int, int]]:
        starts = [one.start for one in (parent.keys if parent.kind == MAP else parent.items)]
        if parent.flow:
            return [self._flow_span(parent, starts, at, places) for at in sorted(places)]
        return [self._block_span(parent, starts, at) for at in sorted(places)]

    def _flow_span(self, parent: Node, starts: list[int], at: int, places: set[int]) -> tuple[int, int]:
        """One entry with the comma that came with it: the one before it, or at the front the one behind it."""
        leading = places.issuperset(range(at))
        if leading and at + 1 < len(starts) and not places.issuperset(range(len(starts))):
            return starts[at], starts[at + 1]
        return (parent.items[at - 1].end if at else parent.start + 1), parent.items[at].end

    def _block_span(self, parent: Node, starts: list[int], at: int) -> tuple[int, int]:
        """The lines of one entry; where it shares its first line with a dash, only up to the next entry."""
        text, end = self._text, parent.items[at].end
        start = text.rfind("\n", 0, starts[at]) + 1
        margin = text[start : starts[at]].strip()
        if margin and parent.kind == MAP and at + 1 < len(starts):
            return starts[at], starts[at + 1]
        if not (end and text[end - 1] == "\n"):
            stop = text.find("\n", end)
            end = stop + 1 if stop >= 0 else len(text)
        return start, end


def _index(parent: Node, step: str) -> int | None:
    if parent.kind == MAP:
        return parent.entry(step)
    if parent.kind != SEQ:
        return None
    return next((at for at, item in enumerate(parent.items) if _name(item) == step), None)


def _words_of_ours(command: Node) -> int:
    """How many words before the application's own start cgagent: `/run/cgagent/cgagent exec ... --`."""
    words = [one.text for one in command.items]
    return words.index("--") + 1 if words[:1] and words[0].endswith("/cgagent") and "--" in words else 0


def _is_set_otherwise(env: Node, places: set[int]) -> bool:
    """Whether a variable is not taken from an env file any more: somebody has given it a value of their own."""
    (at,) = places
    source = env.items[at].get("valueFrom")
    return source is None or source.get("fileKeyRef") is None


def _name(item: Node) -> str | None:
    name = item.get("name") if item.kind == MAP else None
    return None if name is None else name.text
