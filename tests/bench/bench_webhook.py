"""What the webhook takes for a review, over TLS on loopback, beside an empty answer of the same server."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cgagent.kube.certificate import Certificate
from cgagent.kube.webhook import Server, Webhook
from support.certificate import make_certificate
from unit.test_webhook import defaults, review

ROUNDS = int(os.environ.get("CGAGENT_BENCH_ROUNDS", "1000"))


def measure(port: int, authority: str, method: str, path: str, body: bytes | None) -> list[float]:
    """The seconds of each request on one kept connection, sorted; the two kinds take turns in `main`."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=ssl.create_default_context(cafile=authority))
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        connection.request(method, path, body)
        connection.getresponse().read()
        seconds.append(time.perf_counter() - start)
    connection.close()
    return sorted(seconds)


def main() -> None:
    """Print medians, 99th percentiles and their ratios."""
    with tempfile.TemporaryDirectory() as directory:
        files = make_certificate(Path(directory), "bench")
        webhook = Webhook(defaults, Certificate(*files, print), lambda *_: None)
        server = Server(("127.0.0.1", 0), webhook, tls=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        empty = measure(server.server_port, files[0], "GET", "/healthz", None)
        full = measure(server.server_port, files[0], "POST", "/inject", json.dumps(review()).encode())
        server.shutdown()
    for name, at in (("p50", ROUNDS // 2), ("p99", ROUNDS * 99 // 100)):
        one, other = empty[at] * 1000, full[at] * 1000
        print(f"{name}  /healthz {one:6.2f} ms   a review {other:6.2f} ms   {other / one:.2f} x")


if __name__ == "__main__":
    main()
