"""The web config file: TLS and basic auth as Prometheus' exporter-toolkit has them, over loopback."""

from __future__ import annotations

import base64
import builtins
import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from cgagent.errors import CgagentError
from cgagent.metrics import guard as guard_module
from cgagent.metrics.guard import Guard
from cgagent.metrics.webconfig import WebConfig, read_web_config
from support.sidecar import Source, serving
from support.trees import build, v2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")

HASH = "$2b$04$" + "a" * 53
PATIENCE = 30


def _write(directory: object, text: str, name: str = "web.yml") -> str:
    path = os.path.join(str(directory), name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _certificate(directory: object, name: str, signed_by: str | None = None) -> None:
    """Make NAME.crt and NAME.key: of its own authority, or signed by another's."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    words += ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    if signed_by:
        words += ["-CA", f"{signed_by}.crt", "-CAkey", f"{signed_by}.key", "-addext", "basicConstraints=CA:FALSE"]
    subprocess.run(words, cwd=str(directory), check=True, capture_output=True)


@pytest.fixture
def source(tmp_path: object) -> Source:
    return Source(build(f"{tmp_path}/tree", v2({"/cpu.max": "150000 100000\n"})))


def _get(
    port: int, path: str = "/metrics", tls: ssl.SSLContext | None = None, **headers: str
) -> http.client.HTTPResponse:
    client: http.client.HTTPConnection
    if tls is None:
        client = http.client.HTTPConnection("127.0.0.1", port, PATIENCE)
    else:
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls)
    try:
        client.request("GET", path, headers=headers)
        response = client.getresponse()
        response.read()
        return response
    finally:
        client.close()


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _trusting(directory: object, name: str, **versions: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=os.path.join(str(directory), f"{name}.crt"))
    for key, value in versions.items():
        setattr(context, key, value)
    return context


@needs_openssl
def test_with_a_certificate_everything_is_served_by_tls_alone(tmp_path: object, source: Source) -> None:
    _certificate(tmp_path, "server")
    # Names are relative to the file's own directory.
    config = _write(tmp_path, "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n")
    with serving(source, web_config_file=config) as port:
        trusting = _trusting(tmp_path, "server")
        assert _get(port, tls=trusting).status == 200
        assert _get(port, "/healthz", tls=trusting).status == 200
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            _get(port)


@needs_openssl
def test_tls_1_2_is_the_least_unless_another_is_named(tmp_path: object, source: Source) -> None:
    _certificate(tmp_path, "server")
    text = "tls_server_config: {cert_file: server.crt, key_file: server.key%s}\n"
    old = _trusting(tmp_path, "server", maximum_version=ssl.TLSVersion.TLSv1_2)
    with serving(source, web_config_file=_write(tmp_path, text % "")) as port:
        assert _get(port, tls=old).status == 200
    with serving(source, web_config_file=_write(tmp_path, text % ", min_version: TLS13")) as port:
        with pytest.raises(OSError, match=r"(?i)version|handshake|reset|eof"):
            _get(port, tls=old)
        assert _get(port, tls=_trusting(tmp_path, "server")).status == 200


@needs_openssl
def test_a_client_may_have_to_show_a_certificate(tmp_path: object, source: Source) -> None:
    for name in ("server", "ca", "stranger"):
        _certificate(tmp_path, name)
    _certificate(tmp_path, "client", signed_by="ca")
    text = """
    tls_server_config:
      cert_file: server.crt
      key_file: server.key
      client_auth_type: RequireAndVerifyClientCert
      client_ca_file: ca.crt
    """
    with serving(source, web_config_file=_write(tmp_path, text)) as port:
        known, unknown = _trusting(tmp_path, "server"), _trusting(tmp_path, "server")
        known.load_cert_chain(f"{tmp_path}/client.crt", f"{tmp_path}/client.key")
        unknown.load_cert_chain(f"{tmp_path}/stranger.crt", f"{tmp_path}/stranger.key")
        assert _get(port, tls=known).status == 200
        for refused in (unknown, _trusting(tmp_path, "server")):
            with pytest.raises(OSError, match=r"."):
                _get(port, tls=refused)


@needs_openssl
def test_a_renewed_certificate_is_used_from_the_next_connection_on(tmp_path: object, source: Source) -> None:
    _certificate(tmp_path, "server")
    config = _write(tmp_path, "tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    with serving(source, web_config_file=config) as port:
        before = _trusting(tmp_path, "server")
        assert _get(port, tls=before).status == 200
        _certificate(tmp_path, "server")
        assert _get(port, tls=_trusting(tmp_path, "server")).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            _get(port, tls=before)


@needs_openssl
def test_a_client_that_never_shakes_hands_is_let_go(tmp_path: object, source: Source) -> None:
    _certificate(tmp_path, "server")
    config = _write(tmp_path, "tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    with (
        serving(source, web_config_file=config, read_timeout=0.2) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as silent,
    ):
        assert silent.recv(100) == b""


@needs_openssl
def test_closing_ends_tls_connections_too(tmp_path: object, source: Source) -> None:
    _certificate(tmp_path, "server")
    config = _write(tmp_path, "tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    with serving(source, web_config_file=config) as port:
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        idle = _trusting(tmp_path, "server").wrap_socket(plain, server_hostname="localhost")
        idle.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert idle.recv(1000).endswith(b"ok\n")
    with idle, contextlib.suppress(ssl.SSLEOFError):
        assert idle.recv(1000) == b""


def test_users_have_to_give_their_password(tmp_path: object, source: Source) -> None:
    bcrypt = pytest.importorskip("bcrypt")
    stored = bcrypt.hashpw(b"s3cret: with a colon", bcrypt.gensalt(4)).decode()
    config = _write(tmp_path, f"basic_auth_users:\n  prometheus: {stored}\n")
    with serving(source, web_config_file=config) as port:
        refused = _get(port)
        assert refused.status == 401
        assert refused.getheader("WWW-Authenticate") == 'Basic realm="cgagent"'
        right = _basic("prometheus", "s3cret: with a colon")
        for _ in range(2):  # the second time from memory
            assert _get(port, Authorization=right).status == 200
        for path in ("/", "/explain", "/nothing"):
            assert _get(port, path).status == 401
        # The kubelet's probes have no password.
        assert _get(port, "/healthz").status == 200
        assert _get(port, "/readyz").status == 200


@pytest.mark.parametrize(
    "header",
    [
        _basic("prometheus", "wrong"),
        _basic("somebody", "right"),
        _basic("prometheus", ""),
        _basic("prometheus", "x" * 5000),
        _basic("prometheus", "right\0"),
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"prometheus").decode(),
        "Bearer right",
        "",
    ],
)
def test_who_does_not_know_the_password_stays_out(tmp_path: object, source: Source, header: str) -> None:
    bcrypt = pytest.importorskip("bcrypt")
    config = _write(
        tmp_path, f"basic_auth_users: {{prometheus: {bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}}}\n"
    )
    with serving(source, web_config_file=config) as port:
        assert _get(port, Authorization=header).status == 401


def test_without_the_bcrypt_package_users_are_refused_with_the_remedy(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_bcrypt(name: str, *rest: Any) -> Any:
        if name == "bcrypt":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_bcrypt)
    config = _write(tmp_path, f"basic_auth_users: {{prometheus: {HASH}}}\n")
    with pytest.raises(CgagentError, match=r"needs the bcrypt package") as caught:
        Guard(config, lambda _: None)
    assert "cgagent[web]" in caught.value.hint
    assert caught.value.exit_code == 78


def test_headers_are_sent_with_every_answer(tmp_path: object, source: Source) -> None:
    config = _write(tmp_path, "http_server_config:\n  headers:\n    X-Frame-Options: deny\n")
    with serving(source, web_config_file=config) as port:
        assert _get(port).getheader("X-Frame-Options") == "deny"
        assert _get(port, "/nothing").getheader("X-Frame-Options") == "deny"


def test_a_file_that_goes_wrong_is_told_once_and_what_was_read_before_stays(tmp_path: object, source: Source) -> None:
    config = _write(tmp_path, "http_server_config:\n  headers:\n    X-Frame-Options: deny\n")
    told: list[str] = []
    guard = Guard(config, told.append)
    _write(tmp_path, "http_server_config: oops\n")
    for _ in range(3):
        guard.refresh()
    assert guard.headers() == (("X-Frame-Options", "deny"),)
    assert len(told) == 1
    assert "http_server_config is not a mapping" in told[0]
    time.sleep(0.01)  # a file system's clock ticks every few milliseconds
    _write(tmp_path, "http_server_config:\n  headers:\n    X-Frame-Options: same\n")
    guard.refresh()
    assert guard.headers() == (("X-Frame-Options", "same"),)
    assert source.looked == 0


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _write(tmp_path, "http_server_config:\n  headers:\n    X-Frame-Options: deny\n")

    def read_and_change(path: str) -> WebConfig:
        found = read_web_config(path)
        monkeypatch.setattr(guard_module, "read_web_config", read_web_config)
        _write(tmp_path, "http_server_config:\n  headers:\n    X-Frame-Options: sameorigin\n")
        return found

    monkeypatch.setattr(guard_module, "read_web_config", read_and_change)
    guard = Guard(config, lambda _: None)
    assert guard.headers() == (("X-Frame-Options", "deny"),)
    guard.refresh()
    assert guard.headers() == (("X-Frame-Options", "sameorigin"),)


def test_an_empty_file_asks_for_nothing(tmp_path: object) -> None:
    config = read_web_config(_write(tmp_path, "# nothing yet\n"))
    assert (config.tls, config.users, config.headers) == (None, {}, {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", "web.yml:1: the document is not a mapping"),
        ("tls_server_config: {}\nrate_limit: {}\n", "web.yml:2: 'rate_limit' is not a key that is known here"),
        ("tls_server_config: {key_file: a}\n", "tls_server_config.cert_file is missing"),
        ("tls_server_config: {cert_file: a}\n", "tls_server_config.key_file is missing"),
        ("tls_server_config: {cert_file: a, key_file: b, cipher_suites: [x]}\n", "'tls_server_config.cipher_suites'"),
        ("tls_server_config: {cert_file: a, key_file: b, min_version: TLS9}\n", "min_version: 'TLS9' is not known"),
        ("tls_server_config: {cert_file: a, key_file: b}\n", "can't be used: no such file or directory"),
        (
            "tls_server_config:\n  cert_file: a\n  key_file: b\n  client_auth_type: RequireAnyClientCert\n",
            "web.yml:4: tls_server_config.client_auth_type: 'RequireAnyClientCert' is not known",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}\n",
            "client_ca_file is missing",
        ),
        ("tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}\n", "client_ca_file does nothing"),
        ("basic_auth_users: {bob: secret}\n", "basic_auth_users.bob is not a bcrypt hash"),
        ("basic_auth_users: [bob]\n", "basic_auth_users is not a mapping"),
        ("http_server_config: {headers: {Server: x}}\n", "'http_server_config.headers.Server' is not a key"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nb: c"}}\n', "is not printable ASCII"),
        ("{", "web.yml"),
    ],
)
def test_what_cannot_be_done_is_refused_with_file_and_key(tmp_path: object, text: str, told: str) -> None:
    with pytest.raises(CgagentError) as caught:
        Guard(_write(tmp_path, text), lambda _: None)
    assert told in caught.value.line()
    assert caught.value.exit_code == 78


def test_a_file_that_is_not_there_is_told(tmp_path: object) -> None:
    with pytest.raises(CgagentError, match=r"--web\.config\.file: cannot read .*web\.yml: no such file") as caught:
        read_web_config(f"{tmp_path}/web.yml")
    assert caught.value.exit_code == 78
