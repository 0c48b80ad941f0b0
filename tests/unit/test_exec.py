"""`cgagent exec`: the command gets the two variables, and all else as if it had been started directly.

The installed program is run here: becoming another program is what has to be seen.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cgagent.errors import EXIT_FAILURE, EXIT_NO_LIMITS, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_USAGE

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = os.path.join(os.path.dirname(sys.executable), "cgagent")
GIVEN = ("--cpu-limit", "1500m", "--memory-limit", "1000000", "--trust-given")
# What follows from GIVEN with two CPUs or more: ceil(1.5), and floor of nine tenths.
PROCS, MEMLIMIT = str(min(2, os.cpu_count() or 1)), "900000"

_TELL = """
import json, os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
json.dump({
    "pid": os.getpid(),
    "argv": [os.fsencode(word).hex() for word in sys.argv[1:]],
    "env": {os.fsencode(k).hex(): os.fsencode(v).hex() for k, v in os.environ.items()},
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "mask": int(status["SigBlk"], 16),
    "cwd": os.getcwd(),
}, sys.stdout)
"""
# -I: nothing of the environment changes the witness; the locale is set lest Python itself adds LC_CTYPE.
WITNESS = (sys.executable, "-I", "-c", _TELL)


def cgagent(
    *words: str | bytes, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run `cgagent exec` with `words` in an environment of `env` alone."""
    environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **(env or {})}
    return subprocess.run(
        [PROGRAM, "exec", *words], env=environ, capture_output=True, timeout=60, check=False, **options
    )


def told(done: subprocess.CompletedProcess[bytes]) -> Any:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def variables(done: subprocess.CompletedProcess[bytes]) -> dict[str, str]:
    """The environment of the command, an `env -0`."""
    assert done.returncode == 0, done.stderr.decode()
    pairs = (entry.partition("=") for entry in done.stdout.decode().split("\0") if entry)
    return {name: value for name, _, value in pairs}


# The variables.


def test_both_variables_are_set_from_the_decision() -> None:
    env = variables(cgagent(*GIVEN, "--", "env", "-0"))
    assert (env["GOMAXPROCS"], env["GOMEMLIMIT"]) == (PROCS, MEMLIMIT)


def test_nothing_else_of_the_environment_changes() -> None:
    env = variables(cgagent(*GIVEN, "--", "env", "-0", env={"ODD": "a b\n'c'=\u00e4", "EMPTY": ""}))
    assert env == {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "ODD": "a b\n'c'=\u00e4",
        "EMPTY": "",
        "GOMAXPROCS": PROCS,
        "GOMEMLIMIT": MEMLIMIT,
    }


def test_an_empty_environment_gets_the_two_variables_and_no_more() -> None:
    # In the C locale Python itself adds LC_CTYPE to its environment (PEP 538): it must not reach the command.
    done = subprocess.run(
        ["env", "-i", PROGRAM, "exec", *GIVEN, "--", "/usr/bin/env", "-0"], capture_output=True, check=False
    )
    assert variables(done) == {"GOMAXPROCS": PROCS, "GOMEMLIMIT": MEMLIMIT}


def test_a_locale_that_the_caller_chose_reaches_the_command() -> None:
    done = subprocess.run(
        ["env", "-i", "LC_CTYPE=C.UTF-8", PROGRAM, "exec", *GIVEN, "--", "/usr/bin/env", "-0"],
        capture_output=True,
        check=False,
    )
    assert variables(done)["LC_CTYPE"] == "C.UTF-8"


def test_bytes_of_the_environment_that_are_no_text_reach_the_command() -> None:
    done = subprocess.run(
        [os.fsencode(PROGRAM), *map(os.fsencode, ("exec", *GIVEN, "--", "env", "-0"))],
        env={b"PATH": b"/usr/bin:/bin", b"ODD": b"\xff\xfe"},
        capture_output=True,
        check=False,
    )
    assert b"ODD=\xff\xfe\0" in done.stdout


def test_variables_that_are_already_set_are_respected_and_reported() -> None:
    done = cgagent(*GIVEN, "--", "env", "-0", env={"GOMAXPROCS": "7", "GOMEMLIMIT": "1GiB"})
    env = variables(done)
    assert (env["GOMAXPROCS"], env["GOMEMLIMIT"]) == ("7", "1GiB")
    assert done.stderr.decode().splitlines() == [
        "cgagent exec: GOMAXPROCS left alone: the environment has '7' (--override decides anew)",
        "cgagent exec: GOMEMLIMIT left alone: the environment has '1GiB' (--override decides anew)",
    ]


def test_an_empty_variable_counts_as_unset_as_it_does_for_go() -> None:
    assert variables(cgagent(*GIVEN, "--", "env", "-0", env={"GOMEMLIMIT": ""}))["GOMEMLIMIT"] == MEMLIMIT


