"""Threads that wait in accept(2) on one listening socket. Who gets a connection answers it: nothing is handed over.

One is always waiting, or about to: who accepts while nobody else waits starts another first. Those who come back to
find enough others waiting end. Blocked in accept(2) a thread costs no time, and the kernel wakes one of them alone.
"""

from __future__ import annotations

import threading

from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

# Starting a thread takes as long as a third of a scrape: two clients in turn should not cause it.
_SPARE = 2


class Workers:
    """The threads of one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        name: str,
        admit: Callable[[socket.socket], socket.socket | None],
        answer: Callable[[socket.socket], None],
        pause: Callable[[float], None],
    ) -> None:
        """Start the first.

        Args:
            listener: the socket; when it is shut down the threads end.
            name: what to call them.
            admit: makes an accepted connection ready, waits for its turn, and says None where there is no more.
            answer: answers all that is asked on a connection, and closes it.
            pause: waits for some seconds, or until all is being closed.

        Raises:
            CgagentError: not even one can be started.
        """
        self._listener = listener
        self._name = name
        self._admit = admit
        self._answer = answer
        self._pause = pause
        self._closing = False
        self._lock = threading.Lock()
        self._waiting = 0
        self._threads: set[threading.Thread] = set()
        if not self._start():
            raise CgagentError(f"cannot start a thread for {name}", "raise the limit of tasks (pids.max)")

    def _start(self) -> bool:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        with self._lock:
            self._waiting += 1
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads (pids.max): who is there already comes back
            with self._lock:
                self._waiting -= 1
                self._threads.discard(thread)
            return False
        return True

    def _work(self) -> None:
        """The life of a thread, which is counted as waiting when it begins."""
        try:
            while not self._closing and self._serve_one():
                pass
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
                nobody = not self._waiting
            if nobody and not self._closing:  # a fault of ours has ended this thread: it must not end the service
                self._start()

    def _serve_one(self) -> bool:
        """Accept and answer one connection; whether to wait for another."""
        try:
            connection = self._accept()
        finally:
            with self._lock:
                self._waiting -= 1
                alone = not self._waiting
        if connection is not None:
            if alone:
                self._start()
            self._answer(connection)
        with self._lock:
            if self._waiting >= _SPARE:
                return False
            self._waiting += 1
        return True

    def _accept(self) -> socket.socket | None:
        try:
            return self._admit(self._listener.accept()[0])
        except OSError:
            # The client has gone again, or there is no file descriptor left, or we are closing.
            self._pause(0.1)
            return None

    def join(self, seconds: float) -> None:
        """After the socket was shut down: wait for each thread for up to `seconds`."""
        self._closing = True
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(seconds)
