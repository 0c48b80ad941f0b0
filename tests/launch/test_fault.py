"""The fault that happens on large nodes, on this machine: too many Ps under a small quota, and how it is mended.

The service is the sample of deploy/, built by the last Go that does not look at the quota.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from functools import cache
from typing import TYPE_CHECKING

import pytest

from golang.toolchain import UnavailableError
from launch.behaviour import CGAGENT, needs_root, needs_v1
from launch.leftovers import soon
from sample.build import sample

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [needs_root, needs_v1, pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU here")]
QUOTA = 1
SECONDS = 3
CLIENTS = 16


@cache
def measured(go_env: bool, directory: str) -> dict[str, float]:
    """What some seconds of load cost the sample service under --host-cpus 64 --cpus 1."""
    stats = f"{directory}/stats-{go_env}"
    # What else the machine does must not keep the service from its quota: it comes first.
    options = ["--host-cpus", "64", "--cpus", str(QUOTA), "--cpu-shares", "262144", "--stats-file", stats]
    options += ["--net", "host"] + (["--go-env"] if go_env else [])
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    try:
        service = sample("1.24.11")
    except UnavailableError as error:
        pytest.skip(str(error))
    running = subprocess.Popen([CGAGENT, "run", *options, "--", service, "--listen", address])
    try:
        assert not soon(lambda: _ask(address, "healthz") is None)
        answered = _load(address)
        shown = json.loads(_ask(address, "debug/limits") or "{}")
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 0
    with open(stats, encoding="utf-8") as file:
        cpu = json.load(file)["cpu"]
    return {**cpu, "procs": shown["gomaxprocs"], "answered": answered}


def _ask(address: str, page: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{address}/{page}", timeout=60) as answer:
            return str(answer.read(), "utf-8")
    except OSError:
        return None


def _load(address: str) -> int:
    """Let clients ask one after the other for some seconds; how many answers there were."""
    end = time.monotonic() + SECONDS
    answers: list[str | None] = []

    def ask() -> None:
        while time.monotonic() < end:
            answers.append(_ask(address, "?orders=2000"))

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert None not in answers
    return len(answers)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory: Path = tmp_path_factory.mktemp("fault")
    return str(directory)


def test_without_help_the_service_has_a_p_for_each_cpu_of_the_node(place: str) -> None:
    assert measured(False, place)["procs"] == 64


def test_with_go_env_it_has_one_for_its_quota(place: str) -> None:
    assert measured(True, place)["procs"] == QUOTA


def test_the_kernel_holds_it_back_less(place: str) -> None:
    """One thread that runs all the time stays within a quota of one CPU; 64 use it up early in each period."""
    faulty, mended = measured(False, place), measured(True, place)
    if faulty["throttled_seconds"] < 0.1:
        pytest.skip("the machine is too busy to give the program more than its quota")
    assert mended["throttled_seconds"] < faulty["throttled_seconds"] / 2
    assert mended["throttled_periods"] < faulty["throttled_periods"]
