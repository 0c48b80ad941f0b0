"""Signals: every catchable one reaches the command, and whatever dies, the container dies with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from launch.behaviour import CGAGENT, RUNC, Runc, busybox_root, default_signals, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = needs_root

FORWARDED = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT", "VTALRM", "PROF")
# What runc gives to the terminal or keeps to itself is not compared.
BY_RUNC = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM")


_STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def end() -> Iterator[None]:
    """Nothing that a test started outlives it."""
    yield
    while _STARTED:
        process = _STARTED.pop()
        process.kill()
        process.communicate()


def started(words: list[str]) -> subprocess.Popen[str]:
    """A container whose command has said that it is ready."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
        start_new_session=True,
    )
    _STARTED.append(process)
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "ready\n":
        process.kill()
        pytest.fail(f"not started: {line!r} {process.communicate()}")
    return process


def container(options: str, command: str) -> subprocess.Popen[str]:
    return started([CGAGENT, "run", *options.split(), "--", "sh", "-c", command])


def line_of(process: subprocess.Popen[str]) -> str:
    """What it says next."""
    assert process.stdout is not None
    return process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=60)
    return process.returncode, out


def gone(pid: int) -> bool:
    """Whether a process has ended, within a minute."""
    for _ in range(1200):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def processes(launcher: int) -> list[int]:
    """All descendants of a launcher."""
    found = []
    todo = [launcher]
    while todo:
        pid = todo.pop()
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            continue
        found += children
        todo += children
    return found


