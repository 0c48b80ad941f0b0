"""All that `explain` tells of one process, gathered in one place; what was not known is None."""

from __future__ import annotations

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.usage import Usage
from cgagent.golang.buildinfo import BuildInfo
from cgagent.policy import Decision
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.golang.live import Running


class Picture(Record):
    """What was seen of a process, and what was decided for it.

    Attributes:
        pid: its number, or `self`.
        root: `/`, or the captured tree that was read.
        limits: what bounds it.
        usage: what it uses.
        decision: both variables' choices.
        environment: the variables it starts with; None where they may not be read.
        go: its program's build information; None where it is no Go program or not known.
        running: what its Go runtime holds now; None where that is not known.
        running_unknown: why it is not, where it could be.
        capture: the meta document of the capture that was read (cgagent.capture.layout); None where none was.
    """

    __slots__ = (
        "capture",
        "decision",
        "environment",
        "go",
        "limits",
        "pid",
        "root",
        "running",
        "running_unknown",
        "usage",
    )

    def __init__(
        self,
        pid: str,
        root: str,
        limits: Limits,
        usage: Usage,
        decision: Decision,
        environment: Mapping[str, str] | None,
        go: BuildInfo | None,
        running: Running | None = None,
        running_unknown: str | None = None,
        capture: Mapping[str, object] | None = None,
    ) -> None:
        self.pid = pid
        self.root = root
        self.limits = limits
        self.usage = usage
        self.decision = decision
        self.environment = environment
        self.go = go
        self.running = running
        self.running_unknown = running_unknown
        self.capture = capture
