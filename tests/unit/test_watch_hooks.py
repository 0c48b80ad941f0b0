"""Hooks: order, time limits, failures, and changes that come while they run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.process import Standing
from cgagent.errors import UsageError
from cgagent.metrics.counters import Counters
from cgagent.watch import kinds
from cgagent.watch.hooks import Change, Hook, HookError, Runner
from cgagent.watch.kinds import ExecHook, HttpHook, SignalHook
from cgagent.watch.log import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

PATIENCE = 60.0


def _change(old: str | None, new: str | None) -> Change:
    env = [{} if value is None else {"GOMAXPROCS": value} for value in (old, new)]
    return Change(env[0], env[1], Limits(Standing()), None, "/run/go.env")


class Noting(Hook):
    """Notes what it is told; waits for `gate` and fails if it is to."""

    def __init__(self, name: str, notes: list[tuple[str, str, str]], fails: bool = False) -> None:
        super().__init__(name, 1.0)
        self.gate = threading.Event()
        self.gate.set()
        self._notes = notes
        self._fails = fails

    def run(self, change: Change) -> None:
        self._notes.append((self.name, change.old["GOMAXPROCS"], change.new["GOMAXPROCS"]))
        self.gate.wait(PATIENCE)
        if self._fails:
            raise HookError("it was to fail")


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def runner(counters: Counters) -> Iterator[Runner]:
    one = Runner(counters, Log(level="error"), lambda: None)
    yield one
    one.close()


def _until(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_they_run_in_order_and_a_failure_stops_none(runner: Runner, counters: Counters) -> None:
    notes: list[tuple[str, str, str]] = []
    runner.use([Noting("a", notes), Noting("b", notes, fails=True), Noting("c", notes)])

    runner.submit(_change("1", "2"))

    _until(lambda: counters.hook_runs["c"] == 1)
    _until(lambda: len(notes) == 3)
    assert notes == [("a", "1", "2"), ("b", "1", "2"), ("c", "1", "2")]
    assert counters.hook_runs == {"a": 1, "b": 1, "c": 1}
    _until(lambda: counters.hook_failures == {"a": 0, "b": 1, "c": 0})


def test_changes_that_come_meanwhile_become_one(runner: Runner) -> None:
    notes: list[tuple[str, str, str]] = []
    hook = Noting("a", notes)
    hook.gate.clear()
    runner.use([hook])
    runner.submit(_change("1", "2"))
    _until(lambda: len(notes) == 1)

    for old in range(2, 1000):
        runner.submit(_change(str(old), str(old + 1)))
    hook.gate.set()

    _until(lambda: len(notes) == 2)
    assert notes == [("a", "1", "2"), ("a", "2", "1000")]


def test_a_change_that_is_taken_back_meanwhile_is_none(runner: Runner) -> None:
    notes: list[tuple[str, str, str]] = []
    hook = Noting("a", notes)
    hook.gate.clear()
    runner.use([hook])
    runner.submit(_change("1", "2"))
    _until(lambda: len(notes) == 1)
    runner.submit(_change("2", "3"))
    runner.submit(_change("3", "2"))
    hook.gate.set()
    runner.submit(_change("2", "4"))
    _until(lambda: len(notes) == 2)
    assert notes[1] == ("a", "2", "4")


def test_without_hooks_there_is_no_thread(runner: Runner) -> None:
    before = set(threading.enumerate())
    runner.submit(_change("1", "2"))
    assert set(threading.enumerate()) <= before  # one of an earlier test may end meanwhile


class Faulty(Hook):
    """Fails in a way that no hook should."""

    def __init__(self, where: str) -> None:
        super().__init__("faulty", 1.0)
        self._where = where

    def is_due(self, change: Change) -> bool:
        return super().is_due(change) and self._fault("is_due")

    def run(self, change: Change) -> None:  # noqa: ARG002 whatever has changed
        self._fault("run")

    def _fault(self, where: str) -> bool:
        if where == self._where:
            raise ChildProcessError(10, "No child processes")
        return True


@pytest.mark.parametrize("where", ["is_due", "run"])
def test_a_fault_of_ours_in_one_hook_stops_none(runner: Runner, counters: Counters, where: str) -> None:
    notes: list[tuple[str, str, str]] = []
    runner.use([Faulty(where), Noting("b", notes)])

    runner.submit(_change("1", "2"))
    _until(lambda: len(notes) == 1)
    runner.submit(_change("2", "3"))

    _until(lambda: len(notes) == 2)
    assert counters.hook_failures["faulty"] == 2


def test_new_hooks_keep_the_counts_of_those_that_stay(runner: Runner, counters: Counters) -> None:
    notes: list[tuple[str, str, str]] = []
    runner.use([Noting("a", notes)])
    runner.submit(_change("1", "2"))
    _until(lambda: len(notes) == 1)
    runner.use([Noting("a", notes), Noting("b", notes)])
    assert counters.hook_runs == {"a": 1, "b": 0}


def test_a_command_gets_old_and_new_values_and_no_shell(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"import os, sys; open({str(told)!r}, 'w').write(repr((dict(os.environ), sys.argv)))"
    hook = ExecHook("a", PATIENCE, [sys.executable, "-c", script, "$HOME; exit 1", "*"])

    hook.run(_change("1", "2"))

    environ, argv = eval(told.read_text(encoding="utf-8"))
    assert argv[1:] == ["$HOME; exit 1", "*"]
    names = ("GOMAXPROCS", "CGAGENT_OLD_GOMAXPROCS", "CGAGENT_NEW_GOMAXPROCS", "CGAGENT_NEW_GOMEMLIMIT")
    assert [environ[name] for name in names] == ["2", "1", "2", ""]
    assert environ["CGAGENT_ENV_FILE"] == "/run/go.env"
    assert "GOMEMLIMIT" not in environ


def test_a_variable_that_is_unset_now_is_unset_for_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMAXPROCS", "9")
    assert "GOMAXPROCS" not in _change("9", None).environment(os.environ)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["false"], "ended with 1"),
        (["sh", "-c", "exit 3"], "ended with 3"),
        (["sh", "-c", "kill -9 $$"], "ended by signal 9"),
        (["/nonexistent/program"], "/nonexistent/program: no such file or directory"),
        (["/etc/passwd"], "/etc/passwd: permission denied"),
    ],
)
def test_a_command_that_fails_says_how(argv: list[str], told: str) -> None:
    with pytest.raises(HookError) as caught:
        ExecHook("a", PATIENCE, argv).run(_change("1", "2"))
    assert caught.value.message == told


@pytest.mark.parametrize("pidfd", [True, False], ids=["by pidfd", "where the kernel gives no pidfd"])
def test_a_command_over_its_time_is_killed_with_all_that_it_started(
    pidfd: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pidfd:
        monkeypatch.setattr(os, "pidfd_open", lambda _: (_ for _ in ()).throw(OSError(38, "not implemented")))
    pids = tmp_path / "pids"
    for timeout in (0.3, 3.0, 30.0):  # a busy machine takes its time to get as far as the second
        hook = ExecHook("a", timeout, ["sh", "-c", f"echo $$ > {pids}; sleep 600 & echo $! >> {pids}; wait"])
        with pytest.raises(HookError, match=rf"^killed after {timeout:g} s$"):
            hook.run(_change("1", "2"))
        if pids.exists() and len(pids.read_text(encoding="ascii").split()) == 2:
            break

    both = pids.read_text(encoding="ascii").split()
    assert len(both) == 2
    for pid in both:
        _until(lambda pid=pid: _is_gone(pid))


def _is_gone(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"  # nobody's child here: PID 1 reaps it
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_command_has_the_signals_of_a_fresh_program() -> None:
    """Python ignores SIGPIPE: `yes | head -1` in a hook would then never end as it should."""
    hook = ExecHook("a", PATIENCE, ["sh", "-c", "yes | head -1 > /dev/null; trap > /dev/null; kill -PIPE $$; exit 0"])
    with pytest.raises(HookError, match="ended by signal 13"):
        hook.run(_change("1", "2"))


def test_the_end_of_the_agent_ends_the_command_that_runs(runner: Runner, tmp_path: Path) -> None:
    started = tmp_path / "started"
    runner.use([ExecHook("a", PATIENCE, ["sh", "-c", f"echo $$ > {started}; sleep 60"])])
    runner.submit(_change("1", "2"))
    _until(lambda: started.exists() and started.read_text(encoding="ascii"))

    runner.close()

    _until(lambda: _is_gone(started.read_text(encoding="ascii").strip()))


def test_a_command_that_is_being_started_when_the_agent_ends_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = ExecHook("a", PATIENCE, ["sleep", "600"])
    spawn = os.posix_spawnp

    def spawn_while_it_ends(*words: Any, **settings: Any) -> int:
        pid = spawn(*words, **settings)
        hook.cancel()
        return pid

    monkeypatch.setattr(os, "posix_spawnp", spawn_while_it_ends)
    with pytest.raises(HookError, match="ended by signal 15"):
        hook.run(_change("1", "2"))


def test_a_signal_without_a_target_fails() -> None:
    with pytest.raises(HookError, match="the target is not running"):
        SignalHook("a", 1.0, 1).run(_change("1", "2"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://[::1/", "http://a..b.invalid/"])
def test_an_address_that_nobody_answers_fails_in_one_line(url: str) -> None:
    with pytest.raises(HookError) as caught:
        HttpHook("a", PATIENCE, url).run(_change("1", "2"))
    assert caught.value.message.startswith(url)
    assert "\n" not in caught.value.line()


def test_http_is_loaded_by_the_first_post_alone() -> None:
    script = "import sys, cgagent.watch.kinds; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"http.client", "ssl", "json", "urllib", "email"} & set(done.stdout.split())


def test_one_that_ends_the_agent_says_with_which_code(counters: Counters) -> None:
    ended = threading.Event()
    one = Runner(counters, Log(level="error"), ended.set)
    one.use([kinds.parse_hook("exit:88", "--hook")])

    one.submit(_change("1", "2"))

    assert ended.wait(PATIENCE)
    assert one.code == 88
    one.close()


def test_what_stands_behind_one_that_ends_the_agent_does_not_run(runner: Runner, counters: Counters) -> None:
    notes: list[tuple[str, str, str]] = []
    last = Noting("last", notes)
    runner.use([kinds.parse_hook("exit:88", "--hook"), Noting("behind", notes)])
    runner.submit(_change("1", "2"))
    _until(lambda: runner.code == 88)
    runner.use([last])

    runner.submit(_change("2", "3"))

    runner.close()
    assert runner._thread is not None
    runner._thread.join(PATIENCE)
    assert notes == []
    assert counters.hook_runs["behind"] == 0


@pytest.mark.parametrize("text", ["0", "78", "126", "-1", "x", "88 "])
def test_a_code_that_means_something_else_already_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an exit code"):
        kinds.parse_hook(f"exit:{text}", "--hook")
