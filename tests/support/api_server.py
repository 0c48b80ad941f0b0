"""A TLS server on loopback in the place of the API server: it answers as it is told to, rightly or not."""

from __future__ import annotations

import http.server
import json
import shutil
import ssl
import threading

from support.certificate import make_certificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any


def pod_document(
    asked: dict[str, str],
    actual: dict[str, str] | None,
    *,
    generation: int | None = 2,
    observed: int | None = 2,
    conditions: list[dict[str, object]] | None = None,
    restarting: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A pod as a kubelet of 1.36 reports it: its container `app` is asked to have limits, and has others."""
    policies = [{"resourceName": name, "restartPolicy": "RestartContainer"} for name in restarting]
    app = {"name": "app", "resources": {"limits": asked, "requests": asked}, "resizePolicy": policies}
    status: dict[str, object] = {"name": "app", "state": {"running": {}}}
    if actual is not None:
        status["resources"] = {"limits": actual, "requests": actual}
    return {
        "metadata": {"name": "orders", "namespace": "shop", "generation": generation},
        "spec": {"containers": [{"name": "other", "resources": {"limits": {"memory": "9Gi"}}}, app]},
        "status": {
            "observedGeneration": observed,
            "conditions": [{"type": "Ready", "status": "True"}, *(conditions or [])],
            "containerStatuses": [{"name": "other", "resources": {"limits": {"memory": "9Gi"}}}, status],
        },
    }


def condition(kind: str, reason: str = "", message: str = "", generation: int = 2) -> dict[str, object]:
    """A condition of a resize; without a reason the kubelet leaves both texts out."""
    texts = {"reason": reason, "message": message} if reason else {}
    return {"type": kind, "status": "True", "observedGeneration": generation, **texts}


class ApiServer:
    """Serves until it is closed.

    Attributes:
        respond: what to do with a request; by default the document is sent.
        document: a pod.
        requests: path and Authorization of each request that came.
        place: a directory with token, ca.crt and namespace, as a pod has it.
        environ: the variables that a pod has.
    """

    def __init__(self, directory: Path) -> None:
        self.respond: Callable[[http.server.BaseHTTPRequestHandler], None] = self.send
        self.document: object = {}
        self.requests: list[tuple[str, str | None]] = []
        certificate, key = make_certificate(directory, "api")
        self.place = directory / "serviceaccount"
        self.place.mkdir()
        for name, text in (("token", "s3cr3t"), ("namespace", "shop")):
            (self.place / name).write_text(text)
        shutil.copy(certificate, self.place / "ca.crt")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers["Authorization"]))
                outer.respond(self)

            def log_message(self, *_: object) -> None:
                """Nothing: stderr is the test's."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that turns away is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        # The handshake is the connection's own thread's: one that never comes must not hold up the others.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        self.environ = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "CGAGENT_POD_NAME": "orders",
        }
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def send(self, request: http.server.BaseHTTPRequestHandler, status: int = 200) -> None:
        """The document."""
        body = json.dumps(self.document).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
