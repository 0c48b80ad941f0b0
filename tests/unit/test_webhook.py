"""The webhook over real TLS on loopback: reviews, bad requests, a certificate that is renewed, many at once."""

from __future__ import annotations

import base64
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cgagent.errors import CgagentError
from cgagent.kube.additions import Addition, applied
from cgagent.kube.certificate import Certificate
from cgagent.kube.review import MalformedReviewError, answer
from cgagent.kube.settings import IMAGE
from cgagent.kube.webhook import BODY_LIMIT, PLACES, Server, Webhook
from support.certificate import make_certificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "orders-5d4f7c-", "namespace": "shop", "labels": {"app": "orders"}},
    "spec": {
        "containers": [
            {"name": "app", "image": "orders:1", "resources": {"limits": {"cpu": "1500m", "memory": "256Mi"}}}
        ],
    },
}


def review(pod: object = POD, **more: object) -> dict[str, object]:
    """An AdmissionReview as the API server of Kubernetes 1.36 sends it for a pod of a ReplicaSet."""
    request = {
        "uid": "0c1b6d0e-2f57-4a0c-9d7e-6f7f6a1f0b57",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "shop",
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": pod,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        **more,
    }
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def defaults(_name: str) -> None:
    return None


def response(document: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer(json.dumps(document).encode(), defaults).body)["response"]
    return found


def patched(pod: object, patch: object) -> object:
    operations = json.loads(base64.b64decode(str(patch)))
    assert {one["op"] for one in operations} == {"add"}

    def path(pointer: str) -> tuple[str | int, ...]:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
        return tuple(int(step) if step.isdigit() else step for step in steps)

    return applied(pod, [Addition(path(one["path"]), one["value"]) for one in operations])


# The answers, without a network.


def test_a_pod_is_let_in_with_a_patch_that_adds_what_inject_adds() -> None:
    found = response(review())
    assert found["uid"] == "0c1b6d0e-2f57-4a0c-9d7e-6f7f6a1f0b57"
    assert found["allowed"] is True
    assert found["patchType"] == "JSONPatch"
    pod = patched(POD, found["patch"])
    assert isinstance(pod, dict)
    assert [one["name"] for one in pod["spec"]["initContainers"]] == ["cgagent"]
    assert [one["name"] for one in pod["spec"]["containers"][0]["env"]] == ["GOMAXPROCS", "GOMEMLIMIT"]
    assert pod["metadata"]["labels"] == POD["metadata"]["labels"]  # type: ignore[index]


def test_what_is_in_it_already_is_not_put_in_again() -> None:
    once = patched(POD, response(review())["patch"])
    assert "patch" not in response(review(once))


@pytest.mark.parametrize(
    "more",
    [
        {"operation": "UPDATE"},
        {"subResource": "ephemeralcontainers"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"object": None},
        {"object": {"spec": {"containers": [{"name": "app"}]}}},
        {"object": {**POD, "metadata": {"annotations": {"cgagent.dev/inject": "disabled"}}}},
    ],
)
def test_what_is_not_for_us_is_let_in_as_it_is(more: dict[str, object]) -> None:
    found = response(review(**more))
    assert found["allowed"] is True
    assert "patch" not in found
    assert "warnings" not in found


def test_an_annotation_that_does_not_fit_is_a_warning_and_the_pod_is_let_in() -> None:
    found = response(review({**POD, "metadata": {"annotations": {"cgagent.dev/memory-ratio": "9"}}}))
    assert found["allowed"] is True
    assert "patch" not in found
    warnings = found["warnings"]
    assert isinstance(warnings, list)
    assert warnings[0].startswith("cgagent: annotation cgagent.dev/memory-ratio: '9' is not a ratio")
    assert len(warnings[0]) <= 256


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind": "AdmissionReview"}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "1"}}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": 7}}',
    ],
)
def test_what_is_no_review_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedReviewError):
        answer(body, defaults)


# Over TLS.


