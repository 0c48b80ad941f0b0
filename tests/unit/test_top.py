"""`cgagent top --once`: rows, their order, the document; of programs that are made by hand."""

from __future__ import annotations

import json
import os

import pytest

from cgagent.cli import main
from cgagent.commands.processes import Processes
from cgagent.commands.top import COLUMNS, NAMES, ordered
from cgagent.golang.live import Program
from cgagent.policy import Policy
from support import go_program
from support.go_state import MIB, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from typing import Any

    Start = Callable[..., str]
    Top = Callable[..., list[list[str]]]


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What a test has started: ended with it."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def start(public: str, processes: list[subprocess.Popen[bytes]]) -> Start:
    """Make a program and start it; returns its PID."""

    def run(**changes: object) -> str:
        processes.append(go_program.start(go_program.build(f"{public}/orders{len(processes)}", **changes)))
        return str(processes[-1].pid)

    return run


@pytest.fixture
def top(capsys: pytest.CaptureFixture[str]) -> Top:
    """Run the command for some PIDs; returns the rows of the table, the titles first."""

    def run(*words: str, pids: tuple[str, ...]) -> list[list[str]]:
        named = [word for pid in pids for word in ("--pid", pid)]
        assert main(["top", "--once", *named, *words]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    return run


def test_a_row_tells_what_the_program_runs_with(start: Start, top: Top) -> None:
    pid = start(controller=state(memory_limit=60 * MIB))
    titles, row = top(pids=(pid,))
    # The share of GOMEMLIMIT stands beside what Go manages, under one title.
    titles.insert(titles.index("GO") + 1, "SHARE")
    cells = dict(zip(titles, row, strict=True))
    assert (cells["PID"], cells["NAME"], cells["VERSION"], cells["PROCS"]) == (pid, "orders0", "go1.27.3", "7")
    assert (cells["GOMEMLIMIT"], cells["GO"], cells["SHARE"], cells["LIVE"]) == ("60Mi", "30Mi", "50%", "20Mi")
    # 10 of 1000 ns
    assert cells["GC"] == "1.0%"


def test_the_document_holds_each_process(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    pid = start(controller=state(memory_limit=60 * MIB))
    assert main(["top", "--once", "-o", "json", "--pid", pid]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (content["schema"], content["not_permitted"]) == ("cgagent.top/1", 0)
    (row,) = content["processes"]
    assert (row["pid"], row["name"]) == (int(pid), "orders0")
    assert row["go"] == {"version": "go1.27.3", "module": "example.com/orders"}
    assert row["running"]["GOMAXPROCS"] == 7
    assert row["running"]["GOMEMLIMIT"] == 60 * MIB
    assert row["gc_cpu_share"] == 0.01
    assert set(row["decision"]) == {"GOMAXPROCS", "GOMEMLIMIT"}
    assert set(row["limits"]) == {"cpu_cores", "memory_bytes"}


@pytest.mark.parametrize(
    ("column", "order"),
    [("gc", "cab"), ("live", "bca"), ("gomemlimit", "acb"), ("procs", "cba"), ("pid", "abc"), ("version", "bac")],
)
def test_rows_are_sorted_by_a_column_and_the_unknown_comes_last(
    start: Start, top: Top, column: str, order: str
) -> None:
    def cpu(gc: int) -> tuple[int, ...]:
        return (gc, 0, 0, 0, gc, 0, 0, 0, 0, 1000 - gc, 1000)

    pids = {
        "a": start(
            version="go1.25.0", gomaxprocs=1, cpu_stats=cpu(20), controller=state(memory_limit=9 << 30, heap_marked=0)
        ),
        "b": start(version="go1.27.3", gomaxprocs=2, cpu_stats=(0,) * 11, controller=state(heap_marked=30 * MIB)),
        "c": start(version="go1.21.1", gomaxprocs=3, cpu_stats=cpu(90), controller=state(memory_limit=60 * MIB)),
    }
    shown = [row[0] for row in top("--sort", column, pids=tuple(pids.values()))[1:]]
    assert shown == [pids[letter] for letter in order]


def test_an_order_can_be_turned(start: Start) -> None:
    pids = [int(start(gomaxprocs=number)) for number in (1, 2, 3)]
    processes = Processes(Policy(), pids)
    try:
        rows = processes.look()
        procs = NAMES.index("procs")
        assert [row.running.gomaxprocs for row in ordered(rows, procs)] == [3, 2, 1]
        assert [row.running.gomaxprocs for row in ordered(rows, procs, turned=True)] == [1, 2, 3]
    finally:
        processes.close()


def test_shares_are_those_since_the_last_look(start: Start) -> None:
    pid = start(cpu_stats=(1, 2, 3, 4, 10, 5, 6, 11, 100, 879, 1000))
    processes = Processes(Policy(), [int(pid)])
    try:
        assert [row.gc_share for row in processes.look()] == [0.01]
        # 60 more of the collector's of 200 more in all: times in nanoseconds below 256 fit into a byte.
        with Program(pid, write=True) as program:
            times = (61, 2, 3, 4, 70, 5, 6, 11, 100, 1019, 1200)
            for number, value in enumerate(times):
                for offset, byte in enumerate(value.to_bytes(8, "little")):
                    program.image.write_byte(go_program.CPU_STATS + number * 8 + offset, byte)
        assert [row.gc_share for row in processes.look()] == [pytest.approx(0.3)]
        assert [row.gc_share for row in processes.look()] == [pytest.approx(0.3)], "no cycle has ended since"
    finally:
        processes.close()


def test_a_process_that_ends_is_gone_at_the_next_look(
    start: Start, processes: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = [start(), start()]
    # As if /proc held these two alone: other processes are none of a test's business.
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: pids if path == "/proc" else real(path))
    followed = Processes(Policy())
    try:
        assert [row.pid for row in followed.look()] == sorted(int(pid) for pid in pids)
        processes[0].kill()
        processes[0].wait()
        assert [row.pid for row in followed.look()] == [int(pids[1])]
    finally:
        followed.close()


def test_what_is_no_go_program_is_not_shown_and_remembered_no_longer_than_it_lives(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = [start(), str(os.getpid())]
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*pids, "self"] if path == "/proc" else real(path))
    followed = Processes(Policy())
    try:
        assert [row.pid for row in followed.look()] == [int(pids[0])]
        assert {pid for pid, _ in followed._others} == {os.getpid()}
        del pids[1]
        followed.look()
        assert followed._others == set()
    finally:
        followed.close()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--sort", "colour"], 2, "'colour' is not known"),
        (["--interval", "0"], 2, "no time between two looks"),
        (["--interval", "soon"], 2, "no time between two looks"),
        (["--pid", "one"], 2, "'one' is not a process ID"),
        (["-o", "yaml"], 2, "'yaml' is not known"),
        (["--pid", "4194304"], 1, "process 4194304: there is no process 4194304"),
        (["--pid", "{self}"], 1, "it is no Go program"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    assert main(["top", "--once", *(word.format(self=os.getpid()) for word in words)]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


def test_every_column_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(COLUMNS)
