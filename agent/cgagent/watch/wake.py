"""What wakes the agent: noted by threads and signal handlers, waited for by one thread.

A signal handler may interrupt the waiting thread anywhere, so nothing here takes a lock.
"""

from __future__ import annotations

import os
import select
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

LIMITS = "limits"  # a file that holds a limit was written, or the target's cgroup is deserted
EVENTS = "events"  # the kernel counted a memory event
GIVEN = "given"  # the directory of given limits changed
GRANTS = "grants"  # what became of a raised limit is known, or why it is not
CONFIG = "config"  # the directory of the config file changed
ENV_FILE = "env file"  # the env file was written, replaced or removed, by us or by another
OBSERVER = "observer"  # the thread that reads inotify has ended
TARGET = "target"  # the target process has ended
RELOAD = "reload"  # SIGHUP
STOP = "stop"  # SIGTERM or SIGINT
_SIGNALS = {signal.SIGTERM: STOP, signal.SIGINT: STOP, signal.SIGHUP: RELOAD}


class Wake:
    """A set of flags with a pipe beside it: whoever notes something wakes whoever waits."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._heeds_signals = False
        self._noted = dict.fromkeys((LIMITS, EVENTS, GIVEN, GRANTS, CONFIG, ENV_FILE, OBSERVER, RELOAD, STOP), False)

    def note(self, kind: str) -> None:
        """Note `kind` and wake the waiting thread. Flag first, byte second: so none is missed."""
        self._noted[kind] = True
        try:
            os.write(self._write, b"\0")
        except OSError:
            pass  # full: a wake-up is on its way already; closed: nobody waits any more

    def wait(self, seconds: float, process: int | None = None) -> set[str]:
        """What was noted, as soon as anything is or after `seconds`; TARGET if the pidfd `process` is ready."""
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        if process is not None:
            poller.register(process, select.POLLIN)
        ready = [fd for fd, _ in poller.poll(max(0, -int(-seconds * 1000 // 1)))]
        try:
            os.read(self._read, 65536)
        except BlockingIOError:
            pass
        found = {kind for kind, noted in self._noted.items() if noted}
        for kind in found:
            self._noted[kind] = False
        return found | {TARGET} if process in ready else found

    def heed_signals(self) -> None:
        """Note SIGTERM and SIGINT as STOP, SIGHUP as RELOAD, from now on."""
        self._heeds_signals = True
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        # Who started us may have it ignored, which outlives exec(2): hooks' commands could not be waited for.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._noted[_SIGNALS[signal.Signals(number)]] = True

    def close(self) -> None:
        """Give the pipe back; signals are noted no more."""
        if self._heeds_signals:
            signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)
