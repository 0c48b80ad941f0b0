"""What a running program's values say beside its cgroup: shown, in the document, and as findings."""

from __future__ import annotations

import json

import pytest

from cgagent.cgroup.reading import read_limits
from cgagent.cgroup.usage import read_usage
from cgagent.golang.live import Running
from cgagent.golang.live.controller import Controller
from cgagent.host import Host
from cgagent.policy import Policy, decide
from cgagent.report.document import document
from cgagent.report.findings import find
from cgagent.report.picture import Picture
from cgagent.report.text import Style, render
from support import go_program
from support.go_state import MIB, state
from support.trees import build, v2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Show = Callable[..., Picture]


@pytest.fixture
def show(tmp_path: object) -> Show:
    """A program with 20 MiB of live heap under 1.5 CPUs and 100 MiB, of which the cgroup uses `used`."""

    def make(used: int = 40 * MIB, procs: int | None = 2, *, cpu: str = "150000 100000", **fields: int) -> Picture:
        files = {
            "/cpu.max": f"{cpu}\n",
            "/memory.max": f"{100 * MIB}\n",
            "/memory.current": f"{used}\n",
            "/memory.stat": "inactive_file 0\n",
        }
        limits = read_limits(Host(build(f"{tmp_path}/root", v2(files))), "self")
        running = Running("go1.27.3", Controller(state(**fields)))
        running.gomaxprocs = procs
        running.gc_cycles, running.gc_cpu_seconds, running.cpu_seconds = 12, 1.5, 30.0
        decision = decide(limits, Policy(), {})
        return Picture("7", "/", limits, read_usage(limits), decision, {}, None, running)

    return make


def findings(picture: Picture) -> dict[str, tuple[str, str, str]]:
    return {one.id: (one.level, one.message, one.remedy) for one in find(picture) if one.id in go_program.FINDINGS}


def test_nothing_is_told_of_a_program_that_runs_as_decided(show: Show) -> None:
    assert findings(show(memory_limit=90 * MIB)) == {}


def test_the_document_holds_the_running_values(show: Show) -> None:
    picture = show(memory_limit=90 * MIB, gc_percent=77)
    running = json.loads(json.dumps(document(picture, [])))["running"]
    assert running == {
        "GOMAXPROCS": 2,
        "GOMEMLIMIT": 90 * MIB,
        "gogc": 77,
        "heap_live_bytes": 20 * MIB,
        "managed_bytes": 30 * MIB,
        "outside_heap_bytes": 4 * MIB,
        "gc_cycles": 12,
        "gc_cpu_seconds": 1.5,
        "cpu_seconds": 30.0,
    }


def test_what_is_off_or_unknown_is_null(show: Show) -> None:
    running = document(show(procs=None, gc_percent=-1), [])["running"]
    assert (running["GOMAXPROCS"], running["GOMEMLIMIT"], running["gogc"]) == (None, None, None)


def test_the_text_shows_the_running_values_beside_the_decision(show: Show) -> None:
    text = render(show(used=50 * MIB, procs=7, memory_limit=60 * MIB), [], Style())
    section = text.partition("running now\n")[2].partition("\n\n")[0]
    assert [line.strip() for line in section.split("\n")] == [
        "GOMAXPROCS     7       decided: 2",
        "GOMEMLIMIT     60Mi    decided: 90Mi",
        "GOGC           100",
        "heap live      20Mi    as of the last cycle",
        "managed by Go  30Mi    50% of GOMEMLIMIT",
        "not by Go      20Mi    of 50Mi in use in its cgroup",
        "GC cycles      12",
        "GC CPU         1.50 s  5.0% of the CPU time that GOMAXPROCS allows",
    ]


def test_memory_that_go_does_not_manage_asks_for_a_reserve_of_its_size(show: Show) -> None:
    # 55 MiB in use less the 30 that Go manages: with 90 MiB for Go beside them the limit of 100 is passed.
    level, message, remedy = findings(show(used=55 * MIB, memory_limit=90 * MIB))["memory-outside-go"]
    assert level == "warning"
    assert "25Mi of the 55Mi" in message
    assert "--memory-reserve 25Mi" in remedy


def test_a_program_without_a_limit_is_judged_by_the_one_that_was_decided(show: Show) -> None:
    assert findings(show(used=55 * MIB))["memory-outside-go"][0] == "warning"


def test_memory_that_go_does_not_manage_is_only_worth_a_word_where_there_is_room_for_it(show: Show) -> None:
    assert findings(show(used=55 * MIB, memory_limit=70 * MIB))["memory-outside-go"][0] == "info"


def test_the_reserve_is_a_whole_number_of_mebibytes_that_is_enough(show: Show) -> None:
    assert "--memory-reserve 26Mi" in findings(show(used=55 * MIB + 4096))["memory-outside-go"][2]


def test_page_cache_that_can_be_dropped_is_not_in_use(show: Show, tmp_path: object) -> None:
    picture = show(used=55 * MIB)
    with open(f"{tmp_path}/root/sys/fs/cgroup/memory.stat", "w", encoding="utf-8") as file:
        file.write(f"inactive_file {20 * MIB}\n")
    picture.usage = read_usage(picture.limits)
    assert "memory-outside-go" not in findings(picture)


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        # 20 MiB of live heap and 4 beside it
        (24 * MIB, ("gomemlimit-below-live", "critical")),
        (24 * MIB + 1, ("gomemlimit-tight", "warning")),
        (26 * MIB, ("gomemlimit-tight", "warning")),
        (27 * MIB, None),
    ],
)
def test_a_limit_below_or_near_what_the_program_keeps(show: Show, limit: int, told: tuple[str, str] | None) -> None:
    found = findings(show(memory_limit=limit))
    assert [(name, fields[0]) for name, fields in found.items()] == ([told] if told else [])
    if told:
        message, remedy = found[told[0]][1:]
        assert "20Mi live heap and 4Mi" in message
        assert "5.0% of the CPU time" in message
        assert remedy == f"set {90 * MIB}"


def test_no_better_limit_is_named_where_the_memory_limit_allows_none(show: Show) -> None:
    fields = {"heap_marked": 95 * MIB, "in_use": 96 * MIB, "mapped_ready": 100 * MIB}
    assert "raise the memory limit" in findings(show(memory_limit=50 * MIB, **fields))["gomemlimit-below-live"][2]


@pytest.mark.parametrize(
    ("procs", "cpu", "level"),
    [
        (7, "150000 100000", "warning"),
        (1, "150000 100000", "info"),  # less than it may use
        (2, "50000 100000", "info"),  # Go's own least
        (3, "50000 100000", "warning"),
        (2, "150000 100000", None),
        (7, "max 100000", None),  # left to Go
        (None, "150000 100000", None),
    ],
)
def test_gomaxprocs_in_force_is_held_against_the_quota(
    show: Show, procs: int | None, cpu: str, level: str | None
) -> None:
    found = findings(show(procs=procs, cpu=cpu, memory_limit=90 * MIB))
    assert [fields[0] for fields in found.values()] == ([level] if level else [])


def test_why_nothing_is_known_is_told(show: Show) -> None:
    picture = show()
    picture.running, picture.running_unknown = None, "built by go1.99: Go 1.21 to 1.27 are understood"
    level, message, _ = findings(picture)["running-unknown"]
    assert level == "info"
    assert "go1.99" in message
    assert document(picture, [])["running"] is None
    assert "running now" not in render(picture, [], Style())
