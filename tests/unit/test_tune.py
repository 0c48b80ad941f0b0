"""`cgagent tune`: what it says and does, to a program that is made by hand."""

from __future__ import annotations

import os

import pytest

from cgagent.cli import main
from cgagent.golang.live import Program
from support import go_program
from support.go_state import MIB, NO_LIMIT, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., str]
    Tune = Callable[..., tuple[int, str, str]]

AUTOMEMLIMIT = "github.com/KimMachineGun/automemlimit"


@pytest.fixture
def start(public: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Make a program and start it; returns its PID."""
    monkeypatch.setenv("CGAGENT_STATE_DIR", f"{public}/state")
    with go_program.starter(public) as start:
        yield start


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str]) -> Tune:
    """Run the command; returns its exit code and what it wrote to stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["tune", *words])
        out, err = capsys.readouterr()
        assert err.count("\n") <= 1
        return code, out, err

    return run


def limit_of(pid: str) -> int:
    with Program(pid) as program:
        return program.state().memory_limit


def test_sets_a_memory_limit_and_says_what_it_was(start: Start, tune: Tune) -> None:
    pid = start()
    done = tune("--pid", pid, "--memory-limit", "90Mi")
    assert done == (0, f"process {pid} (go1.27.3): GOMEMLIMIT went from off to 94371840 (90Mi)\n", "")
    assert limit_of(pid) == 90 * MIB


