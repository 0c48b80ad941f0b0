"""What the Go program would run with if nobody helped it, beside what the limits make it. Pure."""

from __future__ import annotations

from cgagent.golang.runtime import NO_MEMORY_LIMIT, predict
from cgagent.policy import GOMAXPROCS, GOMEMLIMIT, VARIABLES
from cgagent.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cgagent.golang.expected import Expected
    from cgagent.golang.runtime import Prediction
    from cgagent.report.picture import Picture
    from cgagent.report.variables import Fields


def alone(picture: Picture) -> Prediction | None:
    """What the program does without our variables; None where it is no Go program, or runs under limits not read."""
    if picture.go is None or picture.limits.cpu.foreign or picture.limits.memory.foreign:
        return None
    environment = picture.environment or {}
    return predict(
        picture.go, picture.limits, {name: text for name, text in environment.items() if name not in VARIABLES}
    )


def document(picture: Picture) -> dict[str, Any] | None:
    """The key `go` of the JSON document."""
    go, prediction = picture.go, alone(picture)
    if go is None:
        return None
    return {
        "version": go.go_version,
        "module": go.module or go.path,
        "by_itself": prediction
        and {GOMAXPROCS: _expected(prediction.gomaxprocs), GOMEMLIMIT: _expected(prediction.gomemlimit)},
        "libraries": [
            {"name": one.name, "version": one.version, "sets": one.sets, "notes": list(one.notes)}
            for one in (prediction.libraries if prediction else ())
        ],
    }


def _expected(expected: Expected) -> dict[str, Any]:
    return {
        "value": None if expected.value == NO_MEMORY_LIMIT else expected.value,
        "reason": expected.reason,
        "setter": expected.setter,
        "follows": expected.follows,
    }


def rows(prediction: Prediction) -> Iterator[tuple[str, str]]:
    """What it does by itself, for a table: the variable with its value, and why."""
    for name, expected in ((GOMAXPROCS, prediction.gomaxprocs), (GOMEMLIMIT, prediction.gomemlimit)):
        shown = "off" if expected.value == NO_MEMORY_LIMIT else expected.value
        later = "; follows changes" if expected.follows else "; stays so"
        known = shown is not None
        yield f"{name} {shown if known else 'not known'}", expected.reason + (later if known else "")
    for library in prediction.libraries:
        yield str(library), "; ".join(library.notes)


def program_findings(picture: Picture) -> Iterator[Fields]:
    """Where the program by itself and the limits differ, and what follows from what is in it."""
    prediction = alone(picture)
    if prediction is None or picture.go is None:
        return
    differing = list(_differences(picture, prediction))
    if differing:
        message = f"by itself {picture.go.go_version} would run with {' and '.join(differing)}"
        yield ("program-alone", "info", message, "start it with cgagent exec, or with the env file of cgagent write")
    for library in prediction.libraries:
        message = f"the program links {library}, which sets {library.sets} itself: {'; '.join(library.notes)}"
        yield (
            "library-linked",
            "info",
            message,
            f"it leaves a {library.sets} alone that is set: cgagent's counts then",
        )
    yield from _frozen(picture, prediction)


def _differences(picture: Picture, prediction: Prediction) -> Iterator[str]:
    procs, memory = picture.decision.gomaxprocs, picture.decision.gomemlimit
    own_procs, own_memory = prediction.gomaxprocs.value, prediction.gomemlimit.value
    if procs.value is not None and procs.kept is None and own_procs not in (None, procs.value):
        yield f"GOMAXPROCS={own_procs}, where the limits make it {procs.value}"
    if memory.value is not None and memory.kept is None and own_memory not in (None, memory.value):
        own = "no GOMEMLIMIT" if own_memory == NO_MEMORY_LIMIT else f"GOMEMLIMIT={format_size(own_memory or 0)}"
        yield f"{own}, where the limits make it {format_size(memory.value)}"


def _frozen(picture: Picture, prediction: Prediction) -> Iterator[Fields]:
    if picture.go is None or not prediction.gomaxprocs.follows:
        return
    version = picture.go.go_version
    remedy = "leave it unset if the program's own rule suits you: at least 2, the leaf cgroup alone"
    if picture.environment and picture.environment.get(GOMAXPROCS):
        message = f"GOMAXPROCS is set, and {version} would follow limit changes by itself if it were not"
        yield ("gomaxprocs-freezes-go", "warning", message, remedy)
    elif GOMAXPROCS in picture.decision.env():
        message = f"with GOMAXPROCS set, {version} no longer follows limit changes by itself"
        yield ("gomaxprocs-freezes-go", "info", message, remedy)
