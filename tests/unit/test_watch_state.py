"""Counters that outlive the agent, in a file that may hold anything by then."""

from __future__ import annotations

import os

import pytest

from cgagent.errors import CgagentError
from cgagent.metrics.counters import Counters
from cgagent.watch.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def _life(directory: Path) -> tuple[State, Counters]:
    counters = Counters()
    state = State(str(directory), counters)
    assert state.load() == ""
    return state, counters


def test_in_the_same_cgroup_the_kernel_s_own_count_still_holds(tmp_path: Path) -> None:
    state, _ = _life(tmp_path)
    state.see("boot 1:7", {"oom_kill": 2})
    state.save()

    again, counters = _life(tmp_path)
    again.see("boot 1:7", {"oom_kill": 3})

    assert counters.memory_events_before == {}
    assert again.kills() == 3


def test_what_a_cgroup_that_is_gone_had_counted_is_added(tmp_path: Path) -> None:
    state, counters = _life(tmp_path)
    state.see("boot 1:7", {"oom_kill": 2, "max": 5})
    counters.limit_changes["cpu"] = 4
    state.save()

    again, counters = _life(tmp_path)
    again.see("boot 1:8", {"oom_kill": 1})
    again.see("boot 1:9", {"oom_kill": 1})

    assert counters.memory_events_before == {"oom_kill": 3, "max": 5}
    assert again.kills() == 4
    assert counters.limit_changes == {"cpu": 4, "memory": 0, "cpuset": 0, "pids": 0}


def test_a_number_that_does_not_change_is_nothing_new(tmp_path: Path) -> None:
    state, _ = _life(tmp_path)
    assert state.see("a", {"oom_kill": 0})
    assert not state.see("a", {"oom_kill": 0})
    assert not state.see("", {})
    assert state.see("a", {"oom_kill": 1})


@pytest.mark.parametrize(
    "rubbish",
    [
        "",
        "\0" * 100,
        "# cgagent.state/1\nevents oom_kill -1\nevents oom_kill 1e9\nlimit_changes disk 3\nevents a.b 3\n",
        "# cgagent.state/1\nlimit_changes cpu 99999999999999999999\nlimit_changes cpu \u0663\n\nevents\n",
        '{"limit_changes": {"cpu": 3}}',
        "\udcff\udcfe",
    ],
)
def test_rubbish_counts_as_nothing(tmp_path: Path, rubbish: str) -> None:
    path = tmp_path / "counters"
    path.write_bytes(rubbish.encode("utf-8", "surrogateescape"))
    counters = Counters()
    state = State(str(tmp_path), counters)

    state.load()

    assert state.events == {}
    assert set(counters.limit_changes.values()) == {0}
    state.see("a", {"oom_kill": 1})
    state.save()
    assert "events oom_kill 1" in path.read_text(encoding="utf-8")


def test_a_file_that_is_too_large_is_told_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "counters").write_bytes(b"# cgagent.state/1\n" + b"events oom_kill 3\n" * 100_000)
    state = State(str(tmp_path), Counters())
    assert "more than 1048576 bytes" in state.load()
    assert state.events == {}


def test_a_fifo_in_its_place_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "counters")
    assert "not a regular file" in State(str(tmp_path), Counters()).load()


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    state, _ = _life(tmp_path / "none")
    state.see("a", {"oom_kill": 1})
    with pytest.raises(CgagentError, match="no such file or directory"):
        state.save()


def test_without_a_directory_nothing_is_kept() -> None:
    state = State(None, Counters())
    assert state.load() == ""
    state.save()
