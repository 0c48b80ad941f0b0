"""The limits that bind a process: its cgroups' and every visible ancestor's, each with where it was read.

What cannot be known stays unknown: a malformed or unreadable level makes the limit None, and a `Problem`
that blocks says why. None without such a problem is "no limit".
"""

from __future__ import annotations

from cgagent.cgroup.dialect import Bound, Quota
from cgagent.cgroup.hierarchy import INVISIBLE, STRANGER, Hierarchy, Level
from cgagent.cgroup.numbers import cpu_list, unsigned
from cgagent.cgroup.process import Problem, Standing, locate, read_membership
from cgagent.errors import MalformedError
from cgagent.host import VANISHED, Host, ReadError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cgagent.cgroup.dialect import Get

    T = TypeVar("T")

# With one of these, a number is not known, and nothing may be decided on it.
BLOCKING = ("malformed-file", "unreadable", "controller-not-visible")
_ATTEMPTS = 10


class CpuLink(Record):
    """One level's CPU quota: the cgroup's path, the file, and what it says."""

    __slots__ = ("file", "path", "quota")

    def __init__(self, path: str, file: str, quota: Quota) -> None:
        self.path = path
        self.file = file
        self.quota = quota


class MemoryLink(Record):
    """One memory limit of one level: the cgroup's path, the file, its text, and bytes (None: no limit)."""

    __slots__ = ("bytes", "file", "path", "raw")

    def __init__(self, path: str, file: str, raw: str, size: int | None) -> None:
        self.path = path
        self.file = file
        self.raw = raw
        self.bytes = size


class Given(Record):
    """A limit given from outside, for a process that is not the one we read (an init container's application).

    Attributes:
        source: the option, variable or file that gives it.
        text: as it was given.
        likely_none: whether it looks like the node's size, which the downward API reports where no limit is set.
        is_zero: whether it is none by its very number, which no trust changes.
    """

    __slots__ = ("is_zero", "likely_none", "source", "text")

    def __init__(self, source: str, text: str, likely_none: bool, is_zero: bool = False) -> None:
        self.source = source
        self.text = text
        self.likely_none = likely_none
        self.is_zero = is_zero


class Wish(Record):
    """A limit that is asked for, beside the one that the cgroup has: a resize may be deferred, refused or held back.

    Attributes:
        value: CPUs or bytes that are asked for.
        fact: what the cgroup has; None: no limit.
        source: the option, variable or file that tells.
    """

    __slots__ = ("fact", "source", "value")

    def __init__(self, value: float, fact: float | None, source: str) -> None:
        self.value = value
        self.fact = fact
        self.source = source


class CpuLimit(Record):
    """What bounds the process's CPU time.

    Attributes:
        cores: the smallest quota in CPUs; None for no quota, or where it is not known.
        source: where that number comes from: a file, or an option's name.
        chain: every level that has a quota file, innermost first.
        binding: the link of the chain that holds the smallest quota.
        trusted: False where the chain is that of a cgroup that is neither the process's nor above it.
        given: the limit given from outside, which then takes the place of the chain's.
        foreign: whether the process that is decided for is not the one whose files were read.
        wish: what is asked for, where that is known beside what is; `cores` is then the smaller of the two.
        allowed: the CPUs that cpuset and affinity leave, as far as they are online; None if not known.
        cpuset: the file and CPUs of the cpuset that binds; None if there is none.
        affinity: the CPUs of the process's own mask; None if not known.
        online: the machine's CPUs; None if not known.
    """

    __slots__ = (
        "affinity",
        "allowed",
        "binding",
        "chain",
        "cores",
        "cpuset",
        "foreign",
        "given",
        "online",
        "source",
        "trusted",
        "wish",
    )

    def __init__(self) -> None:
        self.cores: float | None = None
        self.source: str | None = None
        self.chain: list[CpuLink] = []
        self.binding: CpuLink | None = None
        self.trusted = True
        self.given: Given | None = None
        self.foreign = False
        self.wish: Wish | None = None
        self.allowed: frozenset[int] | None = None
        self.cpuset: tuple[str, frozenset[int]] | None = None
        self.affinity: frozenset[int] | None = None
        self.online: frozenset[int] | None = None

    @property
    def counts(self) -> bool:
        """Whether `cores` is to be decided on, not only shown."""
        return self.trusted or self.foreign

    @property
    def machine(self) -> frozenset[int] | None:
        """The machine's CPUs; where they are not known (a captured tree) the process's mask stands for them."""
        return self.online or self.affinity

    @property
    def usable(self) -> frozenset[int] | None:
        """The CPUs that bound GOMAXPROCS: an init container's own cpuset says nothing of the application's."""
        return self.machine if self.foreign else self.allowed

    @property
    def narrowed(self) -> frozenset[int] | None:
        """The CPUs that are left where cpuset or affinity withhold some of the machine's, else None."""
        if self.foreign or self.allowed is None:
            return None
        return self.allowed if self.machine and len(self.allowed) < len(self.machine) else None


