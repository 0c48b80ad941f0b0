"""`cgagent watch` as a program: its words, its exit codes, what it loads; limits are given, so no cgroup is made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from cgagent.cli import main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., subprocess.Popen[str]]

PATIENCE = 30.0
# Tells what has been loaded by the end.
_TELLING = """
import sys
from cgagent.cli import main
code = main(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
sys.exit(code)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the program; it is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _TELLING, "watch", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for one in started:
        one.kill()
        one.communicate()


def _until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def _says(path: Path, text: str) -> bool:
    try:
        return text in path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def _given(directory: Path, size: int) -> None:
    new = directory / "new"
    new.write_text(str(size), encoding="ascii")
    os.rename(new, directory / "memory_limit_bytes")


def _follow(start: Start, tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """A sidecar that follows a directory of given limits, 100 MiB at first, and has written its env file."""
    (tmp_path / "podinfo").mkdir()
    _given(tmp_path / "podinfo", 100 << 20)
    words = ("--env-file", str(tmp_path / "go.env"), "--limits-dir", str(tmp_path / "podinfo"), "--poll", "1h")
    process = start(*words, *options)
    _until(lambda: _says(tmp_path / "go.env", f"GOMEMLIMIT='{90 << 20}'"))
    return process


def test_given_limits_are_followed_and_sigterm_ends_it_with_0(start: Start, tmp_path: Path) -> None:
    process = _follow(start, tmp_path)
    time.sleep(0.2)

    _given(tmp_path / "podinfo", 200 << 20)

    _until(lambda: _says(tmp_path / "go.env", f"GOMEMLIMIT='{180 << 20}'"))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "watchdog" in out.split()
    assert not {"prometheus_client", "yaml", "http", "ssl"} & set(out.split()), "nobody asked for metrics or a config"


def test_hooks_run_where_our_parent_ignores_the_end_of_children(start: Start, tmp_path: Path) -> None:
    """An ignored SIGCHLD outlives exec(2), and the kernel then reaps every child itself."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = _follow(start, tmp_path, "--hook", f"exec:{_script(tmp_path)}")
    finally:
        signal.signal(signal.SIGCHLD, before)
    for size in (200, 300):
        _given(tmp_path / "podinfo", size << 20)
        _until(partial(_says, tmp_path / "told", str(size * 9 // 10 << 20)))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert "hook failed" not in err
    assert "Traceback" not in err


def _script(directory: Path) -> Path:
    """A program that tells the new memory limit."""
    path = directory / "tell"
    path.write_text(f"#!/bin/sh\necho $GOMEMLIMIT >> {directory}/told\n", encoding="ascii")
    path.chmod(0o755)
    return path


def test_a_limit_that_can_not_be_read_for_a_while_keeps_the_file(start: Start, tmp_path: Path) -> None:
    _follow(start, tmp_path)
    time.sleep(0.2)

    (tmp_path / "podinfo" / "memory_limit_bytes").write_text("lots", encoding="ascii")
    time.sleep(0.3)
    assert _says(tmp_path / "go.env", f"GOMEMLIMIT='{90 << 20}'")
    _given(tmp_path / "podinfo", 200 << 20)

    _until(lambda: _says(tmp_path / "go.env", f"GOMEMLIMIT='{180 << 20}'"))


def test_sigterm_at_any_moment_of_the_start_leaves_a_whole_file_or_none(start: Start, tmp_path: Path) -> None:
    for delay in (0.05, 0.1, 0.15, 0.2):
        process = start("--env-file", str(tmp_path / "go.env"))
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, -signal.SIGTERM)
        assert set(os.listdir(tmp_path)) <= {"go.env"}


def test_sigterm_does_not_wait_for_the_settle_time(start: Start, tmp_path: Path) -> None:
    process = _follow(start, tmp_path, "--hook", "exec:/bin/true", "--settle", "20s")
    _given(tmp_path / "podinfo", 200 << 20)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=15)  # less than the settle time
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "there is nothing to do: give --env-file, --web.listen-address or --hook"),
        (["--env-file", "-"], "--env-file: watch keeps a file current: name the file"),
        (["--env-file", "/"], "--env-file: / is a directory: name a file in it"),
        (["--env-file", "x", "--target", "me"], "--target: 'me' is not a target: give SELF, auto or a PID"),
        (["--env-file", "x", "--poll", "1ms"], "--poll: '1ms' is less than 500ms"),
        (
            ["--env-file", "x", "--hook", "signal:HUP"],
            "a signal or tune hook needs a process to act on: give --target auto",
        ),
        (["--env-file", "x", "--log.level", "loud"], "--log.level: 'loud' is not known: choose one of info"),
        (["--env-file", "x", "--web.max-requests", "0"], "--web.max-requests: '0' is not a whole number"),
        (["--env-file", "x", "--web.listen-adress", ":1"], "did you mean --web.listen-address?"),
        (["--env-file", "x", "--target-name", "a"], "--target-name and --target-exe choose among several"),
    ],
)
def test_wrong_words_are_wrong_usage(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", *words]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_a_wrong_environment_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CGAGENT_SETTLE", "long")
    assert main(["watch", "--env-file", "x"]) == 2
    assert "CGAGENT_SETTLE: 'long' is not a duration" in capsys.readouterr().err


def test_a_bad_config_ends_with_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "watch.yaml"
    path.write_text("pol: 1m\n", encoding="ascii")
    assert main(["watch", "--config", str(path)]) == 78
    assert capsys.readouterr().err == f"cgagent watch: {path}:1: pol is not a key: did you mean poll?\n"


def test_the_config_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CGAGENT_CONFIG", str(tmp_path / "none.yaml"))
    assert main(["watch"]) == 78
    assert f"cannot read {tmp_path}/none.yaml: no such file or directory" in capsys.readouterr().err


def test_a_pid_that_is_not_there_ends_with_1(start: Start, tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    process = start("--env-file", str(tmp_path / "go.env"), "--target", str(gone.pid))
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert f"there is no process {gone.pid}" in err
