"""The sample service: it says what its runtime runs with, works, and ends when told to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from golang.toolchain import VERSIONS, UnavailableError
from sample.build import sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MIB = 1 << 20
UNSET = (1 << 63) - 1  # math.MaxInt64: no limit


@pytest.fixture(params=VERSIONS, scope="module")
def program(request: pytest.FixtureRequest) -> str:
    """The service, built by each Go."""
    try:
        return sample(request.param)
    except UnavailableError as error:
        pytest.skip(f"Go {request.param} can't be had here: {error}")


class Service:
    """The service on a free port of the loopback interface."""

    def __init__(self, program: str, environ: dict[str, str]) -> None:
        words = [program, "-listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.first_line = self.process.stderr.readline()
        self.address = self.first_line.split("serving ")[1].split()[0]

    def get(self, path: str) -> str:
        """What it answers."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=60) as answer:
            text: str = answer.read().decode()
            return text

    def limits(self) -> dict[str, Any]:
        """What /debug/limits says."""
        page: dict[str, Any] = json.loads(self.get("/debug/limits"))
        return page


@contextlib.contextmanager
def running(program: str, **environ: str) -> Iterator[Service]:
    """The service with these variables alone."""
    service = Service(program, environ)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.communicate()


def test_limits_page_shows_what_the_runtime_took_from_the_environment(program: str) -> None:
    with running(program, GOMAXPROCS="3", GOMEMLIMIT=str(200 * MIB)) as service:
        page = service.limits()
    assert (page["gomaxprocs"], page["gomemlimit"]) == (3, 200 * MIB)
    assert page["environ"] == {"GOMAXPROCS": "3", "GOMEMLIMIT": str(200 * MIB)}
    assert page["pid"] == service.process.pid
    assert page["numcpu"] == len(os.sched_getaffinity(0))
    assert page["heap_alloc_bytes"] > 0


def test_variables_that_are_not_set_are_not_shown_and_bind_nothing(program: str) -> None:
    with running(program) as service:
        page = service.limits()
    assert page["environ"] == {}
    assert page["gomemlimit"] == UNSET


def test_a_request_makes_orders_and_adds_them_up(program: str) -> None:
    count = 5_000
    with running(program) as service:
        answer = json.loads(service.get(f"/?orders={count}"))
    assert answer["orders"] == count
    assert answer["cents"] == sum(i * 7919 % 10_007 for i in range(count))


@pytest.mark.parametrize("orders", ["0", "-1", "many", "1000001"])
def test_a_wrong_number_of_orders_is_refused(program: str, orders: str) -> None:
    with running(program) as service, pytest.raises(urllib.error.HTTPError, match="400"):
        service.get(f"/?orders={orders}")


def test_metrics_have_client_golangs_names(program: str) -> None:
    with running(program, GOMAXPROCS="3", GOMEMLIMIT="104857600") as service:
        lines = service.get("/metrics").splitlines()
    assert "go_sched_gomaxprocs_threads 3" in lines
    assert "go_gc_gomemlimit_bytes 104857600" in lines


def test_sigterm_lets_the_request_under_way_finish(program: str) -> None:
    with running(program) as service:
        words = ["curl", "--silent", "--fail", f"http://{service.address}/?orders=200000"]
        request = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        _wait_for_connection(service.address)
        service.process.send_signal(signal.SIGTERM)
        answer, _ = request.communicate(timeout=60)
        assert service.process.wait(60) == 0
    assert json.loads(answer)["orders"] == 200_000


def _wait_for_connection(address: str) -> None:
    """Until somebody is connected to `address`, as /proc/net/tcp tells it."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with open("/proc/net/tcp") as file:
            rows = [line.split() for line in file]
        if any(row[1].endswith(port) and row[3] == "01" for row in rows):  # TCP_ESTABLISHED
            time.sleep(0.02)  # accepted and read
            return
        time.sleep(0.005)
    raise AssertionError("nobody connected")


def test_a_word_too_many_is_one_line(program: str) -> None:
    done = subprocess.run([program, "extra"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
