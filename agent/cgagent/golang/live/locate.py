"""Where the runtime's variables are, by the testimony of its own code.

No symbol is needed: every call of a method on gcController loads its address first. All calls have to agree, and
there have to be many; what is read there is then held to invariants (`cgagent.golang.live.controller`).
"""

from __future__ import annotations

from cgagent.golang.live import amd64, arm64
from cgagent.golang.live.errors import UNKNOWN, LiveError
from cgagent.golang.live.image import AMD64, CHUNK
from cgagent.golang.live.module import Function, Module, find_functions, find_module
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.golang.live.image import Image

_CONTROLLER = "runtime.(*gcControllerState)."
_CPU_STATS = "runtime.(*cpuStats).accumulate"
_SCAVENGER_INIT = "runtime.(*scavengerState).init.func"
_TRIGGER = "runtime.gcTrigger.test"
_SYSMON_UPDATE = "runtime.sysmonUpdateGOMAXPROCS"
_HELPER = "runtime.updateMaxProcsGoroutine"
_DEFAULT_PROCS = "runtime.defaultGOMAXPROCS"
_NAMES = (_CONTROLLER, _CPU_STATS, _SCAVENGER_INIT, _TRIGGER, _SYSMON_UPDATE, _HELPER, _DEFAULT_PROCS)
_STARTS = tuple(name.encode() for name in _NAMES)

# Fewest calls that have to name gcController: 17 to 22 are found in the releases from 1.21 on.
_FEWEST_VOTES = 10
# What no runtime has: made up to keep us busy.
_MOST_VOTES = 10_000
_MOST_CODE = 64 << 20
_CYCLES_BEFORE_CPU_STATS = (80, 88)  # work.cycles, in bytes before work.cpuStats; 88 in Go 1.21
_AROUND = CHUNK  # code of package runtime around the functions that were found
_LONGEST = 1 << 16  # no function that is looked into is longer


class Switches(Record):
    """Addresses of the bytes by which Go 1.25 and newer decides whether it follows its cgroup's quota.

    Attributes:
        custom: sched.customGOMAXPROCS: the number was set, so the runtime leaves it alone.
        idle: updateMaxProcsG.idle: the goroutine that applies updates exists and waits.
        cgroup_ok: cgroupOK: the runtime found its cgroup's quota file.
    """

    __slots__ = ("cgroup_ok", "custom", "idle")

    def __init__(self, custom: int, idle: int, cgroup_ok: int) -> None:
        self.custom = custom
        self.idle = idle
        self.cgroup_ok = cgroup_ok


class Addresses(Record):
    """Where the variables are in memory; None for what could not be found beyond doubt.

    Attributes:
        module: the program's own tables.
        votes: how many calls named gcController.
        controller: runtime.gcController.
        gomaxprocs: runtime.gomaxprocs, an int32.
        cpu_stats: runtime.work.cpuStats.
        cycles: runtime.work.cycles, a uint32.
        switches: those of Go 1.25 and newer.
    """

    __slots__ = ("controller", "cpu_stats", "cycles", "gomaxprocs", "module", "switches", "votes")

    def __init__(self, module: Module, controller: int, votes: int) -> None:
        self.module = module
        self.controller = controller
        self.votes = votes
        self.gomaxprocs: int | None = None
        self.cpu_stats: int | None = None
        self.cycles: int | None = None
        self.switches: Switches | None = None


def locate(image: Image) -> Addresses:
    """Find the variables in `image`.

    Raises:
        LiveError: it is no Go program, or its code does not say where gcController is.
    """
    module = find_module(image)
    functions = find_functions(image, module, _STARTS)
    methods = {one.entry for one in functions if one.name.startswith(_CONTROLLER)}
    accumulate = {one.entry for one in functions if one.name.startswith(_CPU_STATS)}
    votes, stats_votes = _count(image, module, functions, methods, accumulate)
    if len(set(votes.values())) != 1 or len(votes) < _FEWEST_VOTES:
        number = len(set(votes.values()))
        what = f"{len(votes)} calls name {number} places" if votes else "no call names a place"
        message = f"its garbage collector's state is not found ({what}): garbled, or an unknown compiler"
        raise LiveError(message, UNKNOWN)
    found = Addresses(module, next(iter(votes.values())), len(votes))
    found.gomaxprocs = _gomaxprocs(image, functions)
    if len(set(stats_votes.values())) == 1:
        found.cpu_stats = next(iter(stats_votes.values()))
        found.cycles = _cycles(image, module, functions, found.cpu_stats)
    found.switches = _switches(image, module, functions)
    return found


def _count(
    image: Image, module: Module, functions: list[Function], methods: set[int], accumulate: set[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Which calls name gcController, and which work.cpuStats: the call's address -> the variable's."""
    votes: dict[int, int] = {}
    stats: dict[int, int] = {}
    if not methods:
        return votes, stats
    start = max(module.text[0], min(one.entry for one in functions) - _AROUND)
    end = min(module.text[1], max(one.entry for one in functions) + _AROUND)
    if end - start > _MOST_CODE:
        raise LiveError("its functions are not where Go puts them", UNKNOWN)
    for address, code in image.chunks(start, end - start, 64):
        if image.machine == AMD64:
            votes.update(amd64.receivers(code, address, methods))
            stats.update(amd64.receivers(code, address, accumulate, within=40))
        else:
            votes.update(arm64.receivers(code, address, methods))
        if len(votes) + len(stats) > _MOST_VOTES:
            break
    return votes, stats


def _code(image: Image, functions: list[Function], name: str) -> tuple[bytes, int] | None:
    """The code of the one function of that name, and its address; None where there is none, or are several."""
    named = [one for one in functions if one.name == name]
    if len(named) != 1:
        return None
    return image.read(named[0].entry, min(named[0].end - named[0].entry, _LONGEST)), named[0].entry


def _gomaxprocs(image: Image, functions: list[Function]) -> int | None:
    """The variable that a closure in scavengerState.init returns: `func() int32 { return gomaxprocs }`."""
    returned = amd64.returned_word if image.machine == AMD64 else arm64.returned_word
    closures = [one for one in functions if one.name.startswith(_SCAVENGER_INIT)]
    found = [returned(image.read(one.entry, 16), one.entry) for one in closures]
    named = [one for one in found if one is not None]
    return named[0] if len(named) == 1 else None


def _cycles(image: Image, module: Module, functions: list[Function], cpu_stats: int) -> int | None:
    code = _code(image, functions, _TRIGGER)
    loaded = amd64.loads_word(*code) if code else []
    near = {one for one in module.variables(loaded) if cpu_stats - one in _CYCLES_BEFORE_CPU_STATS}
    return near.pop() if len(near) == 1 else None


def _switches(image: Image, module: Module, functions: list[Function]) -> Switches | None:
    """Two functions have to name each of the first two bytes; of the third there is one reader."""
    if image.machine != AMD64:
        return None
    sysmon, helper, rule = (_code(image, functions, name) for name in (_SYSMON_UPDATE, _HELPER, _DEFAULT_PROCS))
    if sysmon is None or helper is None or rule is None:
        return None
    custom = module.variables(amd64.loads_byte(*sysmon))
    idle = module.variables(amd64.loads_atomic_byte(*sysmon))
    ok = module.variables(amd64.compares_byte(*rule))
    if custom != module.variables(amd64.stores_byte(*helper, 0)):
        return None
    if idle != module.variables(amd64.loads_atomic_byte(*helper)) or not len(custom) == len(idle) == len(ok) == 1:
        return None
    return Switches(custom.pop(), idle.pop(), ok.pop())
