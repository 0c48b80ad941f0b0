"""Raised limits, held back until the application's container has them: its pod's status says when.

A downward-API volume shows what is asked for. What was granted when we were started stands in our environment, for
there the kubelet puts what it has allocated. What is lower counts at once; only about what is higher the API server
is asked, by a thread that notes its answer and wakes the agent.
"""

from __future__ import annotations

import os
import threading
import time

from cgagent.errors import CgagentError, UsageError
from cgagent.given import Amount, GivenLimits, read_given
from cgagent.kube.podstatus import CPU, MEMORY, Resize, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cgagent.metrics.counters import Counters

    # A resource -> the limit that is asked for, in millicores or bytes.
    Question = Mapping[str, int]

# Seconds between two questions: a quarter of the time that the raise is open already, within these bounds. A container
# that is restarted with its new limits has a second before it is stopped.
_SOONEST, _LATEST = 0.15, 10.0
_VARIABLES = {CPU: "CGAGENT_CPU_LIMIT_MILLICORES", MEMORY: "CGAGENT_MEMORY_LIMIT_BYTES"}


def pause_after(seconds: float) -> float:
    """Seconds until the next question about a raise that has been open for `seconds`."""
    return min(_LATEST, max(_SOONEST, seconds / 4))


class Raises:
    """Which of the given limits count.

    Attributes:
        reasons: resource -> why the limit that is asked for does not count yet.
        trouble: what keeps us from asking; empty: nothing.
    """

    def __init__(
        self,
        container: str,
        environ: Mapping[str, str],
        on_answer: Callable[[], None],
        counters: Counters,
        fetch: Callable[[], bytes] | None = None,
    ) -> None:
        """`fetch` gets the pod's document; by default from the API server.

        Raises:
            UsageError: the environment's limits are none.
        """
        self.reasons: dict[str, str] = {}
        self.trouble = ""
        self._container = container
        cpu, memory = read_given(None, None, None, environ)
        self._in_force = {CPU: cpu, MEMORY: memory}
        self._on_answer = on_answer
        self._counters = counters
        counters.pod_status_requests = counters.pod_status_request_failures = 0
        self._fetch = fetch
        self._condition = threading.Condition()
        # Replaced as a whole: an answer counts for the very question that it was asked for.
        self._question: Question | None = None
        self._answer: tuple[Question, Resize | str] | None = None
        self._thread: threading.Thread | None = None

    def heed(self, given: GivenLimits) -> GivenLimits:
        """Of `given`, what counts now: nothing that is higher than what the container has.

        Raises:
            UsageError: it is not known what was granted at the start.
        """
        noted = self._answer
        answer = noted[1] if noted and noted[0] is self._question else None
        self.trouble = answer if isinstance(answer, str) else ""
        self.reasons = {}
        resize = answer if isinstance(answer, Resize) else None
        opened: dict[str, int] = {}
        cpu = self._counting(CPU, given.cpu, resize, opened)
        memory = self._counting(MEMORY, given.memory, resize, opened)
        self._ask(opened)
        return GivenLimits(cpu, memory, given.limits_from, given.trust)

    def _counting(
        self, resource: str, wished: Amount | None, resize: Resize | None, opened: dict[str, int]
    ) -> Amount | None:
        in_force = self._in_force[resource]
        if wished is None:
            return None
        if in_force is None:
            what = f"--confirm-raises: what {resource} limit was granted at the start is not known"
            raise UsageError(what, f"give {_VARIABLES[resource]} by the downward API too")
        if wished.value > in_force.value and not (resize and resize.is_granted(resource, wished.value)):
            opened[resource] = wished.value
            self.reasons[resource] = self.trouble or (resize.reason() if resize else "the API server is asked")
            return in_force
        self._in_force[resource] = wished
        return wished

    def _ask(self, opened: dict[str, int]) -> None:
        if opened != (self._question or {}):
            with self._condition:
                self._question = opened or None
                self._condition.notify()
        if opened:
            self.start()

    def start(self) -> None:
        """Have the thread that asks; what it needs is loaded before the first raise, which may leave a second only."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="raises", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError as error:  # pids.max: the next raise tries again
                self.trouble = str(error)

    def _work(self) -> None:
        from cgagent.kube.apiserver import get_pod

        fetch = self._fetch or (lambda: get_pod(os.environ))
        question, since = None, 0.0
        while True:
            with self._condition:
                while self._question is None:
                    self._condition.wait()
                if self._question is not question:
                    question, since = self._question, time.monotonic()
            self._note(question, self._asked(fetch))
            with self._condition:
                if self._question is question:
                    self._condition.wait(pause_after(time.monotonic() - since))

    def _asked(self, fetch: Callable[[], bytes]) -> Resize | str:
        self._counters.pod_status_requests = (self._counters.pod_status_requests or 0) + 1
        try:
            return parse(fetch(), self._container)
        except CgagentError as error:
            reason = error.line()
        except Exception as error:  # noqa: BLE001 a fault of ours: the raise stays held back, and is asked about again
            reason = repr(error)
        self._counters.pod_status_request_failures = (self._counters.pod_status_request_failures or 0) + 1
        return reason

    def _note(self, question: Question, answer: Resize | str) -> None:
        """Keep the answer, and wake the agent if it is a new one."""
        before, self._answer = self._answer, (question, answer)
        if before is None or before[0] is not question or before[1] != answer:
            self._on_answer()
