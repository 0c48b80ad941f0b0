"""The mutating webhook: AdmissionReview over TLS. A thread for each connection, and never more than a fixed number.

Who wants a place where all are taken gets that of the client that has been silent for longest.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cgagent.connections import Connections
from cgagent.errors import CgagentError
from cgagent.kube.review import RESULTS, MalformedReviewError, answer
from cgagent.kube.tally import CONTENT_TYPE, Tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgagent.kube.certificate import Certificate

PATH = "/inject"
MALFORMED = "malformed"
# A pod has at most 1.5 MiB in etcd; it comes once or twice, beside managed fields.
BODY_LIMIT = 8 << 20
# Who is silent for so long loses the connection, in seconds. The API server keeps idle ones open for 90, and may send
# a review on one that has had none yet.
_TIMEOUT = 120.0
# The API server waits for 10 by default.
_HANDSHAKE_TIMEOUT = 10.0
PLACES = 512
_BACKLOG = 1024


class Webhook:
    """What both servers share: settings, counts, certificate, log."""

    def __init__(
        self,
        text_of: Callable[[str], tuple[str, str] | None],
        certificate: Certificate,
        log: Callable[[str, str], None],
    ) -> None:
        """`log` is told a level (`info`, `warning`) and a line."""
        self.text_of = text_of
        self.certificate = certificate
        self.log = log
        self.tally = Tally((*RESULTS, MALFORMED))
        self._answering = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While a review that has come is not answered yet."""
        with self._changed:
            self._answering += 1
        try:
            yield
        finally:
            with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait for up to `seconds` until no review is unanswered; whether none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._answering, seconds)

    def review(self, body: bytes) -> bytes:
        """The answer to one request, counted and logged.

        Raises:
            MalformedReviewError: it is no AdmissionReview.
        """
        start = time.monotonic()
        result = MALFORMED
        try:
            found = answer(body, self.text_of)
            result = found.result
        finally:
            self.tally.count(result, time.monotonic() - start)
        self.log("info", f"{found.pod}: {found.result}, {found.summary}")
        for note in found.notes:
            self.log("info", f"{found.pod}: {note}")
        return found.body

    def metrics(self) -> str:
        """The page for Prometheus."""
        return self.tally.text(self.certificate.reloads, self.certificate.failures)


class Server(ThreadingHTTPServer):
    """A listening server: with TLS for reviews, or in the clear for health and metrics alone."""

    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self, address: tuple[str, int], webhook: Webhook, *, tls: bool) -> None:
        """Listen.

        Raises:
            CgagentError: the address can't be had.
        """
        self.webhook = webhook
        self.tls = tls
        self.connections = Connections(PLACES)
        host, port = address
        if not host and socket.has_dualstack_ipv6():
            self.address_family, host = socket.AF_INET6, "::"
        elif ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise CgagentError(f"cannot listen on {address[0]}:{port}: {reason}", "choose another address") from None

    def server_bind(self) -> None:
        """Take IPv4 too where we listen on every address."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # http.server would ask DNS for our name here.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "cgagent", self.server_address[1]

    def get_request(self) -> tuple[socket.socket, object]:
        """A new connection, as it is spoken on; with TLS, the handshake is still to come."""
        raw, address = self.socket.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.tls:
            return raw, address
        context = self.webhook.certificate.context()
        return context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False), address

    def process_request(self, request: object, client_address: object) -> None:
        """Wait for a place, then answer in a thread; who has none yet waits in the kernel's queue."""
        connection: socket.socket = request  # type: ignore[assignment]
        self.connections.admit(connection)
        try:
            super().process_request(connection, client_address)
        except RuntimeError:  # pids.max
            self.shutdown_request(connection)
            self.connections.leave(connection)

    def process_request_thread(self, request: object, client_address: object) -> None:
        """A connection's whole life."""
        connection: socket.socket = request  # type: ignore[assignment]
        self.connections.waiting(connection)
        try:
            super().process_request_thread(connection, client_address)
        finally:
            self.connections.leave(connection)

    def finish_request(self, request: object, client_address: object) -> None:
        """Shake hands in the connection's own thread: a client that is slow at it holds up nobody else."""
        if isinstance(request, ssl.SSLSocket):
            request.settimeout(_HANDSHAKE_TIMEOUT)
            request.do_handshake()
        super().finish_request(request, client_address)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 the base's signature
        """A client that went away, or speaks no TLS, is its own affair; a fault of ours ends one connection."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.webhook.log("warning", f"a fault while answering: {error!r}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT
    wbufsize = -1  # head and body in one piece
    server: Server

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._send(200, self.server.webhook.metrics().encode(), CONTENT_TYPE)
        elif self.path in ("/healthz", "/readyz"):
            self._send(200, b"ok\n")
        else:
            self._send(404, b"POST /inject, GET /healthz, /readyz, /metrics\n")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self.server.tls or self.path.partition("?")[0] != PATH:
            self._refuse(404, "reviews are taken at /inject, over TLS")
        elif not (length.isascii() and length.isdigit()) or len(length) > 12:
            self._refuse(411, "a Content-Length, please")
        elif int(length) > BODY_LIMIT:
            self._refuse(413, f"at most {BODY_LIMIT} bytes")
        else:
            self._review(int(length))

    def _review(self, length: int) -> None:
        self.server.connections.waiting(self.connection)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        with self.server.webhook.answering():
            self.server.connections.busy(self.connection)
            try:
                self._send(200, self.server.webhook.review(body), "application/json")
            except MalformedReviewError as error:
                self._send(400, f"{error.line()}\n".encode(errors="backslashreplace"))

    def _refuse(self, status: int, why: str) -> None:
        """An answer without having read the body: what follows on the connection would be taken for a request."""
        self.close_connection = True
        self._send(status, f"{why}\n".encode())

    def _send(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.server.connections.waiting(self.connection)  # until the client has taken it, and asks again
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def version_string(self) -> str:
        return "cgagent"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 http.server's word
        """Reviews are logged as such, and nothing else is."""
