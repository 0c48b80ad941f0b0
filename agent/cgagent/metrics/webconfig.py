"""The file of `--web.config.file`, in the format of Prometheus' exporter-toolkit (docs/web-configuration.md there).

What that format knows and we do not do is refused: a setting of security that is passed over in silence is worse
than none.
"""

from __future__ import annotations

import os

from cgagent import yamltext
from cgagent.errors import EXIT_CONFIG, CgagentError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.yamltext import Node

VERSIONS = ("TLS10", "TLS11", "TLS12", "TLS13")

# Whether a client must show a certificate. The toolkit's RequireAnyClientCert would take any, unverified, which
# OpenSSL's interface in Python can't; RequestClientCert asks for one and does not look at it.
CLIENT_AUTH = ("NoClientCert", "RequestClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")

_TLS = ("cert_file", "key_file", "client_auth_type", "client_ca_file", "min_version", "max_version")
# http2 says whether HTTP/2 may be offered besides; we never do.
_HTTP = ("headers", "http2")
# The headers that the toolkit allows.
_HEADERS = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)


class Tls(Record):
    """`tls_server_config`: files by their full names, versions by the toolkit's."""

    __slots__ = ("cert_file", "client_auth_type", "client_ca_file", "key_file", "max_version", "min_version")

    def __init__(self, texts: Mapping[str, str], directory: str) -> None:
        def file(key: str) -> str | None:
            return os.path.join(directory, texts[key]) if texts.get(key) else None

        self.cert_file = file("cert_file")
        self.key_file = file("key_file")
        self.client_ca_file = file("client_ca_file")
        self.client_auth_type = texts.get("client_auth_type") or CLIENT_AUTH[0]
        self.min_version = texts.get("min_version") or "TLS12"
        self.max_version = texts.get("max_version") or "TLS13"


class WebConfig(Record):
    """The whole file.

    Attributes:
        tls: None: plain HTTP.
        users: name -> bcrypt hash; empty: no password is asked for.
        headers: to be sent with every answer.
    """

    __slots__ = ("headers", "tls", "users")

    def __init__(self, tls: Tls | None, users: dict[str, str], headers: dict[str, str]) -> None:
        self.tls = tls
        self.users = users
        self.headers = headers

    def files(self) -> list[str]:
        """The files that it names."""
        named = (self.tls.cert_file, self.tls.key_file, self.tls.client_ca_file) if self.tls else ()
        return [file for file in named if file]


def read_web_config(path: str) -> WebConfig:
    """Read and check the file.

    Raises:
        CgagentError: it can't be read, or it says what can't be done; ends with 78.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(yamltext.SIZE_LIMIT + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise CgagentError(
            f"--web.config.file: cannot read {path}: {reason}", "name a readable file", EXIT_CONFIG
        ) from None
    return check(yamltext.load(text, path), path)


def check(document: Node, path: str) -> WebConfig:
    """The configuration in `document`, the content of the file `path`.

    Raises:
        CgagentError: a key is unknown, or a value does not fit it.
    """
    top = _mapping(document, path, "", ("tls_server_config", "http_server_config", "basic_auth_users"))
    http = _mapping(top.get("http_server_config"), path, "http_server_config", _HTTP)
    headers = _mapping(http.get("headers"), path, "http_server_config.headers", _HEADERS)
    users = _mapping(top.get("basic_auth_users"), path, "basic_auth_users")
    tls = top.get("tls_server_config")
    return WebConfig(
        None if tls is None or tls.value is None else _check_tls(tls, path),
        {name: _bcrypt_hash(node, path, f"basic_auth_users.{name}") for name, node in users.items()},
        {name: _header(node, path, f"http_server_config.headers.{name}") for name, node in headers.items()},
    )


def _check_tls(node: Node, path: str) -> Tls:
    given = _mapping(node, path, "tls_server_config", _TLS)
    tls = Tls({key: _text(one, path, f"tls_server_config.{key}") for key, one in given.items()}, os.path.dirname(path))
    for key, value, known in (
        ("client_auth_type", tls.client_auth_type, CLIENT_AUTH),
        ("min_version", tls.min_version, VERSIONS),
        ("max_version", tls.max_version, VERSIONS),
    ):
        if value not in known:
            hint = f"choose one of {', '.join(known)}"
            raise _wrong(path, given[key], f"tls_server_config.{key}: '{value}' is not known", hint)
    for key in ("cert_file", "key_file"):
        if not getattr(tls, key):
            raise _wrong(path, node, f"tls_server_config.{key} is missing", "name a file in PEM format")
    verifies = tls.client_auth_type in CLIENT_AUTH[2:]
    if verifies != bool(tls.client_ca_file):
        problem = "is missing" if verifies else f"does nothing with client_auth_type {tls.client_auth_type}"
        hint = "give it with a type that verifies, and only then"
        raise _wrong(path, node, f"tls_server_config.client_ca_file {problem}", hint)
    return tls


def _mapping(node: Node | None, path: str, where: str, known: tuple[str, ...] = ()) -> dict[str, Node]:
    """The entries of `node`, none if nothing is given; any key will do where none is `known`."""
    if node is None or node.value is None:
        return {}
    if not isinstance(node.value, dict):
        raise _wrong(path, node, f"{where or 'the document'} is not a mapping")
    for key, value in node.value.items():
        if known and key not in known:
            place = f"{where}.{key}" if where else key
            raise _wrong(path, value, f"'{place}' is not a key that is known here", f"the keys are {', '.join(known)}")
    return node.value


def _text(node: Node, path: str, where: str) -> str:
    if node.value is None:
        return ""
    if not isinstance(node.value, str):
        raise _wrong(path, node, f"{where} is not a plain value")
    return node.value


def _bcrypt_hash(node: Node, path: str, where: str) -> str:
    text = _text(node, path, where)
    if not (text.startswith(("$2a$", "$2b$", "$2y$")) and len(text) == 60):
        raise _wrong(path, node, f"{where} is not a bcrypt hash", "make one with htpasswd -nBC 10 USER")
    return text


def _header(node: Node, path: str, where: str) -> str:
    text = _text(node, path, where)
    if not (text.isascii() and text.isprintable()):
        raise _wrong(path, node, f"{where} is not printable ASCII")
    return text


def _wrong(path: str, node: Node, what: str, hint: str = "") -> CgagentError:
    return CgagentError(f"{path}:{node.line}: {what}", hint, EXIT_CONFIG)
