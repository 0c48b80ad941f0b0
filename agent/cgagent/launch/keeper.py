"""The keeper: a process that outlives a launcher killed by SIGKILL, and removes what it leaves.

It waits at a pipe whose other end the launcher alone holds. A byte says that all is done; the end of the pipe
without one says that the launcher died. In a session of its own, no signal to the launcher's group reaches it.
"""

from __future__ import annotations

import os

from cgagent.launch import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn
else:
    import _signal as signal

_OPEN_MAX = 1 << 20


class Keeper:
    """The launcher's hold on its keeper."""

    def __init__(self, init: int, made: cgroups.Cgroups, undo: list[Callable[[], None]], kept: tuple[int, ...]) -> None:
        """Fork the keeper of the container whose PID 1 is `init` (a pidfd).

        `undo` is what it does where we die; `kept` are the files that it needs for that.
        """
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _keep(reader, init, made, undo, kept)
        os.close(reader)

    def dismiss(self) -> None:
        """End the keeper: from here on, leftovers are the next start's to remove."""
        try:
            os.write(self._writer, b"d")
        except OSError:
            pass  # it has been killed
        os.close(self._writer)

    def wait(self) -> None:
        """See it end."""
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass


def _keep(
    reader: int, init: int, made: cgroups.Cgroups, undo: list[Callable[[], None]], kept: tuple[int, ...]
) -> NoReturn:
    try:
        os.setsid()
        let_go((reader, init, *kept))
        if os.read(reader, 1):
            os._exit(0)
        try:
            signal.pidfd_send_signal(init, signal.SIGKILL)
        except OSError:
            pass
        made.remove()
        for step in undo:
            step()
    except OSError:
        pass  # nobody listens any more; the next start or --gc tries again
    finally:
        os._exit(0)


def let_go(kept: tuple[int, ...]) -> None:
    """Close all other files: a pipe's reader must not wait for us."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _OPEN_MAX)
