"""TLS and basic auth: who may connect, as the web config file says; read anew when it or a certificate changes."""

from __future__ import annotations

import os
import threading

from cgagent import pem
from cgagent.errors import EXIT_CONFIG, CgagentError
from cgagent.metrics.http import HttpError
from cgagent.metrics.webconfig import CLIENT_AUTH, Tls, WebConfig, read_web_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from cgagent.metrics.http import Request

# bcrypt looks at no more of a password, and its Python package refuses a longer one.
_PASSWORD_BYTES = 72
_REMEMBERED = 100
# Compared with for a user that does not exist, so that the time taken does not tell so.
_NOBODY = "$2b$10$iSA5AdM7VsYjEPU7znKr6.dZd3TVgqSK3ZTDKGHMkp5BS0kuXtUfm"


class Guard:
    """What the web config file asks for. Without such a file everybody may come in."""

    def __init__(self, path: str | None, complain: Callable[[str], None]) -> None:
        """Read the file.

        Raises:
            CgagentError: it, or what it needs, can't be used.
        """
        self._path = path
        self._complain = complain
        self._changing = threading.Lock()
        self._signature: pem.Stamps = ()
        self._config = WebConfig(None, {}, {})
        self._context: ssl.SSLContext | None = None
        self._passwords: Passwords | None = None
        if path is not None:
            self._take(path)

    def _take(self, path: str) -> None:
        # Looked at before it is read: what changes meanwhile is seen the next time.
        before = pem.stamps([path])
        config = read_web_config(path)
        signature = before + pem.stamps(config.files())
        context = tls_context(config.tls, path) if config.tls else None
        passwords = Passwords(config.users) if config.users else None
        self._config, self._context, self._passwords, self._signature = config, context, passwords, signature

    def refresh(self) -> None:
        """Use the file and the certificates as they are now; if they are wrong, as they were."""
        if self._path is None:
            return
        with self._changing:
            signature = pem.stamps([self._path, *self._config.files()])
            if signature == self._signature:
                return
            try:
                self._take(self._path)
            except CgagentError as error:
                self._signature = signature
                self._complain(f"{error.line()}; going on with what was read before")

    def wrap(self, connection: socket.socket) -> socket.socket:
        """`connection` as it is spoken on; with TLS, the handshake is still to come."""
        context = self._context
        if context is None:
            return connection
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What is sent with every answer."""
        return tuple(self._config.headers.items())

    def check(self, request: Request) -> None:
        """Let `request` pass.

        Raises:
            HttpError: it needs a user and a password, and has none or wrong ones.
        """
        passwords = self._passwords
        if passwords is not None and not passwords.accept(request.headers.get("authorization", "")):
            raise HttpError(401, "user and password, please", (("WWW-Authenticate", 'Basic realm="cgagent"'),))


def tls_context(tls: Tls, path: str) -> ssl.SSLContext:
    """What OpenSSL needs to know; `path` is the file to name in errors.

    Raises:
        CgagentError: a certificate or key can't be used.
    """
    import ssl

    names = {"TLS10": "TLSv1", "TLS11": "TLSv1_1", "TLS12": "TLSv1_2", "TLS13": "TLSv1_3"}
    modes = dict(zip(CLIENT_AUTH, (ssl.CERT_NONE, ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED), strict=True))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion[names[tls.min_version]]
    context.maximum_version = ssl.TLSVersion[names[tls.max_version]]
    try:
        pem.load(context, tls.cert_file or "", tls.key_file)
        if tls.client_ca_file:
            context.load_verify_locations(tls.client_ca_file)
    except (OSError, ValueError) as error:
        what = f"{path}: tls_server_config: the certificate, key or CA can't be used: {pem.reason(error)}"
        raise CgagentError(
            what, "check that the files are there, in PEM format, and belong together", EXIT_CONFIG
        ) from None
    context.verify_mode = modes[tls.client_auth_type]
    return context


class Passwords:
    """Users and their bcrypt hashes, by the bcrypt package. What was right once is remembered, for speed."""

    def __init__(self, users: dict[str, str]) -> None:
        """Take `users`, name -> hash.

        Raises:
            CgagentError: the bcrypt package is missing.
        """
        try:
            import bcrypt
        except ImportError:
            message = "basic_auth_users needs the bcrypt package"
            raise CgagentError(message, "install cgagent[web], or leave basic_auth_users out", EXIT_CONFIG) from None
        import hashlib

        self._keyed_hash = hashlib.blake2b(key=os.urandom(32))
        self._matches = bcrypt.checkpw
        self._users = users
        self._known: set[bytes] = set()
        # bcrypt is slow by design: strangers may keep one CPU busy with it, not all.
        self._checking = threading.Lock()

    def accept(self, authorization: str) -> bool:
        """Whether an Authorization header names a user and that user's password."""
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        import binascii

        try:
            credentials = binascii.a2b_base64(encoded.strip().encode("latin-1"))
        except binascii.Error:
            return False
        hashed = self._keyed_hash.copy()
        hashed.update(credentials)
        digest = hashed.digest()
        if digest in self._known:
            return True
        user, _, password = credentials.partition(b":")
        expected = self._users.get(user.decode("utf-8", "replace"))
        try:
            with self._checking:
                right = self._matches(password[:_PASSWORD_BYTES], (expected or _NOBODY).encode())
        except ValueError:  # a zero byte, say
            return False
        if not right or expected is None:
            return False
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known.add(digest)
        return True