def test_a_hook_need_not_name_the_process(start: Start, tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = start()
    monkeypatch.setenv("CGAGENT_TARGET_PID", pid)
    assert tune("--memory-limit", "90Mi")[0] == 0
    assert limit_of(pid) == 90 * MIB


def test_takes_a_memory_limit_away(start: Start, tune: Tune) -> None:
    pid = start({"GOMEMLIMIT": "90MiB"}, controller=state(memory_limit=90 * MIB))
    code, out, _ = tune("--pid", pid, "--memory-limit", "off")
    assert (code, limit_of(pid)) == (0, NO_LIMIT)
    assert "from 94371840 (90Mi) to off" in out


def test_tunes_again_what_it_has_tuned(start: Start, tune: Tune) -> None:
    pid = start()
    for size in (90, 60, 200):
        assert tune("--pid", pid, "--memory-limit", f"{size}Mi")[0] == 0
        assert limit_of(pid) == size * MIB


def test_says_so_where_nothing_is_to_be_done(start: Start, tune: Tune) -> None:
    pid = start()
    assert tune("--pid", pid, "--memory-limit", "off") == (0, f"process {pid}: GOMEMLIMIT is off already\n", "")


def test_a_dry_run_checks_everything_and_writes_nothing(start: Start, tune: Tune) -> None:
    pid = start()
    code, out, _ = tune("--pid", pid, "--memory-limit", "90Mi", "--dry-run")
    assert (code, limit_of(pid)) == (0, NO_LIMIT)
    assert "would go from off to 94371840 (90Mi)" in out
    assert tune("--pid", pid, "--memory-limit", "20Mi", "--dry-run")[0] == 1
    code, out, _ = tune("--pid", start({"GOMAXPROCS": "7"}), "--gomaxprocs", "follow", "--dry-run")
    assert code == 0
    assert "would be left to the runtime" in out


def test_auto_is_what_cgagent_decides(start: Start, tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGAGENT_MEMORY_LIMIT", "300Mi")
    pid = start()
    assert tune("--pid", pid, "--memory-limit", "auto", "--memory-reserve", "100Mi")[0] == 0
    assert limit_of(pid) == 180 * MIB


def test_auto_replaces_the_limit_that_the_program_was_started_with(
    start: Start, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGAGENT_MEMORY_LIMIT", "100Mi")
    pid = start({"GOMEMLIMIT": "200MiB"}, controller=state(memory_limit=200 * MIB))
    assert tune("--pid", pid, "--memory-limit", "auto")[0] == 0
    assert limit_of(pid) == 90 * MIB


def test_auto_fails_where_nothing_can_be_decided(start: Start, tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGAGENT_MEMORY_LIMIT", "100Mi")
    pid = start()
    code, _, err = tune("--pid", pid, "--memory-limit", "auto", "--memory-reserve", "200Mi")
    assert (code, limit_of(pid)) == (1, NO_LIMIT)
    assert "GOMEMLIMIT" in err


def test_refuses_what_the_program_set_itself_unless_forced(start: Start, tune: Tune) -> None:
    pid = start(controller=state(memory_limit=80 * MIB))
    code, _, err = tune("--pid", pid, "--memory-limit", "90Mi")
    assert (code, limit_of(pid)) == (1, 80 * MIB)
    assert err.startswith(f"cgagent tune: process {pid} is not tuned: the program set its memory limit itself")
    assert tune("--pid", pid, "--memory-limit", "90Mi", "--force")[0] == 0
    assert limit_of(pid) == 90 * MIB


def test_names_the_library_that_may_have_set_it(start: Start, tune: Tune) -> None:
    text = f"path\tmain\nmod\tmain\t(devel)\t\ndep\t{AUTOMEMLIMIT}\tv0.7.0\th1:x\n"
    pid = start(controller=state(memory_limit=80 * MIB), text=text)
    assert f"({AUTOMEMLIMIT} v0.7.0 is linked in)" in tune("--pid", pid, "--memory-limit", "90Mi")[2]


def test_without_a_place_to_note_the_change_it_says_what_that_means(
    start: Start, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = start()
    monkeypatch.setattr("cgagent.golang.live.ledger._directory", lambda _: None)
    code, _, err = tune("--pid", pid, "--memory-limit", "90Mi")
    assert (code, limit_of(pid)) == (0, 90 * MIB)
    assert "the next one will need --force" in err


def test_hands_gomaxprocs_back(start: Start, tune: Tune) -> None:
    pid = start({"GOMAXPROCS": "7"})
    code, out, _ = tune("--pid", pid, "--gomaxprocs", "follow")
    assert code == 0
    assert "GOMAXPROCS is left to the runtime, now 7" in out
    assert tune("--pid", pid, "--gomaxprocs", "follow") == (
        0,
        f"process {pid}: the runtime follows its quota already, GOMAXPROCS is 7\n",
        "",
    )


def test_does_both_at_once(start: Start, tune: Tune) -> None:
    pid = start({"GOMAXPROCS": "7"})
    code, out, _ = tune("--pid", pid, "--memory-limit", "90Mi", "--gomaxprocs", "follow")
    assert (code, out.count("\n"), limit_of(pid)) == (0, 2, 90 * MIB)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "--pid is missing"),
        (["--pid", "1"], 2, "nothing to tune is named"),
        (["--pid", "one", "--memory-limit", "off"], 2, "'one' is not a process ID"),
        (["--pid", "{pid}", "--memory-limit", "much"], 2, "'much' is not a size"),
        (["--pid", "{pid}", "--memory-limit", "8Ei"], 2, "more than any machine has"),
        (["--pid", "{pid}", "--memory-limit", "0"], 1, "0 is no memory limit"),
        (["--pid", "{pid}", "--gomaxprocs", "3"], 2, "a number can't be set from outside without risk"),
        (["--pid", "4194304", "--memory-limit", "off"], 1, "there is no process 4194304"),
        (["--pid", "{self}", "--memory-limit", "off"], 1, "is no Go program"),
        (["--pid", "{pid}", "--memory-limit", "28Mi"], 1, "give more than 28Mi"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(start: Start, tune: Tune, words: list[str], code: int, told: str) -> None:
    pid = start()
    done = tune(*(word.format(pid=pid, self=os.getpid()) for word in words))
    assert (done[0], done[1]) == (code, "")
    assert told in done[2]
    assert limit_of(pid) == NO_LIMIT
