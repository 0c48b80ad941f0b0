"""One look at the target: its limits, joined with what is given from outside, and the decision."""

from __future__ import annotations

import os
from copy import copy

from cgagent.cgroup.dialect import number
from cgagent.cgroup.hierarchy import INSIDE, INVISIBLE, STRANGER
from cgagent.cgroup.limits import Limits, Wish
from cgagent.cgroup.reading import getter, read_limits
from cgagent.errors import CgagentError, MalformedError
from cgagent.given import apply_given
from cgagent.host import ReadError
from cgagent.policy import decide
from cgagent.record import Record
from cgagent.watch.target import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cgagent.cgroup.dialect import Get
    from cgagent.cgroup.hierarchy import Hierarchy
    from cgagent.given import GivenLimits
    from cgagent.host import Host
    from cgagent.policy import Decision
    from cgagent.watch.program import TargetProgram
    from cgagent.watch.raises import Raises
    from cgagent.watch.settings import Settings


class Sight(Record):
    """What one look has shown.

    Attributes:
        limits: what binds the target.
        decision: what follows.
        known: resource (`cpu`, `memory`, `cpuset`, `pids`) -> its limit as something to compare; a resource whose
            limit could not be read is not in there, one without a limit is None.
        cgroup: identifies the memory cgroup among all that this machine has had since it booted; "" for none.
        events: the memory events that the kernel counted there.
        program: what the target runs; None: not known.
    """

    __slots__ = ("cgroup", "decision", "events", "known", "limits", "program")

    def __init__(self, limits: Limits, decision: Decision, program: TargetProgram | None = None) -> None:
        self.limits = limits
        self.decision = decision
        self.program = program
        self.known = _known(limits)
        self.cgroup, self.events = memory_events(limits)


def look(
    host: Host,
    settings: Settings,
    pid: str,
    environ: Mapping[str, str],
    program: TargetProgram | None,
    raises: Raises | None = None,
) -> Sight:
    """Read the limits of process `pid`, apply what is given, decide.

    Where `pid` is another process than ourselves, its cgroup is what is and what is given is what is wished: the
    smaller of the two counts. So a lower GOMEMLIMIT goes ahead of the limit, and a higher one never does.
    `program` is what it runs, where that is known: GOMAXPROCS may be left to it. What is given to ourselves counts
    as it is; with `raises`, it is a wish too.

    Raises:
        CgagentError: the process has ended or may not be read, or what is given can't be.
    """
    given = settings.given()
    limits = read_limits(host, pid)
    if pid == "self":
        apply_given(limits, raises.heed(given) if raises else given)
        if raises:
            heed_wish(limits, given, raises.reasons)
    else:
        _demand_reach(host, limits, pid)
        if given.limits_from != "cgroup":
            heed_wish(limits, given)
    return _decided(limits, settings, environ, program)


def _decided(limits: Limits, settings: Settings, environ: Mapping[str, str], program: TargetProgram | None) -> Sight:
    # What its runtime reaches follows from its cgroup: where less is wished, it is not there yet.
    decision = decide(limits, settings.policy, environ, lambda: program.own_procs(limits) if program else None)
    return Sight(limits, decision, program)


def _demand_reach(host: Host, limits: Limits, pid: str) -> None:
    """Refuse to decide on what is seen from outside alone where the process's own view is withheld from us."""
    hierarchies = [limits.standing.hierarchy_of(name) for name in ("cpu", "memory")]
    if all(one is not None and one.standing == INSIDE for one in hierarchies):
        return
    reason = refusal(host, pid)
    if reason is not None:
        raise CgagentError(f"the limits of process {pid} can't be read", reason)


def heed_wish(limits: Limits, given: GivenLimits, reasons: Mapping[str, str] | None = None) -> None:
    """Lower `limits` to what is given, where that is less. Given is what should be: it may never come about.

    `reasons` say why not, for `cpu` and `memory`, as far as that is known.
    """
    why = reasons or {}
    wished = Limits(limits.standing)
    wished.cpu.online, wished.memory.total = limits.cpu.online, limits.memory.total
    apply_given(wished, given)
    cpu, memory = limits.cpu, limits.memory
    if not limits.blocked("cpu") and wished.cpu.cores is not None:
        fact = cpu.wish.fact if cpu.wish else cpu.cores
        cpu.wish = Wish(wished.cpu.cores, fact, wished.cpu.source or "", why.get("cpu", ""))
        if cpu.cores is None or wished.cpu.cores < cpu.cores:
            cpu.cores, cpu.source = wished.cpu.cores, wished.cpu.source
    if not limits.blocked("memory") and wished.memory.bytes is not None:
        fact = memory.wish.fact if memory.wish else memory.bytes
        memory.wish = Wish(wished.memory.bytes, fact, wished.memory.source or "", why.get("memory", ""))
        if memory.bytes is None or wished.memory.bytes < memory.bytes:
            memory.bytes, memory.source = wished.memory.bytes, wished.memory.source


def look_ahead(sight: Sight, settings: Settings, environ: Mapping[str, str]) -> Sight:
    """What was seen last of a process that has ended, with what is wished now where that is less.

    Raises:
        CgagentError: what is given can't be read.
    """
    limits = copy(sight.limits)
    limits.cpu, limits.memory = copy(limits.cpu), copy(limits.memory)
    heed_wish(limits, settings.given())
    return _decided(limits, settings, environ, sight.program)


def memory_events(limits: Limits) -> tuple[str, dict[str, int]]:
    """What identifies the target's memory cgroup, and the events that were counted there."""
    hierarchy = _innermost(limits, "memory")
    if hierarchy is None:
        return "", {}
    host, directory = hierarchy.levels[0].directories[0]
    try:
        status = os.stat(host.locate(directory))
    except OSError:
        return "", {}
    # kernfs never gives an inode number twice while the machine runs.
    return f"{_boot_id(host)} {status.st_dev}:{status.st_ino}", events_by(limits, getter)


def events_by(limits: Limits, getter_of: Callable[[Host, str], Get]) -> dict[str, int]:
    """The events of the target's memory cgroup, read in the way of `getter_of`; none where they can't be read."""
    hierarchy = _innermost(limits, "memory")
    if hierarchy is None:
        return {}
    try:
        return hierarchy.dialect.memory_events(getter_of(*hierarchy.levels[0].directories[0]))
    except (OSError, ReadError, MalformedError):
        return {}


def _boot_id(host: Host) -> str:
    try:
        return host.read("/proc/sys/kernel/random/boot_id").strip()
    except ReadError:
        return "?"


def _innermost(limits: Limits, controller: str) -> Hierarchy | None:
    hierarchy = limits.standing.hierarchy_of(controller)
    return None if hierarchy is None or hierarchy.standing in (INVISIBLE, STRANGER) else hierarchy


def _known(limits: Limits) -> dict[str, object]:
    known: dict[str, object] = {}
    if not limits.blocked("cpu"):
        known["cpu"] = limits.cpu.cores
        known["cpuset"] = limits.cpu.usable
    if not limits.blocked("memory"):
        known["memory"] = limits.memory.bytes
    hierarchy = _innermost(limits, "pids")
    if hierarchy is not None:
        host, directory = hierarchy.levels[0].directories[0]
        try:
            known["pids"] = number(getter(host, directory), "pids.max")
        except (ReadError, MalformedError):
            pass
    return known
