"""What is wrong, or worth knowing, in a picture: stable ids, worst first, each with a remedy. Pure.

FINDINGS.md in the repository lists every id.
"""

from __future__ import annotations

from cgagent.cgroup.dialect import UNLIMITED
from cgagent.cgroup.hierarchy import INSIDE, NO_DIRECTORY, STRANGER
from cgagent.record import Record
from cgagent.report.program import program_findings
from cgagent.report.running import running_findings
from cgagent.report.variables import variable_findings
from cgagent.units import format_cpus, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgagent.cgroup.limits import Limits, Wish
    from cgagent.report.picture import Picture

CRITICAL = "critical"
WARNING = "warning"
INFO = "info"
LEVELS = (CRITICAL, WARNING, INFO)

# The share of periods at which kubernetes-mixin's CPUThrottlingHigh fires.
_THROTTLED_OFTEN = 0.25
_NEARLY_FULL = 0.9
# The systemd cgroup driver rounds a quota up to 10 ms of each second.
_CPU_ROUNDING = 0.0101


class Finding(Record):
    """One thing to tell.

    Attributes:
        id: stable, for scripts and for FINDINGS.md.
        level: CRITICAL, WARNING or INFO.
        message: what is so, with its numbers.
        remedy: what to do.
    """

    __slots__ = ("id", "level", "message", "remedy")

    def __init__(self, id: str, level: str, message: str, remedy: str) -> None:  # noqa: A002 as in the JSON document
        self.id = id
        self.level = level
        self.message = message
        self.remedy = remedy


