"""The sidecar's hook `tune`: after an in-place resize the running program follows, before its cgroup shrinks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request

import pytest

from kernel.conftest import top, writable
from live.conftest import built
from live.programs import VERSIONS, Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kernel.cgroups import Group

    Run = Callable[..., Told]
    Sidecar = Callable[..., None]

__all__ = ["top", "writable"]

MIB = 1 << 20


@pytest.fixture
def sidecar(tmp_path: object) -> Iterator[Sidecar]:
    """Start `watch` for a process; it has written its env file when this returns."""
    started: list[subprocess.Popen[str]] = []

    def start(pid: str, *words: str) -> None:
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
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, env=environ, text=True))
        assert until(lambda: os.path.exists(f"{tmp_path}/go.env"))

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=30)


def until(holds: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


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
