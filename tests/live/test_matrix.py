"""What is read from outside equals what the program's own runtime says, however it was built.

`pytest tests/live/test_matrix.py`; CGAGENT_GO_VERSIONS="1.24.11 1.27.3" picks versions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time

import pytest

from cgagent.golang.buildinfo import read
from cgagent.golang.live import FOREIGN, LiveError, Program, Running
from cgagent.golang.live.controller import NO_LIMIT
from cgagent.golang.live.image import FileImage
from cgagent.golang.live.locate import Addresses, locate
from cgagent.golang.live.program import OLDEST
from cgagent.golang.live.retune import apply_limit, plan_limit
from golang.toolchain import UnavailableError, toolchain
from live.conftest import built
from live.programs import ARM64, MODES, VERSIONS, Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Run = Callable[..., Told]

MIB = 1 << 20
CHOSEN = os.environ.get("CGAGENT_GO_VERSIONS", "").split() or VERSIONS
MINIMAL = [mode for mode in MODES if MODES[mode].source == "minimal"]
TELLING = [mode for mode in MODES if mode not in MINIMAL]
# All that is mapped and not given back is within a few pages of what is held against the limit.
NEARLY = 1 * MIB
RELEASED = "/memory/classes/heap/released:bytes"


def same(program: Program, told: Told, word: str = "say") -> dict[str, Any]:
    """Have the program do `word`, and hold what is read against what it says of itself then."""
    answer: dict[str, Any] = json.loads(told.tell(word))
    seen = program.running()
    assert seen.gomaxprocs == answer["procs"] == answer["/sched/gomaxprocs:threads"]
    assert (seen.memory_limit or NO_LIMIT) == answer["limit"] == answer["/gc/gomemlimit:bytes"]
    gogc = answer["/gc/gogc:percent"]
    assert seen.gogc == (None if gogc == 2**64 - 1 else gogc)
    assert seen.heap_live == answer["/gc/heap/live:bytes"]
    assert seen.gc_cycles == answer["/gc/cycles/total:gc-cycles"]
    assert seen.gc_cpu_seconds == pytest.approx(answer["/cpu/classes/gc/total:cpu-seconds"], abs=1e-6)
    assert seen.cpu_seconds == pytest.approx(answer["/cpu/classes/total:cpu-seconds"], abs=1e-6)
    for _ in range(50):
        if abs(seen.managed - answer["/memory/classes/total:bytes"] + answer[RELEASED]) < NEARLY:
            return answer
        # The runtime gives memory back in the background, and counts it in one place after the other.
        time.sleep(0.05)
        answer, seen = json.loads(told.tell("say")), program.running()
    pytest.fail(f"{seen.managed} bytes managed, and the program says {answer}")


@pytest.mark.parametrize("version", CHOSEN)
@pytest.mark.parametrize("mode", TELLING)
def test_equals_what_the_runtime_says_of_itself(run: Run, version: str, mode: str) -> None:
    told = run(built(version, mode), {"GOMAXPROCS": "3", "GOMEMLIMIT": "94371840", "GOGC": "77"})
    told.tell("hold 10")
    told.tell("gc")
    answer = json.loads(told.tell("gc"))
    assert (answer["procs"], answer["limit"], answer["/gc/gogc:percent"]) == (3, 94371840, 77)
    program = Program(told.pid, write=True)
    try:
        assert program.build.go_version.split()[0] == answer["version"].split()[0] == f"go{version}"
        for word in ("say", "procs 2", "gogc 150", "limit 123456789", "hold 3", "gogc -1", "gc"):
            same(program, told, word)
        apply_limit(program, plan_limit(program, 87654321, {123456789}))
        assert same(program, told, "gc")["limit"] == 87654321
    finally:
        program.close()


@pytest.mark.parametrize("version", CHOSEN)
@pytest.mark.parametrize("mode", MINIMAL)
def test_equals_what_is_known_of_a_minimal_program(run: Run, version: str, mode: str) -> None:
    told = run(built(version, mode), {"GOMAXPROCS": "3", "GOMEMLIMIT": "94371840", "GOGC": "77"})
    assert told.line().split()[:2] == ["3", "0"]
    program = Program(told.pid)
    try:
        for cycles in ("1", "2"):
            assert told.process.stdin is not None
            told.process.stdin.write("\n")
            told.process.stdin.flush()
            procs, count, managed = told.line().split()
            seen = program.running()
            assert (str(seen.gomaxprocs), count, str(seen.gc_cycles)) == (procs, cycles, cycles)
            assert (seen.memory_limit, seen.gogc) == (94371840, 77)
            assert abs(seen.managed - int(managed)) < NEARLY
    finally:
        program.close()


@pytest.mark.parametrize("version", CHOSEN)
@pytest.mark.parametrize("mode", TELLING)
def test_stays_right_under_load(run: Run, version: str, mode: str) -> None:
    told = run(built(version, mode), {"GOMAXPROCS": "2", "GOMEMLIMIT": "94371840"})
    told.tell("busy 100")
    program = Program(told.pid)
    try:
        readings: list[Running] = []
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            readings.append(program.running())
        answer = json.loads(told.tell("busy 0"))
        cycles = [one.gc_cycles or 0 for one in readings]
        assert cycles == sorted(cycles)
        # The metric counts cycles that have ended; one more may be under way.
        assert cycles[-1] <= answer["/gc/cycles/total:gc-cycles"] + 1
        assert {(one.gomaxprocs, one.memory_limit, one.gogc) for one in readings} == {(2, 94371840, 100)}
        assert answer["wrong"] == 0
        assert answer["busy"] > 0
    finally:
        program.close()


def located(path: str) -> Addresses:
    fd = os.open(path, os.O_RDONLY)
    try:
        return locate(FileImage(fd))
    finally:
        os.close(fd)


def symbols(path: str) -> dict[str, int]:
    """The program's own symbols, which nothing else here looks at."""
    if shutil.which("nm") is None:
        pytest.skip("there is no nm")
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {fields[2]: int(fields[0], 16) for line in lines if len(fields := line.split()) == 3}


