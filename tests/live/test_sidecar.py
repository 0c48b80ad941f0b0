"""The sidecar's hook `tune`: after an in-place resize the running program follows, before its cgroup shrinks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

from kernel.conftest import top, writable
from live.conftest import built
from live.programs import VERSIONS, Told, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kernel.cgroups import Group

    Run = Callable[..., Told]
    Sidecar = Callable[..., Callable[[], str]]

__all__ = ["top", "writable"]

MIB = 1 << 20


@pytest.fixture
def sidecar(tmp_path: object) -> Iterator[Sidecar]:
    """Start `watch` for a process; it has written its env file when this returns. What it returns reads its log."""
    started: list[subprocess.Popen[bytes]] = []
    log = f"{tmp_path}/log"

    def start(pid: str, *words: str) -> Callable[[], str]:
        command = [
            sys.executable,
            "-m",
            "cgagent",
            "watch",
            "--target",
            pid,
            "--env-file",
            f"{tmp_path}/go.env",
            *words,
        ]
        environ = {**os.environ, "CGAGENT_STATE_DIR": f"{tmp_path}/state"}
        with open(log, "ab") as file:
            started.append(subprocess.Popen(command, stderr=file, env=environ))
        assert until(lambda: os.path.exists(f"{tmp_path}/go.env"))
        return lambda: _text(log)

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=30)
    assert "Traceback" not in _text(log)


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def says(told: Told, word: str = "say") -> dict[str, int]:
    answer: dict[str, int] = json.loads(told.tell(word))
    return answer


def wish(directory: str, size: int) -> None:
    """Put a limit into a downward-API volume as the kubelet does: the file is replaced."""
    with open(f"{directory}/new", "w", encoding="utf-8") as file:
        file.write(f"{size}\n")
    os.rename(f"{directory}/new", f"{directory}/memory_limit_bytes")


def test_the_program_is_tuned_before_its_cgroup_shrinks_and_after_it_grows(
    run: Run, top: Group, sidecar: Sidecar, tmp_path: object
) -> None:
    volume = f"{tmp_path}/volume"
    os.mkdir(volume)
    wish(volume, 420 * MIB)
    top.set_memory(420 * MIB)
    environ = {"GOGC": "800", "GOMAXPROCS": "2", "GOMEMLIMIT": str(378 * MIB)}
    told = run(built(VERSIONS[-1], "std stripped"), environ, tuple(top.enter([])))
    says(told, "hold 40")
    says(told, "busy 100")
    sidecar(told.pid, "--hook", "tune", "--limits-dir", volume)
    # A decrease is wished first: the program is tuned while its cgroup is as it was.
    wish(volume, 300 * MIB)
    assert until(lambda: says(told)["limit"] == 270 * MIB)

    def shrunk() -> bool:
        try:
            top.set_memory(300 * MIB)
        except OSError:  # v1: more is in use at this moment
            return False
        return True

    assert until(shrunk)
    time.sleep(3)
    # An increase is wished first too, and counts once the cgroup has grown.
    wish(volume, 420 * MIB)
    time.sleep(1)
    assert says(told)["limit"] == 270 * MIB
    top.set_memory(420 * MIB)
    assert until(lambda: says(told)["limit"] == 378 * MIB)
    assert says(told, "busy 0")["wrong"] == 0


def test_a_program_with_what_an_older_decision_gave_it_is_brought_up_to_date(
    run: Run, top: Group, sidecar: Sidecar
) -> None:
    """At the sidecar's start, and after each restart; nothing in its cgroup changes meanwhile."""
    top.set_memory(300 * MIB)
    path = f"/dev/shm/cgagent-test-{os.getpid()}"
    shutil.copy(built(VERSIONS[-1], "std stripped"), path)
    stale = {"GOMEMLIMIT": str(378 * MIB)}
    try:
        told = run(path, stale, tuple(top.enter([])))
        assert says(told)["limit"] == 378 * MIB
        log = sidecar("auto", "--target-exe", path, "--hook", "tune", "--poll", "1h")
        assert until(lambda: says(told)["limit"] == 270 * MIB)
        for environ in (stale, {}):
            told.end()
            told = run(path, environ, tuple(top.enter([])))
            assert until(lambda: says(told)["limit"] == 270 * MIB), log()  # noqa: B023 asked at once
        assert "hook failed" not in log()
    finally:
        os.unlink(path)


