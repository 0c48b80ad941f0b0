"""What machine and what layout are to be shown, read from the words of the command line. Pure."""

from __future__ import annotations

from cgagent.errors import UsageError
from cgagent.launch.resources import Resources
from cgagent.launch.shown.layouts import LAYOUTS, MODES, QOS, has_own_namespace
from cgagent.launch.shown.levels import Level
from cgagent.launch.shown.simulate import Layout
from cgagent.record import Record
from cgagent.texts import parse_choice
from cgagent.units import parse_cpus, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.spec import Spec
    from cgagent.parser import Arguments

MOST_CPUS = 1024  # glibc's cpu_set_t holds no more
_LEAST_MEMORY = 16 << 20
_OF_SIMULATE = ("layout", "qos", "cgroupns", "parent_cpus", "parent_memory")


class Shown(Record):
    """The machine to show.

    Attributes:
        option: the option that asks for it.
        cpus: how many CPUs; 0 for those that are here, or that the capture has.
        allowed: the CPUs that `--cpuset-cpus` leaves; None for all.
        memory: bytes; 0 for what is here, or what the capture has.
        layout: the cgroup layout to simulate; None for none.
        replay: the capture's file or directory; None for none.
        enforce: whether what is shown binds as well.
    """

    __slots__ = ("allowed", "cpus", "enforce", "layout", "memory", "option", "replay")

    def __init__(self, arguments: Arguments, spec: Spec) -> None:
        """Understand the words; of `spec`, take the limits that are only to be shown.

        Raises:
            UsageError: one of them is off.
        """
        a = arguments
        _check_company(a)
        given = [name for name in ("simulate", "replay", "host_cpus", "host_memory") if getattr(a, name) is not None]
        self.option = f"--{given[0].replace('_', '-')}"
        if "mnt" not in spec.namespaces:
            raise UsageError(f"{self.option} does not go with --share mnt", "leave one of the two out")
        self.cpus = 0 if a.host_cpus is None else _cpus(a.host_cpus)
        self.memory = 0 if a.host_memory is None else _memory(a.host_memory)
        self.allowed = self._allowed(spec.resources.cpuset) if self.cpus else None
        self.enforce: bool = a.enforce
        self.replay: str | None = a.replay
        self.layout: Layout | None = None
        if a.replay is not None:
            for option in spec.resources.controllers().values():
                hint = "the capture holds the limits, and --enforce makes them bind"
                raise UsageError(f"{option} does not go with --replay", hint)
        if a.simulate is not None:
            if spec.resources.cpuset is not None and not (self.cpus or a.enforce):
                raise UsageError("--cpuset-cpus with --simulate needs --host-cpus", "say how many CPUs there are")
            self.layout = _layout(a, spec.resources)
            if a.enforce:
                _tighten(spec.resources, self.layout.parent)
            else:
                spec.resources = Resources()

    def _allowed(self, cpuset: str | None) -> frozenset[int] | None:
        from cgagent.cgroup.numbers import cpu_list

        if cpuset is None:
            return None
        allowed = cpu_list(cpuset, "--cpuset-cpus") or frozenset()
        if not allowed or max(allowed) >= self.cpus:
            last = self.cpus - 1
            raise UsageError(f"--cpuset-cpus: '{cpuset}' is not within --host-cpus", f"CPUs 0 to {last} are shown")
        return allowed


def _check_company(a: Arguments) -> None:
    """Options that need others, or exclude them."""
    if a.replay == "":
        raise UsageError("--replay: its value is empty", "name a file that cgagent capture wrote")
    if a.simulate is not None and a.replay is not None:
        raise UsageError("--simulate does not go with --replay", "leave one of the two out")
    if a.simulate is None:
        for name in _OF_SIMULATE:
            if getattr(a, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} needs --simulate", f"add --simulate v2, or leave {option} out")
        if a.enforce and a.replay is None:
            raise UsageError("--enforce needs --simulate or --replay", "other limits bind without it")


def _layout(a: Arguments, limits: Resources) -> Layout:
    mode = parse_choice(a.simulate, "--simulate", MODES)
    name = parse_choice("docker" if a.layout is None else a.layout, "--layout", LAYOUTS)
    if a.qos is not None and not name.startswith("kubernetes"):
        raise UsageError(f"--qos does not go with --layout {name}", "Kubernetes alone has classes of pods")
    qos = parse_choice((a.qos or "burstable").lower(), "--qos", QOS)
    spaces = ("private", "host")
    private = (
        has_own_namespace(name, mode == "v2")
        if a.cgroupns is None
        else (parse_choice(a.cgroupns, "--cgroupns", spaces) == "private")
    )
    parent = Level()
    if a.parent_cpus is not None:
        milli = parse_cpus(a.parent_cpus, "--parent-cpus")
        if milli < 10:
            raise UsageError(f"--parent-cpus: '{a.parent_cpus}' is out of range", "give 0.01 or more")
        parent.quota_us = milli * 100
    if a.parent_memory is not None:
        parent.memory = parse_size(a.parent_memory, "--parent-memory")
        if parent.memory == 0:
            raise UsageError(f"--parent-memory: '{a.parent_memory}' is out of range", "give a size above 0")
    return Layout(mode, name, qos, private, _own(limits, a), parent)


def _own(limits: Resources, a: Arguments) -> Level:
    """The container's level, of the limits that can be shown."""
    untold = (
        ("--cpu-shares", limits.shares),
        ("--cpu-weight", limits.weight),
        ("--cpuset-mems", limits.mems),
        ("--memory-swap", None if limits.swap_by_default else limits.memory_swap),
        ("--memory-reservation", limits.memory_reservation),
        (limits.io[0].option if limits.io else "", limits.io),
    )
    for option, value in untold:
        if value and not a.enforce:
            raise UsageError(f"{option} is not shown by --simulate", f"leave {option} out")
    own = Level()
    own.quota_us, own.period_us = limits.quota_us, limits.period_us or own.period_us
    own.memory, own.high, own.pids, own.cpus = limits.memory, limits.memory_high, limits.pids, limits.cpuset
    return own


def _tighten(limits: Resources, parent: Level) -> None:
    """Let the limits of the cgroup above bind where they are the lower ones: there is one real cgroup for both."""
    if parent.quota_us is not None:
        quota, period = limits.quota_us, limits.period_us or parent.period_us
        if not quota or quota * parent.period_us > parent.quota_us * period:
            limits.quota_us, limits.period_us = parent.quota_us, parent.period_us
    if parent.memory is not None and (limits.memory is None or limits.memory > parent.memory):
        if limits.memory is None or limits.swap_by_default:
            limits.memory_swap, limits.swap_by_default = parent.memory, True
        limits.memory = parent.memory


def _cpus(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 4 or not 1 <= int(text) <= MOST_CPUS:
        raise UsageError(f"--host-cpus: '{text}' is not a number of CPUs", f"give 1 to {MOST_CPUS}")
    return int(text)


def _memory(text: str) -> int:
    size = parse_size(text, "--host-memory")
    if size < _LEAST_MEMORY:
        raise UsageError(f"--host-memory: '{text}' is too little for a machine", "give 16Mi or more")
    return size
