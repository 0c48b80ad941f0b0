"""Counters that outlive the agent: a small file of `NAME KEY NUMBER` lines in the state directory.

The kernel counts a cgroup's OOM kills, and forgets them with the cgroup. What an earlier life of the agent saw in a
cgroup that is gone is added to what the kernel counts now; in the same cgroup the kernel's own number still holds.
"""

from __future__ import annotations

import os

from cgagent import envfile
from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.metrics.counters import Counters

_HEADER = "# cgagent.state/1"
_FILE = "counters"
_LINES_LIMIT = 1000
_MOST = (1 << 63) - 1
_RESOURCES = ("cpu", "memory", "cpuset", "pids")


class State:
    """What is kept, and where.

    Attributes:
        path: the file; None: nothing is kept.
        cgroup: identifies the cgroup whose events were seen last; "" for none yet.
        events: what the kernel counted there.
    """

    def __init__(self, directory: str | None, counters: Counters) -> None:
        self.path = os.path.join(directory, _FILE) if directory else None
        self.cgroup = ""
        self.events: dict[str, int] = {}
        self._counters = counters
        for resource in _RESOURCES:
            counters.limit_changes.setdefault(resource, 0)

    def load(self) -> str:
        """Take up what an earlier life left; what is wrong with it, or an empty text. Rubbish counts as nothing."""
        if self.path is None:
            return ""
        try:
            text = envfile.read(self.path)
        except CgagentError as error:
            return error.message
        if text is None:
            return ""
        lines = text.split("\n")
        if lines[0] != _HEADER:
            return f"{self.path} is not a state file of cgagent: counting starts anew"
        for line in lines[1:_LINES_LIMIT]:
            self._take(line)
        return ""

    def _take(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        key, _, number = rest.rpartition(" ")
        if name == "cgroup":
            self.cgroup = rest
        if not (number.isascii() and number.isdigit() and len(number) < 20 and int(number) <= _MOST):
            return
        if name == "limit_changes" and key in _RESOURCES:
            self._counters.limit_changes[key] = int(number)
        elif name == "events_before" and key.isidentifier():
            self._counters.memory_events_before[key] = int(number)
        elif name == "events" and key.isidentifier():
            self.events[key] = int(number)

    def see(self, cgroup: str, events: dict[str, int]) -> bool:
        """Note the events of the cgroup that `cgroup` identifies; return whether anything is new."""
        if not cgroup or not events or (cgroup == self.cgroup and events == self.events):
            return False
        if self.cgroup != cgroup:
            before = self._counters.memory_events_before
            # A scrape may be reading: replaced, not changed.
            self._counters.memory_events_before = before | {
                name: min(_MOST, before.get(name, 0) + number) for name, number in self.events.items()
            }
        self.cgroup, self.events = cgroup, dict(events)
        return True

    def kills(self) -> int:
        """OOM kills so far, in every cgroup and life."""
        return self.events.get("oom_kill", 0) + self._counters.memory_events_before.get("oom_kill", 0)

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            CgagentError: it could not be written.
        """
        if self.path is None:
            return
        kept = (
            ("limit_changes", self._counters.limit_changes),
            ("events_before", self._counters.memory_events_before),
            ("events", self.events),
        )
        lines = [f"{name} {key} {number}" for name, numbers in kept for key, number in numbers.items()]
        envfile.write(self.path, "\n".join([_HEADER, f"cgroup {self.cgroup}", *lines, ""]))