@pytest.mark.parametrize(("words", "env"), [(["--override"], {}), ([], {"CGAGENT_OVERRIDE": "yes"})])
def test_override_decides_anew(words: list[str], env: dict[str, str]) -> None:
    done = cgagent(*GIVEN, *words, "--", "env", "-0", env={"GOMAXPROCS": "7", **env})
    assert variables(done)["GOMAXPROCS"] == PROCS
    assert done.stderr == b""


def test_the_policy_is_heeded() -> None:
    done = cgagent("--memory-ratio", "50%", "--memory-limit", "1000000", "--", "env", "-0")
    assert variables(done)["GOMEMLIMIT"] == "500000"


# The env file.


@pytest.fixture
def go_env(tmp_path: Path) -> Path:
    path = tmp_path / "go.env"
    path.write_text("# kept by hand\nOTHER='1'\nGOMAXPROCS='3'\nGOMEMLIMIT='77'\n")
    return path


def test_an_env_file_gives_the_values(go_env: Path) -> None:
    env = variables(cgagent("--env-file", str(go_env), "--", "env", "-0"))
    assert (env["GOMAXPROCS"], env["GOMEMLIMIT"]) == ("3", "77")
    assert "OTHER" not in env


@pytest.mark.parametrize("style", ["dotenv", "docker", "shell"])
def test_what_write_made_exec_takes(style: str, tmp_path: Path) -> None:
    path = str(tmp_path / "go.env")
    subprocess.run([PROGRAM, "write", "--quiet", *GIVEN, "--env-file", path, "--format", style], check=True)
    env = variables(cgagent("--env-file", path, "--", "env", "-0"))
    assert (env["GOMAXPROCS"], env["GOMEMLIMIT"]) == (PROCS, MEMLIMIT)


def test_the_environment_goes_before_the_env_file(go_env: Path) -> None:
    done = cgagent("--env-file", str(go_env), "--", "env", "-0", env={"GOMAXPROCS": "7"})
    env = variables(done)
    assert (env["GOMAXPROCS"], env["GOMEMLIMIT"]) == ("7", "77")
    says = "cgagent exec: GOMAXPROCS left alone: the environment has '7' (--override takes the file's)\n"
    assert done.stderr.decode() == says


@pytest.mark.parametrize(("words", "env"), [(["--override"], {}), ([], {"CGAGENT_OVERRIDE": "1"})])
def test_with_override_the_env_file_goes_first(words: list[str], env: dict[str, str], go_env: Path) -> None:
    done = cgagent("--env-file", str(go_env), *words, "--", "env", "-0", env={"GOMAXPROCS": "7", **env})
    assert variables(done)["GOMAXPROCS"] == "3"


def test_without_its_env_file_the_command_does_not_start(tmp_path: Path) -> None:
    done = cgagent("--env-file", "absent", "--", "touch", "started", cwd=tmp_path)
    assert done.returncode == EXIT_FAILURE
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("content", [None, "GOMAXPROCS='$(reboot)'\n"])
@pytest.mark.parametrize(("words", "env"), [(["--on-error", "ignore"], {}), ([], {"CGAGENT_ON_ERROR": "ignore"})])
def test_on_error_ignore_starts_the_command_without_them(
    words: list[str], env: dict[str, str], content: str | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "go.env").write_text(content)
    done = cgagent("--env-file", "go.env", *words, "--", "env", "-0", env=env, cwd=tmp_path)
    assert "GOMAXPROCS" not in variables(done)
    assert done.stderr.decode().startswith("cgagent exec: nothing set: ")


def test_require_limits_ends_with_3_where_the_env_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "go.env").write_text("# written by cgagent 0.1.0: cpu no limit, memory no limit\n")
    done = cgagent("--env-file", "go.env", "--require-limits", "--", "touch", "started", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_NO_LIMITS, b"")
    assert not (tmp_path / "started").exists()


def test_require_limits_ends_with_3_where_no_limit_is_given(tmp_path: Path) -> None:
    done = cgagent("--limits-from", "given", "--require-limits", "--", "touch", "started", cwd=tmp_path)
    says = "cgagent exec: no CPU and no memory limit found, and --require-limits asks for one\n"
    assert (done.returncode, done.stderr.decode()) == (EXIT_NO_LIMITS, says)
    assert not (tmp_path / "started").exists()


# The process.


