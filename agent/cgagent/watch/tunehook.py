"""The hook that brings a new GOMEMLIMIT to the running target, where a restart would be needed else."""

from __future__ import annotations

import os

from cgagent.golang.live import LiveError, Program
from cgagent.golang.live.controller import NO_LIMIT
from cgagent.golang.live.tuning import tune_limit
from cgagent.host import Host
from cgagent.policy import GOMEMLIMIT
from cgagent.report.running import limits_started_with
from cgagent.watch.hooks import Change, Hook, HookError
from cgagent.watch.target import environment_of

TUNE = "tune"


class TuneHook(Hook):
    """Writes the memory limit into the target's Go runtime; a limit that is gone becomes none."""

    needs_target = True

    def run(self, change: Change) -> None:
        """Check everything, then write; a value that the program set itself is left alone, which is a failure."""
        if change.target is None:
            raise HookError("the target is not running")
        pid = change.target.pid if change.target.pid != "self" else str(os.getpid())
        size = int(change.new.get(GOMEMLIMIT, NO_LIMIT))
        try:
            with Program(pid, write=True) as program:
                # What was opened is what was meant, and not the PID's next owner.
                if not change.target.is_same():
                    raise HookError("the target is not running")
                done = tune_limit(program, size, limits_started_with(environment_of(Host(), pid)))
        except LiveError as error:
            raise HookError(f"process {pid} is not tuned: {error.line()}") from None
        if not done.noted:
            raise HookError(f"process {pid} is tuned, and there is no directory to note it in (CGAGENT_STATE_DIR)")
