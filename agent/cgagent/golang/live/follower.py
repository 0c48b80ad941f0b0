"""What one process's Go runtime holds, asked again and again: found once, proven anew each time."""

from __future__ import annotations

import threading
import time

from cgagent.golang.live.errors import FOREIGN, GONE, LiveError
from cgagent.golang.live.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.golang.live.program import Running

_AGAIN = 30.0  # a search costs some 10 ms


class Follower:
    """Keeps hold of the program that a process runs. May be asked by any thread."""

    def __init__(self, again: float = _AGAIN) -> None:
        """`again`: seconds until what could not be read is tried anew."""
        self._again = again
        self._lock = threading.Lock()
        self._pid = ""
        self._program: Program | None = None
        self._refusal: LiveError | None = None
        self._not_before = 0.0

    def running(self, pid: str) -> tuple[Running | None, str | None]:
        """What it holds now, or why that is not known; neither where it is no Go program, or has ended."""
        with self._lock:
            if pid != self._pid:
                self._forget()
                self._pid = pid
            # Once more where the process has come to run another program since.
            for _ in range(2):
                try:
                    return self._found().running(), None
                except LiveError as error:
                    had, refusal = self._program is not None, error
                    self._forget()
                    if not (had and error.kind == GONE):
                        self._refusal, self._not_before = error, time.monotonic() + self._again
                        break
            return None, None if refusal.kind in (FOREIGN, GONE) else refusal.line()

    def _found(self) -> Program:
        if self._program is None:
            if self._refusal is not None and time.monotonic() < self._not_before:
                raise self._refusal
            self._program = Program(self._pid)
        return self._program

    def _forget(self) -> None:
        if self._program is not None:
            self._program.close()
        self._program, self._refusal = None, None

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._forget()
