"""What GOMAXPROCS and GOMEMLIMIT in a process's environment mean to Go, and what is wrong with them. Pure."""

from __future__ import annotations

from cgagent.golang.runtime import NO_MEMORY_LIMIT, parse_memory_limit
from cgagent.policy import GOMAXPROCS, GOMEMLIMIT
from cgagent.units import format_cpus, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgagent.report.picture import Picture

    # id, level, message, remedy
    Fields = tuple[str, str, str, str]

_CLOSE = 0.95


def parse_gomaxprocs(text: str) -> int | None:
    """The count that Go takes from `text` (src/runtime/proc.go, procresize at start); None: it is ignored."""
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0 else None


def variable_findings(picture: Picture) -> Iterator[Fields]:
    """The findings about both variables, as the environment has them."""
    if picture.environment is None:
        if picture.root == "/":
            message = f"the environment of process {picture.pid} may not be read: what it has set is not known"
            yield ("environment-unknown", "info", message, "run as the same user and group, or as root")
        return
    procs, limit = picture.environment.get(GOMAXPROCS, ""), picture.environment.get(GOMEMLIMIT, "")
    if procs:
        yield from _procs(picture, procs)
    if limit:
        yield from _limit(picture, limit)


def _procs(picture: Picture, text: str) -> Iterator[Fields]:
    number, wanted = parse_gomaxprocs(text), picture.decision.gomaxprocs.value
    if number is None:
        message = f"GOMAXPROCS='{text}' is no count: Go ignores it"
        yield ("gomaxprocs-malformed", "warning", message, "unset it, or give a whole number above 0")
        return
    usable = picture.limits.cpu.usable
    if wanted is None and usable and number > len(usable):
        message = f"GOMAXPROCS={number} in the environment is more than the {format_cpus(len(usable))} that may be used"
        yield ("gomaxprocs-disagrees", "warning", message, "unset it: without a limit Go finds the number itself")
    elif wanted is not None and number != wanted:
        message = f"GOMAXPROCS={number} in the environment disagrees with the limits, which make it {wanted}"
        yield ("gomaxprocs-disagrees", "warning", message, f"unset it, or set {wanted} (--override does)")


def _limit(picture: Picture, text: str) -> Iterator[Fields]:
    size, memory = parse_memory_limit(text), picture.limits.memory
    if size is None:
        message = f"GOMEMLIMIT='{text}' is malformed: Go programs end at start with it"
        yield ("gomemlimit-malformed", "critical", message, "give bytes, or a number with KiB, MiB, GiB or TiB, or off")
    elif memory.bytes is not None and memory.counts:
        bound, better = format_size(memory.bytes), picture.decision.gomemlimit.value
        remedy = f"unset it, or set {better} (--override does)" if better else "unset it"
        shown = "off" if size == NO_MEMORY_LIMIT else format_size(size)
        if size > memory.bytes:
            message = (
                f"GOMEMLIMIT={shown} in the environment is above the memory limit of {bound}: it holds nothing back"
            )
            yield ("gomemlimit-above-limit", "critical", message, remedy)
        elif size > _CLOSE * memory.bytes:
            message = (
                f"GOMEMLIMIT={shown} in the environment is above 95% of the memory limit of {bound}: too little room"
            )
            yield ("gomemlimit-near-limit", "warning", message, remedy)
