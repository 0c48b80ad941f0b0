"""What `cgagent tune` does to real Go programs: it takes effect, does no harm however it is killed, and saves lives.

`pytest tests/live/test_tune.py`; parts need root, for cgroups.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from cgagent.golang.live import LiveError, Program
from cgagent.golang.live.retune import Change, apply_limit
from kernel.conftest import top, writable
from live.conftest import built
from live.programs import VERSIONS, Told, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kernel.cgroups import Group

    Run = Callable[..., Told]

__all__ = ["top", "writable"]

MIB = 1 << 20
CHOSEN = os.environ.get("CGAGENT_GO_VERSIONS", "").split() or VERSIONS
FOLLOWING = [version for version in CHOSEN if int(version.split(".")[1]) >= 25]
# Real numbers whose halves, mixed, are below both: 0x10000100 and 0x0ffffff0.
LOW, HIGH = 0x0FFFFFF0, 0x10000100
KILLS = 200


@pytest.fixture(autouse=True)
def _notes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command notes is not left behind in /run."""
    monkeypatch.setenv("CGAGENT_STATE_DIR", str(tmp_path_factory.mktemp("state") / "notes"))


def tune(pid: str, *words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cgagent", "tune", "--pid", pid, *words]
    merged = {**os.environ, **(environ or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=merged)


def says(told: Told, word: str = "say") -> dict[str, int]:
    answer: dict[str, int] = json.loads(told.tell(word))
    return answer


def managed(answer: dict[str, int]) -> int:
    return answer["/memory/classes/total:bytes"] - answer["/memory/classes/heap/released:bytes"]


@pytest.mark.parametrize("version", CHOSEN)
def test_a_lower_limit_takes_effect_under_load(run: Run, version: str) -> None:
    told = run(built(version, "std stripped"), {"GOGC": "800"})
    says(told, "hold 40")
    says(told, "busy 100")
    assert until(lambda: managed(says(told)) > 200 * MIB)
    done = tune(told.pid, "--memory-limit", "120Mi")
    assert (done.returncode, done.stderr) == (0, "")
    assert says(told)["limit"] == 120 * MIB
    assert until(lambda: managed(says(told)) <= 120 * MIB)
    # And it stays below: a moment's excess is within the pacing, a soft limit's nature.
    seen = [managed(says(told)) for _ in range(100)]
    assert sorted(seen)[90] <= 122 * MIB
    assert says(told)["wrong"] == 0


def test_a_tool_that_is_killed_at_any_moment_leaves_a_harmless_limit(run: Run) -> None:
    told = run(built(CHOSEN[-1], "std stripped"), {"GOMEMLIMIT": str(HIGH), "GOMAXPROCS": "2"})
    says(told, "hold 20")
    says(told, "busy 50")
    watcher = Program(told.pid)
    chance = random.Random(1)
    left = set()
    try:
        for _ in range(KILLS):
            child = _writing_without_end(told.pid)
            time.sleep(chance.uniform(0, 0.004))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            limit = watcher.state().memory_limit
            assert limit >= LOW
            assert limit == says(told)["limit"]
            left.add(limit)
    finally:
        watcher.close()
    assert told.alive()
    assert len(left) > 2, f"no kill fell between two bytes: {left}"
    assert says(told, "busy 0")["wrong"] == 0


def _writing_without_end(pid: str) -> int:
    """A process that sets one limit after the other; it is at it when this returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            program = Program(pid, write=True)
            old = program.state().memory_limit
            apply_limit(program, Change(old, LOW))
            os.write(writer, b"x")
            while True:
                apply_limit(program, Change(LOW, HIGH))
                apply_limit(program, Change(HIGH, LOW))
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read(1) == b"x"
    return child


def test_the_command_may_be_killed_at_any_moment(run: Run, tmp_path: object) -> None:
    told = run(built(CHOSEN[-1], "std stripped"), {"GOMEMLIMIT": str(HIGH)})
    says(told, "busy 50")
    environ = {**os.environ, "CGAGENT_STATE_DIR": f"{tmp_path}/state"}
    chance = random.Random(2)
    for number in range(30):
        size = (LOW, HIGH)[number % 2]
        command = [sys.executable, "-m", "cgagent", "tune", "--pid", told.pid, "--memory-limit", str(size)]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, 0.5))
        process.kill()
        process.wait()
        assert says(told)["limit"] >= LOW
    # Whatever the last one left is known to be our own.
    done = tune(told.pid, "--memory-limit", "300Mi", environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert says(told, "busy 0")["limit"] == 300 * MIB


def test_nobody_ever_sees_less_than_the_smaller_limit(run: Run) -> None:
    told = run(built(CHOSEN[-1], "std stripped"), {"GOMEMLIMIT": str(HIGH)})
    says(told, "busy 50")
    child = _writing_without_end(told.pid)
    watcher = Program(told.pid)
    address = watcher.addresses.controller + 8
    try:
        deadline, seen = time.monotonic() + 3, 0
        while time.monotonic() < deadline:
            # The lowest byte that can be read alone can't be torn: the high half decides what is seen.
            seen += 1
            assert int.from_bytes(watcher.image.read_all(address, 8), "little") >= LOW
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        watcher.close()
    assert seen > 1000
    assert says(told, "busy 0")["wrong"] == 0


@pytest.mark.parametrize("version", FOLLOWING)
def test_gomaxprocs_follows_the_quota_again(run: Run, top: Group, version: str) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("Go's least is 2")
    top.set_quota(100_000)
    path = built(version, "std stripped", "1.25")
    told = run(path, {"GOMAXPROCS": "7"}, tuple(top.enter([])))
    says(told, "busy 10")
    assert says(told)["procs"] == 7
    done = tune(told.pid, "--gomaxprocs", "follow")
    assert (done.returncode, done.stderr) == (0, "")
    # ceil of 1, at least 2
    assert until(lambda: says(told)["procs"] == 2)
    assert "follows its quota already" in tune(told.pid, "--gomaxprocs", "follow").stdout
    assert says(told, "procs 5")["procs"] == 5
    refused = tune(told.pid, "--gomaxprocs", "follow", "--dry-run")
    # Its environment has GOMAXPROCS, so the number may be that one's: handed back again.
    assert refused.returncode == 0
    assert says(told, "busy 0")["wrong"] == 0


@pytest.mark.parametrize("setting", ["updatemaxprocs=0", "containermaxprocs=0"])
@pytest.mark.parametrize("version", FOLLOWING)
def test_gomaxprocs_is_not_handed_to_a_runtime_that_would_not_follow(
    run: Run, top: Group, version: str, setting: str
) -> None:
    top.set_quota(100_000)
    environ = {"GOMAXPROCS": "7", "GODEBUG": setting}
    told = run(built(version, "std stripped", "1.25"), environ, tuple(top.enter([])))
    says(told, "busy 10")
    done = tune(told.pid, "--gomaxprocs", "follow", "--force")
    assert done.returncode == 1
    time.sleep(2)
    assert says(told)["procs"] == 7


@pytest.mark.parametrize("version", [version for version in CHOSEN if version not in FOLLOWING])
def test_gomaxprocs_of_older_versions_is_left_alone(run: Run, version: str) -> None:
    told = run(built(version, "std stripped"), {"GOMAXPROCS": "7"})
    says(told)
    done = tune(told.pid, "--gomaxprocs", "follow", "--force")
    assert done.returncode == 1
    assert "no Go before 1.25 follows its quota" in done.stderr


def test_a_program_that_set_its_limit_itself_is_left_alone(run: Run) -> None:
    told = run(built(CHOSEN[-1], "std stripped"))
    says(told, f"limit {200 * MIB}")
    assert "set its memory limit itself" in tune(told.pid, "--memory-limit", "300Mi").stderr
    assert says(told)["limit"] == 200 * MIB
    assert tune(told.pid, "--memory-limit", "300Mi", "--force").returncode == 0
    assert says(told)["limit"] == 300 * MIB


def test_a_limit_below_live_heap_is_refused(run: Run) -> None:
    told = run(built(CHOSEN[-1], "std stripped"))
    says(told, "hold 100")
    done = tune(told.pid, "--memory-limit", "100Mi")
    assert done.returncode == 1
    assert "too little for what the program keeps (100" in done.stderr


@pytest.mark.parametrize("version", [CHOSEN[0], CHOSEN[-1]])
@pytest.mark.parametrize("tuned", [True, False])
def test_a_program_survives_the_lowering_of_its_memory_limit_if_it_is_tuned(
    run: Run, top: Group, version: str, tuned: bool
) -> None:
    top.set_memory(420 * MIB)
    told = run(built(version, "std stripped"), {"GOGC": "800", "GOMAXPROCS": "2"}, tuple(top.enter([])))
    says(told, "hold 40")
    says(told, "busy 100")
    assert until(lambda: managed(says(told)) > 150 * MIB)
    if tuned:
        # Before the cgroup shrinks, which v1 refuses as long as more is in use.
        assert tune(told.pid, "--memory-limit", "270Mi").returncode == 0
    _shrink(top, 300 * MIB)
    died = until(lambda: not told.alive(), 12)
    assert died != tuned
    if tuned:
        answer = says(told, "busy 0")
        assert answer["wrong"] == 0
        assert answer["/gc/heap/live:bytes"] >= 40 * MIB


def _shrink(group: Group, size: int) -> None:
    def shrunk() -> bool:
        try:
            group.set_memory(size)
        except OSError:  # EBUSY: more is in use at this moment
            return False
        return True

    assert until(shrunk, 20)


def test_top_shows_the_go_programs_of_a_pid_namespace(tmp_path: object) -> None:
    if os.geteuid() != 0:
        pytest.skip("a PID namespace takes root")
    programs = [built(CHOSEN[-1], "std stripped"), built(CHOSEN[0], "minimal stripped")]
    start = 'for program in "$@"; do sleep 60 | "$program" >/dev/null 2>&1 & done; sleep 1'
    script = f'{start}; exec "$PYTHON" -m cgagent top --once -o json'
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", *programs]
    environ = {**os.environ, "PYTHON": sys.executable, "GOMEMLIMIT": "100MiB"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ, timeout=120)
    rows: Sequence[dict[str, dict[str, object]]] = json.loads(done.stdout)["processes"]
    assert sorted(str(row["go"]["version"]) for row in rows) == sorted(f"go{one}" for one in (CHOSEN[0], CHOSEN[-1]))
    assert {row["running"]["GOMEMLIMIT"] for row in rows} == {100 * MIB}
    assert not os.listdir(str(tmp_path))


def test_a_tool_without_the_right_is_told_so(run: Run) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user takes root")
    told = run(built(CHOSEN[-1], "std stripped"))
    says(told)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            Program(told.pid, write=True)
        except LiveError as error:
            os._exit(0 if "user 0" in error.hint else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