def test_a_program_that_execs_another_is_brought_up_to_date_too(run: Run, top: Group, sidecar: Sidecar) -> None:
    top.set_memory(300 * MIB)
    wait = ("sh", "-c", 'sleep 1; exec "$0"')
    told = run(built(VERSIONS[-1], "std stripped"), {"PATH": os.environ["PATH"]}, tuple(top.enter(wait)))
    sidecar(told.pid, "--hook", "tune", "--poll", "1h")
    assert until(lambda: says(told)["limit"] == 270 * MIB)


def test_a_limit_that_the_program_set_itself_is_left_alone_and_told_once(
    run: Run, top: Group, sidecar: Sidecar
) -> None:
    top.set_memory(300 * MIB)
    told = run(built(VERSIONS[-1], "std stripped"), {"GOMEMLIMIT": str(378 * MIB)}, tuple(top.enter([])))
    says(told, f"limit {200 * MIB}")
    log = sidecar(told.pid, "--hook", "tune", "--poll", "500ms")
    assert until(lambda: "the program set its memory limit itself" in log())
    time.sleep(2)
    assert log().count("hook failed") == 1
    assert says(told)["limit"] == 200 * MIB


def test_where_nothing_is_decided_the_limit_that_somebody_gave_it_stays(run: Run, top: Group, sidecar: Sidecar) -> None:
    top.set_quota(100_000)
    told = run(built(VERSIONS[-1], "std stripped"), {"GOMEMLIMIT": str(200 * MIB)}, tuple(top.enter([])))
    log = sidecar(told.pid, "--hook", "tune", "--poll", "500ms")
    top.set_quota(150_000)
    time.sleep(2)
    assert says(told)["limit"] == 200 * MIB
    assert "hook" not in log()


def test_a_limit_that_was_too_low_for_what_was_live_comes_when_less_is(run: Run, top: Group, sidecar: Sidecar) -> None:
    top.set_memory(300 * MIB)
    told = run(built(VERSIONS[-1], "std stripped"), {"GOGC": "50"}, tuple(top.enter([])))
    says(told, "hold 150")
    says(told, "gc")
    log = sidecar(told.pid, "--hook", "tune", "--memory-ratio", "0.5", "--poll", "500ms")
    assert until(lambda: "too little for what the program keeps" in log())
    says(told, "hold 0")
    says(told, "gc")
    assert until(lambda: says(told)["limit"] == 150 * MIB)


@pytest.mark.parametrize(
    ("version", "go_line", "left"), [("1.24.11", "1.24", False), ("1.27.3", "1.24", False), ("1.27.3", "1.27", True)]
)
def test_gomaxprocs_is_left_to_a_program_that_follows_its_quota(
    run: Run, top: Group, sidecar: Sidecar, tmp_path: object, version: str, go_line: str, left: bool
) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("Go's least is 2")
    top.set_quota(200_000)
    told = run(built(version, "std stripped", go_line), {}, tuple(top.enter([])))
    assert says(told)["procs"] == 2
    sidecar(told.pid)

    def has_it() -> bool:
        return "GOMAXPROCS" in _text(f"{tmp_path}/go.env")

    assert has_it() == (not left)
    # Its runtime would take 2: where cgagent decides on less, it has to be written.
    top.set_quota(50_000)
    assert until(has_it)


def test_the_metrics_tell_what_the_program_runs_with(run: Run, top: Group, sidecar: Sidecar) -> None:
    top.set_memory(420 * MIB)
    told = run(built(VERSIONS[-1], "std stripped"), {"GOMEMLIMIT": str(200 * MIB)}, tuple(top.enter([])))
    answer = says(told, "hold 40")
    port = 20000 + os.getpid() % 20000
    sidecar(told.pid, "--web.listen-address", f"127.0.0.1:{port}")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        lines = [line for line in page.read().decode().splitlines() if line.startswith("cgagent_go_")]
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert values[f'cgagent_go_info{{version="go{VERSIONS[-1]}"}}'] == 1
    assert values["cgagent_go_gomemlimit_bytes"] == 200 * MIB
    assert values["cgagent_go_gomaxprocs"] == answer["procs"]
    assert values["cgagent_go_gogc_percent"] == 100
    assert values["cgagent_go_heap_live_bytes"] == answer["/gc/heap/live:bytes"]
    assert values["cgagent_go_gc_cycles_total"] == answer["/gc/cycles/total:gc-cycles"]
    assert values["cgagent_go_memory_managed_bytes"] > 40 * MIB
    assert {"cgagent_go_gc_cpu_seconds_total", "cgagent_go_cpu_seconds_total"} <= set(values)
