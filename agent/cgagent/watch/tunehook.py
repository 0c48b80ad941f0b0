"""The hook that keeps the running target's GOMEMLIMIT as decided, where a restart would be needed else."""

from __future__ import annotations

import os

from cgagent.golang.live import LiveError, Program
from cgagent.golang.live.controller import NO_LIMIT
from cgagent.golang.live.errors import OWN_CHOICE
from cgagent.golang.live.follower import Follower
from cgagent.golang.live.tuning import tune_limit
from cgagent.host import Host
from cgagent.policy import GOMEMLIMIT
from cgagent.report.running import limits_started_with
from cgagent.watch.hooks import Change, Hook, HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.watch.target import Target

TUNE = "tune"


class TuneHook(Hook):
    """Writes the memory limit into the target's Go runtime; a limit that is gone becomes none.

    It is due when the decision has changed, and when the target is seen to hold something else: at the agent's start,
    and after a restart with what an older env file says.
    """

    needs_target = True
    keeps = True

    def __init__(self, name: str, timeout: float) -> None:
        super().__init__(name, timeout)
        # A program that is not Go yet may be in a moment: what was not understood is looked at anew each time.
        self._follower = Follower(again=0.0)
        self._decided: set[int] = set()
        self._left_alone: tuple[Target, int] | None = None

    def is_due(self, change: Change) -> bool:
        """Whether the decision has changed, or the target holds another limit, which it has not chosen itself."""
        decided = {_size(change.old), _size(change.new)} - {NO_LIMIT}
        self._decided |= decided
        if _size(change.old) != _size(change.new):
            return True
        if change.target is None:
            return False
        running, _ = self._follower.running(_pid(change))
        if running is None:
            return False
        limit = NO_LIMIT if running.memory_limit is None else running.memory_limit
        # Where nothing is decided, the limit that somebody gave it stays; not one of ours that is no more.
        wanted = bool(decided) or limit in self._decided
        return wanted and limit != _size(change.new) and self._left_alone != (change.target, limit)

    def run(self, change: Change) -> None:
        """Check everything, then write; a value that the program set itself is left alone, which is a failure."""
        if change.target is None:
            raise HookError("the target is not running")
        pid, size = _pid(change), _size(change.new)
        try:
            with Program(pid, write=True) as program:
                # What was opened is what was meant, and not the PID's next owner.
                if not change.target.is_same():
                    raise HookError("the target is not running")
                self._left_alone = (change.target, program.state().memory_limit)
                done = tune_limit(program, size, limits_started_with(Host().environment(pid)))
        except LiveError as error:
            if error.kind != OWN_CHOICE:
                self._left_alone = None
            raise HookError(f"process {pid} is not tuned: {error.line()}") from None
        self._left_alone = None
        if not done.noted:
            raise HookError(f"process {pid} is tuned, and there is no directory to note it in (CGAGENT_STATE_DIR)")

    def close(self) -> None:
        """Let go of the target."""
        self._follower.close()


def _pid(change: Change) -> str:
    pid = change.target.pid if change.target is not None else "self"
    return pid if pid != "self" else str(os.getpid())


def _size(variables: Mapping[str, str]) -> int:
    """The memory limit among `variables`, in bytes."""
    return int(variables.get(GOMEMLIMIT, NO_LIMIT))