class Running:
    """A webhook that serves on loopback, and a client that trusts its certificate alone."""

    def __init__(self, directory: Path) -> None:
        self.files = make_certificate(directory, "first")
        self.told: list[str] = []
        self.opened: list[http.client.HTTPSConnection] = []
        self.webhook = Webhook(
            defaults, Certificate(*self.files, self.told.append), lambda _level, line: self.told.append(line)
        )
        self.server = Server(("127.0.0.1", 0), self.webhook, tls=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def connect(self, authority: str | None = None) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=authority or self.files[0])
        self.opened.append(http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=60))
        return self.opened[-1]

    def post(self, body: bytes, path: str = "/inject", **headers: str) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
            found = connection.getresponse()
            return found.status, found.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, str]:
        connection = self.connect()
        try:
            connection.request("GET", path)
            found = connection.getresponse()
            return found.status, found.read().decode()
        finally:
            connection.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = Running(tmp_path)
    yield found
    for connection in found.opened:
        connection.close()
    found.server.shutdown()
    found.server.server_close()


BODY = json.dumps(review()).encode()


def test_a_review_is_answered_over_tls(running: Running) -> None:
    status, body = running.post(BODY)
    assert status == 200
    assert json.loads(body)["response"]["patchType"] == "JSONPatch"
    assert running.told == ["shop/orders-5d4f7c-*: injected, filekeyref: app (GOMAXPROCS, GOMEMLIMIT)"]


BOTH = ["GOMAXPROCS", "GOMEMLIMIT"]
# What Kubernetes 1.36.3 has sent to a webhook, byte for byte (tests/unit/reviews); who gets what is read off limits.
RECORDED: dict[str, tuple[str, dict[str, list[str]]]] = {
    "of-a-deployment": ("write", {"app": BOTH}),
    "of-a-job": ("write", {"app": ["GOMEMLIMIT"]}),  # GOMAXPROCS is its own, and its other limit none
    "of-a-daemonset": ("watch", {"app": BOTH}),  # its annotation chooses the sidecar
    "with-limits-of-the-pod": ("write", {"app": BOTH, "worker": BOTH}),
    "without-limits": ("", {}),
}


@pytest.mark.parametrize("name", RECORDED)
def test_reviews_that_an_api_server_has_sent_are_answered_over_tls(name: str, running: Running) -> None:
    with open(os.path.join(os.path.dirname(__file__), "reviews", f"{name}.json"), "rb") as file:
        body = file.read()
    request = json.loads(body)["request"]
    status, answered = running.post(body, "/inject?timeout=10s")
    found = json.loads(answered)["response"]
    assert (status, found["uid"], found["allowed"]) == (200, request["uid"], True)
    pod: Any = patched(request["object"], found["patch"]) if "patch" in found else request["object"]
    command, wanted = RECORDED[name]
    taken = {
        container["name"]: [one["name"] for one in container.get("env", []) if "fileKeyRef" in one.get("valueFrom", {})]
        for container in pod["spec"]["containers"]
    }
    assert {container: names for container, names in taken.items() if names} == wanted
    ours = [one for one in pod["spec"].get("initContainers", []) if one["image"] == IMAGE]
    assert [one["args"][0] for one in ours] == [command] * len(wanted)
    # Whatever the pod had of its own comes behind ours, as it was.
    behind = pod["spec"].get("initContainers", [])[len(ours) :]
    assert behind == request["object"]["spec"].get("initContainers", [])


def test_one_connection_takes_many_reviews(running: Running) -> None:
    connection = running.connect()
    for _ in range(3):
        connection.request("POST", "/inject?timeout=5s", BODY)
        assert connection.getresponse().read()
    connection.close()
    assert 'requests_total{result="injected"} 3' in running.get("/metrics")[1]


def test_health_and_metrics(running: Running) -> None:
    assert running.get("/healthz") == (200, "ok\n")
    assert running.get("/readyz") == (200, "ok\n")
    assert running.get("/else")[0] == 404
    running.post(BODY)
    running.post(b"{")
    text = running.get("/metrics")[1]
    assert 'cgagent_webhook_requests_total{result="injected"} 1\n' in text
    assert 'cgagent_webhook_requests_total{result="malformed"} 1\n' in text
    assert "cgagent_webhook_request_duration_seconds_count 2\n" in text


