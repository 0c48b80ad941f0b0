"""Programs with the Go module in them follow their real cgroup, and leave alone what is somebody else's."""

from __future__ import annotations

import os
import time

import pytest

from cgagent.golang.live import Program
from golang.toolchain import UnavailableError, toolchain
from gomodule.module import VERSIONS, service
from kernel.cgroups import MIB, NO_QUOTA, Group
from live.programs import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[..., Told]

OFF = (1 << 63) - 1
CPUS = len(os.sched_getaffinity(0))
# Toolchain and go line: the last two know their quota by themselves, the one with the older line does not look.
PROGRAMS = [*((version, "1.21") for version in VERSIONS), (VERSIONS[-1], "1.27")]


class Service:
    """A running program that follows its limits."""

    def __init__(self, run: Run, path: str, prefix: Sequence[str], environ: dict[str, str]) -> None:
        self.told = run(path, {"PATH": os.environ["PATH"], **environ}, tuple(prefix))
        assert self.told.process.stdout is not None
        assert self.told.process.stdout.readline() == "ready\n"

    def has(self, word: str = "say") -> tuple[int, int]:
        """GOMAXPROCS and the memory limit, after it has done `word`."""
        procs, limit = self.told.tell(word).split()
        return int(procs), int(limit)

    def gets(self, procs: int, limit: int) -> None:
        """Wait until it has these."""
        deadline = time.monotonic() + 90
        while self.has() != (procs, limit):
            assert time.monotonic() < deadline, f"{self.has()}, not {(procs, limit)}; {self.told.end()}"
            time.sleep(0.05)


@pytest.fixture(params=PROGRAMS, ids=lambda one: f"Go {one[0]}, go {one[1]}")
def program(request: pytest.FixtureRequest) -> str:
    return built(*request.param)


def built(version: str, go_line: str, *, explicit: bool = False) -> str:
    try:
        return service(toolchain(version), version, go_line, explicit=explicit)
    except (UnavailableError, OSError) as error:
        pytest.skip(f"Go {version}: {error}")


def test_it_starts_with_its_limits_and_follows_them(run: Run, top: Group, program: str) -> None:
    top.set_quota(50_000)
    top.set_memory(300 * MIB)
    told = Service(run, program, top.enter([]), {})
    assert told.has() == (1, 270 * MIB)
    top.set_memory(200 * MIB)
    top.set_quota(200_000)
    told.gets(min(2, CPUS), 180 * MIB)
    top.set_memory(400 * MIB)
    told.gets(min(2, CPUS), 360 * MIB)
    top.set_quota(NO_QUOTA)
    told.gets(CPUS, 360 * MIB)


def test_an_ancestors_limit_counts(run: Run, top: Group, program: str) -> None:
    leaf = top.child("leaf")
    told = Service(run, program, leaf.enter([]), {})
    assert told.has() == (CPUS, OFF)
    top.set_quota(100_000)
    top.set_memory(300 * MIB)
    told.gets(1, 270 * MIB)


def test_what_the_environment_sets_stays(run: Run, top: Group, program: str) -> None:
    top.set_quota(50_000)
    top.set_memory(300 * MIB)
    told = Service(run, program, top.enter([]), {"GOMAXPROCS": "3", "GOMEMLIMIT": "90MiB"})
    top.set_memory(200 * MIB)
    time.sleep(2.5)
    assert told.has() == (3, 90 * MIB)
    assert "GOMEMLIMIT: left alone: the environment has it" in told.told.end()


def test_options_of_the_environment_count(run: Run, top: Group) -> None:
    top.set_quota(50_000)
    top.set_memory(300 * MIB)
    environ = {"CGAGENT_MEMORY_RATIO": "50%", "CGAGENT_MEMORY_RESERVE": "100Mi", "CGAGENT_MIN_PROCS": "2"}
    assert Service(run, built(VERSIONS[-1], "1.27"), top.enter([]), environ).has() == (min(2, CPUS), 100 * MIB)


def test_gomaxprocs_is_left_to_a_runtime_that_reaches_it(run: Run, top: Group) -> None:
    """What shows it: the runtime's own mark, which a call of runtime.GOMAXPROCS sets."""
    if CPUS < 2:
        pytest.skip("Go's least is 2")
    top.set_quota(200_000)
    told = Service(run, built(VERSIONS[-1], "1.27"), top.enter([]), {})
    for quota, procs, ours in ((200_000, 2, False), (50_000, 1, True), (150_000, 2, False)):
        top.set_quota(quota)
        told.gets(procs, OFF)
        with Program(told.told.pid) as program:
            switches = program.addresses.switches
            assert switches is not None
            assert program.image.read_all(switches.custom, 1)[0] == ours


def test_the_env_file_of_the_sidecar_is_followed(run: Run, tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"

    def write(procs: int, limit: int) -> None:
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(f"# written by cgagent\nGOMAXPROCS='{procs}'\nGOMEMLIMIT='{limit}'\n")
        os.rename(f"{path}.new", path)

    write(3, 90 * MIB)
    start = 'set -a; . "$1"; exec "$0" "$1"'
    program = built(VERSIONS[-1], "1.27", explicit=True)
    told = Service(run, path, ("sh", "-c", start, program), {})
    write(2, 120 * MIB)
    told.gets(2, 120 * MIB)
    # From now on it is the program's own.
    assert told.has(f"limit {99 * MIB}")[1] == 99 * MIB
    write(1, 130 * MIB)
    told.gets(1, 99 * MIB)
    assert "GOMEMLIMIT: left alone: other code of the program has set it" in told.told.end()
