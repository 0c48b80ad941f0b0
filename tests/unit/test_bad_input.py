"""Wrong input: one line on stderr that says what, where and how to mend it, the documented exit code, no file.

The table goes through `main` in this process; what needs another user, a full disk or a closed stream runs the
program as it is installed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cgagent.cli import COMMANDS, main
from support.accounts import runs_python
from support.trees import build, v2

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED, USAGE, NO_LIMITS, NOT_EXECUTABLE, NOT_FOUND = 1, 2, 3, 126, 127

POD = {"/cpu.max": "150000 100000\n", "/memory.max": "268435456\n", "/memory.high": "max\n"}
NO_LIMIT = {"/cpu.max": "max 100000\n", "/memory.max": "max\n", "/memory.high": "max\n"}

WRITE = "write --root pod --env-file out"


class Bad(NamedTuple):
    """Words for `cgagent`, the line it answers with after `cgagent COMMAND: `, its exit code, one NAME=VALUE."""

    words: str
    says: str
    code: int = USAGE
    env: str = ""


COMMAND_LINE = [
    Bad("wriet", "'wriet' is not a command: did you mean write?"),
    Bad("xyzzy", f"'xyzzy' is not a command: the commands are {', '.join(COMMANDS)}"),
    Bad("''", f"'' is not a command: the commands are {', '.join(COMMANDS)}"),
    Bad("help exce", "'exce' is not a command: did you mean exec?"),
    Bad("--verison", "'--verison' is not an option: did you mean --version?"),
    Bad("write --memory-rato 0.9", "--memory-rato is not an option: did you mean --memory-ratio?"),
    Bad("write --memory-rato=0.9", "--memory-rato is not an option: did you mean --memory-ratio?"),
    Bad("write --xyzzy", "--xyzzy is not an option: see 'cgagent write --help'"),
    Bad("write -x", "-x is not an option: see 'cgagent write --help'"),
    Bad("exec --env-fiel go.env -- true", "--env-fiel is not an option: did you mean --env-file?"),
    Bad("write --env-file", "--env-file: its value is missing: write --env-file PATH"),
    Bad("write --env-file --quiet", "--env-file: its value is missing: write --env-file PATH"),
    Bad(f"{WRITE} --quiet=yes", "--quiet takes no value: write --quiet alone"),
    Bad(f"{WRITE} stray", "'stray' is one word too many: see 'cgagent write --help'"),
    Bad(f"{WRITE} -- --quiet", "'--quiet' is one word too many: see 'cgagent write --help'"),
    Bad("write --root pod", "--env-file is missing: name the file to write, or - to print"),
    Bad("write --root pod --env-file=", "--env-file is missing: name the file to write, or - to print"),
    Bad("exec", "COMMAND is missing: write it after --, as in: cgagent exec -- ./orders"),
    Bad("exec --override --", "COMMAND is missing: write it after --, as in: cgagent exec -- ./orders"),
    Bad("exec -- ''", "COMMAND is missing: write it after --, as in: cgagent exec -- ./orders"),
    Bad("completion", "bash|zsh|fish is missing: see 'cgagent completion --help'"),
    Bad("completion bahs", "there is no completion for 'bahs': did you mean bash?"),
    Bad("completion tcsh", "there is no completion for 'tcsh': choose one of bash, zsh, fish"),
    Bad("wait --env-file directory", "--env-file: directory is a directory: name a file in it"),
    Bad(f"{WRITE} --binary absent", "--binary: there is no absent: name the Go program that the file is for", FAILED),
    Bad(
        "explain --root pod --binary absent",
        "--binary: cannot read absent: no such file or directory: name a program that the go command built",
        FAILED,
    ),
    Bad(
        "tune --memory-limit auto",
        "CGAGENT_TARGET_PID: 'x' is not a process ID: give a number, such as 1",
        USAGE,
        "CGAGENT_TARGET_PID=x",
    ),
    Bad("webhook --tls-cert-file x", "--tls-private-key-file is missing: the API server speaks TLS only"),
    Bad("webhook", "--tls-cert-file and --tls-private-key-file are missing: the API server speaks TLS only"),
    Bad("explain --root pod -o xml", "--output: 'xml' is not known: choose one of text, json, yaml"),
]

SIZE = "is not a size: write bytes or a suffix, as in 256Mi"
CPUS = "is not a CPU count: write 1.5, 1500m or a whole number"
RATIO = "is not a ratio: give a number above 0 and at most 1, such as 0.9"
LONG = "9" * 5000
VALUES = [
    *(
        Bad(f"{WRITE} --memory-limit '{text}'", f"--memory-limit: '{text}' {SIZE}")
        for text in (
            "",
            " ",
            "lots",
            "12Q",
            "Mi",
            "-1",
            "+1",
            "1e9",
            "0x10",
            "1,5Gi",
            "256 Mi",
            ".5Gi",
            "5.Gi",
            "nan",
            "inf",
            "١٢",
            "1Gi2",
            "1KiBB",
            "123456789012345678901",
        )
    ),
    Bad(f"{WRITE} --memory-limit 8Ei", "--memory-limit: '8Ei' is more than any machine has: give less than 8Ei"),
    Bad(f"{WRITE} --memory-reserve 1X", f"--memory-reserve: '1X' {SIZE}"),
    Bad(f"{WRITE} --memory-min=-5", f"--memory-min: '-5' {SIZE}"),
    Bad(f"{WRITE} --memory-limit \udcff", f"--memory-limit: '\\udcff' {SIZE}"),
    Bad(f"{WRITE} --memory-limit '1\n2'", f"--memory-limit: '1\\n2' {SIZE}"),
    Bad(f"{WRITE} --memory-limit '\x1b[31m'", f"--memory-limit: '\\x1b[31m' {SIZE}"),
    *(
        Bad(f"{WRITE} --memory-ratio '{text}'", f"--memory-ratio: '{text}' {RATIO}")
        for text in ("", "0", "0%", "1.5", "101%", "-0.5", "ninety", "nan", "0,9", "%")
    ),
    *(
        Bad(f"{WRITE} --cpu-limit '{text}'", f"--cpu-limit: '{text}' {CPUS}")
        for text in ("", "all", "m", "-1", "-500m", "1.5.0", "1500mm", "1500M", "1e3", "½")
    ),
    Bad(f"{WRITE} --min-procs 0", "--min-procs: '0' is not a whole number: give 1 or more"),
    Bad(f"{WRITE} --min-procs -1", "--min-procs: '-1' is not a whole number: give 1 or more"),
    Bad(f"{WRITE} --min-procs 1.5", "--min-procs: '1.5' is not a whole number: give 1 or more"),
    Bad(f"{WRITE} --max-procs ''", "--max-procs: '' is not a whole number: give 1 or more"),
    Bad(f"{WRITE} --max-procs two", "--max-procs: 'two' is not a whole number: give 1 or more"),
    Bad(f"{WRITE} --max-procs ²", "--max-procs: '²' is not a whole number: give 1 or more"),
    Bad(f"{WRITE} --min-procs 4 --max-procs 2", "--max-procs 2 is below --min-procs 4: raise it"),
    Bad(f"{WRITE} --cpu-rounding up", "--cpu-rounding: 'up' is not a rounding: choose one of ceil, floor, go"),
    Bad(f"{WRITE} --on-error retry", "--on-error: 'retry' is not known: choose one of fail, ignore"),
    Bad(f"{WRITE} --limits-from kernel", "--limits-from: 'kernel' is not known: choose one of auto, cgroup, given"),
    Bad(f"{WRITE} --format toml", "--format: 'toml' is not known: choose one of dotenv, docker, shell, json"),
    Bad(f"{WRITE} --format DOTENV", "--format: 'DOTENV' is not known: choose one of dotenv, docker, shell, json"),
    Bad(f"{WRITE} --merge --format json", "--merge does not go with --format json: choose dotenv, docker or shell"),
    Bad(
        "write --root pod --env-file - --merge",
        "--merge does not go with --env-file -: name the file whose lines are to be kept",
    ),
    *(
        Bad(
            f"{WRITE} --mode '{text}'", f"--mode: '{text}' is not a file mode: give octal permission bits, such as 0644"
        )
        for text in ("", "rw", "0999", "00644", "-1", "u=rw", "0o644")
    ),
    *(
        Bad(f"write --env-file out --pid '{text}'", f"--pid: '{text}' is not a process ID: give a number, such as 1")
        for text in ("", "0", "-1", "self", "1.0", "4194305", "99999999999999999999", "../1")
    ),
]

TWINS = [
    Bad(WRITE, f"CGAGENT_MEMORY_RATIO: '2' {RATIO}", env="CGAGENT_MEMORY_RATIO=2"),
    Bad(WRITE, f"CGAGENT_MEMORY_RESERVE: 'lots' {SIZE}", env="CGAGENT_MEMORY_RESERVE=lots"),
    Bad(WRITE, "CGAGENT_MIN_PROCS: 'x' is not a whole number: give 1 or more", env="CGAGENT_MIN_PROCS=x"),
    Bad(WRITE, "CGAGENT_OVERRIDE: 'maybe' is neither yes nor no: write true or false", env="CGAGENT_OVERRIDE=maybe"),
    Bad(WRITE, "CGAGENT_TRUST_GIVEN: '2' is neither yes nor no: write true or false", env="CGAGENT_TRUST_GIVEN=2"),
    Bad(
        WRITE,
        "CGAGENT_REQUIRE_LIMITS: 'si' is neither yes nor no: write true or false",
        env="CGAGENT_REQUIRE_LIMITS=si",
    ),
    Bad(WRITE, "CGAGENT_ON_ERROR: 'go on' is not known: choose one of fail, ignore", env="CGAGENT_ON_ERROR=go on"),
    Bad(WRITE, f"CGAGENT_CPU_LIMIT: 'x' {CPUS}", env="CGAGENT_CPU_LIMIT=x"),
    Bad(
        WRITE,
        "CGAGENT_CPU_LIMIT_MILLICORES: '1.5' is not a whole number: give 0 or more",
        env="CGAGENT_CPU_LIMIT_MILLICORES=1.5",
    ),
    Bad(WRITE, f"CGAGENT_MEMORY_LIMIT: 'x' {SIZE}", env="CGAGENT_MEMORY_LIMIT=x"),
    Bad(
        WRITE,
        "CGAGENT_MEMORY_LIMIT_BYTES: '64Mi' is not a whole number: give 0 or more",
        env="CGAGENT_MEMORY_LIMIT_BYTES=64Mi",
    ),
    Bad(
        "exec --env-file go.env -- true",
        "CGAGENT_OVERRIDE: 'maybe' is neither yes nor no: write true or false",
        env="CGAGENT_OVERRIDE=maybe",
    ),
]

FILES = [
    Bad(
        "write --root pod --env-file junk/out",
        "cannot write junk/out: not a directory: name a file in a directory",
        FAILED,
    ),
    Bad(
        f"write --root pod --env-file {'x' * 250}",
        f"cannot write {'x' * 250}: file name too long: give a shorter name",
        FAILED,
    ),
    Bad("write --root pod --env-file directory", "--env-file: directory is a directory: name a file in it"),
    Bad(
        "write --root pod --env-file absent/out",
        "cannot write absent/out: no such file or directory: create the directory first",
        FAILED,
    ),
    Bad(
        "write --root pod --merge --env-file fifo",
        "cannot read fifo: not a regular file: remove it or name another",
        FAILED,
    ),
    Bad(
        "write --root pod --merge --env-file huge",
        "cannot read huge: more than 1048576 bytes: name an env file",
        FAILED,
    ),
    Bad(
        "write --root absent --env-file out",
        "--root: there is no absent: give a file of cgagent capture, or the root of a captured or mounted tree",
        FAILED,
    ),
    Bad(
        "write --root junk --env-file out",
        "junk: it is no gzip file, or a damaged one: name a file that cgagent capture wrote",
        FAILED,
    ),
    Bad(
        "write --root directory --env-file out",
        "{tmp}/directory holds no proc/self: give the root of a captured or mounted tree",
        FAILED,
    ),
    Bad(
        "write --root pod --pid 7 --env-file out",
        "{tmp}/pod holds no proc/7: give the root of a captured or mounted tree",
        FAILED,
    ),
    Bad("write --pid 4194304 --env-file out", "there is no process 4194304: give the PID of a running process", FAILED),
    Bad(
        f"{WRITE} --limits-dir absent",
        "--limits-dir: absent is not a directory: name the mounted downward-API volume",
        FAILED,
    ),
    Bad(
        f"{WRITE} --limits-dir junk",
        "--limits-dir: junk is not a directory: name the mounted downward-API volume",
        FAILED,
    ),
    Bad(
        f"{WRITE} --limits-dir pipes",
        "cannot read pipes/cpu_limit: not a regular file: mount the volume so that this user can read it",
        FAILED,
    ),
    Bad(f"{WRITE} --limits-dir words", "words/memory_limit_bytes: 'a lot' is not a whole number: give 0 or more"),
    Bad(f"{WRITE} --limits-dir binary", f"binary/cpu_limit: '\\x00\\x01\\udcff' {CPUS}"),
    Bad("exec --env-file absent -- true", "cannot read absent: no such file: cgagent write makes it", FAILED),
    Bad(
        "exec --env-file directory -- true",
        "cannot read directory: not a regular file: remove it or name another",
        FAILED,
    ),
    Bad("exec --env-file fifo -- true", "cannot read fifo: not a regular file: remove it or name another", FAILED),
    Bad("exec --env-file huge -- true", "cannot read huge: more than 1048576 bytes: name an env file", FAILED),
    Bad("exec --env-file json -- true", "json is JSON: write it without --format json", FAILED),
    Bad("exec --env-file evil -- true", "evil: GOMAXPROCS is '$(reboot)': cgagent write makes this file anew", FAILED),
    Bad(
        "exec --env-file binary/env -- true",
        "binary/env: GOMEMLIMIT is '\\x00\\udcfe': cgagent write makes this file anew",
        FAILED,
    ),
    Bad("exec -- xyzzy-not-there", "xyzzy-not-there: not found: check the name and PATH", NOT_FOUND),
    Bad("exec -- ./absent", "./absent: not found: check the name and PATH", NOT_FOUND),
    Bad("exec -- ./junk", "./junk: permission denied: name a file that this user may execute", NOT_EXECUTABLE),
    Bad(
        "exec -- ./directory", "./directory: permission denied: name a file that this user may execute", NOT_EXECUTABLE
    ),
    Bad(
        "exec -- ./no-interpreter",
        "./no-interpreter: found, but not what it needs to run: "
        "install the interpreter of its #! line, or the loader that it was linked for",
        NOT_EXECUTABLE,
    ),
    Bad(
        "exec -- ./no-program",
        "./no-program: exec format error: "
        "a script starts with a line such as #!/bin/sh, a program is built for this machine",
        NOT_EXECUTABLE,
    ),
]

# What is off in the pod's tree, the files that make it so, the rest of what `write` says, and the variable.
TREES: dict[str, tuple[dict[str, str], str, str]] = {
    "a quota that is no number": (
        {"/sys/fs/cgroup/cpu.max": "lots 100000\n"},
        "/sys/fs/cgroup/cpu.max is malformed: expected a whole number, got 'lots'",
        "GOMAXPROCS",
    ),
    "a quota of nothing": (
        {"/sys/fs/cgroup/cpu.max": "0 100000\n"},
        "/sys/fs/cgroup/cpu.max is malformed: expected a quota and a period above 0, got '0 100000'",
        "GOMAXPROCS",
    ),
    "a period of nothing": (
        {"/sys/fs/cgroup/cpu.max": "100000 0\n"},
        "/sys/fs/cgroup/cpu.max is malformed: expected a quota and a period above 0, got '100000 0'",
        "GOMAXPROCS",
    ),
    "a negative limit": (
        {"/sys/fs/cgroup/memory.max": "-5\n"},
        "/sys/fs/cgroup/memory.max is malformed: expected a whole number, got '-5'",
        "GOMEMLIMIT",
    ),
    "an empty file": (
        {"/sys/fs/cgroup/memory.max": ""},
        "/sys/fs/cgroup/memory.max is malformed: expected a whole number, got ''",
        "GOMEMLIMIT",
    ),
    "binary rubbish": (
        {"/sys/fs/cgroup/memory.max": "\x00\udcff\x1b[31m\n"},
        "/sys/fs/cgroup/memory.max is malformed: expected a whole number, got '\\x00\\udcff\\x1b[31m'",
        "GOMEMLIMIT",
    ),
    "a file without an end": (
        {"/sys/fs/cgroup/memory.max": "9" * (2 << 20)},
        "cannot read /sys/fs/cgroup/memory.max: more than 1048576 bytes",
        "GOMEMLIMIT",
    ),
    "a directory in the place of a file": (
        {"/sys/fs/cgroup/memory.high/file": ""},
        "cannot read /sys/fs/cgroup/memory.high: not a regular file",
        "GOMEMLIMIT",
    ),
    "a cgroup file that is none": (
        {"/proc/self/cgroup": "nonsense\n"},
        "/proc/self/cgroup is malformed: expected ID:CONTROLLERS:/PATH, got 'nonsense'",
        "GOMAXPROCS",
    ),
    "a mountinfo that is cut off": (
        {"/proc/self/mountinfo": "25 21 0:22 / /sys/fs\n"},
        "/proc/self/mountinfo is malformed: expected ten fields and a dash, got '25 21 0:22 / /sys/fs'",
        "GOMAXPROCS",
    ),
    "a hierarchy that is not mounted": (
        {"/proc/self/cgroup": "4:memory:/a\n0::/\n"},
        "its cgroup /a (memory) is in a hierarchy that no mount here shows",
        "GOMEMLIMIT",
    ),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the things that the table names, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "pod", v2(POD))
    build(tmp_path / "free", v2(NO_LIMIT))
    for name in ("directory", "pipes", "words", "binary"):
        (tmp_path / name).mkdir()
    for name in ("fifo", "pipes/cpu_limit"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "junk").write_bytes(bytes(range(256)))
    (tmp_path / "huge").write_bytes(b"#" * ((1 << 20) + 1))
    (tmp_path / "words/memory_limit_bytes").write_text("a lot\n")
    (tmp_path / "binary/cpu_limit").write_bytes(b"\0\1\xff\n")
    (tmp_path / "binary/env").write_bytes(b"\x80\xff\0=\n\nGOMEMLIMIT='\0\xfe'\n")
    (tmp_path / "evil").write_text("GOMAXPROCS=$(reboot)\n")
    (tmp_path / "go.env").write_text("GOMAXPROCS='2'\n")
    (tmp_path / "json").write_text('{"GOMAXPROCS": "2"}\n')
    for name, text in (("no-interpreter", "#!/xyzzy/not/there\n"), ("no-program", "just words\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def refuses(bad: Bad, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the words of `bad` and hold all that its outcome must be."""
    words = shlex.split(bad.words)
    before = sorted(os.listdir(place))
    code = main(words)
    captured = capsys.readouterr()
    name = f"cgagent {words[0]}" if words[0] in COMMANDS else "cgagent"
    assert captured.err == f"{name}: {bad.says.replace('{tmp}', str(place))}\n"
    assert (code, captured.out) == (bad.code, "")
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize(
    "bad", [*COMMAND_LINE, *VALUES, *TWINS, *FILES], ids=lambda bad: f"{bad.env} {bad.words}".strip()[:80]
)
def test_bad_input_is_refused_in_one_line(
    bad: Bad, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if bad.env:
        monkeypatch.setenv(*bad.env.split("=", 1))
    refuses(bad, place, capsys)


@pytest.mark.parametrize(("files", "says", "variable"), TREES.values(), ids=TREES)
def test_a_limit_that_cannot_be_known_is_not_guessed(
    files: dict[str, str], says: str, variable: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pod = {path: text for path, text in v2(POD).items() if not any(name.startswith(f"{path}/") for name in files)}
    build(place / "off", {**pod, **files})
    mend = f"mend it, or leave {variable} out with --on-error ignore"
    refuses(Bad("write --root off --env-file out", f"{variable}: {says}: {mend}", FAILED), place, capsys)


@pytest.mark.parametrize(("files", "says", "variable"), TREES.values(), ids=TREES)
def test_on_error_ignore_leaves_it_out_says_so_and_goes_on(
    files: dict[str, str], says: str, variable: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pod = {path: text for path, text in v2(POD).items() if not any(name.startswith(f"{path}/") for name in files)}
    build(place / "off", {**pod, **files})
    assert main(["write", "--root", "off", "--env-file", "out", "--on-error", "ignore"]) == 0
    captured = capsys.readouterr()
    assert f"cgagent write: {variable} left out: {says}\n" in captured.err
    assert f"{variable}=" not in (place / "out").read_text()


def test_require_limits_ends_with_3_where_none_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = "no CPU and no memory limit found, and --require-limits asks for one"
    refuses(Bad("write --root free --env-file out --require-limits", says, NO_LIMITS), place, capsys)


def test_nothing_left_after_the_reserve_is_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = (
        "GOMEMLIMIT: 90% of 256Mi less 256Mi reserve (/sys/fs/cgroup/memory.max) leaves 0, and more than nothing is"
        " wanted: mend it, or leave GOMEMLIMIT out with --on-error ignore"
    )
    refuses(Bad(f"{WRITE} --memory-reserve 256Mi", says, FAILED), place, capsys)


def test_less_than_the_minimum_is_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = (
        "GOMEMLIMIT: 90% of 256Mi (/sys/fs/cgroup/memory.max) leaves 230.4Mi, and --memory-min 1Gi is wanted:"
        " mend it, or leave GOMEMLIMIT out with --on-error ignore"
    )
    refuses(Bad(f"{WRITE} --memory-min 1Gi", says, FAILED), place, capsys)


def test_an_endless_word_is_told_by_its_two_ends(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del place
    assert main(["write", "--env-file", "out", "--memory-limit", "9" * 100_000]) == USAGE
    line = capsys.readouterr().err
    assert line.startswith("cgagent write: --memory-limit: '99999")
    assert " ... 9999" in line
    assert line.endswith(f"99' {SIZE}\n")
    assert len(line) < 2000


# What follows runs the installed program: it needs streams, users or disks of its own.

PROGRAM = os.path.join(os.path.dirname(sys.executable), "cgagent")
as_nobody = pytest.mark.skipif(not runs_python(), reason="nobody can't run this interpreter, or we aren't root")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and other users are root's to have")


def run(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    settings: dict[str, object] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "timeout": 60, **options}
    return subprocess.run([PROGRAM, *words], check=False, **settings)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of four pages."""
    point = tmp_path / "mounted"
    point.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", point], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no mounting here: {done.stderr.decode().strip()}")
    yield point
    subprocess.run(["umount", point], check=True)


@as_root
def test_a_full_disk_keeps_the_old_file_whole(place: Path, mounted: Path) -> None:
    (mounted / "out").write_text("GOMAXPROCS='7'\n")
    with pytest.raises(OSError, match="No space left"):
        (mounted / "filler").write_bytes(bytes(1 << 20))
    done = run("write", "--root", str(place / "pod"), "--env-file", str(mounted / "out"))
    says = f"cgagent write: cannot write {mounted}/out: no space left on device: free some space there\n"
    assert (done.returncode, done.stderr.decode()) == (FAILED, says)
    assert (mounted / "out").read_text() == "GOMAXPROCS='7'\n"
    assert sorted(os.listdir(mounted)) == ["filler", "out"]


@as_root
def test_a_read_only_file_system_keeps_the_old_file_whole(place: Path, mounted: Path) -> None:
    (mounted / "out").write_text("GOMAXPROCS='7'\n")
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    done = run("write", "--root", str(place / "pod"), "--env-file", str(mounted / "out"))
    hint = "mount a writable volume there, such as an emptyDir"
    says = f"cgagent write: cannot write {mounted}/out: read-only file system: {hint}\n"
    assert (done.returncode, done.stderr.decode()) == (FAILED, says)
    assert (mounted / "out").read_text() == "GOMAXPROCS='7'\n"


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that another user can reach; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@as_nobody
def test_another_users_directory_is_named_as_the_reason(open_to_all: Path) -> None:
    done = run("write", "--env-file", str(open_to_all / "out"), user=65534, group=65534, cwd="/")
    says = f"cannot write {open_to_all}/out: permission denied: let this user write to the directory"
    assert (done.returncode, done.stderr.decode()) == (FAILED, f"cgagent write: {says}\n")


@as_nobody
def test_an_env_file_that_may_not_be_read_is_named_as_the_reason(open_to_all: Path) -> None:
    (open_to_all / "secret").write_text("GOMAXPROCS='2'\n")
    (open_to_all / "secret").chmod(0o600)
    done = run("exec", "--env-file", str(open_to_all / "secret"), "--", "true", user=65534, group=65534, cwd="/")
    says = f"cgagent exec: cannot read {open_to_all}/secret: permission denied: let this user read the file\n"
    assert (done.returncode, done.stderr.decode()) == (FAILED, says)


def test_a_process_that_has_ended_is_named(place: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    done = run("write", "--pid", str(ended.pid), "--env-file", str(place / "out"))
    says = f"cgagent write: there is no process {ended.pid}: give the PID of a running process\n"
    assert (done.returncode, done.stderr.decode()) == (FAILED, says)


def test_a_full_standard_output_is_an_error(place: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = run("write", "--root", str(place / "pod"), "--env-file", "-", stdout=full)
    reason = "cannot write to standard output: no space left on device: send it to where it can be written"
    assert (done.returncode, done.stderr.decode()) == (FAILED, f"cgagent write: {reason}\n")


def test_a_closed_standard_output_is_an_error(place: Path) -> None:
    script = 'exec "$0" "$@" >&-'
    words = ["sh", "-c", script, PROGRAM, "write", "--root", str(place / "pod"), "--env-file", "-"]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    reason = "cannot write to standard output: not writable: send it to where it can be written"
    assert (done.returncode, done.stderr.decode()) == (FAILED, f"cgagent write: {reason}\n")


def test_a_closed_or_full_standard_error_does_not_change_the_outcome(place: Path) -> None:
    for script in ('exec "$0" "$@" 2>&-', 'exec "$0" "$@" 2>/dev/full'):
        words = ["sh", "-c", script, PROGRAM, "write", "--root", str(place / "pod"), "--env-file"]
        done = subprocess.run([*words, "-", "--memory-ratio", "7"], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (USAGE, b"")
        done = subprocess.run([*words, str(place / "out")], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, b"")


def test_bytes_that_are_no_text_are_shown_escaped(place: Path) -> None:
    done = run(os.fsencode(place / "x").decode(), "--\udcff")
    assert done.returncode == USAGE
    done = subprocess.run(
        [PROGRAM, "write", "--root", b"\xff\xfe", "--env-file", place / "out"], capture_output=True, check=False
    )
    says = (
        "--root: there is no \\udcff\\udcfe: give a file of cgagent capture, or the root of a captured or mounted tree"
    )
    assert (done.returncode, done.stderr.decode()) == (FAILED, f"cgagent write: {says}\n")
