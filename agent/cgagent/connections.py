"""The open connections: never more than a fixed number, and nobody who only waits keeps others out."""

from __future__ import annotations

import socket
import threading
import time

# How long a connection may be silent before a newcomer may have its place.
PATIENCE = 1.0


class Connections:
    """A place for each connection. It is `waiting` for its client's next words, or busy with an answer."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._open: set[socket.socket] = set()
        self._waiting_since: dict[socket.socket, float] = {}
        self._newcomers = 0
        self._closed = False
        self._changed = threading.Condition()

    def admit(self, connection: socket.socket) -> bool:
        """Give `connection` a place, once there is one; False if all is being closed.

        The longest silent of the others is shut down for it, if it has been silent for PATIENCE seconds.
        """
        with self._changed:
            self._newcomers += 1
            while len(self._open) >= self._places and not self._closed:
                self._changed.wait(self._evict())
            self._newcomers -= 1
            if not self._closed:
                self._open.add(connection)
            return not self._closed

    def _evict(self) -> float | None:
        """Shut down the longest silent connection; or say in how many seconds one may be, None: when one waits."""
        silent = min(self._waiting_since, key=self._waiting_since.__getitem__, default=None)
        if silent is None:
            return None
        left = self._waiting_since[silent] + PATIENCE - time.monotonic()
        if left > 0:
            return left
        del self._waiting_since[silent]
        _shut_down(silent)
        return None

    def waiting(self, connection: socket.socket) -> None:
        """From now on `connection` waits for its client."""
        with self._changed:
            if self._closed:
                _shut_down(connection)
            self._waiting_since[connection] = time.monotonic()
            if self._newcomers:
                self._changed.notify_all()

    def busy(self, connection: socket.socket) -> None:
        """From now on `connection` is being answered."""
        with self._changed:
            self._waiting_since.pop(connection, None)

    @property
    def crowded(self) -> bool:
        """Whether a newcomer waits for a place: a good time not to keep a connection alive."""
        return self._newcomers > 0

    def leave(self, connection: socket.socket) -> None:
        """`connection` is done and closed."""
        with self._changed:
            self._waiting_since.pop(connection, None)
            self._open.discard(connection)
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def close(self, seconds: float) -> None:
        """Shut every connection down and admit no more; wait for up to `seconds` until they have left."""
        with self._changed:
            self._closed = True
            for connection in self._open:
                _shut_down(connection)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._open, seconds)


def _shut_down(connection: socket.socket) -> None:
    """Wake the thread that waits for `connection`; it then sees the end of it and leaves."""
    try:
        # A TLS socket's own shutdown takes its state away from under the thread that reads from it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass  # the client was first
