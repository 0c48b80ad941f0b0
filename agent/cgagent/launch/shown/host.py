"""The machine that is shown as a `Host`, for decisions made before the command starts, and what it enforces."""

from __future__ import annotations

from cgagent.cgroup.dialect import number
from cgagent.cgroup.reading import getter, read_limits
from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.host import ABSENT, FILE_LIMIT, Host, ReadError
from cgagent.launch.resources import Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.capture import Capture
    from cgagent.cgroup.hierarchy import Hierarchy
    from cgagent.launch.shown.scene import Scene

_CAPTURED = ("/proc/self/", "/sys/fs/cgroup/")


class ShownHost(Host):
    """What a process inside will read; the real machine's files where nothing is laid over them."""

    def __init__(self, scene: Scene, capture: Capture) -> None:
        super().__init__()
        self._scene = scene
        self._capture = capture
        self._overlay = scene.overlay()

    def read(self, path: str, limit: int = FILE_LIMIT) -> str:
        """As `Host.read`."""
        if path in self._overlay:
            return self._overlay[path]
        if not path.startswith(_CAPTURED):
            return super().read(path, limit)
        text = self._capture.text(path)
        if text is None:
            raise ReadError(path, ABSENT, "no such file or directory")
        return text

    def is_directory(self, path: str) -> bool:
        """As `Host.is_directory`."""
        return path in self._capture.directories if path.startswith("/sys/fs/cgroup") else super().is_directory(path)

    def affinity(self, pid: str) -> frozenset[int] | None:
        """What sched_getaffinity(2) will say inside."""
        return self._scene.allowed if self._scene.cpus else super().affinity(pid)


def enforced(host: ShownHost) -> Resources:
    """The limits that bind in the layout, to set as real ones: CPU time, memory, tasks.

    Raises:
        CgagentError: one of them can't be known.
    """
    limits = read_limits(host)
    for resource in ("cpu", "memory"):
        problem = limits.blocked(resource)
        if problem is not None:
            hint = "leave --enforce out, or give the limits with --simulate"
            raise CgagentError(f"--enforce: {problem.message}", hint, EXIT_RUN_FAILED)
    real = Resources()
    if limits.cpu.binding is not None:
        real.quota_us, real.period_us = limits.cpu.binding.quota.quota_us, limits.cpu.binding.quota.period_us
    if limits.memory.bytes is not None:
        real.memory = real.memory_swap = limits.memory.bytes
        real.swap_by_default = True
    real.pids = _tasks(limits.standing.hierarchy_of("pids"))
    return real


def _tasks(hierarchy: Hierarchy | None) -> int | None:
    found = []
    for level in hierarchy.levels if hierarchy is not None else ():
        for host, directory in level.directories:
            found.append(number(getter(host, directory), "pids.max"))
    return min((most for most in found if most is not None), default=None)
