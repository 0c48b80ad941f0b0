"""The target's program: what it was built from, read once for each file that runs, and what it was started with."""

from __future__ import annotations

import os

from cgagent.errors import CgagentError
from cgagent.golang import buildinfo
from cgagent.golang.runtime import own_procs
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.limits import Limits
    from cgagent.golang.buildinfo import BuildInfo
    from cgagent.host import Host


class TargetProgram(Record):
    """What a process runs.

    Attributes:
        build: what it was built from; None: no Go program, or not to be read.
        environment: the variables that it was started with; None: not to be read.
    """

    __slots__ = ("build", "environment")

    def __init__(self, build: BuildInfo | None, environment: dict[str, str] | None) -> None:
        self.build = build
        self.environment = environment

    def own_procs(self, limits: Limits) -> int | None:
        """The GOMAXPROCS that its own runtime reaches under `limits` and keeps current; None: it does not."""
        return None if self.build is None else own_procs(self.build, limits, self.environment or {})


class Programs:
    """Reads the program of one process after the other."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: tuple[object, BuildInfo | None] = (None, None)

    def of(self, pid: str) -> TargetProgram:
        """What runs as process `pid` now: an exec(2) may have changed it. We ourselves are no Go program."""
        if pid == "self":
            return TargetProgram(None, dict(os.environ))
        path = self._host.locate(f"/proc/{pid}") + "/exe"
        try:
            status = os.stat(path)
            file = (status.st_dev, status.st_ino, status.st_mtime_ns)
            if self._known[0] != file:
                # Threads may read it meanwhile: replaced as a whole.
                self._known = (file, buildinfo.read(path))
            build = self._known[1]
        except (OSError, CgagentError):
            build = None  # not permitted, or gone
        return TargetProgram(build, self._host.environment(pid))
