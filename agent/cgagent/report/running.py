"""What a running program's own runtime says, held against its cgroup: rows to show, and what is wrong. Pure.

FINDINGS.md in the repository explains each finding's id.
"""

from __future__ import annotations

from cgagent.errors import printable
from cgagent.golang.runtime import NO_MEMORY_LIMIT, parse_memory_limit
from cgagent.policy import GOMEMLIMIT
from cgagent.units import format_cpus, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from cgagent.golang.live import Running
    from cgagent.report.picture import Picture
    from cgagent.report.variables import Fields

_MIB = 1 << 20
# Live memory above this share of GOMEMLIMIT leaves the collector so little room that it runs nearly without end.
_TIGHT = 0.9
# What the kernel, the program's text and a few buffers take of any cgroup is not worth a word.
_WORTH_TELLING = 16 * _MIB
_GO_LEAST = 2


def document(running: Running) -> dict[str, Any]:
    """The values for the JSON document of `explain`; a limit that is off is None."""
    return {
        "GOMAXPROCS": running.gomaxprocs,
        "GOMEMLIMIT": running.memory_limit,
        "gogc": running.gogc,
        "heap_live_bytes": running.heap_live,
        "managed_bytes": running.managed,
        "outside_heap_bytes": running.outside_heap,
        "gc_cycles": running.gc_cycles,
        "gc_cpu_seconds": running.gc_cpu_seconds,
        "cpu_seconds": running.cpu_seconds,
    }


def limits_started_with(environment: Mapping[str, str] | None) -> set[int]:
    """The memory limit that a program has by the environment it started with; empty where that is not known."""
    if environment is None:
        return set()
    text = environment.get(GOMEMLIMIT, "")
    size = parse_memory_limit(text) if text else NO_MEMORY_LIMIT
    return set() if size is None else {size}


def unmanaged(picture: Picture) -> tuple[int, int] | None:
    """Bytes of its cgroup's memory that Go does not manage, and all that is in use there; None: not known.

    Page cache that the kernel can drop at once is not counted as in use.
    """
    if picture.running is None or picture.limits.memory.foreign:
        return None
    used = picture.usage.memory.get("working_set_bytes")
    used = picture.usage.memory.get("usage_bytes") if used is None else used
    return None if used is None else (max(0, int(used) - picture.running.managed), int(used))


def rows(picture: Picture) -> Iterator[tuple[str, str, str]]:
    """What is so, its value, and what to know of it."""
    running = picture.running
    if running is None:
        return
    procs, limit = picture.decision.gomaxprocs.wanted, picture.decision.gomemlimit.value
    yield "GOMAXPROCS", _known(running.gomaxprocs), _beside(running.gomaxprocs, procs, str(procs))
    shown = "off" if running.memory_limit is None else format_size(running.memory_limit)
    yield "GOMEMLIMIT", shown, _beside(running.memory_limit, limit, format_size(limit or 0))
    yield "GOGC", "off" if running.gogc is None else str(running.gogc), ""
    yield "heap live", format_size(running.heap_live), "as of the last cycle"
    of_limit = f"{running.managed / running.memory_limit:.0%} of GOMEMLIMIT" if running.memory_limit else ""
    yield "managed by Go", format_size(running.managed), of_limit
    outside = unmanaged(picture)
    if outside is not None:
        yield "not by Go", format_size(outside[0]), f"of {format_size(outside[1])} in use in its cgroup"
    yield "GC cycles", _known(running.gc_cycles), ""
    if running.gc_cpu_seconds is not None and running.cpu_seconds is not None:
        share = gc_share(running)
        told = "" if share is None else f"{share:.1%} of the CPU time that GOMAXPROCS allows"
        yield "GC CPU", f"{running.gc_cpu_seconds:.2f} s", told


def _known(number: int | None) -> str:
    return "not known" if number is None else str(number)


def _beside(value: int | None, decided: int | None, shown: str) -> str:
    return "" if decided is None or value == decided else f"decided: {shown}"


def gc_share(running: Running) -> float | None:
    """The garbage collector's share of the CPU time that GOMAXPROCS allows, since the start."""
    if running.gc_cpu_seconds is None or not running.cpu_seconds:
        return None
    return running.gc_cpu_seconds / running.cpu_seconds


def running_findings(picture: Picture) -> Iterator[Fields]:
    """What only the running values show."""
    if picture.running is None:
        if picture.running_unknown is not None:
            message = f"what the Go runtime holds is not known: {printable(picture.running_unknown)}"
            remedy = "read the program's own metrics instead"
            yield ("running-unknown", "info", message, remedy)
        return
    yield from _limit(picture, picture.running)
    yield from _outside(picture, picture.running)
    yield from _procs(picture, picture.running)


def _limit(picture: Picture, running: Running) -> Iterator[Fields]:
    limit = running.memory_limit
    if limit is None:
        return
    live = running.heap_live + running.outside_heap
    share = gc_share(running)
    cost = "" if share is None else f"; GC has had {share:.1%} of the CPU time so far"
    parts = f"{format_size(running.heap_live)} live heap and {format_size(running.outside_heap)} beside the heap"
    better = picture.decision.gomemlimit.value
    raised = better is not None and better > live
    remedy = f"set {better}" if raised else "raise the memory limit, or find what holds the memory"
    if live >= limit:
        message = f"GOMEMLIMIT of {format_size(limit)} is below what the program keeps ({parts}): GC runs without end"
        yield ("gomemlimit-below-live", "critical", message + cost, remedy)
    elif live > _TIGHT * limit:
        message = f"GOMEMLIMIT of {format_size(limit)} leaves little beside what the program keeps ({parts})"
        yield ("gomemlimit-tight", "warning", message + cost, remedy)


def _outside(picture: Picture, running: Running) -> Iterator[Fields]:
    outside, limit = unmanaged(picture), picture.limits.memory.bytes
    if outside is None or limit is None or not picture.limits.memory.trusted:
        return
    other, used = outside
    in_force = running.memory_limit if running.memory_limit is not None else picture.decision.gomemlimit.value
    reserve = -(-other // _MIB)
    what = (
        f"{format_size(other)} of the {format_size(used)} in use in its cgroup are not managed by Go"
        " (cgo, mmap, other processes, the kernel's share)"
    )
    remedy = f"--memory-reserve {reserve}Mi takes it off the limit of {format_size(limit)} before the ratio"
    if in_force is not None and in_force + other > limit:
        message = f"{what}: with a GOMEMLIMIT of {format_size(in_force)} beside it the limit is passed"
        yield ("memory-outside-go", "warning", message, remedy)
    elif other > _WORTH_TELLING:
        yield ("memory-outside-go", "info", f"{what}: GOMEMLIMIT leaves room for it", remedy)


def _procs(picture: Picture, running: Running) -> Iterator[Fields]:
    number, wanted = running.gomaxprocs, picture.decision.gomaxprocs.wanted
    if number is None or wanted is None or number == wanted:
        return
    cores = picture.limits.cpu.cores
    bound = f"the CPU limit of {format_cpus(cores)} makes it" if cores is not None else "the CPUs it may use make it"
    message = f"the program runs with GOMAXPROCS={number}, and {bound} {wanted}"
    if number < wanted:
        yield ("gomaxprocs-in-force", "info", message, "restart it if it should use all that it may")
    elif number == _GO_LEAST:
        yield ("gomaxprocs-in-force", "info", f"{message}; Go 1.25 and newer never takes less than 2", "mind latency")
    else:
        remedy = f"restart it with GOMAXPROCS={wanted}; more threads than that are throttled sooner in each period"
        yield ("gomaxprocs-in-force", "warning", message, remedy)
