"""The env file: its formats, the readers that accept them, merging, and writing it whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent import __version__, envfile
from cgagent.cgroup.limits import Limits
from cgagent.cgroup.process import Standing
from cgagent.errors import CgagentError, UsageError
from support import shell_env
from support.accounts import nobody
from support.kubelet_env import KubeletError, lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLES = ("GOMAXPROCS", "GOMEMLIMIT")
ENV = {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}
COMMENT = "# written by cgagent 9.9: cpu 1.5 cores (/cg/cpu.max), memory 256Mi (/cg/memory.max)"
TEXT = envfile.render(ENV, COMMENT, "dotenv")


def _content(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "surrogateescape")


def _accepted(path: str, *names: str) -> dict[str, str]:
    """What both the kubelet and a shell make of the file; they must agree."""
    names = names or VARIABLES
    with open(path, "rb") as file:
        data = file.read()
    by_kubelet = {name: value for name in names if (value := lookup(data, name))}
    by_shell = {name: value for name, value in shell_env.source(path, *names).items() if value}
    assert by_kubelet == by_shell
    return by_kubelet


def _limits(cores: float | None, size: int | None, source: str = "/sys/fs/cgroup/x") -> Limits:
    limits = Limits(Standing())
    limits.cpu.cores, limits.cpu.source = cores, source
    limits.memory.bytes, limits.memory.source = size, source
    return limits


# --- formats


def test_the_header_says_what_wrote_it_and_from_which_limits() -> None:
    assert envfile.header(_limits(1.5, 268435456)) == (
        f"# written by cgagent {__version__}: cpu 1.5 cores (/sys/fs/cgroup/x), memory 256Mi (/sys/fs/cgroup/x)"
    )
    assert envfile.header(_limits(None, None)).endswith(": cpu no limit, memory no limit")


def test_the_header_stays_one_line_whatever_a_path_holds() -> None:
    header = envfile.header(_limits(1.5, 4096, "/cg/a\nGOMAXPROCS='99'\n\udcff\x1b[2J"))
    assert header.isprintable()
    assert header.startswith("# ")


def test_dotenv_is_accepted_by_the_kubelet_and_a_shell(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    envfile.write(path, TEXT)
    assert _content(path) == f"{COMMENT}\nGOMAXPROCS='2'\nGOMEMLIMIT='241591910'\n"
    assert _accepted(path) == ENV


@pytest.mark.parametrize("env", [{}, {"GOMAXPROCS": "2"}, {"GOMEMLIMIT": "1"}])
def test_a_variable_that_stays_unset_has_no_line_and_the_file_is_there(tmp_path: object, env: dict[str, str]) -> None:
    path = f"{tmp_path}/go.env"
    envfile.write(path, envfile.render(env, COMMENT, "dotenv"))
    assert _accepted(path) == env
    assert _content(path).count("\n") == 1 + len(env)


def test_docker_has_no_quotes() -> None:
    assert envfile.render(ENV, COMMENT, "docker") == f"{COMMENT}\nGOMAXPROCS=2\nGOMEMLIMIT=241591910\n"


def test_shell_exports(tmp_path: object) -> None:
    path = f"{tmp_path}/go.sh"
    envfile.write(path, envfile.render(ENV, COMMENT, "shell"))
    command = ["bash", "--posix", "-c", '. "$1"; exec env', "sh", path]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=True)
    assert {"GOMAXPROCS=2", "GOMEMLIMIT=241591910"} <= set(done.stdout.split("\n"))


def test_json_is_one_object_of_strings() -> None:
    assert json.loads(envfile.render(ENV, COMMENT, "json")) == ENV
    assert json.loads(envfile.render({}, COMMENT, "json")) == {}


# --- merge


def _merged(old: str, style: str = "dotenv") -> str:
    return envfile.merge(envfile.render(ENV, COMMENT, style), old, style)


def test_merge_keeps_the_other_lines_behind_ours(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    old = "# mine\nLOG='debug'\nGOMAXPROCS='9'\n# written by cgagent 0.0: old\nURL='http://x/?a=b#c'\nGOMEMLIMIT='1'\n"
    envfile.write(path, _merged(old))
    assert _content(path) == TEXT + "# mine\nLOG='debug'\nURL='http://x/?a=b#c'\n"
    assert _accepted(path, *VARIABLES, "LOG", "URL") == {**ENV, "LOG": "debug", "URL": "http://x/?a=b#c"}


def test_merging_twice_changes_nothing() -> None:
    once = _merged("A='1'\n\nB='2'\n")
    assert envfile.merge(TEXT, once) == once


def test_merging_into_nothing_is_writing() -> None:
    assert _merged("") == TEXT
    assert _merged("\n\n") == TEXT
    assert _merged(TEXT) == TEXT


def test_our_variables_go_in_whatever_form_they_stand() -> None:
    for line in ("GOMAXPROCS=9", 'GOMAXPROCS="9"', "export GOMAXPROCS='9'", "  GOMAXPROCS='9'", "GOMAXPROCS="):
        assert _merged(f"A='1'\n{line}\n") == TEXT + "A='1'\n"
    assert _merged("GOMAXPROCS_OLD='9'\n") == TEXT + "GOMAXPROCS_OLD='9'\n"


def test_a_value_that_spans_lines_stays_whole(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    old = "CERT='-----BEGIN\nGOMAXPROCS=inside\n# not a comment\nEND'\n"
    envfile.write(path, _merged(old))
    assert _content(path) == TEXT + old
    assert _accepted(path, *VARIABLES, "CERT")["CERT"] == "-----BEGIN\nGOMAXPROCS=inside\n# not a comment\nEND"


@pytest.mark.parametrize(
    "line",
    ["A='x' # don't", "# it's", 'A="a\\"b"', "A=a\\'b", "A='a'\\''b'", 'A="#" # "', "A=a#'b c'", "A='\\'", "A=a\\\nb"],
)
def test_a_quote_that_opens_nothing_hides_no_old_assignment_from_us(tmp_path: object, line: str) -> None:
    path = f"{tmp_path}/go.env"
    envfile.write(path, _merged(f"{line}\nGOMAXPROCS='9'\n"))
    assert _content(path) == f"{TEXT}{line}\n"
    assert shell_env.source(path, *VARIABLES) == ENV


def test_in_dockers_format_a_quote_is_a_letter() -> None:
    ours = envfile.render(ENV, COMMENT, "docker")
    assert _merged("A=don't\nGOMAXPROCS=9\nB=won't\n", "docker") == f"{ours}A=don't\nB=won't\n"


def test_ours_come_before_a_line_that_the_kubelet_would_refuse(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    envfile.write(path, _merged("LOG=unquoted\n"))
    data = _content(path).encode()
    assert lookup(data, "GOMEMLIMIT") == ENV["GOMEMLIMIT"]
    with pytest.raises(KubeletError):
        lookup(data, "LOG")


_LITERAL = st.text(st.characters(codec="utf-8", exclude_characters="'\0\r"), max_size=20)
_NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in VARIABLES)
_VALUES = st.integers(1, 2**63 - 1).map(str)


@given(
    st.fixed_dictionaries({}, optional={"GOMAXPROCS": _VALUES, "GOMEMLIMIT": _VALUES}),
    st.dictionaries(_NAMES, _LITERAL, max_size=4),
)
def test_any_file_round_trips_through_the_kubelet_and_our_reader(env: dict[str, str], others: dict[str, str]) -> None:
    old = "".join(f"{name}='{value}'\n" for name, value in others.items())
    text = envfile.merge(envfile.render(env, COMMENT, "dotenv"), old)
    data = text.encode()
    assert {name: value for name in VARIABLES if (value := lookup(data, name))} == env
    assert {name: lookup(data, name) for name in others} == others
    assert envfile.parse(text, "f") == env


@pytest.mark.parametrize("shell", [("bash", "--posix"), ("dash",)])
def test_a_file_with_every_awkward_letter_round_trips_through_a_shell(tmp_path: object, shell: tuple[str, ...]) -> None:
    if not os.path.exists(f"/bin/{shell[0]}"):
        pytest.skip(f"there is no {shell[0]} here")
    path = f"{tmp_path}/go.env"
    value = "".join(map(chr, range(1, 127))).replace("'", "") + 'ä\n$HOME `id` $(id) \\ "'
    envfile.write(path, _merged(f"AWKWARD='{value}'\n"))
    assert shell_env.source(path, *VARIABLES, "AWKWARD", shell=shell) == {**ENV, "AWKWARD": value}


# --- parse


def test_every_format_is_read_back() -> None:
    for style in ("dotenv", "docker", "shell"):
        assert envfile.parse(envfile.render(ENV, COMMENT, style), "f") == ENV
    assert envfile.parse('GOMAXPROCS="3"\n', "f") == {"GOMAXPROCS": "3"}


def test_the_first_assignment_counts_and_an_empty_one_does_not() -> None:
    assert envfile.parse("GOMAXPROCS='1'\nGOMAXPROCS='2'\nGOMEMLIMIT=''\n", "f") == {"GOMAXPROCS": "1"}


def test_what_is_not_ours_is_not_read() -> None:
    assert envfile.parse("LD_PRELOAD='/evil.so'\nrubbish\n# GOMAXPROCS='1'\n", "f") == {}


@pytest.mark.parametrize("value", ["'2", "2'", "$(id)", "'2;id'", "2 3", "-1", "'2' # why", "'\udcff'"])
def test_a_value_that_neither_variable_can_hold_is_refused(value: str) -> None:
    with pytest.raises(CgagentError, match="GOMAXPROCS is "):
        envfile.parse(f"GOMAXPROCS={value}\n", "f")


# --- read


def test_a_file_that_is_not_there_is_none_and_one_that_is_no_file_is_an_error(tmp_path: object) -> None:
    assert envfile.read(f"{tmp_path}/none") is None
    os.mkfifo(f"{tmp_path}/pipe")
    for name in ("pipe", ""):
        with pytest.raises(CgagentError, match="not a regular file"):
            envfile.read(f"{tmp_path}/{name}")


def test_a_file_too_large_for_any_env_file_is_an_error(tmp_path: object) -> None:
    with open(f"{tmp_path}/huge", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CgagentError, match="more than 1048576 bytes"):
        envfile.read(f"{tmp_path}/huge")


# --- write


def _names(directory: object) -> list[str]:
    return sorted(os.listdir(str(directory)))


def test_the_file_is_made_with_mode_0644_whatever_the_umask(tmp_path: object) -> None:
    old = os.umask(0o077)
    try:
        assert envfile.write(f"{tmp_path}/go.env", TEXT)
        assert envfile.write(f"{tmp_path}/private.env", TEXT, 0o600)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(f"{tmp_path}/go.env").st_mode) == 0o644
    assert stat.S_IMODE(os.stat(f"{tmp_path}/private.env").st_mode) == 0o600
    assert _names(tmp_path) == ["go.env", "private.env"]


def test_the_content_is_on_the_disk_before_it_has_the_name(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def watched(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def told(target: int | str, *others: object) -> None:
            is_directory = isinstance(target, int) and stat.S_ISDIR(os.fstat(target).st_mode)
            order.append(f"{name} directory" if is_directory else name)
            real(target, *others)

        return told

    for name in ("fchmod", "fsync", "rename"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    envfile.write(f"{tmp_path}/go.env", TEXT)
    assert order == ["fchmod", "fsync", "rename", "fsync directory"]


def test_unchanged_content_is_not_rewritten(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    assert envfile.write(path, TEXT)
    before = os.stat(path)
    assert not envfile.write(path, TEXT)
    after = os.stat(path)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert envfile.write(path, TEXT + "A='1'\n")
    assert os.stat(path).st_ino != before.st_ino


def test_a_path_without_a_directory_is_in_this_one(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    envfile.write("go.env", TEXT)
    assert _names(tmp_path) == ["go.env"]


def test_a_link_under_the_name_is_replaced_and_what_it_points_to_left_alone(tmp_path: object) -> None:
    for name, content in (("victim", "precious\n"), ("same", TEXT)):
        with open(f"{tmp_path}/{name}", "w", encoding="utf-8") as file:
            file.write(content)
        os.symlink(name, f"{tmp_path}/{name}.env")
        assert envfile.write(f"{tmp_path}/{name}.env", TEXT)
        assert not os.path.islink(f"{tmp_path}/{name}.env")
        assert _content(f"{tmp_path}/{name}") == content
        assert _content(f"{tmp_path}/{name}.env") == TEXT


def test_a_fifo_under_the_name_is_replaced(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    os.mkfifo(path)
    assert envfile.write(path, TEXT)
    assert _accepted(path) == ENV


def test_a_device_under_the_name_is_left_alone(tmp_path: object) -> None:
    device = f"{tmp_path}/null"
    try:
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device is not permitted here")
    with pytest.raises(CgagentError) as caught:
        envfile.write(device, TEXT)
    assert caught.value.line() == f"cannot write {device}: it is no file to replace: name a file, or - to print"
    assert _names(tmp_path) == ["null"]
    assert stat.S_ISCHR(os.stat(device).st_mode)


# As /dev/stdout is one, whatever stdout was redirected to.
@pytest.mark.parametrize("target", ["/dev/null", "/proc/self/fd/0", "pipe"])
def test_a_link_to_a_device_or_a_stream_is_left_alone(tmp_path: object, target: str) -> None:
    os.mkfifo(f"{tmp_path}/pipe")
    link = f"{tmp_path}/stdout"
    os.symlink(target, link)
    with pytest.raises(CgagentError, match="no file to replace"):
        envfile.write(link, TEXT)
    assert os.readlink(link) == target


def test_a_directory_under_the_name_is_one_clear_error(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    os.mkdir(path)
    with pytest.raises(CgagentError) as caught:
        envfile.write(path, TEXT)
    assert caught.value.line() == f"cannot write {path}: is a directory: name a file"
    assert _names(tmp_path) == ["go.env"]


def test_a_directory_that_is_not_there_is_one_clear_error(tmp_path: object) -> None:
    path = f"{tmp_path}/none/go.env"
    with pytest.raises(CgagentError) as caught:
        envfile.write(path, TEXT)
    assert caught.value.line() == f"cannot write {path}: no such file or directory: create the directory first"


def test_readers_never_see_half_a_file(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    texts = [TEXT + "X='" + letter * 100_000 + "'\n" for letter in "ab"]
    envfile.write(path, texts[0])
    stop = threading.Event()

    def rewrite() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            envfile.write(path, texts[turn % 2])

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = {_content(path) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= set(texts)


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: object) -> None:
    path = f"{tmp_path}/go.env"
    texts = [TEXT + f"X='{turn}'\n" for turn in range(8)]
    writers = [threading.Thread(target=envfile.write, args=(path, text)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert _content(path) in texts
    assert _names(tmp_path) == ["go.env"]


# --- what a killed writer leaves


def _stale(path: str, seconds: float) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("half")
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_temporary_files_of_dead_writers_are_removed_and_those_of_living_ones_left(tmp_path: object) -> None:
    _stale(f"{tmp_path}/.go.env.cgagent-000000000001", 3600)
    _stale(f"{tmp_path}/.go.env.cgagent-000000000002", 0)
    _stale(f"{tmp_path}/.other.env.cgagent-000000000003", 3600)
    envfile.write(f"{tmp_path}/go.env", TEXT)
    assert _names(tmp_path) == [".go.env.cgagent-000000000002", ".other.env.cgagent-000000000003", "go.env"]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's file takes root to make")
def test_another_users_temporary_file_stands_in_nobodys_way(public: str) -> None:
    os.chmod(public, 0o1777)
    theirs = f"{public}/.go.env.cgagent-000000000001"
    _stale(theirs, 3600)
    with nobody():
        _stale(f"{public}/.go.env.cgagent-000000000002", 3600)
        envfile.write(f"{public}/go.env", TEXT)
    assert _names(public) == [os.path.basename(theirs), "go.env"]
    assert _accepted(f"{public}/go.env") == ENV


def test_a_directory_that_may_be_written_and_not_read_will_do(public: str) -> None:
    os.chmod(public, 0o733)
    with nobody():
        assert envfile.write(f"{public}/go.env", TEXT)
    assert _content(f"{public}/go.env") == TEXT


# --- modes


@pytest.mark.parametrize(("text", "mode"), [("0644", 0o644), ("600", 0o600), ("0", 0), ("7777", 0o7777)])
def test_a_mode_is_octal(text: str, mode: int) -> None:
    assert envfile.parse_mode(text, "--mode") == mode


@pytest.mark.parametrize("text", ["", "0o644", "8", "u+r", "-1", "77777", " 644", "0x1"])
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--mode: "):
        envfile.parse_mode(text, "--mode")


# --- kill -9


_WRITER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support", "killed_writer.py")


def _killed_writer(call: int, when: str, path: str, text: str) -> int:
    command = [sys.executable, "-S", _WRITER, str(call), when, path]
    environ = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(envfile.__file__)))}
    return subprocess.run(command, input=text, text=True, env=environ, timeout=60, check=False).returncode


@pytest.mark.parametrize("when", ["before", "amid", "after"])
@pytest.mark.parametrize("old", [TEXT, None])
def test_a_writer_killed_at_any_system_call_leaves_the_old_file_or_the_new_one(
    tmp_path: object, when: str, old: str | None
) -> None:
    new = envfile.render({"GOMAXPROCS": "3"}, COMMENT, "dotenv") + "X='" + "x" * 100_000 + "'\n"
    seen = set()
    for call in range(1, 100):
        directory = f"{tmp_path}/{call}"
        os.mkdir(directory)
        path = f"{directory}/go.env"
        if old is not None:
            envfile.write(path, old)
        ended = _killed_writer(call, when, path, new)
        found = _content(path) if os.path.exists(path) else None
        assert found in (old, new), f"call {call}"
        seen.add(found)
        # Who comes next is not hindered by what was left.
        later = TEXT + "LATER='1'\n"
        envfile.write(path, later)
        assert _content(path) == later
        if ended == 0:
            break
        assert ended == -9
    assert ended == 0
    assert call > 8
    assert seen == {old, new}
