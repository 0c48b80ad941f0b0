"""The signals that come to the launcher and are the command's: they wait in a file, and are passed on one by one."""

from __future__ import annotations

import os
import time

from cgagent.launch.syscalls import SI_KERNEL, SIGINFO_SIZE, signalfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from cgagent.launch.tty import Terminal
else:
    import _signal as signal

# Not ours to pass on: faults and pipes of our own, and what stops a background process at its terminal.
_OWN_SIGNALS = frozenset(
    (
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGPIPE,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGXCPU,
        signal.SIGXFSZ,
    )
)


class Signals:
    """From now on they wait for `pass_on`, or for the end of a launcher that has not started the command yet.

    Attributes:
        file: a signalfd(2): ready to read when one has come.
        mask: the signals that were blocked before.
    """

    def __init__(self, stop_timeout: float) -> None:
        """A SIGTERM that comes `stop_timeout` seconds after another, or later, is a SIGKILL."""
        self._stop_timeout = stop_timeout
        self._terminated: float | None = None
        # Who started us may have it ignored, which outlives exec(2): nobody's end could be waited for.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ours = frozenset(signal.valid_signals()) - _OWN_SIGNALS
        self.file = signalfd(ours)
        self.mask = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ours))

    def pass_on(self, pid: int, terminal: Terminal | None) -> None:
        """Read one from the file and do what it asks for: mostly, send it to `pid`, the container's PID 1."""
        info = memoryview(os.read(self.file, SIGINFO_SIZE)).cast("i")
        number, si_code = info[0], info[2]  # struct signalfd_siginfo: ssi_signo, ssi_errno, ssi_code
        if number == signal.SIGCHLD:
            return  # the pipe's end says more
        if number == signal.SIGWINCH and terminal is not None:
            terminal.resize()
        elif si_code < SI_KERNEL:  # else it is the terminal's, and the command has it from there
            os.kill(pid, self._harder(number))
        elif number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)  # the shell waits for us to stop, as the command did

    def _harder(self, number: int) -> int:
        """`number`, or SIGKILL where the command has not ended for long enough after the first SIGTERM."""
        if number == signal.SIGTERM:
            now = time.monotonic()
            if self._terminated is None:
                self._terminated = now
            elif now - self._terminated >= self._stop_timeout:
                return signal.SIGKILL
        return number
