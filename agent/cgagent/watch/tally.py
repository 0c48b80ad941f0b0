"""What the sidecar counts of its target: limits that changed, and what the kernel did for want of memory."""

from __future__ import annotations

from cgagent.cgroup.openfiles import OpenFiles
from cgagent.errors import CgagentError
from cgagent.watch.sight import events_by
from cgagent.watch.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.metrics.counters import Counters
    from cgagent.watch.log import Log
    from cgagent.watch.sight import Sight
    from cgagent.watch.troubles import Troubles


class Tally:
    """Counts from sight to sight, and keeps the counts where there is a state directory.

    Attributes:
        unsaved: whether there is something to save.
    """

    def __init__(self, directory: str | None, counters: Counters, log: Log, troubles: Troubles) -> None:
        self.unsaved = False
        self._state = State(directory, counters)
        self._counters = counters
        self._log = log
        self._troubles = troubles
        self._known: dict[str, object] = {}
        # A container's cgroup outlives its last process by some 50 ms, and what has it open can still read it; the
        # way there, /proc/PID/root, is gone by then.
        self._files = OpenFiles()

    def load(self) -> None:
        """Take up what an earlier life has counted."""
        self._troubles.tell("state", self._state.load())

    def count(self, sight: Sight) -> None:
        """Count what has changed since the last sight; what was not known then or is not now has not."""
        for resource, value in sight.known.items():
            if resource in self._known and self._known[resource] != value:
                self._counters.limit_changes[resource] += 1
                self.unsaved = True
        self._known.update(sight.known)
        self._see(sight.cgroup, sight.events)
        self._files.look_again()
        events_by(sight.limits, self._files.getter)

    def count_events(self, sight: Sight) -> None:
        """Look at the memory events alone, where `sight` was; what has ended since may have died of one."""
        self._see(sight.cgroup, events_by(sight.limits, self._files.getter))

    def _see(self, cgroup: str, events: dict[str, int]) -> None:
        kills = self._state.kills()
        if self._state.see(cgroup, events):
            self.unsaved = True
            if self._state.kills() > kills:
                self._log.warning("the kernel has killed for want of memory", oom_kills=self._state.kills())

    def close(self) -> None:
        """Save, and let go of the files."""
        self.save()
        self._files.close()

    def save(self) -> None:
        """Write what is not saved yet; where that fails it is told, and the next change tries again."""
        if not self.unsaved:
            return
        self.unsaved = False
        try:
            self._state.save()
        except CgagentError as error:
            self._troubles.tell("state", error.line())
        else:
            self._troubles.tell("state", "")
