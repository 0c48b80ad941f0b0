"""exec leaves nothing behind in the command: same PID, signals, descriptors and limits as without it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess

import pytest

from kernel import agent
from kernel.cgroups import MIB, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXEC = (*agent.CGAGENT, "exec", "--")
_STATUS = ("Umask", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs")


@pytest.fixture
def limited(top: Group) -> Group:
    """A cgroup with 1 CPU and 256 MiB."""
    top.set_quota(100_000)
    top.set_memory(256 * MIB)
    return top


def both(command: Sequence[str], before: Callable[[], None] = lambda: None, keep: Sequence[int] = ()) -> list[str]:
    """What `command` prints when it is started plainly, and when cgagent becomes it."""
    printed = []
    for prefix in ((), EXEC):
        done = subprocess.run(
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=agent.TIMEOUT,
            env=agent.environment(),
            preexec_fn=before,
            pass_fds=keep,
            check=True,
        )
        printed.append(done.stdout)
    return printed


def status(text: str) -> dict[str, str]:
    """The lines of /proc/PID/status that exec must not change."""
    fields = dict(line.split(":\t", 1) for line in text.strip().split("\n"))
    return {name: fields[name] for name in _STATUS}


def unusual() -> None:
    """A parent's state that a careless program in between would lose."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
    os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_NOFILE, (321, 432))
    os.nice(3)


@pytest.mark.parametrize("before", [lambda: None, unusual], ids=["plain", "unusual"])
def test_signals_umask_and_capabilities_are_those_of_a_plain_start(before: Callable[[], None]) -> None:
    plain, through = both(["cat", "/proc/self/status"], before)

    assert status(through) == status(plain)
    if before is unusual:
        ignored = int(status(through)["SigIgn"], 16)
        assert ignored >> (signal.SIGHUP - 1) & 1
        assert ignored >> (signal.SIGINT - 1) & 1
        assert not ignored >> (signal.SIGPIPE - 1) & 1


def test_resource_limits_and_nice_value_are_those_of_a_plain_start() -> None:
    for command in (["cat", "/proc/self/limits"], ["nice"]):
        plain, through = both(command, unusual)
        assert through == plain


def test_descriptors_are_those_of_a_plain_start() -> None:
    reading, writing = os.pipe()
    try:
        command = ["sh", "-c", 'cd /proc/self/fd && for fd in *; do echo $fd; done; readlink 0; readlink "$1"', "fds"]
        plain, through = both([*command, str(reading)], keep=(reading, writing))
    finally:
        os.close(reading)
        os.close(writing)

    assert through == plain
    assert str(writing) in through.split("\n")
    assert "pipe:" in through


def test_closed_standard_descriptors_stay_closed() -> None:
    command = ["sh", "-c", 'ls /proc/self/fd > /dev/null; echo fine > "$1"', "closed"]
    for closed in ("<&-", ">&-", "2>&-"):
        with open("/dev/null", "rb") as null:
            words = ["sh", "-c", f'exec "$@" {closed}', "close", *EXEC, *command, "/dev/null"]
            done = subprocess.run(words, stdin=null, timeout=agent.TIMEOUT, env=agent.environment(), check=False)
        assert done.returncode == 0, closed


def test_the_command_has_the_pid_that_cgagent_had(limited: Group, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start([*EXEC, "sh", "-c", "echo $$"], limited)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{process.pid}\n"


def test_nothing_of_cgagent_remains(limited: Group, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start([*EXEC, "cat"], limited, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("echo\n")
    process.stdin.flush()
    assert process.stdout.readline() == "echo\n"

    assert limited.pids() == {process.pid}
    with open(f"/proc/{process.pid}/cmdline", "rb") as file:
        assert file.read() == b"cat\0"


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_commands_exit_code_is_passed_on(limited: Group, code: int) -> None:
    assert agent.run([*EXEC, "sh", "-c", f"exit {code}"], limited).returncode == code


def test_a_signal_that_ends_the_command_ends_it_for_its_parent_too(limited: Group) -> None:
    assert agent.run([*EXEC, "sh", "-c", "kill -USR1 $$"], limited).returncode == -signal.SIGUSR1


def test_a_signal_reaches_the_command(limited: Group, start: Callable[..., subprocess.Popen[str]]) -> None:
    trap = "trap 'echo caught; exit 7' TERM; echo here; while :; do sleep 0.05; done"
    process = start([*EXEC, "sh", "-c", trap], limited)
    assert process.stdout is not None
    process.stdout.readline()

    process.terminate()

    assert process.stdout.read() == "caught\n"
    assert process.wait() == 7


def test_a_command_that_is_not_there_or_not_executable(limited: Group, tmp_path: str) -> None:
    missing = agent.run([*EXEC, "/no/such/command"], limited)
    assert (missing.returncode, missing.stderr.count("\n")) == (127, 1)
    plain = os.path.join(tmp_path, "plain")
    with open(plain, "w", encoding="ascii") as file:
        file.write("no program\n")
    refused = agent.run([*EXEC, plain], limited)
    assert (refused.returncode, refused.stderr.count("\n")) == (126, 1)


def test_the_environment_is_the_callers_with_the_two_variables(limited: Group) -> None:
    plain, through = (
        set(agent.succeed([*prefix, "env"], limited, {"MINE": "kept=as it is", "EMPTY": ""}).stdout.split("\n"))
        for prefix in ((), EXEC)
    )

    assert through - plain == {"GOMAXPROCS=1", f"GOMEMLIMIT={256 * MIB * 9 // 10}"}
    assert plain <= through


def test_variables_that_are_set_already_are_left_alone(limited: Group) -> None:
    mine = {"GOMAXPROCS": "3", "GOMEMLIMIT": "64MiB"}
    done = agent.succeed([*EXEC, "env"], limited, mine)

    assert {"GOMAXPROCS=3", "GOMEMLIMIT=64MiB"} <= set(done.stdout.split("\n"))
    assert done.stderr.count("left alone") == 2
