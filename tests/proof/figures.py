"""What repetitions make together. Pure.

Nothing is averaged: a median and the whole range, and a difference is called one only where the ranges lie apart.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FEWEST = 3  # values: of fewer, ranges lie apart by chance too often


@dataclass(frozen=True)
class Spread:
    """The median of some values, the lowest and the highest."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def apart(one: Sequence[float], other: Sequence[float]) -> int:
    """1 if every value of `one` is above all of `other`, -1 if below; 0 if they overlap or are fewer than FEWEST."""
    if min(len(one), len(other)) < FEWEST:
        return 0
    if min(one) > max(other):
        return 1
    return -1 if max(one) < min(other) else 0


def apart_by_chance(count: int) -> float:
    """How probable it is that `count` values lie apart from as many others of the same distribution, either way."""
    return 2 / math.comb(2 * count, count)


def share(part: float, whole: float) -> float | None:
    """None where there is no whole."""
    return part / whole if whole > 0 else None


def gc_share(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """The garbage collector's share of the time in which any of the GOMAXPROCS threads did something.

    From /cpu/classes of runtime/metrics, which a GC cycle brings up to date; None if none has ended meanwhile.
    """
    change = {name: after[name] - before[name] for name in ("gc_seconds", "total_seconds", "idle_seconds")}
    return share(change["gc_seconds"], change["total_seconds"] - change["idle_seconds"])


def throttled_share(before: tuple[int, int], after: tuple[int, int]) -> float | None:
    """Of the periods in which the group wanted to run, those in which its quota ran out: (periods, throttled)."""
    return share(after[1] - before[1], after[0] - before[0])
