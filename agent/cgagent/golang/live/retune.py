"""Change what a running Go program goes by: its memory limit, and whether it follows its quota.

Why this is sound (Go 1.21 to 1.27, amd64):

- The runtime reads gcController.memoryLimit anew wherever it uses it: at every test whether to start a cycle, at
  every allocation of a span. debug.SetMemoryLimit does nothing more than store it, and have the pacing computed anew,
  which the next cycle does in any case.
- The store is done byte by byte, as one of eight bytes by /proc/PID/mem can be seen half done. A byte can't. From the
  least significant byte when lowering, from the most significant one when raising, so every value that the program
  can see in between is at least the smaller of both, and whoever is killed midway leaves a limit that does no harm.
- sched.customGOMAXPROCS is what runtime.SetDefaultGOMAXPROCS clears. The runtime's own monitor then finds the quota
  within a second, and the runtime's own helper changes the number of Ps, with the world stopped.
"""

from __future__ import annotations

from cgagent.golang.live.controller import MEMORY_LIMIT_OFFSET, NO_LIMIT, Controller
from cgagent.golang.live.errors import OWN_CHOICE, REFUSED, UNSETTLED, LiveError
from cgagent.golang.live.image import AMD64
from cgagent.record import Record
from cgagent.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from cgagent.golang.live.program import Program

_APART = 0.1  # seconds between the two readings that have to agree
_LEAST_MARGIN = 4 << 20
_TRIES = 16


class Change(Record):
    """A memory limit in force, and the one to be, in bytes; NO_LIMIT is none."""

    __slots__ = ("new", "old")

    def __init__(self, old: int, new: int) -> None:
        self.old = old
        self.new = new


def steps(old: int, new: int) -> Iterator[tuple[int, int, int]]:
    """The bytes to write on the way from `old` to `new`: offset, byte, and the value that is then in force.

    Each value in between is at least the smaller of both: the highest byte that differs is the last to be lowered,
    and the first to be raised.
    """
    before, after = old.to_bytes(8, "little"), new.to_bytes(8, "little")
    current = bytearray(before)
    for offset in range(8) if new < old else range(7, -1, -1):
        if before[offset] != after[offset]:
            current[offset] = after[offset]
            yield offset, after[offset], int.from_bytes(current, "little")


def plan_limit(program: Program, new: int, known: Container[int], *, force: bool = False) -> Change:
    """The change to a memory limit of `new` bytes, if nothing speaks against it.

    `known` are the limits that are no choice of the program's own: by its environment, or written by us before.
    `force` overrides a limit that the program has set itself.

    Raises:
        LiveError: refused, and why; or the process has ended; or its state is not beyond doubt.
    """
    _check_machine(program)
    if not 0 < new <= NO_LIMIT:
        raise LiveError(f"{new} is no memory limit", REFUSED)
    state = program.state(_APART)
    if new < state.memory_limit:
        _check_room(state, new)
    if state.memory_limit not in known and not force:
        shown = "off" if state.memory_limit == NO_LIMIT else f"{state.memory_limit} bytes"
        message = f"the program set its memory limit itself ({shown}), or a library in it did"
        raise LiveError(message, OWN_CHOICE, "--force overrides it, until it is set again")
    return Change(state.memory_limit, new)


def _check_room(state: Controller, new: int) -> None:
    """Refuse a limit at or below what is live: it costs CPU without end, and frees nothing."""
    live = state.heap_marked + state.outside_heap
    least = live + max(_LEAST_MARGIN, live // 10)
    if new <= least:
        parts = f"{format_size(state.heap_marked)} live heap, {format_size(state.outside_heap)} beside the heap"
        message = f"a memory limit of {format_size(new)} is too little for what the program keeps ({parts})"
        raise LiveError(message, REFUSED, f"give more than {format_size(least)}, or find what holds the memory")


def apply_limit(program: Program, change: Change) -> None:
    """Make the change, and read it back.

    Raises:
        LiveError: the process has ended, or the program keeps setting another limit.
    """
    address = program.addresses.controller + MEMORY_LIMIT_OFFSET
    current = change.old
    for _ in range(_TRIES):
        for offset, byte, _ in steps(current, change.new):
            program.image.write_byte(address + offset, byte)
        current = int.from_bytes(program.image.read_all(address, 8), "little")
        if current == change.new:
            return
        # The program has set it at this very moment; what is mixed of both is not left behind. A program that does so
        # every time ends it itself, with the value that it sets next.
    raise LiveError("the program keeps setting its memory limit", UNSETTLED, "see what does so in it")


def plan_follow(program: Program, *, set_by_environment: bool, force: bool = False) -> bool:
    """Whether handing GOMAXPROCS back to the runtime would change anything: False where it follows its quota already.

    Raises:
        LiveError: this program's runtime can't follow, or GOMAXPROCS is the program's own choice.
    """
    _check_machine(program)
    program.state(_APART)
    if (program.build.release or (0, 0)) < (1, 25):
        message = f"built by {program.build.go_version}: no Go before 1.25 follows its quota"
        raise LiveError(message, REFUSED, "restart it with the right GOMAXPROCS")
    switches = program.addresses.switches
    if switches is None:
        raise LiveError("the runtime's marks about GOMAXPROCS are not found beyond doubt", REFUSED)
    custom, idle, cgroup_ok = (
        program.image.read_all(address, 1)[0] for address in (switches.custom, switches.idle, switches.cgroup_ok)
    )
    if not {custom, idle, cgroup_ok} <= {0, 1}:
        raise LiveError("the runtime's marks about GOMAXPROCS are not found beyond doubt", REFUSED)
    if not cgroup_ok:
        message = "its runtime found no quota file when it started, or containermaxprocs=0 holds"
        raise LiveError(message, REFUSED, "GOMAXPROCS would become the number of the machine's CPUs")
    if not custom:
        return False
    if not idle:
        message = "its runtime takes no updates: updatemaxprocs=0, as main modules with a go line below 1.25 have it"
        raise LiveError(message, REFUSED, "start it with GODEBUG=updatemaxprocs=1, or set a newer go line")
    if not set_by_environment and not force:
        message = "the program set GOMAXPROCS itself, or a library in it did"
        raise LiveError(message, OWN_CHOICE, "--force overrides it, until it is set again")
    return True


def apply_follow(program: Program) -> None:
    """Hand GOMAXPROCS back to the runtime. `plan_follow` must have consented.

    Raises:
        LiveError: the process has ended, or the program has set the number at this very moment.
    """
    switches = program.addresses.switches
    assert switches is not None  # noqa: S101 plan_follow has seen to that
    program.image.write_byte(switches.custom, 0)
    if program.image.read_all(switches.custom, 1) != b"\0":
        raise LiveError("the program set GOMAXPROCS at this very moment", UNSETTLED, "try again")


def _check_machine(program: Program) -> None:
    if program.image.machine != AMD64:
        raise LiveError("tried on amd64 alone: nothing is written elsewhere", REFUSED)