def test_the_command_has_the_same_pid_and_directory(tmp_path: Path) -> None:
    command = [PROGRAM, "exec", *GIVEN, "--", *WITNESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        witness = json.loads(process.stdout.read())
    assert (witness["pid"], witness["cwd"]) == (process.pid, str(tmp_path))


def test_the_commands_words_arrive_to_the_byte() -> None:
    words = [b"", b"--help", b"--", b"-x", b"a b", b"\xff\xfe", b"\xc3\xa4", b"'\"$(x)`", b"\n", b"--env-file"]
    assert told(cgagent(*GIVEN, "--", *WITNESS, *words))["argv"] == [word.hex() for word in words]


def test_the_commands_own_options_need_no_dashes_before_it() -> None:
    assert cgagent(*GIVEN, "echo", "--help", "-n").stdout == b"--help -n\n"


def test_file_descriptors_reach_the_command_and_no_other_does() -> None:
    reader, writer = os.pipe()
    try:
        direct = json.loads(subprocess.run(WITNESS, pass_fds=[reader, writer], capture_output=True, check=True).stdout)
        through = told(cgagent(*GIVEN, "--", *WITNESS, pass_fds=[reader, writer]))
    finally:
        os.close(reader)
        os.close(writer)
    assert {0, 1, 2, reader, writer} <= set(direct["fds"])
    assert through["fds"] == direct["fds"]


def test_standard_input_is_not_read() -> None:
    assert cgagent(*GIVEN, "--", "cat", input=b"for the command").stdout == b"for the command"


def _ignored_and_caught(**options: Any) -> tuple[int, int]:
    """The signals that the command, a `cat` without handlers of its own, ignores and catches, as bit sets."""
    done = cgagent(*GIVEN, "--", "cat", "/proc/self/status", **options)
    status = dict(line.split(":", 1) for line in done.stdout.decode().splitlines())
    # 32 and 33 are glibc's own; its posix_spawn, by which make starts commands, hands them on ignored.
    visible = ~(0b11 << 31)
    return int(status["SigIgn"], 16) & visible, int(status["SigCgt"], 16) & visible


def _ignored_here() -> int:
    """What our own caller had ignored, as nohup(1) does; Python's own two aside."""
    own = (signal.SIGPIPE, signal.SIGXFSZ)
    ignored = (one for one in signal.valid_signals() if signal.getsignal(one) == signal.SIG_IGN and one not in own)
    return sum(1 << (one - 1) for one in ignored)


def test_signals_have_their_default_action() -> None:
    assert _ignored_and_caught() == (_ignored_here(), 0)


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    # As under nohup(1): Go leaves SIGHUP ignored where it finds it so.
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    assert _ignored_and_caught(preexec_fn=ignore) == (_ignored_here() | 1 << (signal.SIGHUP - 1), 0)


def test_a_blocked_signal_stays_blocked() -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    assert told(cgagent(*GIVEN, "--", *WITNESS, preexec_fn=block))["mask"] == 1 << (signal.SIGUSR1 - 1)


@pytest.mark.parametrize("code", [0, 1, 3, 78, 125, 255])
def test_it_ends_with_the_commands_code(code: int) -> None:
    assert cgagent(*GIVEN, "--", "sh", "-c", f"exit {code}").returncode == code


def test_it_ends_by_the_commands_signal() -> None:
    assert cgagent(*GIVEN, "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("name", "mode", "content", "code"),
    [
        ("absent", None, "", EXIT_NOT_FOUND),
        ("no-permission", 0o644, "#!/bin/sh\n", EXIT_NOT_EXECUTABLE),
        ("no-interpreter", 0o755, "#!/xyzzy\n", EXIT_NOT_EXECUTABLE),
        ("no-program", 0o755, "words\n", EXIT_NOT_EXECUTABLE),
    ],
)
@pytest.mark.parametrize("form", ["{}", "./{}"])
def test_what_cannot_be_started_ends_as_in_a_shell(
    name: str, mode: int | None, content: str, code: int, form: str, tmp_path: Path
) -> None:
    if mode is not None:
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    done = cgagent("--", form.format(name), env={"PATH": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.decode().startswith(f"cgagent exec: {form.format(name)}: ")
    assert done.stderr.count(b"\n") == 1


def test_a_wrong_option_keeps_the_command_from_starting(tmp_path: Path) -> None:
    done = cgagent("--memory-ratio", "7", "--", "touch", "started", cwd=tmp_path)
    assert done.returncode == EXIT_USAGE
    assert not (tmp_path / "started").exists()


def test_a_command_that_does_not_start_leaves_our_own_signals_as_they_were() -> None:
    from cgagent.cli import main

    before = signal.getsignal(signal.SIGPIPE)
    assert main(["exec", "--cpu-limit", "1", "--", "/nowhere/to/be/found"]) == EXIT_NOT_FOUND
    assert signal.getsignal(signal.SIGPIPE) == before == signal.SIG_IGN
