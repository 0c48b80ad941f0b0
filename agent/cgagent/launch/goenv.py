"""GOMAXPROCS and GOMEMLIMIT for a command that is about to start: what binds it there, decided by the policy.

Read from the host's side, where the cgroups above the container's are seen as well; inside, its own cgroup looks
like the root.
"""

from __future__ import annotations

from cgagent.cgroup.reading import read_limits
from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.host import FILE_LIMIT, Host
from cgagent.launch.cgroups import Cgroups
from cgagent.policy import Policy, decide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.launch.shown.scene import Scene

_OWN_CGROUPS = "/proc/self/cgroup"


class _Entered(Host):
    """This machine, as it is for a process in the container's cgroups."""

    def __init__(self, made: Cgroups, scene: Scene | None) -> None:
        super().__init__()
        self._made = made
        self._scene = scene
        self._shown = scene.overlay() if scene is not None else {}
        self._cpusets = scene.cpusets() if scene is not None else {}

    def affinity(self, pid: str) -> frozenset[int] | None:
        return self._scene.allowed if self._scene is not None and self._scene.cpus else super().affinity(pid)

    def read(self, path: str, limit: int = FILE_LIMIT) -> str:
        if path in self._shown:
            return self._shown[path]
        if path.rpartition("/")[2] in self._cpusets:
            return self._cpusets[path.rpartition("/")[2]]
        text = super().read(path, limit)
        if path != _OWN_CGROUPS:
            return text
        lines = (line.split(":", 2) for line in text.split("\n") if line)
        return "".join(f"{number}:{names}:{self._path(names, path)}\n" for number, names, path in lines)

    def _path(self, names: str, own: str) -> str:
        for one in self._made.made:
            if one.options == names:
                return one.path
        return own


def decided(made: Cgroups, environ: Mapping[str, str], scene: Scene | None) -> dict[str, str]:
    """The variables for a command in the cgroups `made`, which sees the machine of `scene` if there is one.

    Raises:
        CgagentError: a limit is there and can't be known.
    """
    decision = decide(read_limits(_host(made, scene)), Policy(), environ)
    for name, choice in decision.blocked():
        raise CgagentError(f"--go-env: {name}: {choice.blocked}", "leave --go-env out", EXIT_RUN_FAILED)
    return decision.env()


def _host(made: Cgroups, scene: Scene | None) -> Host:
    if scene is None or scene.capture is None:
        return _Entered(made, scene)
    from cgagent.launch.shown.host import ShownHost

    return ShownHost(scene, scene.capture)
