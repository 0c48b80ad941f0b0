"""`watch --confirm-raises`: what is lower counts at once, what is higher when the API server says it is granted."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from cgagent.errors import CgagentError, UsageError
from cgagent.given import Amount, GivenLimits
from cgagent.metrics.counters import Counters
from cgagent.watch import raises as raises_module
from cgagent.watch.raises import Raises, pause_after
from support.api_server import ApiServer, condition, pod_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MI = 1 << 20
PATIENCE = 60.0
GRANTED_AT_START = {"CGAGENT_CPU_LIMIT_MILLICORES": "1500", "CGAGENT_MEMORY_LIMIT_BYTES": str(256 * MI)}
DEFERRED = pod_document(
    {"memory": "512Mi"}, {"memory": "256Mi"}, conditions=[condition("PodResizePending", "Deferred")]
)
IN_FORCE = pod_document({"memory": "512Mi"}, {"memory": "512Mi"})


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Asking:
    """Raises whose API server answers when the test gives it an answer: a document, or an error.

    Attributes:
        answers: those to give, one for each question.
        told: set when an answer has come that is not the one before.
    """

    def __init__(self) -> None:
        self.answers: queue.Queue[object] = queue.Queue()
        self.told = threading.Event()
        self.counters = Counters()
        self.raises = Raises("app", GRANTED_AT_START, self.told.set, self.counters, self._fetch)

    def _fetch(self) -> bytes:
        answer = self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer).encode()

    @property
    def asked(self) -> int:
        return self.counters.pod_status_requests or 0

    def rests(self) -> bool:
        """Whether nothing is asked for a while."""
        before = self.asked
        time.sleep(0.2)
        return before == self.asked

    def answered(self, answer: object) -> None:
        """Give `answer`, and wait until the agent would be woken by it."""
        self.told.clear()
        self.answers.put(answer)
        assert self.told.wait(PATIENCE)

    def counts(self, mebibytes: int, millicores: int = 1500) -> tuple[int, int]:
        """Of these wishes, the bytes in Mi and millicores that count."""
        wished = GivenLimits(
            Amount(millicores, str(millicores), "/podinfo/cpu"),
            Amount(mebibytes * MI, str(mebibytes * MI), "/podinfo/memory"),
            "given",
            trust=True,
        )
        found = self.raises.heed(wished)
        assert found.memory is not None
        assert found.cpu is not None
        return found.memory.value // MI, found.cpu.value


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Asking:
    monkeypatch.setattr(raises_module, "_SOONEST", 0.001)
    monkeypatch.setattr(raises_module, "_LATEST", 0.001)
    return Asking()


def test_what_is_lower_or_the_same_counts_at_once_and_nobody_is_asked(asking: Asking) -> None:
    assert asking.counts(256) == (256, 1500)
    assert asking.counts(200, 1000) == (200, 1000)
    assert asking.raises.reasons == {}
    assert asking.asked == 0


def test_what_is_higher_counts_when_it_is_granted(asking: Asking) -> None:
    assert asking.counts(512) == (256, 1500)
    assert asking.raises.reasons == {"memory": "the API server is asked"}
    asking.answered(DEFERRED)
    assert asking.counts(512) == (256, 1500)
    assert asking.raises.reasons == {"memory": "Deferred"}
    asking.answered(IN_FORCE)
    assert asking.counts(512) == (512, 1500)
    assert asking.raises.reasons == {}


def test_a_slow_api_server_holds_up_nothing_that_is_lower(asking: Asking) -> None:
    asking.counts(512)
    until(lambda: asking.asked == 1)  # and is not answered
    assert asking.counts(512, 1000) == (256, 1000)
    assert asking.counts(128) == (128, 1000), "and what was lowered is the bound of what is higher"


def test_an_answer_is_for_the_raise_that_it_was_asked_for(asking: Asking) -> None:
    """Lowered and raised again meanwhile: what was in force before may be no more."""
    asking.counts(512)
    until(lambda: asking.asked == 1)
    assert asking.counts(128) == (128, 1500)
    assert asking.counts(512) == (128, 1500)
    asking.answered(IN_FORCE)  # to the question before
    assert asking.counts(512) == (128, 1500)
    asking.answered(IN_FORCE)
    assert asking.counts(512) == (512, 1500)


def test_one_of_two_may_be_granted(asking: Asking) -> None:
    limits = {"memory": "512Mi", "cpu": "2"}
    asking.counts(512, 2000)
    asking.answered(pod_document(limits, {"memory": "256Mi", "cpu": "2"}))
    assert asking.counts(512, 2000) == (256, 2000)
    assert list(asking.raises.reasons) == ["memory"]
    for _ in range(2):  # the first may be the answer to another question: that about both
        if asking.counts(512, 2000) != (512, 2000):
            asking.answered(pod_document(limits, limits))
    assert asking.counts(512, 2000) == (512, 2000)


def test_what_keeps_us_from_asking_is_told_and_the_raise_held_back(asking: Asking) -> None:
    asking.counts(512)
    asking.answered(CgagentError("cannot get the pod", "mend it"))
    assert asking.counts(512) == (256, 1500)
    assert asking.raises.trouble == "cannot get the pod: mend it"
    assert asking.raises.reasons == {"memory": "cannot get the pod: mend it"}
    assert asking.counters.pod_status_request_failures == 1
    asking.answered(ZeroDivisionError("a fault of ours"))
    assert asking.counts(512) == (256, 1500)
    asking.answered(IN_FORCE)
    assert asking.counts(512) == (512, 1500)
    assert asking.raises.trouble == ""


def test_the_same_answer_again_wakes_nobody(asking: Asking) -> None:
    asking.counts(512)
    asking.answered(DEFERRED)
    asking.told.clear()
    asking.answers.put(DEFERRED)
    until(lambda: asking.asked == 3)  # the second was answered
    assert not asking.told.is_set()


def test_while_no_raise_is_open_nobody_is_asked(asking: Asking) -> None:
    asking.counts(512)
    asking.answered(IN_FORCE)
    assert asking.counts(512) == (512, 1500)
    for _ in range(100):
        asking.answers.put(IN_FORCE)
    until(asking.rests)  # without an end it would be asked all the time
    assert asking.answers.qsize() > 0


def test_questions_about_a_raise_that_stays_open_become_seldom() -> None:
    pauses = [pause_after(seconds) for seconds in (0.0, 0.5, 1.0, 4.0, 20.0, 40.0, 3600.0)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.15, 10.0)
    seconds, questions = 0.0, 0
    while seconds < 60:
        seconds, questions = seconds + pause_after(seconds), questions + 1
    assert questions < 30, "in the first minute"


@pytest.mark.parametrize("resource", ["CPU", "memory"])
def test_what_was_granted_at_the_start_has_to_be_known(resource: str) -> None:
    environ = {name: text for name, text in GRANTED_AT_START.items() if resource.upper() not in name}
    one = Asking()
    one.raises = Raises("app", environ, one.told.set, one.counters)
    with pytest.raises(
        UsageError, match=f"what {resource.lower()} limit was granted at the start is not known"
    ) as caught:
        one.counts(256)
    assert f"CGAGENT_{resource.upper()}_LIMIT" in caught.value.hint


def test_a_limit_that_is_given_nowhere_is_none() -> None:
    one = Asking()
    one.raises = Raises("app", {}, one.told.set, one.counters)
    assert one.raises.heed(GivenLimits(None, None, "given", trust=True)).memory is None


# The program.

_PROGRAM = """
import sys
import cgagent.kube.apiserver as apiserver
apiserver.get_pod.__defaults__ = (sys.argv[1], 5.0)
from cgagent.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    one = ApiServer(tmp_path)
    yield one
    one.close()


