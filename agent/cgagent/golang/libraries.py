"""The modules that set GOMAXPROCS or the memory limit from inside a program, and what each version of them sees.

Read in uber-go/automaxprocs (v1.0.0 to v1.6.0) and KimMachineGun/automemlimit (v0.1.0 to v0.7.5-pre.1, and the
release notes of v1.0.0). Taken to be used with their defaults: options that the program gives them can't be seen.
"""

from __future__ import annotations

from cgagent.cgroup.dialect import UNLIMITED
from cgagent.golang import sight
from cgagent.golang.expected import Expected, Library
from cgagent.units import format_cores, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cgagent.cgroup.hierarchy import Hierarchy
    from cgagent.cgroup.limits import CpuLink, Limits, MemoryLink
    from cgagent.golang.modinfo import Dependency

AUTOMAXPROCS = "go.uber.org/automaxprocs"
AUTOMEMLIMIT = "github.com/KimMachineGun/automemlimit"

_NEWEST = (1 << 30,)
_DEFAULT_RATIO = 0.9


def find(dependencies: Sequence[Dependency]) -> tuple[Library, ...]:
    """Those of `dependencies` that set one of the variables, with what to know of their version."""
    found = []
    for name, variable, notes in (
        (AUTOMAXPROCS, "GOMAXPROCS", _procs_notes),
        (AUTOMEMLIMIT, "GOMEMLIMIT", _memory_notes),
    ):
        module = _linked(name, dependencies)
        if module is not None:
            version = (module.replace or module).version
            found.append(Library(name, version, variable, tuple(notes(module.release or _NEWEST))))
    return tuple(found)


def _linked(name: str, dependencies: Sequence[Dependency]) -> Dependency | None:
    for module in dependencies:
        if module.path == name or module.path.startswith(name + "/v"):
            return module
    return None


def _procs_notes(release: tuple[int, ...]) -> list[str]:
    notes = ["reads the quota once, at start", "reads its own cgroup's quota and no ancestor's"]
    if release < (1, 5):
        notes.append("does not know cgroup v2 (1.5.0 does)")
    else:
        notes.append("knows cgroup v2 at /sys/fs/cgroup alone, so not where v1 and v2 are both mounted")
        if release < (1, 5, 2):
            notes.append("reads the quota of the mount's root on cgroup v2, not of its own cgroup (1.5.2 does)")
    return notes


def _memory_notes(release: tuple[int, ...]) -> list[str]:
    notes = ["reads the limit once, at start, unless the program asks for a refresh", "ignores memory.high"]
    if release < (0, 7, 5):
        notes.append("reads its own cgroup's limit on cgroup v2 and no ancestor's (0.7.5 does)")
    if (0, 7) <= release < (0, 7, 4):
        notes.append("misses the ancestors' limits on cgroup v1 (0.7.4 does not)")
    if release < (0, 2, 6):
        notes.append("does not know v1 and v2 mounted together (0.2.6 does)")
    if release >= (1,):
        notes.append("sets no limit (math.MaxInt64) where the cgroup has none; before 1.0.0 it left the limit alone")
    return notes


def automaxprocs(dependencies: Sequence[Dependency], limits: Limits, environment: Mapping[str, str]) -> Expected | None:
    """The GOMAXPROCS that automaxprocs sets; None where it is not linked in, or leaves the runtime's."""
    module = _linked(AUTOMAXPROCS, dependencies)
    # Set to anything, even to nothing, the variable keeps it from acting.
    if module is None or "GOMAXPROCS" in environment:
        return None
    if limits.cpu.foreign:
        cores, source = limits.cpu.cores, limits.cpu.source
    else:
        link = _seen_quota(module.release or _NEWEST, limits)
        cores, source = (link.quota.cores, link.file) if link else (None, None)
    if cores is None:
        return None
    reason = f"{find([module])[0]} sets the floor of {format_cores(cores)} CPUs, at least 1, once at start ({source})"
    return Expected(max(1, int(cores)), reason, AUTOMAXPROCS)


