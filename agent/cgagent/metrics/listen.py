"""Listening sockets."""

from __future__ import annotations

import os
import socket

from cgagent.errors import CgagentError
from cgagent.metrics.settings import parse_address

# More than the places for connections: a burst of clients waits here for its turn.
_BACKLOG = 1024


def listen(addresses: tuple[str, ...]) -> list[socket.socket]:
    """A listening socket for each of `addresses`; several where a name has several addresses.

    Raises:
        UsageError: an address can't be understood.
        CgagentError: one can't be listened on; then none is.
    """
    listeners: list[socket.socket] = []
    try:
        for text in addresses:
            try:
                listeners += _listen(*parse_address(text))
            except OSError as error:  # socket.gaierror among them
                hint = "choose another with --web.listen-address"
                raise CgagentError(f"cannot listen on {text}: {_reason(error)}", hint) from None
    except CgagentError:
        close(listeners)
        raise
    return listeners


def _reason(error: OSError) -> str:
    """The system's words: create_server adds the address to them, and getaddrinfo has numbers of its own."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return (error.strerror or str(error)).lower()
    return os.strerror(error.errno).lower()


def _listen(host: str, port: int) -> list[socket.socket]:
    if not host:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return [socket.create_server(("", port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, address in found:
            listeners.append(socket.create_server(address, family=family, backlog=_BACKLOG))
    except OSError:
        close(listeners)
        raise
    return listeners


def close(listeners: list[socket.socket]) -> None:
    """Close them; a thread that waits in accept(2) wakes with an error, which closing alone would not do."""
    for listener in listeners:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        listener.close()


def shown(listener: socket.socket) -> str:
    """The address as it is written: 127.0.0.1:9100, [::]:9100."""
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
