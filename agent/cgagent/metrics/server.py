"""The sidecar's HTTP server: a few threads that wait in accept(2), and answer what they get.

Nothing polls: without a client no thread wakes up. A client that is slow or silent loses its connection when its
time is up, and sooner when another wants its place.
"""

from __future__ import annotations

import socket
import time

from cgagent.connections import Connections
from cgagent.metrics.guard import Guard
from cgagent.metrics.http import HEAD_LIMIT, HttpError, parse_request, plain, serialize
from cgagent.metrics.listen import close, listen, shown
from cgagent.metrics.routes import Routes
from cgagent.metrics.workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cgagent.metrics.collectors import Source
    from cgagent.metrics.settings import Settings

_END = b"\r\n\r\n"
# After an error that ends the connection, so much of what the client still sends is taken in, for so long: closing
# with unread bytes sends a reset, which may overtake the answer.
_LINGER_BYTES, _LINGER_SECONDS = 1 << 16, 1.0


def serve(source: Source, settings: Settings, complain: Callable[[str], None] = lambda _: None) -> Server:
    """Start serving `source`; `complain` is told of what goes wrong later on, one line at a time.

    Raises:
        CgagentError: an address can't be listened on, or the web config file can't be used.
    """
    guard = Guard(settings.web_config_file, complain)
    routes = Routes(source, settings.telemetry_path, guard)
    return Server(listen(settings.listen_addresses), routes, guard, settings)


class Server:
    """A running server.

    Attributes:
        addresses: where it listens, such as `127.0.0.1:9100`; with the port that a 0 became.
    """

    def __init__(self, listeners: list[socket.socket], routes: Routes, guard: Guard, settings: Settings) -> None:
        self.addresses = [shown(listener) for listener in listeners]
        self._listeners = listeners
        self._routes = routes
        self._guard = guard
        self._read_timeout = settings.read_timeout
        self._idle_timeout = settings.idle_timeout
        self._connections = Connections(settings.max_requests)
        self._closing = False
        self._workers = [
            Workers(listener, f"web {address}", self._admit, self._converse, self._connections.pause)
            for listener, address in zip(listeners, self.addresses, strict=True)
        ]

    def close(self) -> None:
        """End every connection and stop listening."""
        self._closing = True
        close(self._listeners)
        self._connections.close(_LINGER_SECONDS)
        for workers in self._workers:
            workers.join(_LINGER_SECONDS)

    def _admit(self, raw: socket.socket) -> socket.socket | None:
        """`raw`, ready to be spoken on, when it is its turn; None if all is being closed.

        Raises:
            OSError: the client has gone again.
        """
        try:
            # Without it the kernel would hold the last small packet back until the one before is acknowledged.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._guard.refresh()
            connection = self._guard.wrap(raw)
        except OSError:
            raw.close()
            raise
        if self._connections.admit(connection):
            return connection
        connection.close()
        return None

    def _converse(self, connection: socket.socket) -> None:
        """Answer the requests of one connection, one after the other."""
        try:
            self._connections.waiting(connection)
            reader = _Reader(connection, self._read_timeout)
            reader.shake_hands()
            patience = self._read_timeout
            while self._answer_one(connection, reader, patience):
                patience = self._idle_timeout
        except OSError:
            pass  # the client has gone, or took too long
        finally:
            connection.close()
            self._connections.leave(connection)

    def _answer_one(self, connection: socket.socket, reader: _Reader, patience: float) -> bool:
        """Answer the next request; whether another may follow."""
        method, keep_alive = "GET", False
        try:
            head = reader.head(patience)
            if head is None:
                return False
            self._connections.busy(connection)
            request = parse_request(head)
            method = request.method
            keep_alive = request.keep_alive and not self._connections.crowded and not self._closing
            response = self._routes.answer(request)
        except HttpError as error:
            response = plain(error.text, error.status, error.headers)
        connection.settimeout(self._read_timeout)
        connection.sendall(serialize(response, method, keep_alive, self._guard.headers()))
        self._connections.waiting(connection)
        if not keep_alive and response.status >= 400:
            reader.linger()
        return keep_alive


class _Reader:
    """Reads request heads from a connection, within limits of size and time."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._buffer = b""

    def shake_hands(self) -> None:
        """TLS' handshake, where there is TLS."""
        self._connection.settimeout(self._seconds)
        shake_hands = getattr(self._connection, "do_handshake", None)
        if shake_hands is not None:
            shake_hands()

    def head(self, patience: float) -> bytes | None:
        """The next request's head without its empty line; None where the client has ended the connection.

        Its first byte has to come within `patience` seconds; from then on there is the read timeout for all of it.

        Raises:
            HttpError: it is too large, or does not arrive in time.
        """
        deadline = time.monotonic() + (self._seconds if self._buffer else patience)
        while _END not in self._buffer:
            if len(self._buffer) > HEAD_LIMIT:
                raise HttpError(431, f"a request's head may have {HEAD_LIMIT} bytes")
            piece = self._receive(deadline)
            if piece is None:
                return None
            if not self._buffer:
                deadline = min(deadline, time.monotonic() + self._seconds) if piece.strip() else deadline
            self._buffer = (self._buffer + piece).lstrip(b"\r\n")
        head, _, rest = self._buffer.partition(_END)
        self._buffer = rest.lstrip(b"\r\n")  # empty lines before a request are ignored (RFC 9112 2.2)
        return head

    def _receive(self, deadline: float) -> bytes | None:
        try:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            return self._connection.recv(HEAD_LIMIT) or None
        except TimeoutError:
            if self._buffer:
                raise HttpError(408, "the request took too long") from None
            return None

    def linger(self) -> None:
        """Say that no more will come, and take in some of what the client still sends."""
        if hasattr(self._connection, "do_handshake"):
            return  # a TLS connection ends with an alert of its own
        self._connection.shutdown(socket.SHUT_WR)
        deadline, taken = time.monotonic() + _LINGER_SECONDS, 0
        while taken < _LINGER_BYTES:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self._connection.recv(HEAD_LIMIT)
            if not piece:
                return
            taken += len(piece)
