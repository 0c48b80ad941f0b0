"""What runs after a change: a signal, a command, a POST. In order, each within its time, none able to stop the agent.

Hooks run in a thread of their own, so that a slow one holds up neither the env file nor SIGTERM. Changes that come
meanwhile become one, from what the hooks were last told to what is now.
"""

from __future__ import annotations

import threading
import time

from cgagent.errors import CgagentError
from cgagent.policy import VARIABLES
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cgagent.cgroup.limits import Limits
    from cgagent.metrics.counters import Counters
    from cgagent.watch.log import Log
    from cgagent.watch.target import Target

_SCHEMA = "cgagent.change/1"


class HookError(CgagentError):
    """A hook did not do what it was to do."""


class EndingError(Exception):
    """A hook wants the agent to end, with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Change(Record):
    """What hooks are told.

    Attributes:
        old, new: the variables before and after, which may be the same; a variable that is not set is not in there.
        limits: what they follow from.
        target: the process that they are for; None where it is not running.
        env_file: where they are written; None: nowhere.
    """

    __slots__ = ("env_file", "limits", "new", "old", "target")

    def __init__(
        self,
        old: Mapping[str, str],
        new: Mapping[str, str],
        limits: Limits,
        target: Target | None,
        env_file: str | None,
    ) -> None:
        self.old = old
        self.new = new
        self.limits = limits
        self.target = target
        self.env_file = env_file

    def after(self, earlier: Change) -> Change:
        """`earlier` and this one as a single change."""
        return Change(earlier.old, self.new, self.limits, self.target, self.env_file)

    def document(self) -> dict[str, object]:
        """As it is POSTed."""
        return {
            "schema": _SCHEMA,
            "old": dict(self.old),
            "new": dict(self.new),
            "limits": {"cpu_cores": self.limits.cpu.cores, "memory_bytes": self.limits.memory.bytes},
            "target_pid": int(self.target.pid) if self.target else None,
            "env_file": self.env_file,
        }

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """`inherited` with the new variables, and old and new ones under CGAGENT_OLD_ and CGAGENT_NEW_."""
        environ = {name: value for name, value in inherited.items() if name not in VARIABLES}
        environ.update(self.new)
        for prefix, values in (("CGAGENT_OLD_", self.old), ("CGAGENT_NEW_", self.new)):
            environ.update({prefix + name: values.get(name, "") for name in VARIABLES})
        environ["CGAGENT_TARGET_PID"] = self.target.pid if self.target else ""
        environ["CGAGENT_ENV_FILE"] = self.env_file or ""
        return environ


class Hook:
    """One thing to do on a change.

    Attributes:
        name: what logs and metrics call it.
        timeout: the seconds that it may take.
        needs_target: whether it acts on the target process.
        keeps: whether it keeps something true, and so is asked even where nothing has changed.
    """

    needs_target = False
    keeps = False

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout

    def is_due(self, change: Change) -> bool:
        """Whether there is something to do. Asked after each look at the target, changed or not."""
        return change.old != change.new

    def run(self, change: Change) -> None:
        """Do it.

        Raises:
            HookError: it failed, or its time was up.
            EndingError: it is done, and the agent is to end.
        """
        raise NotImplementedError

    def cancel(self) -> None:
        """Cut short what runs: the agent ends."""

    def close(self) -> None:
        """Let go of what is held: another configuration is in force."""


class Runner:
    """The thread in which hooks run.

    Attributes:
        code: the exit code that a hook wants the agent to end with; `on_end` is called then.
    """

    def __init__(self, counters: Counters, log: Log, on_end: Callable[[], None]) -> None:
        self.code = 0
        self._on_end = on_end
        self._counters = counters
        self._log = log
        self._hooks: list[Hook] = []
        self._pending: Change | None = None
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._reasons: dict[str, str] = {}

    def use(self, hooks: list[Hook]) -> None:
        """Run these from the next change on."""
        none = {hook.name: 0 for hook in hooks}
        # A scrape may be reading: replaced, not changed.
        self._counters.hook_runs = none | self._counters.hook_runs
        self._counters.hook_failures = none | self._counters.hook_failures
        before, self._hooks = self._hooks, hooks
        for hook in before:
            hook.close()

    def submit(self, change: Change) -> None:
        """Have those hooks run that are due by `change`, after those for the changes before."""
        if not any(hook.keeps or change.old != change.new for hook in self._hooks):
            return
        with self._condition:
            self._pending = change.after(self._pending) if self._pending else change
            self._condition.notify()
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="hooks", daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError as error:  # pids.max: the change stays pending, the next one tries again
                    self._log.error("hooks can't run", reason=error)

    def close(self) -> None:
        """Run nothing more, and cut short what runs."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        for hook in self._hooks:
            hook.cancel()

    def _work(self) -> None:
        while True:
            with self._condition:
                while self._pending is None and not self._closed:
                    self._condition.wait()
                change, self._pending = self._pending, None
            if self._closed or change is None:
                return
            for hook in self._hooks:
                self._run(hook, change)

    def _run(self, hook: Hook, change: Change) -> None:
        start = time.monotonic()
        try:
            if self._closed or self.code or not hook.is_due(change):
                return
            self._counters.hook_runs[hook.name] += 1
            hook.run(change)
        except EndingError as ending:
            self._log.info("a hook ends the agent", hook=hook.name, code=ending.code)
            self.code = ending.code
            self._on_end()
        except HookError as error:
            self._fail(hook, change, error.message)
        except Exception as error:  # noqa: BLE001 a fault of ours: this thread and the hooks after it go on
            self._fail(hook, change, repr(error))
        else:
            self._reasons.pop(hook.name, None)
            self._log.info("hook run", hook=hook.name, seconds=f"{time.monotonic() - start:.3f}")

    def _fail(self, hook: Hook, change: Change, reason: str) -> None:
        self._counters.hook_failures[hook.name] += 1
        told = self._reasons.get(hook.name) == reason and change.old == change.new
        self._reasons[hook.name] = reason
        if not self._closed and not told:
            self._log.warning("hook failed", hook=hook.name, reason=reason)
