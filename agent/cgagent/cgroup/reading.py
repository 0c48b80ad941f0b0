"""Reading the limits of a process: through every directory that shows one of its cgroups or an ancestor."""

from __future__ import annotations

from cgagent.cgroup.dialect import Bound
from cgagent.cgroup.hierarchy import INVISIBLE, STRANGER, Hierarchy, Level
from cgagent.cgroup.limits import CpuLink, Limits, MemoryLink
from cgagent.cgroup.numbers import cpu_list, unsigned
from cgagent.cgroup.process import Problem, locate, read_membership
from cgagent.errors import MalformedError
from cgagent.host import VANISHED, Host, ReadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cgagent.cgroup.dialect import Get

    T = TypeVar("T")

_ATTEMPTS = 10


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
