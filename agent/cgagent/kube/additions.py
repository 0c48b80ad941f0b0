"""Additions to an object, in the words of JSON Patch (RFC 6902): all that an injection does."""

from __future__ import annotations

from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    Path = tuple[str | int, ...]


class Addition(Record):
    """One `add`: a new entry of a mapping (or one in the place of null), or an item put into a list.

    Attributes:
        path: keys and indices; the last one is the new key, or the index that the item gets.
        value: plain values.
    """

    __slots__ = ("path", "value")

    def __init__(self, path: Path, value: object) -> None:
        self.path = path
        self.value = value


def applied(document: object, additions: list[Addition]) -> object:
    """`document` with `additions` one after the other; the original is left as it is."""
    for addition in additions:
        document = _added(document, addition.path, addition.value)
    return document


def _added(at: object, path: Path, value: object) -> object:
    step, rest = path[0], path[1:]
    if isinstance(at, list):
        index = int(step)
        return (
            [*at[:index], value, *at[index:]]
            if not rest
            else [_added(one, rest, value) if position == index else one for position, one in enumerate(at)]
        )
    if not isinstance(at, dict):
        raise TypeError(f"nothing can be added below {at!r}")
    return {**at, step: _added(at[step], rest, value) if rest else value}


def json_patch(additions: list[Addition], prefix: Path = ()) -> list[dict[str, object]]:
    """The same as the operations of a JSON Patch."""
    return [{"op": "add", "path": pointer((*prefix, *one.path)), "value": one.value} for one in additions]


def pointer(path: Path) -> str:
    """`path` as a JSON Pointer (RFC 6901)."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
