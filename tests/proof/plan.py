"""What `make proof` runs, in which order, and how long that takes. Pure.

Every trial is one case in one repetition. Each repetition has all cases, in an order of its own, so that what else
the machine does hits all cases alike.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MIB = 1 << 20

OLD, NEW = "1.24.11", "1.27.3"
# On a machine of 2 CPUs, what a program sees that looks at no cgroup on a machine of 32.
BIG_HOST, OWN, CGAGENT = "GOMAXPROCS=32", "Go's own", "cgagent"
CPU_SETTINGS = (BIG_HOST, OWN, CGAGENT)
CPU_LIMITS = (0.25, 0.5, 0.75, 1.0, 1.5)
# Of what one CPU serves, times the CPU limit: what an open loop asks for. Enough to be throttled by bursts alone.
OPEN_LOAD = 0.7

UNSET, WHOLE, NINETY = "nothing set", "GOMEMLIMIT=limit", "cgagent"
MEMORY_SETTINGS = (UNSET, WHOLE, NINETY)
MEMORY_LIMIT = 256 * MIB
LIVE_SHARES = (50, 60, 70, 80, 90, 95)

# Memory beside the heap, percent of the limit, by what takes it.
BESIDE = (("mmap", 10), ("mmap", 20), ("mmap", 30), ("mmap", 40), ("malloc", 20), ("malloc", 40))
BESIDE_LIVE_SHARE = 45

HIGH, LOW = 420 * MIB, 300 * MIB
FOLLOWING_LIVE = 175 * MIB
STILL, TUNE, SIDECAR = "nothing follows", "cgagent tune", "cgagent watch --hook tune"
GROWING, GROWN = "while the heap grows", "at its full size"
# At full size v1 refuses the new limit until the program is smaller: only who knows of it before can help.
FOLLOWING = ((GROWING, STILL), (GROWING, TUNE), (GROWING, SIDECAR), (GROWN, STILL), (GROWN, SIDECAR))


@dataclass(frozen=True)
class Lengths:
    """Seconds of a trial's parts: start and end of a service, each kind of load, and of the trial of a resize
    its length and when the limit is raised again."""

    around: float = 0.3
    warm_up: float = 0.3
    closed: float = 1.2
    opened: float = 2.5
    memory: float = 3.0
    following: float = 8.0
    raised: float = 5.0


FULL = Lengths()
QUICK = Lengths(closed=0.8, opened=1.0, memory=1.5, following=6.0, raised=4.0)


@dataclass(frozen=True)
class Trial:
    """One case, once.

    Attributes:
        kind: cpu, memory, beside or following.
        case: what tells it from the other cases of its kind.
        repetition: from 0.
        seconds: how long it is thought to take.
    """

    kind: str
    case: dict[str, Any] = field(hash=False)
    repetition: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(str(value) for value in self.case.values())} #{self.repetition + 1}"

    def document(self) -> dict[str, Any]:
        return asdict(self)


def cases(quick: bool) -> list[tuple[str, dict[str, Any]]]:
    """All kinds and cases; quick: a few of each kind."""
    limits = (0.5, 1.5) if quick else CPU_LIMITS
    versions = (NEW,) if quick else (OLD, NEW)
    lives = (60, 95) if quick else LIVE_SHARES
    beside = BESIDE[1:2] if quick else BESIDE
    following = FOLLOWING[:2] if quick else FOLLOWING
    made: list[tuple[str, dict[str, Any]]] = []
    made += [
        ("cpu", {"go": version, "cpus": cpus, "setting": setting})
        for version in versions
        for cpus in limits
        for setting in CPU_SETTINGS
    ]
    made += [("memory", {"live": live, "setting": setting}) for live in lives for setting in MEMORY_SETTINGS]
    made += [("beside", {"by": by, "beside": beside}) for by, beside in beside]
    made += [("following", {"when": when, "setting": setting}) for when, setting in following]
    return made


def repetitions(kind: str, case: dict[str, Any]) -> int:
    """How often a case is tried in a full run."""
    if kind == "cpu":
        return 4 if case["go"] == NEW else 3
    return 3 if kind == "memory" else 2


def expected(kind: str, case: dict[str, Any], lengths: Lengths) -> float:
    """Seconds for one trial."""
    around = lengths.around
    if kind == "cpu":
        return around + 0.1 / float(case["cpus"]) + lengths.warm_up + lengths.closed + lengths.opened
    if kind == "memory":
        return around + lengths.memory
    if kind == "beside":
        return 3 * (around + lengths.memory)
    return around + lengths.following


def trials(quick: bool, seed: int) -> list[Trial]:
    """All of them in the order in which they are to run."""
    lengths = QUICK if quick else FULL
    shuffled = random.Random(seed)
    made: list[Trial] = []
    wanted = [(kind, case, 1 if quick else repetitions(kind, case)) for kind, case in cases(quick)]
    for repetition in range(max(times for _, _, times in wanted)):
        batch = [
            Trial(kind, case, repetition, expected(kind, case, lengths))
            for kind, case, times in wanted
            if repetition < times
        ]
        shuffled.shuffle(batch)
        made += batch
    return made
