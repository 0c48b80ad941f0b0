"""A running Go program: its runtime's variables found once, and proven each time they are read."""

from __future__ import annotations

import time

from cgagent.golang.live.controller import CPU_STATS, NO_LIMIT, SIZE, Controller, contradiction, cpu_times, later
from cgagent.golang.live.errors import UNKNOWN, UNSETTLED, LiveError
from cgagent.golang.live.image import ProcessImage
from cgagent.golang.live.locate import Addresses, locate
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from cgagent.golang.buildinfo import BuildInfo

# The releases that the finder is tested with: tests/live.
OLDEST, NEWEST = (1, 21), (1, 27)

_TRIES = 5
_PAUSE = 0.02  # seconds: a program that just starts, or a state that is being changed
_MOST_PROCS = 1 << 20


class Running(Record):
    """What a running program's runtime holds; None for what is off or could not be found beyond doubt.

    Attributes:
        go_version: the toolchain that built it.
        gomaxprocs: the number of Ps.
        memory_limit: the soft memory limit in bytes.
        gogc: the percentage.
        heap_live: bytes that the last cycle found to be live, as the metric /gc/heap/live:bytes.
        managed: bytes that Go manages and holds against the limit: all it has mapped less what it gave back.
        outside_heap: those of `managed` that are no heap: stacks, metadata.
        gc_cycles: cycles that have started.
        gc_cpu_seconds: CPU time of the garbage collector, as of the last cycle's end.
        cpu_seconds: CPU time that GOMAXPROCS allowed for, as of the last cycle's end.
    """

    __slots__ = (
        "cpu_seconds",
        "gc_cpu_seconds",
        "gc_cycles",
        "go_version",
        "gogc",
        "gomaxprocs",
        "heap_live",
        "managed",
        "memory_limit",
        "outside_heap",
    )

    def __init__(self, go_version: str, state: Controller) -> None:
        self.go_version = go_version
        self.memory_limit = None if state.memory_limit == NO_LIMIT else state.memory_limit
        self.gogc = None if state.gc_percent < 0 else state.gc_percent
        self.heap_live = state.heap_marked
        self.managed = state.mapped_ready
        self.outside_heap = state.outside_heap
        self.gomaxprocs: int | None = None
        self.gc_cycles: int | None = None
        self.gc_cpu_seconds: float | None = None
        self.cpu_seconds: float | None = None


class Program:
    """A running Go program that is looked into until `close`.

    Attributes:
        pid: its process.
        build: what it was built from.
        image: its memory.
        addresses: where its runtime's variables are.
    """

    def __init__(self, pid: str, *, write: bool = False) -> None:
        """Find the runtime's variables in process `pid`; `write` also opens its memory for `retune`.

        Raises:
            LiveError: it may not be looked into, has ended, or is no Go program of a kind that is understood.
        """
        self.pid = pid
        for _ in range(_TRIES - 1):
            try:
                self._open(write)
                return
            except LiveError as error:
                # A program that just starts is given a moment.
                if error.kind != UNSETTLED:
                    raise
            time.sleep(_PAUSE)
        self._open(write)

    def _open(self, write: bool) -> None:
        self.image = ProcessImage(self.pid, write=write)
        try:
            self.build: BuildInfo = self.image.build
            _check(self.build)
            self.addresses: Addresses = _inside(locate(self.image))
            self.state()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the process."""
        self.image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state(self, apart: float = 0.0) -> Controller:
        """The collector's state, read twice, `apart` seconds in between, and held to its invariants.

        Raises:
            LiveError: the process has ended or runs another program now, or an invariant does not hold.
        """
        why = ""
        for tried in range(_TRIES):
            if tried:
                time.sleep(_PAUSE)
            before = self._read()
            if apart:
                time.sleep(apart)
            after = self._read()
            why = contradiction(before, self.addresses.module) or contradiction(after, self.addresses.module)
            if not why and not later(before, after):
                why = "totalAlloc"
            # A read can fall into the middle of a change of eight bytes.
            if not why and before.memory_limit != after.memory_limit:
                why = "memoryLimit"
            if not why:
                return after
        raise LiveError(f"the state of its garbage collector contradicts itself ({why})", UNKNOWN)

    def _read(self) -> Controller:
        return Controller(self.image.read_all(self.addresses.controller, SIZE))

    def running(self) -> Running:
        """What its runtime holds now.

        Raises:
            LiveError: as `state`.
        """
        running = Running(self.build.go_version, self.state())
        procs = self._number(self.addresses.gomaxprocs)
        running.gomaxprocs = procs if procs is not None and 0 < procs < _MOST_PROCS else None
        for _ in range(_TRIES):
            if self.addresses.cpu_stats is None:
                break
            times = cpu_times(self.image.read_all(self.addresses.cpu_stats, CPU_STATS.size))
            if times is not None:
                running.gc_cpu_seconds, running.cpu_seconds = times.gc, times.total
                running.gc_cycles = self._number(self.addresses.cycles)
                break
        return running

    def _number(self, address: int | None) -> int | None:
        """The 32-bit number at `address`."""
        return None if address is None else int.from_bytes(self.image.read_all(address, 4), "little")


def _check(build: BuildInfo) -> None:
    if build.removed:
        raise LiveError("its build info was removed, as garble does: what is in it is not known", UNKNOWN)
    compiler = build.settings.get("-compiler", "gc")
    if compiler != "gc":
        raise LiveError(f"built by {compiler}: only programs of Go's own compiler are understood", UNKNOWN)
    if build.release is None or not OLDEST <= build.release <= NEWEST:
        known = f"Go {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        raise LiveError(f"built by {build.go_version}: {known} are understood", UNKNOWN)


def _inside(found: Addresses) -> Addresses:
    """`found`, if each variable is where the linker puts variables of its kind; what is not is left out."""
    start, end = found.module.noptrbss
    if found.controller % 8 or not start <= found.controller < end:
        raise LiveError("its garbage collector's state is not where Go puts it", UNKNOWN)
    if found.gomaxprocs is not None and not start <= found.gomaxprocs < end:
        found.gomaxprocs = None
    if found.cpu_stats is not None and not found.module.variables([found.cpu_stats]):
        found.cpu_stats = found.cycles = None
    return found