class TestForwarding:
    @pytest.mark.parametrize("name", FORWARDED)
    def test_a_signal_to_the_launcher_reaches_the_command(self, name: str) -> None:
        trap = f"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
        process = container(f"--rootfs {busybox_root()}", trap)
        process.send_signal(getattr(signal, f"SIG{name}"))
        ours = ended(process)
        assert ours == (7, f"got {name}\n")
        if RUNC is not None and name in BY_RUNC:
            bundle = Runc({}, "sh", "-c", trap)
            try:
                theirs = started(bundle.words())
                theirs.send_signal(getattr(signal, f"SIG{name}"))
                assert ended(theirs) == ours
            finally:
                bundle.remove()

    def test_a_stop_and_a_continue_reach_it_too(self) -> None:
        process = container("", "echo ready; while :; do sleep 0.05; done")
        # The first: what it starts bears its name too, until it is another program.
        command = next(pid for pid in processes(process.pid) if comm(pid) == "sh")
        process.send_signal(signal.SIGTSTP)
        assert eventually(lambda: state(command) == "T")
        process.send_signal(signal.SIGCONT)
        assert eventually(lambda: state(command) in "SR")
        process.kill()
        ended(process)

    @pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1"])
    def test_a_command_without_a_handler_ends_by_it(self, name: str) -> None:
        process = container("", "echo ready; exec sleep 1000")
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert ended(process)[0] == 128 + getattr(signal, f"SIG{name}")

    def test_a_second_term_after_the_stop_timeout_kills(self) -> None:
        process = container("--stop-timeout 0.3", "trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done")
        process.send_signal(signal.SIGTERM)
        assert line_of(process) == "no\n"  # so the launcher has seen it: two that wait become one
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (137, "")

    def test_a_second_term_before_it_is_passed_on(self) -> None:
        trap = "n=0; trap 'n=$((n+1)); echo $n; test $n = 2 && exit 9' TERM; echo ready; while :; do sleep 0.05; done"
        process = container("--stop-timeout 600", trap)
        process.send_signal(signal.SIGTERM)
        assert line_of(process) == "1\n"
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 9

    def test_a_stopped_command_can_be_ended(self) -> None:
        process = container("--stop-timeout 0", "echo ready; kill -STOP $$; sleep 1000")
        for _ in range(300):  # two that come before the launcher has seen the first are one
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
                break
        assert ended(process)[0] == 137

    def test_without_an_init_the_command_decides_as_pid_1(self) -> None:
        process = container("--no-init", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 7


class TestWhatTheCommandInherits:
    def test_the_signal_mask(self) -> None:
        # Without a shell: dash clears it.
        block = [signal.SIGUSR1]
        done = self.run(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, block), "grep", "^SigBlk", "/proc/self/status")
        assert int(done.split()[1], 16) == 1 << (signal.SIGUSR1 - 1)

    def test_ignored_signals_and_no_more(self) -> None:
        done = self.run(lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN), "grep ^SigIgn /proc/self/status")
        # 32 and 33 are glibc's own; its posix_spawn, by which make starts commands, hands them on ignored.
        assert int(done.split()[1], 16) & ~(0b11 << 31) == 1 << (signal.SIGHUP - 1)

    def test_not_that_children_end_unseen(self) -> None:
        """Who started us may ignore SIGCHLD, which outlives exec(2): then nobody's end could be waited for."""
        done = self.run(
            lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN), "sleep 0.1; grep ^SigIgn /proc/self/status"
        )
        assert not int(done.split()[1], 16) & 1 << (signal.SIGCHLD - 1)

    def test_sigpipe_as_a_program_expects_it(self) -> None:
        assert self.run(lambda: None, "yes | head -1") == "y\n"

    def test_the_umask(self) -> None:
        assert self.run(lambda: os.umask(0o027), "umask") == "0027\n"

    def test_niceness(self) -> None:
        assert self.run(lambda: os.nice(7), "nice") == "7\n"

    def test_resource_limits(self) -> None:
        import resource

        assert (
            self.run(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (77, 88)), "ulimit -Sn; ulimit -Hn")
            == "77\n88\n"
        )

    def test_the_oom_score(self) -> None:
        def set_score() -> None:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write("321")

        assert self.run(set_score, "cat /proc/self/oom_score_adj") == "321\n"

    def test_the_working_directory(self, tmp_path: Path) -> None:
        assert self.run(lambda: os.chdir(tmp_path), "pwd") == f"{tmp_path}\n"

    def test_the_environment(self) -> None:
        assert self.run(lambda: os.putenv("GIVEN", "x y"), "echo $GIVEN; echo ${CGAGENT_INIT-none}") == "x y\nnone\n"

    def test_no_other_files(self) -> None:
        def leave_open() -> None:
            os.set_inheritable(os.dup2(0, 9), True)

        assert self.run(leave_open, "ls /proc/self/fd | wc -l") == "4\n"  # the fourth is ls' own

    def run(self, prepare: Callable[[], object], command: str, *words: str) -> str:
        def before() -> None:
            default_signals()
            prepare()

        whole = [CGAGENT, "run", "--", *((command, *words) if words else ("sh", "-c", command))]
        done = subprocess.run(
            whole,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=before,
            close_fds=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


class TestStdio:
    def test_is_byte_exact_both_ways(self) -> None:
        data = os.urandom(3 << 20)
        done = subprocess.run([CGAGENT, "run", "--", "cat"], input=data, capture_output=True, check=True, timeout=60)
        assert done.stdout == data

    def test_keeps_output_and_errors_apart(self) -> None:
        done = subprocess.run(
            [CGAGENT, "run", "--", "sh", "-c", "echo out; echo err >&2"], capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("out\n", "err\n")

    def test_ends_when_the_command_does_though_a_child_holds_the_pipe(self) -> None:
        done = subprocess.run(
            [CGAGENT, "run", "--", "sh", "-c", "sleep 1000 & echo x"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "x\n"

    def test_passes_the_files_that_it_is_told_to(self, tmp_path: Path) -> None:
        (tmp_path / "given").write_text("given\n")
        opened = f"exec 3< {tmp_path}/given 4< /dev/null"
        command = f"{opened}; exec {CGAGENT} run --preserve-fds 1 -- sh -c 'cat <&3; ls /proc/self/fd | wc -l'"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert done.stdout == "given\n5\n"

    def test_a_reader_that_goes_away_ends_it(self) -> None:
        done = subprocess.run(
            ["sh", "-c", f"{CGAGENT} run -- yes | head -1"], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout == "y\n"

    def test_works_with_closed_descriptors(self) -> None:
        done = subprocess.run(
            ["sh", "-c", f"{CGAGENT} run -- true <&- >&- 2>&-; echo $?"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "0\n"

    def test_runs_in_the_background(self) -> None:
        done = subprocess.run(
            ["sh", "-c", f"{CGAGENT} run -- echo x & wait $!; echo $?"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "x\n0\n"


class TestDeath:
    @pytest.fixture
    def victim(self) -> tuple[subprocess.Popen[str], list[int]]:
        command = "sleep 1000 & echo ready; trap '' TERM INT HUP; while :; do sleep 0.05; done"
        process = container("--memory 64Mi", command)
        return process, processes(process.pid)

    def test_of_the_launcher_by_kill_takes_the_container_along(
        self, victim: tuple[subprocess.Popen[str], list[int]]
    ) -> None:
        process, family = victim
        assert len(family) >= 3
        process.kill()
        assert all(gone(pid) for pid in family)

    def test_of_init_ends_the_launcher_as_a_kill(self, victim: tuple[subprocess.Popen[str], list[int]]) -> None:
        process, family = victim
        (init,) = [pid for pid in family if pid_inside(pid) == "1"]
        os.kill(init, signal.SIGKILL)
        assert ended(process)[0] == 137
        assert all(gone(pid) for pid in family)

    def test_of_the_whole_process_group(self, victim: tuple[subprocess.Popen[str], list[int]]) -> None:
        process, family = victim
        os.killpg(process.pid, signal.SIGKILL)
        assert all(gone(pid) for pid in family)


def comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0]


def pid_inside(pid: int) -> str:
    """A process' PID in its innermost namespace."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            numbers = next(line for line in file if line.startswith("NSpid:")).split()[1:]
    except (OSError, StopIteration):
        return ""
    return numbers[-1] if len(numbers) > 1 else ""


def eventually(condition: Callable[[], object]) -> bool:
    for _ in range(1200):
        if condition():
            return True
        time.sleep(0.05)
    return False
