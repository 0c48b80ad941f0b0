"""What was measured, as `results.json` holds it, asked by kind and case. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Measured = Mapping[str, Any]

SCHEMA = "cgagent.proof/1"


class Results:
    """A document of results.

    Attributes:
        document: machine, when, quick, trials and so on.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def of(self, kind: str, **case: object) -> list[Measured]:
        """What the repetitions of a case measured; those that failed are left out."""
        return [
            trial["measured"]
            for trial in self.document["trials"]
            if trial["kind"] == kind and trial["case"] == case and trial.get("measured") is not None
        ]

    def cases(self, kind: str) -> list[dict[str, Any]]:
        """The cases of a kind that were measured, ordered by their values."""
        found: list[dict[str, Any]] = []
        for trial in self.document["trials"]:
            if trial["kind"] == kind and trial["case"] not in found:
                found.append(trial["case"])
        return found

    def values(self, kind: str, name: str) -> list[Any]:
        """The values that `name` takes in the cases of a kind, in order."""
        return sorted({case[name] for case in self.cases(kind)})

    def failures(self) -> list[str]:
        """Trials that gave no result, in words."""
        return [
            f"{trial['kind']} {trial['case']}: {trial['failed']}"
            for trial in self.document["trials"]
            if trial.get("failed")
        ]


def picked(measured: Sequence[Measured], pick: Callable[[Measured], float | None]) -> list[float]:
    """One value of each repetition; those that have none are left out."""
    return [value for one in measured if (value := pick(one)) is not None]
