"""One POST of JSON over HTTP or HTTPS. Loaded by the first hook that needs it: http.client is 8 MiB of memory."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from cgagent import __version__
from cgagent.errors import printable


class Post:
    """A request on its way, sent by one thread and watched by another.

    Attributes:
        problem: why it failed; empty if it has not.
    """

    def __init__(self, url: str, document: dict[str, object], timeout: float) -> None:
        self._url = url
        self._body = json.dumps(document).encode()
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self.problem = ""

    def send(self) -> None:
        """Send it and look at the answer's status; redirects are not followed."""
        headers = {"Content-Type": "application/json", "User-Agent": f"cgagent/{__version__}", "Connection": "close"}
        try:
            parts = urlsplit(self._url)
            kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            with closing(kind(parts.netloc, timeout=self._timeout)) as connection:
                connection.connect()
                self._socket = connection.sock
                connection.request("POST", path, self._body, headers)
                status = connection.getresponse().status
            self.problem = "" if 200 <= status < 300 else f"status {status}"
        except (OSError, HTTPException, ValueError) as error:
            self.problem = printable(str(error)) or type(error).__name__

    def abort(self) -> None:
        """Have the sending thread end: whatever it waits for fails."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has just ended