class MemoryLimit(Record):
    """What bounds the process's memory: as `CpuLimit`, in bytes; `total` is the machine's MemTotal."""

    __slots__ = ("binding", "bytes", "chain", "foreign", "given", "source", "total", "trusted", "wish")

    def __init__(self) -> None:
        self.bytes: int | None = None
        self.source: str | None = None
        self.chain: list[MemoryLink] = []
        self.binding: MemoryLink | None = None
        self.trusted = True
        self.given: Given | None = None
        self.foreign = False
        self.wish: Wish | None = None
        self.total: int | None = None

    @property
    def counts(self) -> bool:
        """Whether `bytes` is to be decided on, not only shown."""
        return self.trusted or self.foreign


class Limits(Record):
    """All that was read for a decision: where the process stands, its limits, and what is not known of them."""

    __slots__ = ("cpu", "memory", "problems", "standing")

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.problems = list(standing.problems)
        self.cpu = CpuLimit()
        self.memory = MemoryLimit()

    @property
    def found(self) -> bool:
        """Whether there is any limit to decide on."""
        cpu, memory = self.cpu, self.memory
        return (cpu.counts and cpu.cores is not None) or (memory.counts and memory.bytes is not None)

    def blocked(self, resource: str) -> Problem | None:
        """Why nothing may be decided for `resource`, or None."""
        foreign = self.cpu.foreign if resource == "cpu" else self.memory.foreign
        return None if foreign else self.unknown(resource)

    def unknown(self, resource: str) -> Problem | None:
        """Why it is not known what the cgroups say of `resource`, or None."""
        for problem in self.problems:
            if problem.id in BLOCKING and problem.resource in ("", resource):
                return problem
        return None


def read_limits(host: Host, pid: str = "self") -> Limits:
    """The limits of process `pid` (a number, or `self`).

    Where the process is moved to another cgroup while we read, all is read again; if it never stays long
    enough, nothing is known.

    Raises:
        CgagentError: there is no such process, or no /proc.
    """
    try:
        membership = read_membership(host, pid)
    except ReadError as error:
        return Limits(locate(host, pid, None, error.message))
    for _ in range(_ATTEMPTS):
        limits = Limits(locate(host, pid, membership))
        _read_cpu(limits)
        _read_cpus(host, pid, limits)
        _read_memory(host, limits)
        before, membership = membership, read_membership(host, pid) if host.live else membership
        if membership == before:
            return limits
    # Some of what was read may be gone, and would look like no limit.
    unsettled = Limits(limits.standing)
    message = f"process {pid} is moved from cgroup to cgroup faster than they can be read"
    unsettled.problems.append(Problem("unreadable", "", message))
    return unsettled


def _read_cpu(limits: Limits) -> None:
    hierarchy = _seen(limits, "cpu")
    if hierarchy is None:
        return
    cpu = limits.cpu
    cpu.trusted = hierarchy.standing != STRANGER
    for level in hierarchy.levels:
        quotas = _each_view(limits, "cpu", level, hierarchy.dialect.cpu_quota)
        if len({quota.cores for _, quota in quotas}) > 1:
            _note_conflict(limits, "cpu", level, [f"{file}/{quota.file}" for file, quota in quotas])
        if quotas:
            directory, quota = min(quotas, key=lambda one: _or_infinite(one[1].cores))
            cpu.chain.append(CpuLink(level.path, f"{directory}/{quota.file}", quota))
    binding = min(cpu.chain, key=lambda link: _or_infinite(link.quota.cores), default=None)
    if binding and binding.quota.cores is not None and not limits.blocked("cpu"):
        cpu.binding, cpu.cores, cpu.source = binding, binding.quota.cores, binding.file


def _read_memory(host: Host, limits: Limits) -> None:
    memory = limits.memory
    # What lxcfs shows there is the container's own limit, not the machine's memory.
    memory.total = None if limits.standing.lxcfs else _checked(limits, "memory", lambda: _memory_total(host))
    hierarchy = _seen(limits, "memory")
    if hierarchy is None:
        return
    memory.trusted = hierarchy.standing != STRANGER
    for level in hierarchy.levels:
        views = _each_view(limits, "memory", level, hierarchy.dialect.memory_bounds)
        by_file: dict[str, list[tuple[str, Bound]]] = {}
        for directory, bounds in views:
            for bound in bounds:
                by_file.setdefault(bound.file, []).append((f"{directory}/{bound.file}", bound))
        for found in by_file.values():
            if len({bound.bytes for _, bound in found}) > 1:
                _note_conflict(limits, "memory", level, [file for file, _ in found])
            file, bound = min(found, key=lambda one: _or_infinite(one[1].bytes))
            memory.chain.append(MemoryLink(level.path, file, bound.raw, _real(bound.bytes, memory.total)))
    # v1's hierarchical_memory_limit repeats what an ancestor says: where that is visible, it is the one to name.
    binding = min(memory.chain, key=lambda link: (_or_infinite(link.bytes), _is_summary(link)), default=None)
    if binding and binding.bytes is not None and not limits.blocked("memory"):
        memory.binding, memory.bytes, memory.source = binding, binding.bytes, binding.file


