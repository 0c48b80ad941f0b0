"""Where runtimes put a container's cgroup, and what of the hierarchy the container sees. Pure.

Sources: runc's libcontainer/rootfs_linux.go (mountCgroupV1 binds the container's own directory, mountCgroupV2 mounts
the hierarchy as the cgroup namespace shows it), Kubernetes' pkg/kubelet/cm (names of the pod's slices),
systemd.slice(5), cgroup_namespaces(7).
"""

from __future__ import annotations

from cgagent.record import Record

LAYOUTS = ("docker", "kubernetes-cgroupfs", "kubernetes-systemd", "systemd-service", "nested")
QOS = ("guaranteed", "burstable", "besteffort")
MODES = ("v1", "v2", "hybrid")
# The hierarchies of systemd's legacy layout.
V1_HIERARCHIES = (
    *("cpuset", "cpu,cpuacct", "blkio", "memory", "devices", "freezer", "net_cls,net_prio", "perf_event"),
    *("hugetlb", "pids", "name=systemd"),
)
_CONTAINER = "9d2b7c54e1f04a6f8a53c0de61b7f2953c8e4417ab09d6f2e5b81c73a4960d1e"
_OUTER = "41c0be8f7a2d4e5590e6d3b8c1f7a26d05947b3ce81fa4d2669b0e57c3821fda"
_POD = "6e1f0a52-3c9b-4d7e-8f21-b5a7c4d09e63"


class Place(Record):
    """A container's cgroup.

    Attributes:
        steps: the names from the hierarchy's root down to it.
        parent: how many of them lead to the cgroup that holds the parent's limits.
    """

    __slots__ = ("parent", "steps")

    def __init__(self, steps: tuple[str, ...], parent: int = 0) -> None:
        self.steps = steps
        self.parent = parent or len(steps) - 1

    def path(self, count: int | None = None) -> str:
        """The path of the first `count` steps; of all by default."""
        return "/" + "/".join(self.steps[:count])


def place(layout: str, unified: bool, qos: str) -> Place:
    """Where `layout` puts the container on v2 (`unified`) or v1."""
    if layout == "docker":
        return Place(("system.slice", f"docker-{_CONTAINER}.scope") if unified else ("docker", _CONTAINER))
    if layout == "nested":
        outer = ("system.slice", f"docker-{_OUTER}.scope") if unified else ("docker", _OUTER)
        return Place((*outer, "docker", _CONTAINER), parent=2)
    if layout == "systemd-service":
        return Place(("system.slice", "app.service"))
    middle = () if qos == "guaranteed" else (qos,)
    if layout == "kubernetes-cgroupfs":
        return Place(("kubepods", *middle, f"pod{_POD}", _CONTAINER))
    # A dash in a slice's name stands for a level; the pod's own are underscores.
    names = ["kubepods", *middle, f"pod{_POD.replace('-', '_')}"]
    slices = tuple(f"{'-'.join(names[: count + 1])}.slice" for count in range(len(names)))
    return Place((*slices, f"cri-containerd-{_CONTAINER}.scope"))


def has_own_namespace(layout: str, unified: bool) -> bool:
    """Whether the runtime gives the container a cgroup namespace if nobody says: on v2 alone, and never a service."""
    return unified and layout != "systemd-service"


class View(Record):
    """What the container sees of one hierarchy.

    Attributes:
        own: its path in /proc/PID/cgroup.
        root: the mount's root in mountinfo.
        levels: the directories below the mount point -> how many steps of the place lead there.
    """

    __slots__ = ("levels", "own", "root")

    def __init__(self, own: str, root: str, levels: dict[str, int]) -> None:
        self.own = own
        self.root = root
        self.levels = levels


def view(where: Place, layout: str, unified: bool, private: bool) -> View:
    """The view with (`private`) or without a cgroup namespace."""
    count = len(where.steps)
    if private:
        return View("/", "/", {"": count})
    if not unified and layout != "systemd-service":
        return View(where.path(), where.path(), {"": count})  # its own directory, bound
    levels = {where.path(depth).rstrip("/"): depth for depth in range(count + 1)}
    return View(where.path(), "/", levels)