def _seen_quota(release: tuple[int, ...], limits: Limits) -> CpuLink | None:
    hierarchy = sight.seen_hierarchy(limits, "cpu")
    if hierarchy is None:
        return None
    if hierarchy.version == 1:
        return None if release >= (1, 5) and _mounted_unified(limits) else sight.own_quota(limits)
    if release < (1, 5):
        return None
    if release < (1, 5, 2):
        # Whatever cgroup it is in, it reads /sys/fs/cgroup/cpu.max.
        roots = [link for link in limits.cpu.chain if link.file.endswith(f"{sight.V2_MOUNT}/cpu.max")]
        return roots[0] if roots else None
    return sight.own_quota(limits) if sight.joined_finds(hierarchy, sight.V2_MOUNT) else None


def _mounted_unified(limits: Limits) -> bool:
    """Whether cgroup v2 is mounted at /sys/fs/cgroup, which automaxprocs takes for a machine with v2 alone."""
    return any(one.version == 2 and one.mount == sight.V2_MOUNT for one in limits.standing.hierarchies)


def automemlimit(dependencies: Sequence[Dependency], limits: Limits, environment: Mapping[str, str]) -> Expected | None:
    """The memory limit that automemlimit sets; None where it is not linked in, or sets none."""
    module = _linked(AUTOMEMLIMIT, dependencies)
    ratio = _ratio(environment.get("AUTOMEMLIMIT"))
    # Set to anything, even to nothing, the variable keeps it from acting.
    if module is None or ratio is None or "GOMEMLIMIT" in environment:
        return None
    seen = _seen_limit(module.release or _NEWEST, limits)
    if seen is None:
        return None
    size, source = seen
    # In floating point, as Go computes it: uint64(float64(limit) * ratio).
    value = size if ratio == 1 else int(size * ratio)
    reason = f"{find([module])[0]} sets {ratio:.4g} of {format_size(size)}, once at start ({source})"
    return Expected(value, reason, AUTOMEMLIMIT)


def _ratio(text: str | None) -> float | None:
    """AUTOMEMLIMIT's share; None where it is `off`, or no share: automemlimit then sets nothing."""
    if text is None:
        return _DEFAULT_RATIO
    try:
        ratio = float(text)
    except ValueError:
        return None
    return ratio if 0 < ratio <= 1 else None


def _seen_limit(release: tuple[int, ...], limits: Limits) -> tuple[int, str] | None:
    """The memory limit that automemlimit finds in bytes, and where."""
    memory = limits.memory
    if memory.foreign:
        return None if memory.bytes is None or memory.source is None else (memory.bytes, memory.source)
    # The links' texts: unlike us, it does not compare a limit with the machine's memory.
    sizes = [(int(link.raw), link.file) for link in _seen_memory(release, limits) if link.raw.isdigit()]
    # Before 0.5.0 it took v1's "unlimited" for a limit, and set the share of that.
    return min((size for size in sizes if size[0] < UNLIMITED or release < (0, 5)), default=None)


def _seen_memory(release: tuple[int, ...], limits: Limits) -> list[MemoryLink]:
    hierarchy = sight.seen_hierarchy(limits, "memory")
    if hierarchy is None:
        return []
    chain = limits.memory.chain
    own, outermost = hierarchy.levels[0].path, hierarchy.levels[-1].path
    if hierarchy.version == 1:
        if release < (0, 2, 6) and limits.standing.mode == "hybrid":
            return []
        # Through containerd/cgroups, versions before 0.7.0 read the directory that is mounted.
        level = outermost if release < (0, 7) else own
        files: tuple[str, ...] = ("memory.stat", "memory.limit_in_bytes")
        if release < (0, 7):
            files = ("memory.stat",)
        elif release < (0, 7, 4):
            files = ("memory.limit_in_bytes",)  # it looked for the other in "memory.stats"
        return [link for link in chain if link.path == level and link.file.rpartition("/")[2] in files]
    if release < (0, 7) and not _at_fixed_mount(release, hierarchy):
        return []
    return [link for link in chain if link.file.endswith("/memory.max") and (link.path == own or release >= (0, 7, 5))]


def _at_fixed_mount(release: tuple[int, ...], hierarchy: Hierarchy) -> bool:
    """Whether cgroup v2 is where versions before 0.7.0 look for it."""
    unified = release >= (0, 2, 6) and sight.joined_finds(hierarchy, f"{sight.V2_MOUNT}/unified")
    return unified or sight.joined_finds(hierarchy, sight.V2_MOUNT)