def find(picture: Picture) -> list[Finding]:
    """The findings of `picture`, worst first."""
    rules = (_problems, _oom_kills, _memory, _given, _wished, _throttled, _cpu, _ancestors, _pids, _unread)
    found = [finding for rule in rules for finding in rule(picture)]
    for more in (variable_findings, running_findings, program_findings):
        found += [Finding(*fields) for fields in more(picture)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


_PROBLEMS = {
    "malformed-file": (CRITICAL, "the kernel does not write this: check what is mounted there; nothing is guessed"),
    "unreadable": (CRITICAL, "let this user read it, or give the limits with --cpu-limit and --memory-limit"),
    "controller-not-visible": (CRITICAL, "mount the hierarchy here (read-only will do), or give the limits"),
    "cgroup-outside-view": (WARNING, "run cgagent inside the container, or give the limits"),
    "conflicting-mounts": (WARNING, "remove the stale one of the mounts"),
}


def _problems(picture: Picture) -> Iterator[Finding]:
    standing = picture.limits.standing
    for problem in picture.limits.problems:
        level, remedy = _PROBLEMS[problem.id]
        hierarchy = standing.hierarchy_of(problem.resource) if problem.resource else None
        if problem.id == "cgroup-outside-view" and hierarchy and hierarchy.standing == STRANGER:
            level = CRITICAL
        yield Finding(problem.id, level, problem.message, remedy)
    if standing.mode == "none" and not picture.limits.problems:
        message = "no cgroup file system is mounted here, so no limit can be seen"
        yield Finding("no-cgroup", INFO, message, "mount it, or give the limits with --cpu-limit and --memory-limit")


def _oom_kills(picture: Picture) -> Iterator[Finding]:
    kills = picture.usage.memory_events.get("oom_kill")
    if kills:
        limit = picture.limits.memory.bytes
        bound = f" (limit {format_size(limit)})" if limit is not None else ""
        times = "once" if kills == 1 else f"{kills} times"
        message = f"the kernel's OOM killer ended a process of this cgroup {times}{bound}"
        remedy = (
            "raise the memory limit, or set GOMEMLIMIT below it; memory that Go does not manage wants --memory-reserve"
        )
        yield Finding("oom-kills", CRITICAL, message, remedy)


def _memory(picture: Picture) -> Iterator[Finding]:
    limits, memory = picture.limits, picture.limits.memory
    if memory.bytes is None and memory.trusted and not memory.given and not limits.blocked("memory"):
        message = "no memory limit: nothing to derive GOMEMLIMIT from, and the machine's memory is the only bound"
        yield Finding("no-memory-limit", WARNING, message, "set a memory limit on the container")
    full = _fullest(picture)
    if full is not None:
        path, used, limit = full
        level = CRITICAL if used >= limit else WARNING
        message = (
            f"memory is at {used * 100 // limit}% of its limit: {format_size(used)} of {format_size(limit)} at {path}"
        )
        yield Finding("memory-near-limit", level, message, "raise the limit, or find what holds the memory")
    by_path: dict[str, dict[str, int | None]] = {}
    for link in memory.chain:
        by_path.setdefault(link.path, {})[link.file.rpartition("/")[2]] = link.bytes
        if _beyond(link.raw, memory.total):
            message = f"{link.file} is {link.raw}, and the machine has {format_size(memory.total or 0)}: it never binds"
            yield Finding("limit-beyond-machine", INFO, message, "lower it, or count it as no limit")
    for path, bounds in by_path.items():
        high, most = bounds.get("memory.high"), bounds.get("memory.max")
        if high is not None and (most is None or high < most):
            top = "no memory.max" if most is None else f"memory.max of {format_size(most)}"
            message = (
                f"memory.high of {format_size(high)} is below {top} at {path}: beyond it the kernel reclaims and slows"
            )
            remedy = "GOMEMLIMIT is taken from memory.high; raise it (Kubernetes: Memory QoS) if that is too little"
            yield Finding("memory-high-below-max", WARNING, message, remedy)


def _beyond(raw: str, total: int | None) -> bool:
    """Whether a memory limit's text is a real number that the machine's memory can't reach."""
    return total is not None and raw.isascii() and raw.isdigit() and total <= int(raw) < UNLIMITED


def _fullest(picture: Picture) -> tuple[str, int, int] | None:
    """The level nearest to its limit, if it is near: path, bytes that can't be reclaimed at once, limit."""
    near: list[tuple[float, str, int, int]] = []
    for link in picture.limits.memory.chain:
        usage = picture.usage.memory_by_path.get(link.path, {})
        used = usage.get("working_set_bytes")
        used = usage.get("usage_bytes") if used is None else used
        if link.bytes and used is not None and used >= _NEARLY_FULL * link.bytes:
            near.append((used / link.bytes, link.path, int(used), link.bytes))
    return max(near)[1:] if near else None


def _given(picture: Picture) -> Iterator[Finding]:
    for name, given in (("CPU", picture.limits.cpu.given), ("memory", picture.limits.memory.given)):
        if given is None:
            continue
        beside = f"the cgroup here says {_said_here(picture.limits, name.lower())}"
        if given.likely_none and given.is_zero:
            message = f"the {name} limit is given as {given.text} ({given.source}): no limit; {beside}"
            yield Finding("given-limit-unlikely", WARNING, message, "set a limit, or leave this one out")
        elif given.likely_none:
            message = f"the {name} limit {given.text} ({given.source}) looks like the node's size: probably no limit"
            yield Finding("given-limit-unlikely", WARNING, f"{message}; {beside}", "set a limit, or say --trust-given")
        else:
            message = f"the {name} limit is given: {given.text} ({given.source}); {beside}"
            yield Finding(
                "limit-given", INFO, message, "right for an init container; --limits-from cgroup heeds the cgroup"
            )


def _wished(picture: Picture) -> Iterator[Finding]:
    cpu, memory = picture.limits.cpu.wish, picture.limits.memory.wish
    if cpu is not None and not _in_force(cpu, picture.limits.cpu.allowed):
        yield _pending("CPU", format_cpus(cpu.value), cpu, cpu.fact and format_cpus(cpu.fact))
    if memory is not None and memory.value != memory.fact:
        fact = memory.fact and format_size(int(memory.fact))
        yield _pending("memory", format_size(int(memory.value)), memory, fact)


def _in_force(cpu: Wish, allowed: frozenset[int] | None) -> bool:
    """Whether the quota is what is asked for, or the cpuset: whom the kubelet's static CPU manager gives CPUs of its
    own has no quota (DisableCPUQuotaWithExclusiveCPUs, Kubernetes 1.33 and newer).
    """
    if cpu.fact is None:
        return allowed is not None and len(allowed) == cpu.value
    return abs(cpu.value - cpu.fact) <= _CPU_ROUNDING


def _pending(name: str, wished: str, wish: Wish, fact: object) -> Finding:
    message = f"a {name} limit of {wished} is asked for ({wish.source}), in force is {fact or 'none'}"
    message += f": the resize is pending{f': {wish.reason}' if wish.reason else ''}"
    remedy = "the pod's conditions PodResizePending and PodResizeInProgress say why; the lower one is decided on"
    return Finding("resize-pending", WARNING, message, remedy)


def _said_here(limits: Limits, resource: str) -> str:
    """The limit that a given one took the place of, with its file."""
    cpu, memory = limits.cpu.binding, limits.memory.binding
    if limits.unknown(resource):
        return "what could not be read"
    if resource == "cpu" and cpu is not None and cpu.quota.cores is not None:
        return f"{format_cpus(cpu.quota.cores)} ({cpu.file})"
    if resource == "memory" and memory is not None and memory.bytes is not None:
        return f"{format_size(memory.bytes)} ({memory.file})"
    return "no limit"


def _throttled(picture: Picture) -> Iterator[Finding]:
    worst: tuple[float, str, dict[str, float]] | None = None
    for path, stat in picture.usage.throttling_by_path.items():
        numbers = {name: value for name, value in stat.items() if value is not None}
        if numbers.get("periods") and numbers.get("throttled_periods"):
            share = numbers["throttled_periods"] / numbers["periods"]
            if worst is None or share > worst[0]:
                worst = share, path, numbers
    if worst is None:
        return
    share, path, numbers = worst
    waited = f", {numbers['throttled_seconds']:.1f} s waited in all" if "throttled_seconds" in numbers else ""
    counts = f"{numbers['throttled_periods']:.0f} of {numbers['periods']:.0f}"
    message = f"the CPU was throttled in {share:.0%} of periods ({counts}{waited}) at {path}"
    wanted = picture.decision.gomaxprocs.value
    procs = f"run with GOMAXPROCS={wanted}" if wanted else "lower GOMAXPROCS"
    level = WARNING if share >= _THROTTLED_OFTEN else INFO
    yield Finding("cpu-throttled", level, message, f"{procs}; if it stays, raise the CPU limit")


def _cpu(picture: Picture) -> Iterator[Finding]:
    limits, cpu = picture.limits, picture.limits.cpu
    machine = len(cpu.machine) if cpu.machine else None
    if cpu.cores is None:
        if cpu.trusted and not cpu.given and not limits.blocked("cpu"):
            message = "no CPU limit: the program may use every CPU that cpuset and affinity leave"
            yield Finding(
                "no-cpu-limit", INFO, message, "set one if neighbours must be protected; many do well without"
            )
        return
    if not cpu.counts:
        return
    shown = f"the CPU limit of {format_cpus(cpu.cores)} ({cpu.source})"
    if cpu.cores < 1:
        message = f"{shown} is under one CPU: even one busy thread is throttled"
        yield Finding(
            "cpu-below-one", INFO, message, "GOMAXPROCS can't go below 1; give the service 1 CPU if latency matters"
        )
    if machine is not None and cpu.cores > machine:
        message = f"{shown} is more than the machine's {machine}: it never binds"
        yield Finding("limit-beyond-machine", INFO, message, "lower it, or count it as no limit")
    if cpu.narrowed and len(cpu.narrowed) < cpu.cores:
        message = f"cpuset or affinity leave {format_cpus(len(cpu.narrowed))}, less than {shown}"
        yield Finding("cpuset-narrower", WARNING, message, "widen the cpuset, or lower the quota to match")


def _ancestors(picture: Picture) -> Iterator[Finding]:
    limits = picture.limits
    cpu, memory = limits.cpu.binding, limits.memory.binding
    if cpu is not None and _is_above(picture, "cpu", cpu.path):
        yield _ancestor("CPU", format_cpus(cpu.quota.cores or 0), cpu.file)
    if memory is not None and memory.bytes is not None:
        unseen = memory.file.endswith("/memory.stat")
        if unseen or _is_above(picture, "memory", memory.path):
            yield _ancestor("memory", format_size(memory.bytes), memory.file)


def _is_above(picture: Picture, controller: str, path: str) -> bool:
    hierarchy = picture.limits.standing.hierarchy_of(controller)
    own = hierarchy is not None and hierarchy.standing in (INSIDE, NO_DIRECTORY) and hierarchy.levels[0].path
    return bool(own) and path != own


def _ancestor(resource: str, bound: str, file: str) -> Finding:
    message = f"a cgroup above binds tighter than the container's own {resource} limit: {bound} ({file})"
    remedy = "raise it there (pod, slice), or lower the container's to match; Go and automaxprocs read the leaf alone"
    return Finding("ancestor-binds", WARNING, message, remedy)


def _pids(picture: Picture) -> Iterator[Finding]:
    current, limit = picture.usage.pids.get("current"), picture.usage.pids.get("limit")
    if current is not None and limit and current >= _NEARLY_FULL * limit:
        message = (
            f"{current} of {limit} tasks (pids.max) exist: new threads will fail, and Go ends when it can't start one"
        )
        yield Finding("pids-near-limit", WARNING, message, "raise the pids limit, or find what starts so many threads")


def _unread(picture: Picture) -> Iterator[Finding]:
    for message in dict.fromkeys(picture.usage.errors):
        yield Finding("usage-unknown", INFO, message, "its numbers are left out; nothing was decided on them")
    choice = picture.decision.gomemlimit
    if choice.finding == "reserve-exceeds-limit" and choice.blocked:
        remedy = "raise the memory limit, or lower --memory-reserve or --memory-min"
        yield Finding(choice.finding, CRITICAL, choice.blocked, remedy)