class Following:
    """`cgagent watch --confirm-raises` beside a directory of limits."""

    def __init__(self, server: ApiServer, directory: Path) -> None:
        self._directory = directory
        (directory / "podinfo").mkdir()
        self.wish(256)
        words = ["watch", "--env-file", f"{directory}/go.env", "--limits-dir", f"{directory}/podinfo", "--poll", "1h"]
        words += ["--limits-from=given", "--confirm-raises=app", f"--state-dir={directory}"]
        command = [sys.executable, "-c", _PROGRAM, str(server.place), *words]
        environ = {**os.environ, **server.environ, "CGAGENT_MEMORY_LIMIT_BYTES": str(256 * MI)}
        with open(f"{directory}/log", "w") as log:
            self.process = subprocess.Popen(command, env=environ, stderr=log)

    def wish(self, mebibytes: int) -> None:
        new = self._directory / "new"
        new.write_text(str(mebibytes * MI))
        os.rename(new, self._directory / "podinfo" / "memory_limit_bytes")

    def has(self, mebibytes: int) -> bool:
        file = self._directory / "go.env"
        return file.exists() and f"GOMEMLIMIT='{mebibytes * MI * 9 // 10}'" in file.read_text()

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()


@pytest.fixture
def following(server: ApiServer, tmp_path: Path) -> Iterator[Following]:
    one = Following(server, tmp_path)
    yield one
    one.process.kill()
    one.process.wait()


