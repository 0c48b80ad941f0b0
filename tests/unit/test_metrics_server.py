"""The server, over real sockets: what it answers, and what it does not let itself be held up by."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cgagent import connections
from cgagent.errors import CgagentError, UsageError
from cgagent.metrics.exposition import OPENMETRICS, TEXT
from cgagent.metrics.http import HEAD_LIMIT
from cgagent.metrics.server import serve
from cgagent.metrics.settings import Settings, parse_address
from support.sidecar import Source, serving
from support.trees import build, v2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 60  # seconds until a test gives up; what is tested never takes so long
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def source(tmp_path: object) -> Source:
    return Source(build(tmp_path, v2({"/cpu.max": "150000 100000\n", "/memory.max": "268435456\n"})))


@pytest.fixture
def nobody_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine even a client that means to ask may be silent for a second, and would lose its place."""
    monkeypatch.setattr(connections, "PATIENCE", 600.0)


@pytest.fixture
def port(source: Source) -> Iterator[int]:
    with serving(source) as number:
        yield number


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def _ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, PATIENCE)
    try:
        client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = client.getresponse()
        return response, response.read()
    finally:
        client.close()


def _rest(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _statuses(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", data)]


def test_metrics_come_as_text_or_as_openmetrics(port: int) -> None:
    response, body = _ask(port, "/metrics")
    assert (response.status, response.getheader("Content-Type")) == (200, TEXT)
    assert b"\ncgagent_cpu_limit_cores 1.5\n" in body
    response, body = _ask(port, "/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert response.getheader("Content-Type") == OPENMETRICS
    assert body.endswith(b"\n# EOF\n")


def test_metrics_are_gzipped_for_who_takes_that(port: int) -> None:
    response, body = _ask(port, "/metrics", Accept_Encoding="gzip")
    assert response.getheader("Content-Encoding") == "gzip"
    assert b"\ncgagent_cpu_limit_cores 1.5\n" in gzip.decompress(body)


@pytest.mark.parametrize("path", ["/metrics", "/explain", "/", "/healthz", "/readyz", "/nothing"])
def test_head_is_answered_as_get_without_the_body(port: int, path: str) -> None:
    got, body = _ask(port, path)
    head, nothing = _ask(port, path, "HEAD")
    assert nothing == b""
    assert head.status == got.status
    assert head.getheader("Content-Type") == got.getheader("Content-Type")
    # Two scrapes differ in how long they took.
    assert abs(int(head.getheader("Content-Length") or 0) - len(body)) < 24


@pytest.mark.parametrize("path", ["/foo", "/metrics/", "/metricsx", "//metrics", "/Metrics", "/favicon.ico", "*"])
def test_elsewhere_is_nothing(port: int, path: str) -> None:
    assert _ask(port, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_only_reading_is_answered(port: int, method: str) -> None:
    response, _ = _ask(port, "/metrics", method)
    assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")


def test_the_path_of_the_metrics_can_be_chosen(source: Source) -> None:
    with serving(source, telemetry_path="/probe") as port:
        assert _ask(port, "/probe")[0].status == 200
        assert _ask(port, "/metrics")[0].status == 404
        assert b'<a href="/probe">' in _ask(port, "/")[1]


def test_healthy_is_who_answers_and_ready_who_has_written_the_env_file(source: Source, port: int) -> None:
    source.is_ready = False
    assert [_ask(port, path)[0].status for path in ("/healthz", "/readyz")] == [200, 503]
    source.is_ready = True
    assert [_ask(port, path)[0].status for path in ("/healthz", "/readyz")] == [200, 200]
    assert source.looked == 0  # probes cost nothing


def test_explain_is_the_document_of_the_command(port: int) -> None:
    response, body = _ask(port, "/explain")
    assert response.getheader("Content-Type") == "application/json"
    told = json.loads(body)
    assert told["schema"] == "cgagent.explain/1"
    assert told["limits"]["cpu"]["cores"] == 1.5
    assert told["env"] == {"GOMAXPROCS": "2", "GOMEMLIMIT": str(268435456 * 9 // 10)}


def test_without_anything_to_read_explain_and_the_page_say_so_and_metrics_go_on(source: Source, port: int) -> None:
    source.broken = CgagentError("cannot read /proc/4711/cgroup: no such file or directory", "it has ended")
    response, body = _ask(port, "/explain")
    assert response.status == 503
    assert "it has ended" in json.loads(body)["error"]
    response, body = _ask(port, "/")
    assert response.status == 503
    assert b"it has ended" in body
    assert _ask(port, "/metrics")[0].status == 200


def test_the_page_takes_nothing_it_shows_for_markup(tmp_path: object) -> None:
    path = "/</script><img src=x onerror=alert(1)>{{nonce}}&"
    source = Source(build(tmp_path, v2({f"{path}/cpu.max": "100000 100000\n"}, path)))
    with serving(source) as port:
        response, body = _ask(port, "/")
    page = body.decode()
    assert response.status == 200
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert "{{nonce}}" in page  # a stranger's braces are no placeholder
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["cgroup"]["hierarchies"][0]["path"] == path


def test_the_page_allows_the_browser_nothing_from_elsewhere(port: int) -> None:
    first, body = _ask(port, "/")
    second, _ = _ask(port, "/")
    policy = first.getheader("Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert policy != second.getheader("Content-Security-Policy")
    assert re.findall(rb'(?:src|href)="(?!/|explain|healthz|readyz|data:)', body) == []


def test_a_connection_serves_one_request_after_the_other(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, PATIENCE)
    client.connect()
    first = client.sock
    for path, status in (("/metrics", 200), ("/nothing", 404), ("/healthz", 200)):
        client.request("GET", path)
        response = client.getresponse()
        response.read()
        assert response.status == status
        assert client.sock is first
    client.close()


def test_requests_sent_at_once_are_answered_in_order(port: int) -> None:
    with _connect(port) as connection:
        last = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
        connection.sendall(GET % b"/healthz" + GET % b"/nothing" + b"\r\n" + last)
        assert _statuses(_rest(connection)) == [200, 404, 200]


def test_a_body_is_not_taken_for_a_request(port: int) -> None:
    with _connect(port) as connection:
        inner = GET % b"/healthz"
        connection.sendall(b"POST /metrics HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(inner), inner))
        assert _statuses(_rest(connection)) == [405]


def test_a_request_may_come_in_any_pieces(port: int) -> None:
    with _connect(port) as connection:
        for byte in b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert _statuses(_rest(connection)) == [200]


@pytest.mark.parametrize("what", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"hello\r\n\r\n", b"GET / HTTP/9\r\n\r\n"])
def test_what_is_no_http_gets_an_error_and_the_end(port: int, what: bytes) -> None:
    with _connect(port) as connection:
        connection.sendall(what)
        assert _statuses(_rest(connection)) in ([400], [505])


def test_a_head_without_end_is_refused_at_the_limit(port: int) -> None:
    with _connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (HEAD_LIMIT + 1))
        assert _statuses(_rest(connection)) == [431]


def test_the_answer_to_a_flood_still_arrives(port: int) -> None:
    with _connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 8000)
        assert _statuses(_rest(connection)) == [431]


def test_who_says_nothing_is_let_go(source: Source) -> None:
    with serving(source, read_timeout=0.2) as port, _connect(port) as connection:
        assert _rest(connection) == b""


def test_who_speaks_too_slowly_is_let_go(source: Source) -> None:
    with serving(source, read_timeout=0.3) as port, _connect(port) as connection:
        connection.settimeout(0.02)
        answer = b""
        for byte in b"GET / HTTP/1.1\r\n" + b"X: slow\r\n" * 1000:
            try:
                connection.sendall(bytes([byte]))
                answer = connection.recv(1 << 16)
                break
            except TimeoutError:
                continue
        assert _statuses(answer) == [408]


def test_a_kept_connection_that_stays_silent_is_let_go(source: Source) -> None:
    with serving(source, idle_timeout=0.2) as port, _connect(port) as connection:
        connection.sendall(GET % b"/healthz")
        assert _statuses(_rest(connection)) == [200]


def test_silent_clients_keep_nobody_out(source: Source) -> None:
    # Their time is not up before that of the test: it is the newcomer who takes a place of theirs.
    with serving(source, max_requests=3, read_timeout=600) as port:
        silent = [_connect(port) for _ in range(3)]
        for connection in silent[1:]:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        assert [_ask(port, "/healthz")[0].status for _ in range(3)] == [200] * 3
        for connection in silent:
            connection.close()


def test_kept_connections_keep_nobody_out(source: Source) -> None:
    with serving(source, max_requests=2, idle_timeout=600) as port:
        idle = [_connect(port) for _ in range(2)]
        for connection in idle:
            connection.sendall(GET % b"/healthz")
            assert _statuses(connection.recv(1 << 16)) == [200]
        assert _ask(port, "/healthz")[0].status == 200
        for connection in idle:
            connection.close()


@pytest.mark.usefixtures("nobody_is_evicted")
def test_200_clients_at_once_are_all_answered(source: Source) -> None:
    with serving(source) as port:
        clients = [_connect(port) for _ in range(200)]
        for client in clients:
            client.sendall(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
        answers = [_rest(client) for client in clients]
        for client in clients:
            client.close()
    assert [_statuses(answer) for answer in answers] == [[200]] * 200
    assert all(answer.rstrip().splitlines()[-1].startswith(b"cgagent_scrape_duration") for answer in answers)


def test_after_a_thousand_scrapes_and_a_crowd_nothing_is_left_of_them(source: Source) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with serving(source) as port:
        files, threads = held()
        client = http.client.HTTPConnection("127.0.0.1", port, PATIENCE)
        for number in range(1000):
            client.request("GET", "/metrics")
            client.getresponse().read()
            if number % 10 == 0:
                client.close()
        crowd = [_connect(port) for _ in range(30)]
        for member in crowd:
            member.sendall(GET % b"/healthz")
            assert _statuses(member.recv(1 << 16)) == [200]
        assert held()[1] > threads
        client.close()
        for member in crowd:
            member.close()
        # One that waits and two to spare are kept: starting them is what takes time. Less than at the start is held
        # where a server of an earlier test was still about to end then.
        _until(lambda: held()[0] <= files and held()[1] <= threads + 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_our_own_costs_one_connection_and_not_the_service(
    source: Source, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(source, "picture", faulty)
    for _ in range(5):
        with pytest.raises(http.client.RemoteDisconnected):
            _ask(port, "/metrics")
        assert _ask(port, "/healthz")[0].status == 200


@pytest.mark.usefixtures("nobody_is_evicted")
def test_clients_that_keep_asking_take_turns(source: Source) -> None:
    with serving(source, max_requests=2) as port, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: _ask(port, "/metrics")[0].status, range(80)))
    assert found == [200] * 80


def test_closing_ends_what_is_open_and_frees_the_address(source: Source) -> None:
    before = set(threading.enumerate())
    server = serve(source, Settings(("127.0.0.1:0",)))
    address = server.addresses[0]
    with _connect(int(address.rpartition(":")[2])) as idle:
        idle.sendall(GET % b"/healthz")
        assert _statuses(idle.recv(1 << 16)) == [200]
        server.close()
        assert _rest(idle) == b""
    _until(lambda: set(threading.enumerate()) <= before)
    again = serve(source, Settings((address,)))
    assert again.addresses == [address]
    again.close()


def test_without_a_client_no_thread_wakes_up() -> None:
    code = """if True:
        import sys
        from support.sidecar import Source, serving
        with serving(Source()):
            print("here", flush=True)
            sys.stdin.read()
    """
    words = [sys.executable, "-c", code]
    environ = {"PYTHONPATH": "tests"}
    with subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(10):  # on a busy machine it takes a while to come to rest
            before = _switches(process.pid)
            time.sleep(1.5)
            after = _switches(process.pid)
            if after == before:
                break
        process.communicate()
    assert after == before
    assert len(after) == 2  # main and the one that waits in accept(2)


def _switches(pid: int) -> dict[str, str]:
    """How often each thread of a process has given up the CPU by itself (proc(5))."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
            found[task] = next(line for line in file if line.startswith("voluntary"))
    return found


def test_every_address_is_listened_on(source: Source) -> None:
    addresses = ("127.0.0.1:0", "localhost:0", ":0") + (("[::1]:0",) if socket.has_dualstack_ipv6() else ())
    server = serve(source, Settings(addresses))
    try:
        assert len(server.addresses) >= len(addresses)
        for address in server.addresses:
            host, _, port = address.rpartition(":")
            host = {"[::]": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(host, host.strip("[]"))
            with socket.create_connection((host, int(port)), PATIENCE) as connection:
                connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert _statuses(_rest(connection)) == [200]
    finally:
        server.close()


def test_an_address_in_use_is_told_and_nothing_is_left_listening(source: Source) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
        with pytest.raises(CgagentError) as caught:
            serve(source, Settings((f"127.0.0.1:{free}", f"127.0.0.1:{number}")))
        assert caught.value.line() == (
            f"cannot listen on 127.0.0.1:{number}: address already in use: choose another with --web.listen-address"
        )
        socket.create_server(("127.0.0.1", free)).close()


def test_a_host_that_does_not_exist_is_told(source: Source) -> None:
    with pytest.raises(CgagentError, match=r"^cannot listen on no\.such\.host\.invalid:9100: "):
        serve(source, Settings(("no.such.host.invalid:9100",)))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [(":9100", "", 9100), ("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:65535", "::1", 65535), ("a.b:1", "a.b", 1)],
)
def test_listen_addresses(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["9100", "localhost", "::1:9100", "a:65536", "a:-1", "a:", "", "a:80 ", "a:٣", "[::1]"]
)
def test_what_is_no_listen_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"--web\.listen-address"):
        parse_address(text)


@pytest.mark.parametrize("path", ["metrics", "", "/", "/healthz", "/readyz", "/explain", "/a b", "/a?b", "/ä", "/a\n"])
def test_what_is_no_telemetry_path(path: str) -> None:
    with pytest.raises(UsageError, match=r"--web\.telemetry-path"):
        Settings((":0",), telemetry_path=path)


def test_at_least_one_request_is_served() -> None:
    with pytest.raises(UsageError, match=r"--web\.max-requests"):
        Settings((":0",), max_requests=0)
