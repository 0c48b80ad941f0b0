"""How the server is to be reached: what `--web.*` says."""

from __future__ import annotations

from cgagent.errors import UsageError
from cgagent.record import Record

HEALTH, READY, EXPLAIN, LANDING = "/healthz", "/readyz", "/explain", "/"


class Settings(Record):
    """The options of the server.

    Attributes:
        listen_addresses: `:9100` (every interface), `127.0.0.1:0` (a free port), `[::1]:9100`, `localhost:9100`.
        telemetry_path: where the metrics are.
        max_requests: how many connections are served at a time.
        web_config_file: a file in the format of Prometheus' exporter-toolkit, for TLS and basic auth; None: neither.
        read_timeout: seconds that a client has for a whole request head, and for taking the answer.
        idle_timeout: seconds that a kept-alive connection may wait for its next request; more than a minute, or
            Prometheus connects anew for each scrape.
    """

    __slots__ = (
        "idle_timeout",
        "listen_addresses",
        "max_requests",
        "read_timeout",
        "telemetry_path",
        "web_config_file",
    )

    def __init__(
        self,
        listen_addresses: tuple[str, ...],
        telemetry_path: str = "/metrics",
        max_requests: int = 40,
        web_config_file: str | None = None,
        read_timeout: float = 5.0,
        idle_timeout: float = 150.0,
    ) -> None:
        """Take the options as given.

        Raises:
            UsageError: the telemetry path is no path of its own, or no request may be served at all.
        """
        taken = (HEALTH, READY, EXPLAIN, LANDING)
        plain = telemetry_path.startswith("/") and telemetry_path.isascii() and telemetry_path.isprintable()
        if not plain or telemetry_path in taken or any(char in telemetry_path for char in " ?#"):
            what = f"--web.telemetry-path: '{telemetry_path}' can't be used"
            raise UsageError(what, f"give a path such as /metrics, other than {', '.join(taken)}")
        if max_requests < 1:
            raise UsageError(f"--web.max-requests: {max_requests} serves nobody", "give a number from 1 on")
        self.listen_addresses = listen_addresses
        self.telemetry_path = telemetry_path
        self.max_requests = max_requests
        self.web_config_file = web_config_file
        self.read_timeout = read_timeout
        self.idle_timeout = idle_timeout


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of a listen address; an empty host is every interface.

    Raises:
        UsageError: it is not HOST:PORT, :PORT or [IPV6]:PORT.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bad_host = ":" in host and not bracketed
    if not colon or bad_host or not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        what = f"--web.listen-address: '{text}' is not an address"
        raise UsageError(what, "write :9100, 127.0.0.1:9100 or [::1]:9100")
    return host[1:-1] if bracketed else host, int(port)