def test_the_sidecar_writes_a_raise_when_it_is_granted_and_says_what_it_waits_for(
    following: Following, server: ApiServer
) -> None:
    until(lambda: following.has(256))
    assert server.requests == []
    server.respond = lambda request: server.send(request, 403)
    following.wish(512)
    until(lambda: "HTTP status 403" in following.log)
    assert following.has(256)
    server.document = DEFERRED
    server.respond = server.send
    until(lambda: 'msg="in order again" about="pod status"' in following.log)
    assert following.has(256)
    following.wish(128)
    until(lambda: following.has(128))
    following.wish(512)
    server.document = IN_FORCE
    until(lambda: following.has(512))
    assert following.log.count("a higher memory limit is asked for and not granted yet") == 2
    following.process.send_signal(signal.SIGTERM)
    assert following.process.wait(PATIENCE) == 0


def test_a_slow_api_server_does_not_keep_the_sidecar_from_ending(following: Following, server: ApiServer) -> None:
    gate = threading.Event()
    server.respond = lambda _: (gate.wait(PATIENCE), None)[1]
    until(lambda: following.has(256))
    following.wish(512)
    until(lambda: server.requests)
    following.process.send_signal(signal.SIGTERM)
    assert following.process.wait(PATIENCE) == 0
    gate.set()


@pytest.mark.parametrize(
    "words",
    [["--confirm-raises=app"], ["--confirm-raises=app", "--limits-dir=/etc", "--target=auto"]],
    ids=["nothing to confirm", "the cgroup is seen"],
)
def test_where_it_makes_no_sense_it_is_wrong_usage(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cgagent", "watch", f"--env-file={tmp_path}/go.env", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert "--confirm-raises is for limits that a downward-API volume shows" in done.stderr


def test_what_it_takes_is_loaded_where_it_is_asked_for_alone(tmp_path: Path) -> None:
    """ssl, http.client and json are 8 MiB."""
    (tmp_path / "podinfo").mkdir()
    (tmp_path / "podinfo" / "memory_limit_bytes").write_text(str(256 * MI))
    script = "import sys; from cgagent.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = [
        "watch",
        f"--env-file={tmp_path}/go.env",
        f"--limits-dir={tmp_path}/podinfo",
        "--poll=1h",
    ]
    command = [sys.executable, "-c", script, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        until(lambda: (tmp_path / "go.env").exists())
        process.send_signal(signal.SIGTERM)
        loaded = set(process.communicate(timeout=PATIENCE)[0].split())
    finally:
        process.kill()
    assert "cgagent.watch.agent" in loaded
    unwanted = {
        "ssl",
        "http.client",
        "json",
        "cgagent.watch.raises",
        "cgagent.kube.podstatus",
        "cgagent.kube.apiserver",
    }
    assert loaded & unwanted == set()
