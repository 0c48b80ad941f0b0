"""What the server shows of the sidecar's target: the last sight, with usage as it is at the moment."""

from __future__ import annotations

import os
import threading

from cgagent.cgroup.openfiles import OpenFiles
from cgagent.cgroup.usage import read_usage
from cgagent.errors import CgagentError
from cgagent.golang.live.follower import Follower
from cgagent.report.picture import Picture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.usage import Usage
    from cgagent.host import Host
    from cgagent.watch.sight import Sight


class Shown:
    """Set by the agent's thread, read by the server's: what they share is replaced as a whole."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._last: tuple[Sight, str] | None = None
        self._follower = Follower()
        self._reading = threading.Lock()
        self._files = OpenFiles()
        self._found: Sight | None = None

    @property
    def sight(self) -> Sight | None:
        """The last sight; None before the first."""
        return self._last[0] if self._last else None

    def show(self, sight: Sight, pid: str) -> None:
        """Show `sight`, which is of process `pid`, from now on."""
        self._last = (sight, pid)

    def picture(self) -> Picture:
        """The last sight with fresh usage.

        Raises:
            CgagentError: there is none yet.
        """
        if self._last is None:
            raise CgagentError("nothing has been seen yet", "the log says what is waited for")
        sight, pid = self._last
        usage = self._usage(sight)
        # Our own process is no Go program, and a captured tree holds none that runs.
        running, unknown = (None, None) if pid == "self" or not self._host.live else self._follower.running(pid)
        root = self._host.root
        build = sight.program.build if sight.program else None
        environment = sight.program.environment if sight.program else dict(os.environ)
        return Picture(pid, root, sight.limits, usage, sight.decision, environment, build, running, unknown)

    def _usage(self, sight: Sight) -> Usage:
        # One thread at a time: no descriptor is closed, and its number another file's, while it is read from.
        with self._reading:
            if self._found is not sight:
                self._files.look_again()
                self._found = sight
            return read_usage(sight.limits, self._files.getter)
