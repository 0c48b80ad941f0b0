"""The command line as a whole: help, version, streams and interrupts, what a start loads, completion."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cgagent import __version__, completion
from cgagent.cli import COMMANDS, main, parser_of
from cgagent.parser import Parser
from support.trees import build, v2

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = os.path.join(os.path.dirname(sys.executable), "cgagent")
POD = {"/cpu.max": "150000 100000\n", "/memory.max": "268435456\n"}


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60, **options}
    return subprocess.run([PROGRAM, *words], check=False, **settings)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def pod(tmp_path: Path) -> str:
    return build(tmp_path / "pod", v2(POD))


# Help.


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command_with_what_it_does(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for name, (_, text) in COMMANDS.items():
        assert f"  {name:<12}{text}\n" in captured.out


def test_no_command_at_all_is_wrong_usage_and_shows_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: cgagent COMMAND [options]\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_each_of_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", name]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cgagent {name} ")
    for argument in parser_of(name):
        assert all(option in text for option in argument.names if option.startswith("-"))
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("name", ["write", "exec", "explain"])
def test_the_help_says_how_on_error_and_the_exit_codes_work(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([name, "--help"])
    text = capsys.readouterr().out
    assert "--on-error fail|ignore" in text
    assert "exit codes: " in text
    assert "CGAGENT_MEMORY_RATIO" in text


def test_help_after_other_options_still_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["write", "--env-file", "x", "-h"]) == 0
    assert capsys.readouterr().out.startswith("usage: cgagent write")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"cgagent {__version__}\n", "")


def test_the_module_runs_as_the_program_does() -> None:
    done = subprocess.run([sys.executable, "-m", "cgagent", "--version"], capture_output=True, check=True, text=True)
    assert done.stdout == f"cgagent {__version__}\n"


# The option parser.


@pytest.fixture
def parser() -> Parser:
    made = Parser("cgagent try", "", "")
    made.add_argument("file", nargs="?")
    made.add_argument("-o", "--output", metavar="FORMAT")
    made.add_argument("-i", "--interactive", action="store_true")
    made.add_argument("-t", "--tty", action="store_const", const="true")
    made.add_argument("-e", "--env", action="append")
    made.add_argument("--web.listen-address", dest="address", default=":9100")
    return made


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {"file": None, "output": None, "interactive": False, "tty": None, "env": None, "address": ":9100"}),
        ("--output json", {"output": "json"}),
        ("--output=json", {"output": "json"}),
        ("--output=", {"output": ""}),
        ("--output=a=b", {"output": "a=b"}),
        ("-o json", {"output": "json"}),
        ("-ojson", {"output": "json"}),
        ("-o=json", {"output": "json"}),
        ("-o -", {"output": "-"}),
        ("-o -1", {"output": "-1"}),
        ("-o a -o b", {"output": "b"}),
        ("-it", {"interactive": True, "tty": "true"}),
        ("-tio json", {"interactive": True, "tty": "true", "output": "json"}),
        ("-e A=1 --env B=2", {"env": ["A=1", "B=2"]}),
        ("--web.listen-address :1", {"address": ":1"}),
        ("name -i", {"file": "name", "interactive": True}),
        ("-i name", {"file": "name", "interactive": True}),
        ("-", {"file": "-"}),
        ("-- -i", {"file": "-i", "interactive": False}),
    ],
)
def test_words_are_read_as_getopt_long_reads_them(words: str, expected: dict[str, object], parser: Parser) -> None:
    arguments = parser.parse(words.split())
    assert {name: getattr(arguments, name) for name in expected} == expected


@pytest.mark.parametrize("words", ["", "a", "a -b --help", "-- -h", "-- a -- b", "a --"])
def test_a_commands_words_are_left_as_they_are(words: str) -> None:
    made = Parser("cgagent try", "", "")
    made.add_argument("--quiet", action="store_true")
    made.add_argument("command", nargs="...")
    arguments = made.parse(["--quiet", *words.split()])
    assert arguments is not None
    assert arguments.quiet is True
    assert arguments.command == words.removeprefix("-- ").split()


# Streams and interrupts.


def test_a_reader_that_goes_away_is_no_reason_to_complain(pod: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("explain", "--root", pod, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_control_c_ends_it_at_once_and_without_a_traceback(pod: str) -> None:
    # A pipe that is full and that nobody reads holds the program while it prints.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    assert os.write(writer, bytes(1 << 20)) < 1 << 20
    os.set_blocking(writer, True)
    words = [PROGRAM, "write", "--root", pod, "--env-file", "-"]
    # A shell starts what runs in the background (`make test &`) with SIGINT ignored, which would be inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(words, stdout=writer, stderr=subprocess.PIPE) as process:
        signal.signal(signal.SIGINT, before)
        _wait_until_writing(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    os.close(reader)
    os.close(writer)
    assert (process.returncode, errors) == (130, b"")


def _wait_until_writing(pid: int) -> None:
    """Until the process sleeps in write(2) to a pipe."""
    deadline = time.monotonic() + 30
    where = ""
    while "pipe_write" not in where:
        assert time.monotonic() < deadline, f"it never wrote, but was in {where!r}"
        time.sleep(0.01)
        with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
            where = file.read()


def test_names_that_are_no_utf_8_are_printed_escaped(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff"
    tree = build(os.fsdecode(name), v2(POD))
    done = subprocess.run(
        [PROGRAM, "write", "--root", os.fsencode(tree), "--env-file", name + b"/out"], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert b"/\\udcff/out written: GOMAXPROCS=2" in done.stderr
    assert os.path.exists(name + b"/out")


# Start-up. Time is the benchmarks' business; here is what makes it.

HEAVY = {"argparse", "asyncio", "dataclasses", "enum", "json", "logging", "pathlib", "re", "shutil", "subprocess",
         "typing", "prometheus_client", "watchdog", "yaml", "difflib", "gettext", "locale"}  # fmt: skip
_REPORT = "import sys; from cgagent.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"


def loaded(*words: str) -> set[str]:
    """The modules that are loaded once the command has run in an interpreter of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # -I -S: what the site's own .pth files load is not ours.
    source = os.path.dirname(os.path.dirname(completion.__file__))
    code = f"import sys; sys.path.append({os.path.dirname(source)!r}); {_REPORT}"
    command = [sys.executable, "-I", "-S", "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environ)
    return set(done.stderr.splitlines()[-1].split())


def test_write_loads_nothing_heavy(pod: str) -> None:
    assert not loaded("write", "--root", pod, "--env-file", "-") & HEAVY


def test_completion_loads_nothing_heavy() -> None:
    assert not loaded("completion", "bash") & HEAVY


def test_explain_loads_no_dependency_and_no_argparse(pod: str) -> None:
    heavy = {"argparse", "dataclasses", "logging", "pathlib", "subprocess", "prometheus_client", "watchdog", "yaml"}
    assert not loaded("explain", "--root", pod) & heavy
    assert not loaded("explain", "--root", pod, "-o", "json") & heavy


def test_exec_loads_nothing_heavy(tmp_path: Path) -> None:
    # What is loaded when exec is about to become the command: a module in its place tells.
    code = (
        "import os, sys\n"
        "os.execvpe = lambda *_: (print(*sys.modules), sys.stdout.flush(), os._exit(0))\n"
        "from cgagent.cli import main\n"
        "main(['exec', '--limits-from', 'given', '--', 'true'])\n"
    )
    source = os.path.dirname(os.path.dirname(os.path.dirname(completion.__file__)))
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({source!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert not set(done.stdout.split()) & HEAVY


# Completion.


def test_the_shipped_completions_are_what_the_commands_declare() -> None:
    shtab = pytest.importorskip("shtab", reason="shtab, a development tool, is not installed")
    from cgagent.completion.generate import SHTAB, scripts

    if shtab.__version__ != SHTAB:
        pytest.skip(f"the scripts were made by shtab {SHTAB}, {shtab.__version__} is installed")
    for shell, text in scripts().items():
        with open(os.path.join(os.path.dirname(completion.__file__), f"cgagent.{shell}"), encoding="utf-8") as file:
            assert file.read() == text, "make them anew: python -m cgagent.completion.generate"


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_prints_the_shipped_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    with open(os.path.join(os.path.dirname(completion.__file__), f"cgagent.{shell}"), encoding="utf-8") as file:
        assert capsys.readouterr().out == file.read()


def bash_completes(*words: str, cwd: object = None) -> set[str]:
    script = (
        'source <("$0" completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_cgagent 2>/dev/null; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, PROGRAM, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=str(cwd or "/"),
    )
    return set(done.stdout.split())


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")


@needs_bash
def test_bash_completes_commands() -> None:
    assert bash_completes("cgagent", "wri") == {"write"}
    assert set(COMMANDS) <= bash_completes("cgagent", "")


@needs_bash
def test_bash_completes_options_of_the_command() -> None:
    assert bash_completes("cgagent", "write", "--memory-r") == {"--memory-ratio", "--memory-reserve"}
    assert bash_completes("cgagent", "completion", "--memory-r") == set()


@needs_bash
@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (("write", "--format", ""), {"dotenv", "docker", "shell", "json"}),
        (("write", "--format", "d"), {"dotenv", "docker"}),
        (("exec", "--on-error", ""), {"fail", "ignore"}),
        (("explain", "-o", ""), {"text", "json", "yaml"}),
        (("completion", ""), {"bash", "zsh", "fish"}),
        (("help", "ex"), {name for name in COMMANDS if name.startswith("ex")}),
    ],
)
def test_bash_completes_choices(words: tuple[str, ...], choices: set[str]) -> None:
    assert bash_completes("cgagent", *words) == choices


@needs_bash
def test_bash_completes_files_directories_and_programs(tmp_path: Path) -> None:
    (tmp_path / "go.env").write_text("")
    (tmp_path / "goods").mkdir()
    assert bash_completes("cgagent", "write", "--env-file", "go", cwd=tmp_path) == {"go.env", "goods"}
    assert bash_completes("cgagent", "write", "--limits-dir", "go", cwd=tmp_path) == {"goods"}
    assert "true" in bash_completes("cgagent", "exec", "--", "tru")


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_completes() -> None:
    script = 'source (cgagent completion fish | psub); complete -C "cgagent write --format d"'
    path = f"{os.path.dirname(PROGRAM)}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path}
    done = subprocess.run(["fish", "-c", script], capture_output=True, text=True, timeout=60, check=True, env=environ)
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == {"dotenv", "docker"}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_takes_the_script() -> None:
    script = (
        f'autoload -Uz compinit && compinit -u -D && eval "$("{PROGRAM}" completion zsh)" && print $_comps[cgagent]'
    )
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "_shtab_cgagent"), done.stderr
