"""`cgagent healthcheck`: ask the sidecar for its health, in an image that has no curl."""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, SOCK_STREAM
from _socket import error as SocketError  # noqa: N812
from _socket import socket as open_socket

from cgagent.commands.options import say
from cgagent.errors import CgagentError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments, Parser

DESCRIPTION = "Ask the sidecar in this container for /healthz."
EPILOG = """\
Without ADDR:PORT the first address of CGAGENT_WEB_LISTEN_ADDRESS is asked, else 127.0.0.1:9101. Addresses are
numbers; an empty one, 0.0.0.0 and [::] mean this container. TLS is not spoken: ask a plain address.

examples:
  HEALTHCHECK CMD ["/opt/cgagent/cgagent", "healthcheck"]
  cgagent healthcheck --path /readyz :9101

exit codes: 0 well; 1 not well, or no answer; 2 wrong usage.
"""
_DEFAULT = "127.0.0.1:9101"
_TWIN = "CGAGENT_WEB_LISTEN_ADDRESS"
_ENOUGH = 4096


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--path", metavar="PATH", help="what to ask for (default /healthz)")
    parser.add_argument("address", metavar="ADDR:PORT", nargs="?", help="where the sidecar listens")


def run(arguments: Arguments) -> int:
    """Ask; return the exit code."""
    twin = os.environ.get(_TWIN, "").replace(",", " ").split()
    given = arguments.address or (twin[0] if twin else _DEFAULT)
    host, port = _place(given, "ADDR:PORT" if arguments.address else _TWIN)
    path = arguments.path or "/healthz"
    if not path.startswith("/") or not path.isprintable() or " " in path:
        raise UsageError(f"--path: '{path}' is no path", "write it as /healthz")
    try:
        status = _ask(host, port, path)
    except SocketError as error:
        reason = (error.strerror or str(error)).lower()
        raise CgagentError(f"{given}{path}: {reason}", "is the sidecar there, and does it listen here?") from None
    if status.split(" ")[1:2] != ["200"]:
        raise CgagentError(f"{given}{path}: answered '{status}'", "its log says why")
    say("healthcheck", f"{given}{path}: {status}")
    return 0


def _place(given: str, what: str) -> tuple[str, int]:
    """Address and port of `ADDR:PORT`; `what` is where it is given."""
    host, _, port = given.rpartition(":")
    if not port.isdecimal() or not port.isascii() or not 0 < int(port) < 65536:
        raise UsageError(f"{what}: '{given}' has no port", "write it as 127.0.0.1:9101 or :9101")
    host = host.removeprefix("[").removesuffix("]")
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104 we ask


def _ask(host: str, port: int, path: str) -> str:
    """The status line of the answer."""
    connection = open_socket(AF_INET6 if ":" in host else AF_INET, SOCK_STREAM)
    try:
        connection.settimeout(3.0)
        connection.connect((host, port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while b"\n" not in answer and len(answer) < _ENOUGH:
            piece = connection.recv(_ENOUGH)
            if not piece:
                break
            answer += piece
    finally:
        connection.close()
    return answer.partition(b"\r\n")[0].decode("ascii", "replace")
