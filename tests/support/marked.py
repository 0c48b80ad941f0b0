"""The parts of README.md that a command writes, each between two markers that name it."""

from __future__ import annotations


def markers(command: str) -> tuple[str, str]:
    """The lines around what `command` writes."""
    return f"<!-- {command}: begin -->", f"<!-- {command}: end -->"


def part(text: str, command: str) -> str:
    """What is between the markers of `command`.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    begin, end = markers(command)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the markers {begin} and {end} must be there once each")
    return text.partition(begin)[2].partition(end)[0]


def replaced(text: str, command: str, block: str) -> str:
    """`text` with what is between the markers of `command` replaced.

    Raises:
        ValueError: as `part`.
    """
    part(text, command)
    begin, end = markers(command)
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{block.strip()}\n{end}{rest.partition(end)[2]}"