def test_malformed_requests_get_an_http_error_and_the_next_one_its_answer(running: Running) -> None:
    assert running.post(b"not json")[0] == 400
    assert running.post(BODY, "/else")[0] == 404
    connection = running.connect()
    connection.putrequest("POST", "/inject")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection = running.connect()
    connection.putrequest("POST", "/inject")
    connection.putheader("Content-Length", str(BODY_LIMIT + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    assert running.post(BODY)[0] == 200


def test_a_client_without_tls_or_that_goes_away_is_no_fault(running: Running) -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01"):
        with socket.create_connection(("127.0.0.1", running.port)) as plain:
            plain.sendall(data)
    assert running.post(BODY)[0] == 200
    assert [line for line in running.told if "fault" in line] == []


def test_a_silent_client_holds_up_nobody(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port)):
        assert running.post(BODY)[0] == 200


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many descriptors as both ends of a webhook's connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4 * PLACES
    if soft < needed:
        if hard < needed:
            pytest.skip(f"a process may have {hard} open files here, and {needed} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_idle_clients_in_every_place_keep_no_review_out_and_the_longest_idle_one_goes(running: Running) -> None:
    idle = [running.connect() for _ in range(PLACES)]
    for at, connection in enumerate(idle):
        connection.connect()  # shakes hands
        if at % 2:  # and some have asked before
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"ok\n"
    assert running.post(BODY)[0] == 200
    assert idle[0].sock.recv(1) == b""  # the server has closed it
    idle[-1].request("POST", "/inject", BODY)
    assert idle[-1].getresponse().status == 200


def test_a_renewed_certificate_is_used_by_the_next_connection(running: Running, tmp_path: Path) -> None:
    kept = tmp_path / "kept.crt"
    kept.write_bytes((tmp_path / "first.crt").read_bytes())
    certificate, key = make_certificate(tmp_path, "second")
    for new, old in ((certificate, running.files[0]), (key, running.files[1])):
        os.replace(new, old)
    assert running.post(BODY)[0] == 200  # by the new one, which is what the file holds
    with pytest.raises(ssl.SSLCertVerificationError):
        running.connect(str(kept)).request("GET", "/healthz")
    assert running.webhook.certificate.reloads == 1


def test_a_certificate_that_cannot_be_used_leaves_the_one_before(running: Running, tmp_path: Path) -> None:
    kept = tmp_path / "kept.crt"
    kept.write_bytes((tmp_path / "first.crt").read_bytes())
    (tmp_path / "first.crt").write_text("nothing")
    connection = running.connect(str(kept))
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    assert running.webhook.certificate.failures == 1
    assert running.told[0].endswith("going on with the one before")


def test_five_hundred_at_once_all_have_their_answer(running: Running) -> None:
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda _: running.post(BODY)[0], range(500)))
    assert found == [200] * 500
    assert 'requests_total{result="injected"} 500\n' in running.get("/metrics")[1]


def test_what_is_being_answered_at_the_end_is_answered(running: Running) -> None:
    begun, gate = threading.Event(), threading.Event()

    def slowly(_name: str) -> None:
        begun.set()
        assert gate.wait(60)

    running.webhook.text_of = slowly
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(running.post, BODY)
        assert begun.wait(60)
        assert not running.webhook.drain(0.0)
        gate.set()
        assert running.webhook.drain(60)
        assert asked.result()[0] == 200


def test_a_wrong_certificate_or_address_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CgagentError, match="can't be used"):
        Certificate(f"{tmp_path}/none", f"{tmp_path}/none", print)
    one, other = make_certificate(tmp_path, "one"), make_certificate(tmp_path, "other")
    with pytest.raises(CgagentError, match="the key is another certificate's"):
        Certificate(one[0], other[1], print)
    with pytest.raises(CgagentError, match="one of them is no certificate or key"):
        Certificate(one[1], one[0], print)
    certificate = Certificate(*one, print)
    with pytest.raises(CgagentError, match=r"cannot listen on 192\.0\.2\.1:1"):
        Server(("192.0.2.1", 1), Webhook(defaults, certificate, lambda *_: None), tls=True)


def test_the_command_serves_until_sigterm(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    words = ("webhook", "--listen-address", "127.0.0.1:0", "--web.listen-address", "127.0.0.1:0")
    code = "import sys; from support.kube import run; sys.exit(run(*sys.argv[1:]))"
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--tls-cert-file", certificate, "--tls-private-key-file", key],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    )
    assert process.stderr is not None
    ports = [int(process.stderr.readline().split("port=")[1].split(" ")[0]) for _ in range(2)]
    connection = http.client.HTTPConnection("127.0.0.1", ports[1], timeout=60)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"ok\n"
    connection.request("POST", "/inject", BODY)
    assert connection.getresponse().status == 404  # reviews are for TLS alone
    connection.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stderr.close()
