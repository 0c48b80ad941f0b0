"""The request to the API server over real TLS on loopback: what is sent, and what each fault is told as."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import pytest

from cgagent.errors import CgagentError
from cgagent.kube.apiserver import PLACE, SIZE_LIMIT, get_pod
from cgagent.kube.pieces import ACCOUNT_DIRECTORY
from support.api_server import ApiServer
from support.certificate import make_certificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")

PATIENCE = 30.0
AT_ONCE = 0.2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    one = ApiServer(tmp_path)
    yield one
    one.close()


def ask(server: ApiServer, timeout: float = PATIENCE, **environ: str) -> bytes:
    return get_pod({**server.environ, **environ}, str(server.place), timeout)


def told(server: ApiServer, timeout: float = PATIENCE, **environ: str) -> str:
    with pytest.raises(CgagentError) as caught:
        ask(server, timeout, **environ)
    line = caught.value.line()
    assert "s3cr3t" not in line
    assert "\n" not in line
    return line


def test_the_pod_that_we_run_in_is_asked_for_with_the_mounted_token(server: ApiServer) -> None:
    server.document = {"kind": "Pod"}
    assert ask(server) == b'{"kind": "Pod"}'
    assert server.requests == [("/api/v1/namespaces/shop/pods/orders", "Bearer s3cr3t")]


def test_a_token_that_was_renewed_is_the_one_that_is_sent(server: ApiServer) -> None:
    ask(server)
    (server.place / "token").write_text("renewed\n")
    ask(server)
    assert [token for _, token in server.requests] == ["Bearer s3cr3t", "Bearer renewed"]


def test_names_stay_one_part_of_the_path_each(server: ApiServer) -> None:
    (server.place / "namespace").write_text("../../x?a=b")
    ask(server, CGAGENT_POD_NAME="a/b")
    assert server.requests[0][0] == "/api/v1/namespaces/..%2F..%2Fx%3Fa%3Db/pods/a%2Fb"


def test_inject_mounts_what_is_read_here() -> None:
    assert PLACE == ACCOUNT_DIRECTORY


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (403, "a Role that may get pods"),
        (401, "its token is not taken"),
        (404, "CGAGENT_POD_NAME"),
        (500, ""),
        (302, ""),
    ],
)
def test_a_refusal_is_told_with_how_to_mend_it(server: ApiServer, status: int, hint: str) -> None:
    server.respond = lambda request: server.send(request, status)
    line = told(server)
    assert line.startswith(
        f"cannot get pod shop/orders from the API server at 127.0.0.1:{server.port}: HTTP status {status}"
    )
    assert hint in line


@pytest.mark.parametrize(("name", "told_of"), [("token", "/token"), ("namespace", "/namespace")])
def test_a_file_that_is_missing_is_named(server: ApiServer, name: str, told_of: str) -> None:
    (server.place / name).unlink()
    line = told(server)
    assert f"{told_of}: no such file or directory" in line
    assert "mount a service account token" in line
    assert server.requests == []


@pytest.mark.parametrize("text", ["", "\n", "s3cr3t\r\nX-Evil: 1", "s3cr3t two", "s3cr3t\x00", "s3cr3té"])
def test_a_token_that_is_none_is_neither_sent_nor_shown(server: ApiServer, text: str) -> None:
    (server.place / "token").write_text(text)
    assert "does not hold a single word" in told(server)
    assert server.requests == []


def test_a_certificate_of_another_ca_is_not_taken(server: ApiServer, tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path, "another")
    shutil.copy(certificate, server.place / "ca.crt")
    assert "its certificate is not taken" in told(server)
    assert server.requests == [], "no token goes to a stranger"


def test_a_certificate_of_another_name_is_not_taken(server: ApiServer) -> None:
    assert "its certificate is not taken" in told(server, KUBERNETES_SERVICE_HOST="localhost")


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_without_a_ca_nothing_is_trusted(server: ApiServer, text: str | None) -> None:
    (server.place / "ca.crt").unlink()
    if text is not None:
        (server.place / "ca.crt").write_text(text)
    assert "/ca.crt is no CA to trust: " in told(server)
    assert server.requests == []


@pytest.mark.parametrize(
    ("missing", "hint"),
    [("KUBERNETES_SERVICE_HOST", "this is no pod"), ("CGAGENT_POD_NAME", "downward API (metadata.name)")],
)
def test_a_variable_that_is_missing_is_named(server: ApiServer, missing: str, hint: str) -> None:
    server.environ[missing] = ""
    line = told(server)
    assert missing in line
    assert hint in line


@pytest.mark.parametrize("port", ["x", "-1", "99999"])
def test_a_port_that_is_none_is_told(server: ApiServer, port: str) -> None:
    assert told(server, KUBERNETES_SERVICE_PORT=port)


def test_an_address_that_nobody_answers_is_told(server: ApiServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert "refused" in told(server, KUBERNETES_SERVICE_PORT=str(port))


def test_one_that_never_speaks_is_given_up(server: ApiServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "timed out" in told(server, AT_ONCE, KUBERNETES_SERVICE_PORT=str(silent.getsockname()[1]))


def test_an_answer_that_never_comes_is_given_up(server: ApiServer) -> None:
    gate = threading.Event()

    def respond(_: BaseHTTPRequestHandler) -> None:
        gate.wait(PATIENCE)

    server.respond = respond
    assert "timed out" in told(server, AT_ONCE)
    gate.set()


def pouring(piece: bytes, pause: float, length: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that never ends."""

    def respond(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if length is not None:
            request.send_header("Content-Length", str(length))
        request.end_headers()
        while True:
            request.wfile.write(piece)
            time.sleep(pause)

    return respond


def test_an_answer_that_comes_in_drops_is_given_up(server: ApiServer) -> None:
    server.respond = pouring(b" ", 0.01)
    assert "takes too long" in told(server, AT_ONCE)


@pytest.mark.parametrize("length", [None, SIZE_LIMIT * 2])
def test_of_an_answer_without_end_no_more_than_a_bound_is_read(server: ApiServer, length: int | None) -> None:
    server.respond = pouring(b" " * 65536, 0, length)
    assert "longer than 4 MiB" in told(server)


def test_an_answer_that_is_cut_off_is_none(server: ApiServer) -> None:
    def respond(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b'{"kind": "Pod"}')

    server.respond = respond
    assert "cut off" in told(server)


def test_what_is_no_http_is_told(server: ApiServer) -> None:
    def respond(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"SSH-2.0\r\n\r\n")

    server.respond = respond
    assert "cannot get pod" in told(server)
