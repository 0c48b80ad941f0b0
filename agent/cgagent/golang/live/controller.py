"""The garbage collector's state, and the invariants that prove it to be that. Pure.

runtime.gcController (Go: runtime/mgcpacer.go, gcControllerState) has the same layout in Go 1.21 to 1.27 on 64 bits.
"""

from __future__ import annotations

from struct import Struct

from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.golang.live.module import Module

MEMORY_LIMIT_OFFSET = 8
_STATE = Struct("<i4x39Q?")
SIZE = _STATE.size
CPU_STATS = Struct("<11q")
NO_LIMIT = (1 << 63) - 1  # math.MaxInt64

_DEFAULT_HEAP_MINIMUM = 4 << 20
_WORD = 1 << 64
_GOGC_OFF = -1
# The counters are read while the program goes on counting.
_SLACK = 64 << 20
_MOST = 1 << 48  # bytes: no process has more


class Controller(Record):
    """The fields that are used; sizes in bytes.

    Attributes:
        gc_percent: GOGC; -1: off.
        memory_limit: the soft memory limit; NO_LIMIT: none.
        heap_minimum: the smallest heap goal, which follows from gc_percent.
        percent_goal: the heap goal by gc_percent alone.
        heap_live: allocated since the last cycle, and marked by it.
        heap_marked: what the last cycle found to be live.
        globals_scan: the globals that hold pointers.
        in_use: spans in use for heap objects.
        free: spans that are free, and not given back.
        total_alloc: allocated since the start.
        total_free: freed since the start.
        mapped_ready: all memory that Go manages and may touch, which the limit is held against.
        test: set in copies that the runtime's own tests make.
    """

    __slots__ = (
        "free",
        "gc_percent",
        "globals_scan",
        "heap_live",
        "heap_marked",
        "heap_minimum",
        "in_use",
        "mapped_ready",
        "memory_limit",
        "percent_goal",
        "test",
        "total_alloc",
        "total_free",
    )

    def __init__(self, data: bytes) -> None:
        self.gc_percent, *words, self.test = _STATE.unpack(data)

        def at(offset: int) -> int:
            return int(words[(offset - 8) // 8])

        self.memory_limit = at(MEMORY_LIMIT_OFFSET)
        self.heap_minimum = at(16)
        self.percent_goal = at(72)
        self.heap_live = at(104)
        self.globals_scan = at(144)
        self.heap_marked = at(152)
        self.in_use = at(272)
        self.free = at(288)
        self.total_alloc = at(296)
        self.total_free = at(304)
        self.mapped_ready = at(312)

    @property
    def outside_heap(self) -> int:
        """Memory that Go manages and that is no heap span: stacks, metadata."""
        return max(0, self.mapped_ready - self.in_use - self.free)


def contradiction(state: Controller, module: Module) -> str:
    """The first invariant that `state` breaks, by name; empty if it may well be the collector's state."""
    data_and_bss = (module.data[1] - module.data[0]) + (module.bss[1] - module.bss[0])
    percent = state.gc_percent
    goal = state.percent_goal == _WORD - 1 if percent < 0 else state.percent_goal >= state.heap_minimum
    invariants = (
        ("gcPercent", percent >= _GOGC_OFF),
        ("memoryLimit", state.memory_limit <= NO_LIMIT),
        ("heapMinimum", state.heap_minimum == _DEFAULT_HEAP_MINIMUM * (percent % _WORD) % _WORD // 100),
        ("gcPercentHeapGoal", goal),
        ("globalsScan", 0 < state.globals_scan <= data_and_bss),
        ("totalAlloc", state.total_free <= state.total_alloc),
        ("heapInUse", state.total_alloc - state.total_free <= state.in_use + _SLACK),
        ("mappedReady", state.in_use + state.free <= state.mapped_ready + _SLACK and state.mapped_ready < _MOST),
        ("heapLive", state.heap_live < _MOST and state.heap_marked < _MOST),
        ("test", not state.test),
    )
    return next((name for name, holds in invariants if not holds), "")


def later(before: Controller, after: Controller) -> bool:
    """Whether `after` can be the same program's state a little later: what is counted since the start only grows."""
    return before.total_alloc <= after.total_alloc and before.total_free <= after.total_free


class CpuTimes(Record):
    """runtime.cpuStats (Go: runtime/mstats.go): seconds of CPU as of the last cycle's end.

    Attributes:
        gc: the garbage collector's.
        total: all that GOMAXPROCS allowed for, used or not.
    """

    __slots__ = ("gc", "total")

    def __init__(self, gc: float, total: float) -> None:
        self.gc = gc
        self.total = total


def cpu_times(data: bytes) -> CpuTimes | None:
    """What `data` says; None where its sums don't agree, so that it is something else, or half written."""
    times = CPU_STATS.unpack(data)
    assist, dedicated, idle_mark, pause, gc, scavenge_assist, scavenge_background, scavenge, idle, user, total = times
    sound = min(*times[:9], total) >= 0
    sums = (
        gc == assist + dedicated + idle_mark + pause
        and scavenge == scavenge_assist + scavenge_background
        # While a cycle is under way its pauses are in `gc`, and not yet taken off `user`.
        and user >= total - gc - scavenge - idle
    )
    # All zero until the first cycle has ended.
    return CpuTimes(gc / 1e9, total / 1e9) if sound and sums else None
