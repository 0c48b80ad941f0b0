"""As much of HTTP/1.1 (RFC 9110, 9112) as a page of metrics needs: GET and HEAD without a body. Pure.

http.server would do, at 9 MiB of imports and with headers and body in two writes, which on a kept-alive connection
wait for each other's acknowledgement (Nagle's algorithm and delayed ACK: 44 ms).
"""

from __future__ import annotations

import time

from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    Fields = tuple[tuple[str, str], ...]

# As Apache's 8 KiB a line; a scraper's whole head is some 300 bytes.
HEAD_LIMIT = 16 << 10
METHODS = ("GET", "HEAD")

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class HttpError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        text: the body, one line for a person.
        headers: what the status wants beside it.
    """

    def __init__(self, status: int, text: str, headers: Fields = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class Request(Record):
    """One request.

    Attributes:
        method: as it was sent.
        path: the target without its query.
        headers: by lower-case name; of a repeated one the values are joined by commas.
        keep_alive: whether the client may send another on this connection.
    """

    __slots__ = ("headers", "keep_alive", "method", "path")

    def __init__(self, method: str, path: str, headers: dict[str, str], keep_alive: bool) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.keep_alive = keep_alive


class Response(Record):
    """What a request is answered with: a status, header fields beside the usual ones, and a body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, content_type: str, headers: Fields = (), status: int = 200) -> None:
        self.status = status
        self.headers = (("Content-Type", content_type), *headers)
        self.body = body


def plain(text: str, status: int = 200, headers: Fields = ()) -> Response:
    """One line of text for a person."""
    return Response(f"{text}\n".encode(errors="backslashreplace"), "text/plain; charset=utf-8", headers, status)


def parse_request(head: bytes) -> Request:
    """The request whose head, up to and without the empty line, is `head`.

    Raises:
        HttpError: it is no HTTP/1 request.
    """
    line, *lines = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[0].isalpha():
        raise HttpError(400, "not an HTTP request")
    method, target, version = words
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpError(505, "HTTP/1.1 is spoken here")
    headers = _parse_headers(lines)
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (version == "HTTP/1.1" or "keep-alive" in connection)
    # A body is not read, so what follows on the connection could be taken for a request of its own.
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        keep_alive = False
    return Request(method, _path(target), headers, keep_alive)


def _parse_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        # No blank may stand before the colon or start a line (RFC 9112 5.1, 5.2): proxies read such lines differently.
        if not colon or not name or name != name.strip():
            raise HttpError(400, "a header line is malformed")
        key, value = name.lower(), value.strip(" \t")
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _path(target: str) -> str:
    """The path of a request target, which may be a whole URL (RFC 9112 3.2.2)."""
    if target.startswith(("http://", "https://")):
        target = "/" + target.split("//", 1)[1].partition("/")[2]
    return target.partition("?")[0].partition("#")[0]


def serialize(response: Response, method: str, keep_alive: bool, extra: Fields = ()) -> bytes:
    """`response` as one piece of bytes, to be sent by one call; without its body for HEAD."""
    length = len(response.body)
    fields = [
        *response.headers,
        ("Content-Length", str(length)),
        ("Date", _date(time.time())),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "keep-alive" if keep_alive else "close"),
    ]
    given = {name.lower() for name, _ in extra}
    fields = [(name, value) for name, value in fields if name.lower() not in given] + list(extra)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    status = f"HTTP/1.1 {response.status} {_REASONS[response.status]}\r\n"
    return (status + head + "\r\n").encode("latin-1") + (b"" if method == "HEAD" else response.body)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _date(seconds: float) -> str:
    """IMF-fixdate (RFC 9110 5.6.7), in English whatever the locale."""
    now = time.gmtime(seconds)
    day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]
    return f"{day}, {now.tm_mday:02} {month} {now.tm_year} {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} GMT"
