"""`cgagent webhook`: put cgagent into pods as they are created."""

from __future__ import annotations

import signal
import threading

from cgagent.commands.manifest_options import add_injection, settings_texts
from cgagent.errors import UsageError
from cgagent.kube.certificate import Certificate
from cgagent.kube.settings import Settings
from cgagent.kube.webhook import Server, Webhook
from cgagent.texts import parse_choice
from cgagent.watch.log import FORMATS, LEVELS, Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from cgagent.parser import Arguments, Parser

DESCRIPTION = "Put cgagent into pods at admission: a mutating webhook, the same as cgagent inject."
EPILOG = """\
Answers POST /inject with AdmissionReview (admission.k8s.io/v1) over TLS; GET /healthz, /readyz and /metrics there,
and in the clear at --web.listen-address. The certificate is loaded again when its files change. A pod that it can't
serve is let in as it is; what the pod's annotations (cgagent.dev/...) get wrong is answered with a warning.

examples:
  cgagent webhook --tls-cert-file tls.crt --tls-private-key-file tls.key
  cgagent webhook --mode sidecar --memory-ratio 0.8 --tls-cert-file tls.crt --tls-private-key-file tls.key

SIGTERM and SIGINT end it.
exit codes: 0 ended by a signal; 1 the certificate or an address can't be used; 2 wrong usage.
"""
_ADDRESS = ":8443"
# As long as the API server waits by default; Kubernetes kills after 30.
_GRACE = 10.0


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--listen-address", metavar="ADDR:PORT", help=f"for the API server (default {_ADDRESS})")
    parser.add_argument("--tls-cert-file", metavar="FILE", help="the certificate, in PEM format, with its chain")
    parser.add_argument("--tls-private-key-file", metavar="FILE", help="its key")
    parser.add_argument(
        "--web.listen-address", dest="web_listen_address", metavar="ADDR:PORT", help="health and metrics without TLS"
    )
    parser.add_argument("--log.level", dest="log_level", metavar="|".join(LEVELS), help="least to log (default info)")
    parser.add_argument("--log.format", dest="log_format", metavar="|".join(FORMATS), help="default logfmt")
    add_injection(parser)


def run(arguments: Arguments) -> int:
    """Serve until told to stop; return the exit code."""
    texts = settings_texts(arguments)
    Settings(texts)
    files = {"--tls-cert-file": arguments.tls_cert_file, "--tls-private-key-file": arguments.tls_private_key_file}
    missing = [option for option, path in files.items() if not path]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(f"{' and '.join(missing)} {verb} missing", "the API server speaks TLS only")
    log = Log(
        parse_choice(arguments.log_format or FORMATS[0], "--log.format", FORMATS),
        parse_choice(arguments.log_level or "info", "--log.level", LEVELS),
    )
    certificate = Certificate(arguments.tls_cert_file, arguments.tls_private_key_file, log.warning)
    webhook = Webhook(
        texts, certificate, lambda level, line: log.warning(line) if level == "warning" else log.info(line)
    )
    servers = [Server(_address(arguments.listen_address or _ADDRESS, "--listen-address"), webhook, tls=True)]
    if arguments.web_listen_address:
        address = _address(arguments.web_listen_address, "--web.listen-address")
        servers.append(Server(address, webhook, tls=False))
    for server in servers:
        log.info("serving", port=server.server_port, tls=str(server.tls).lower())
    _serve(servers)
    log.info("stopping")
    webhook.drain(_GRACE)
    return 0


def _serve(servers: list[Server]) -> None:
    """Take reviews until SIGTERM or SIGINT."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    stop.wait()
    for server in servers:
        server.shutdown()
        server.socket.close()


def _address(text: str, what: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535 or ("]" in text and not host.endswith("]")):
        raise UsageError(f"{what}: '{text}' is not an address", "write it as :8443 or 127.0.0.1:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)
