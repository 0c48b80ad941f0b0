"""What a program sees of its limits, which is less than all that binds it: its own cgroup, by one mount.

The mounts in `Limits` are read from where we stand. Of a process in another cgroup namespace we can't know the
paths that it sees itself; it is then taken to be in a namespace of its own on v2 and in the machine's on v1, as
container runtimes have it by default.
"""

from __future__ import annotations

from cgagent.cgroup.hierarchy import INSIDE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.hierarchy import Hierarchy
    from cgagent.cgroup.limits import CpuLink, Limits

V2_MOUNT = "/sys/fs/cgroup"


def seen_hierarchy(limits: Limits, controller: str) -> Hierarchy | None:
    """The hierarchy of `controller` if a mount shows the process's own cgroup in it."""
    hierarchy = limits.standing.hierarchy_of(controller)
    return hierarchy if hierarchy is not None and hierarchy.standing == INSIDE else None


def own_quota(limits: Limits) -> CpuLink | None:
    """The quota of the process's own cgroup; None where it has no quota file, or none that is seen."""
    hierarchy = seen_hierarchy(limits, "cpu")
    chain = limits.cpu.chain
    return chain[0] if hierarchy and chain and chain[0].path == hierarchy.levels[0].path else None


def joined_finds(hierarchy: Hierarchy, mount: str | None = None) -> bool:
    """Whether a mount point and the cgroup's path, simply joined, name the cgroup's directory.

    They do not where the mount shows less than the whole hierarchy: there the path's start is the mount's root.
    `mount` is the one mount point to try; None tries any.
    """
    shown = hierarchy.levels[0].directories
    elsewhere = [one for one in shown if one[0].shown("")]  # in another mount namespace, named as it does itself
    found = [directory for _, directory in elsewhere or shown]
    path = hierarchy.path.rstrip("/")
    if any(directory.endswith(path) if mount is None else directory == mount + path for directory in found):
        return True
    return bool(elsewhere) and hierarchy.version == 2 and (mount is None or mount in found)


def usable_cpus(limits: Limits) -> int | None:
    """How many CPUs sched_getaffinity(2) gives the program; None where that is not known."""
    cpu = limits.cpu
    if cpu.foreign:
        cpus = cpu.online
    elif cpu.affinity and cpu.online:
        cpus = cpu.affinity & cpu.online
    else:
        cpus = cpu.affinity or cpu.allowed
    return len(cpus) if cpus else None
