"""The sidecar's hold on its target: found, lost, looked for again."""

from __future__ import annotations

from cgagent.watch.settings import AUTO, SELF
from cgagent.watch.target import EndedError, Target, demand_own_numbers, find_application, find_pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.host import Host
    from cgagent.watch.log import Log
    from cgagent.watch.settings import Settings

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0


class Hold:
    """Which process is followed.

    Attributes:
        target: the process; None: ourselves, or none at present.
        pid: of the last one, or `self`.
        may_come: whether another one may take its place.
    """

    def __init__(self, host: Host, log: Log) -> None:
        self.target: Target | None = None
        self.pid = "self"
        self.may_come = False
        self._host = host
        self._log = log
        self._pause = _FIRST_PAUSE

    @property
    def is_held(self) -> bool:
        """Whether there is a process to look at now: the target, or ourselves where we are it."""
        return self.target is not None or (self.pid == "self" and not self.may_come)

    @property
    def is_ending(self) -> bool:
        """Whether the target ends or has ended: it may be in the root cgroup by now, which has no limits."""
        return self.target is not None and not self.target.is_same()

    @property
    def pidfd(self) -> int | None:
        """Ready to read when the target has ended; None where nothing tells."""
        return self.target.pidfd if self.target else None

    def find(self, settings: Settings) -> str:
        """The PID to look at: that of the process that is held, or of one that is found now.

        Raises:
            NoTargetError: there is none at present.
            EndedError: the only one that was meant has ended.
            CgagentError: there is none of that PID, or there are several that could be meant.
        """
        self.may_come = settings.target == AUTO
        if settings.target == SELF:
            return "self"
        if self.target is None:
            self._take(settings)
        return self.pid

    def _take(self, settings: Settings) -> None:
        demand_own_numbers(self._host)
        if settings.target == AUTO:
            process = find_application(self._host, settings.target_name, settings.target_exe)
        elif self.pid == settings.target:
            raise EndedError(f"process {self.pid} has ended", f"--target {AUTO} would look for another")
        else:
            process = find_pid(self._host, settings.target)
        self.target = Target(process, self._host)
        self.pid, self._pause = self.target.pid, _FIRST_PAUSE
        self._log.info("target found", pid=self.pid, name=self.target.name)

    def lose(self) -> None:
        """The target has ended."""
        if self.target is not None:
            self._log.info("target has ended", pid=self.pid, name=self.target.name)
        self.release()

    def pause(self) -> float:
        """Seconds until the next search: longer each time."""
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        return pause

    def reconsider(self, before: Settings, now: Settings) -> bool:
        """Let go of the target if new settings choose another; whether they do."""

        def choice(settings: Settings) -> tuple[str | None, ...]:
            return settings.target, settings.target_name, settings.target_exe

        if choice(before) == choice(now):
            return False
        self.release()
        self.pid = "self"
        return True

    def release(self) -> None:
        """Let go of it."""
        if self.target is not None:
            self.target.release()
        self.target = None