def _seen(limits: Limits, controller: str) -> Hierarchy | None:
    """The hierarchy of `controller`, if a mount shows any of it."""
    hierarchy = limits.standing.hierarchy_of(controller)
    return None if hierarchy is None or hierarchy.standing == INVISIBLE else hierarchy


def _is_summary(link: MemoryLink) -> bool:
    return link.file.endswith("/memory.stat")


def _or_infinite(value: float | None) -> float:
    return float("inf") if value is None else value


def _real(size: int | None, total: int | None) -> int | None:
    """`size`, or None where the machine has no more memory than that: such a limit never binds."""
    return None if size is None or (total is not None and size >= total) else size


def _note_conflict(limits: Limits, resource: str, level: Level, files: list[str]) -> None:
    message = f"mounts disagree about cgroup {level.path}, the smallest counts: {', '.join(files)}"
    limits.problems.append(Problem("conflicting-mounts", resource, message))


def getter(host: Host, directory: str) -> Get:
    """A dialect's `get` for one directory: a file's text by its name, None where there is no such file."""

    def get(name: str) -> str | None:
        try:
            return host.read_if_there(f"{directory}/{name}")
        except ReadError as error:
            # The cgroup was removed under us; the process has moved, and `read_limits` reads it again.
            if error.kind == VANISHED:
                return None
            raise

    return get


def _each_view(limits: Limits, resource: str, level: Level, read: Callable[[Get], T | None]) -> list[tuple[str, T]]:
    """What `read` gives for `level` in each directory that shows it, with the directory's name.

    A view that may not be read matters only where no other view shows the level.
    """
    found: list[tuple[str, T]] = []
    refused: list[Problem] = []
    for host, directory in level.directories:
        try:
            value = read(getter(host, directory))
        except MalformedError as error:
            message = error.at(f"{host.shown(directory)}/{error.file}").message
            limits.problems.append(Problem("malformed-file", resource, message))
        except ReadError as error:
            message = f"cannot read {host.shown(error.path)}: {error.detail}"
            refused.append(Problem("unreadable", resource, message))
        else:
            if value is not None:
                found.append((host.shown(directory), value))
    if len(refused) == len(level.directories):
        limits.problems += refused
    return found


def _checked(limits: Limits, resource: str, read: Callable[[], T | None]) -> T | None:
    """What `read` gives, or None and a problem noted."""
    try:
        return read()
    except MalformedError as error:
        limits.problems.append(Problem("malformed-file", resource, error.message))
    except ReadError as error:
        limits.problems.append(Problem("unreadable", resource, error.message))
    return None


def _read_cpus(host: Host, pid: str, limits: Limits) -> None:
    """The CPUs that the process may run on: its affinity and its cpuset, as far as they are online."""
    cpu = limits.cpu
    cpu.online = _checked(limits, "cpu", lambda: _online(host))
    cpu.affinity = host.affinity(pid) or _checked(limits, "cpu", lambda: _status_affinity(host, pid))
    hierarchy = _seen(limits, "cpuset")
    if hierarchy is not None and hierarchy.standing != STRANGER:
        for level in hierarchy.levels:
            sets = _each_view(limits, "cpu", level, hierarchy.dialect.cpuset)
            # The effective set of the innermost level includes what its ancestors leave it.
            if sets and sets[0][1][1]:
                directory, (name, cpus) = sets[0]
                cpu.cpuset = (f"{directory}/{name}", cpus)
                break
    known = [cpus for cpus in (cpu.affinity, cpu.cpuset and cpu.cpuset[1], cpu.online) if cpus]
    if known and not limits.blocked("cpu"):
        # The three are read one after the other: where they have nothing in common, the mask is the truth.
        cpu.allowed = frozenset.intersection(*known) or known[0]


def _status_affinity(host: Host, pid: str) -> frozenset[int] | None:
    """`Cpus_allowed_list` of /proc/PID/status (proc(5)): affinity and cpuset together, offline CPUs too."""
    file = f"/proc/{pid}/status"
    for line in (host.read_if_there(file) or "").split("\n"):
        if line.startswith("Cpus_allowed_list:"):
            return cpu_list(line.partition(":")[2], file)
    return None


def _online(host: Host) -> frozenset[int] | None:
    """The machine's online CPUs, from /sys or, where a sandbox shows none, the `cpuN` lines of /proc/stat."""
    file = "/sys/devices/system/cpu/online"
    text = host.read_if_there(file)
    if text is not None:
        return cpu_list(text, file)
    lines = (host.read_if_there("/proc/stat") or "").split("\n")
    names = [line.split(" ", 1)[0].removeprefix("cpu") for line in lines if line.startswith("cpu")]
    return frozenset(int(name) for name in names if name.isdigit() and len(name) < 6) or None


def _memory_total(host: Host) -> int | None:
    """`MemTotal` of /proc/meminfo in bytes."""
    file = "/proc/meminfo"
    for line in (host.read_if_there(file) or "").split("\n"):
        if line.startswith("MemTotal:"):
            return unsigned(line.partition(":")[2].strip(" ").removesuffix(" kB"), file) * 1024
    return None