@pytest.mark.parametrize("version", CHOSEN)
@pytest.mark.parametrize("mode", [*MODES, *ARM64])
def test_the_addresses_are_those_of_the_symbols(version: str, mode: str) -> None:
    found = located(built(version, mode))
    minor = int(version.split(".")[1])
    # Without optimization the runtime's code hands addresses to functions: GOMAXPROCS is then left alone.
    assert (found.switches is not None) == (minor >= 25 and mode not in ARM64 and mode != "no optimization")
    assert found.gomaxprocs is not None
    if mode not in ARM64:
        assert found.cpu_stats is not None
        assert found.cycles is not None
    if "stripped" in mode or "embedding" in mode or "static" in mode:
        return
    names = symbols(built(version, mode))
    assert found.controller == names["runtime.gcController"]
    assert found.gomaxprocs == names["runtime.gomaxprocs"]
    if found.switches is not None:
        assert found.switches.cgroup_ok == names["runtime.cgroupOK"]
        assert 0 < found.switches.custom - names["runtime.sched"] < 4096
        assert 0 <= found.switches.idle - names["runtime.updateMaxProcsG"] < 64


@pytest.mark.parametrize("version", CHOSEN)
def test_every_program_of_the_toolchain_is_understood_as_a_file(version: str) -> None:
    try:
        directory = os.path.dirname(os.path.dirname(toolchain(version)))
    except (UnavailableError, OSError) as error:
        pytest.skip(f"Go {version}: {error}")
    seen = 0
    for parent, _, names in os.walk(directory):
        for path in (f"{parent}/{name}" for name in names):
            with open(path, "rb") as file:
                if (
                    file.read(4) == b"\x7fELF"
                    and os.access(path, os.X_OK)
                    and not path.endswith((".so", ".syso", ".o"))
                ):
                    seen += 1
                    assert located(path).gomaxprocs is not None, path
    assert seen >= 5


def test_every_go_program_of_this_machine_is_found_and_no_other_is_taken_for_one() -> None:
    others = 0
    for directory in ("/usr/bin", "/usr/sbin"):
        for name in sorted(os.listdir(directory)):
            path = os.path.realpath(f"{directory}/{name}")
            if not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                if file.read(4) != b"\x7fELF":
                    continue
                info = read(path)
                if info is not None and (info.release or (0, 0)) >= OLDEST:
                    assert locate(FileImage(file.fileno())).gomaxprocs is not None, path
                if info is not None:
                    continue
                with pytest.raises(LiveError) as caught:
                    locate(FileImage(file.fileno()))
                assert caught.value.kind == FOREIGN, path
                others += 1
    assert others > 50
