"""`cgagent write`: formats, merging, rewriting, permissions, and limits that are given from outside."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from cgagent import __version__
from cgagent.cli import main
from support import kubelet_env, shell_env
from support.trees import build, machine, v2

if TYPE_CHECKING:
    from pathlib import Path

MEM_TOTAL_KB = 65536000
POD = {"/cpu.max": "150000 100000\n", "/memory.max": "268435456\n", "/memory.high": "max\n"}
# ceil(1.5), and nine tenths of 256 MiB rounded down.
ENV = {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}
COMMENT = (
    f"# written by cgagent {__version__}: "
    "cpu 1.5 cores (/sys/fs/cgroup/cpu.max), memory 256Mi (/sys/fs/cgroup/memory.max)\n"
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a pod's tree in it and one of a machine of 8 CPUs without limits."""
    monkeypatch.chdir(tmp_path)
    online = {"/sys/devices/system/cpu/online": "0-7\n"}
    build(tmp_path / "pod", v2(POD, cpus="0-7", memory_kb=MEM_TOTAL_KB) | online)
    build(tmp_path / "free", v2({"/cpu.max": "max 100000\n"}, cpus="0-7", memory_kb=MEM_TOTAL_KB) | online)
    return tmp_path


def write(*words: str, root: str = "pod", file: str = "out") -> int:
    return main(["write", "--root", root, "--env-file", file, *words])


def values(file: str = "out") -> dict[str, str]:
    """What a POSIX shell takes from the file."""
    return shell_env.source(os.path.abspath(file), "GOMAXPROCS", "GOMEMLIMIT")


# Formats.


def test_by_default_it_is_single_quoted_assignments_below_a_comment(place: Path) -> None:
    assert write() == 0
    assert (place / "out").read_text() == f"{COMMENT}GOMAXPROCS='2'\nGOMEMLIMIT='241591910'\n"


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("dotenv", f"{COMMENT}GOMAXPROCS='2'\nGOMEMLIMIT='241591910'\n"),
        ("docker", f"{COMMENT}GOMAXPROCS=2\nGOMEMLIMIT=241591910\n"),
        ("shell", f"{COMMENT}export GOMAXPROCS='2'\nexport GOMEMLIMIT='241591910'\n"),
        ("json", '{"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}\n'),
    ],
)
def test_a_dash_prints_the_format_and_writes_nothing(
    style: str, text: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.listdir(place)
    assert write("--format", style, file="-") == 0
    assert capsys.readouterr() == (text, "")
    assert os.listdir(place) == before


def test_the_default_format_is_what_the_kubelet_and_a_shell_accept(place: Path) -> None:
    write()
    data = (place / "out").read_bytes()
    assert {name: kubelet_env.lookup(data, name) for name in ENV} == ENV
    assert values() == ENV


def test_the_shell_format_exports(place: Path) -> None:
    write("--format", "shell")
    assert values() == ENV
    assert (place / "out").read_text().count("export ") == 2


def test_the_json_format_is_one_object(place: Path) -> None:
    write("--format", "json")
    assert json.loads((place / "out").read_text()) == ENV


@pytest.mark.parametrize("style", ["dotenv", "docker", "shell"])
def test_without_limits_the_file_is_there_and_sets_nothing(
    style: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write("--format", style, root="free") == 0
    says = f"# written by cgagent {__version__}: cpu no limit, memory no limit\n"
    assert (place / "out").read_text() == says
    assert capsys.readouterr().err == "cgagent write: out written: no variables\n"


def test_a_limit_that_goes_away_takes_its_line_with_it() -> None:
    write()
    write(root="free")
    assert values() == {}


def test_a_variable_that_the_environment_has_is_left_alone_and_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOMAXPROCS", "7")
    assert main(["write", "--env-file", "out", "--memory-limit", "1000", "--quiet"]) == 0
    assert values() == {"GOMEMLIMIT": "900"}
    says = "cgagent write: GOMAXPROCS left alone: the environment has '7' (--override decides anew)\n"
    assert capsys.readouterr().err == says


# The file.


def test_the_outcome_is_told_in_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    write()
    assert capsys.readouterr() == ("", "cgagent write: out written: GOMAXPROCS=2 GOMEMLIMIT=241591910\n")
    write()
    assert capsys.readouterr() == ("", "cgagent write: out unchanged: GOMAXPROCS=2 GOMEMLIMIT=241591910\n")


def test_quiet_says_nothing_when_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    write("--quiet")
    assert capsys.readouterr() == ("", "")


def test_unchanged_content_is_not_rewritten(place: Path) -> None:
    write()
    os.utime("out", ns=(1, 1))
    before = (place / "out").stat()
    write()
    after = (place / "out").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_changed_content_is_a_new_file_under_the_old_name(place: Path) -> None:
    write()
    with open("out", encoding="utf-8") as old:
        write("--memory-ratio", "0.5")
        assert old.read() == f"{COMMENT}GOMAXPROCS='2'\nGOMEMLIMIT='241591910'\n"
    assert values()["GOMEMLIMIT"] == "134217728"
    assert sorted(os.listdir(place)) == ["free", "out", "pod"]


@pytest.mark.parametrize(
    ("words", "mode"), [([], 0o644), (["--mode", "0600"], 0o600), (["--mode", "640"], 0o640), (["--mode=0444"], 0o444)]
)
def test_the_mode_is_what_was_asked_for_whatever_the_umask(words: list[str], mode: int, place: Path) -> None:
    old = os.umask(0o077)
    try:
        write(*words)
    finally:
        os.umask(old)
    assert stat.S_IMODE((place / "out").stat().st_mode) == mode


def test_another_mode_is_given_to_an_unchanged_file_too(place: Path) -> None:
    write()
    write("--mode", "0600")
    assert stat.S_IMODE((place / "out").stat().st_mode) == 0o600
    write()  # no mode is asked for: the file has what it should have
    assert stat.S_IMODE((place / "out").stat().st_mode) == 0o600


# Merging.

KEPT = "# by hand\nPORT='8080'\nNOTE='two\nlines'\n"


def test_without_merge_other_lines_go(place: Path) -> None:
    (place / "out").write_text(KEPT)
    write()
    assert (place / "out").read_text() == f"{COMMENT}GOMAXPROCS='2'\nGOMEMLIMIT='241591910'\n"


def test_merge_keeps_the_users_lines(place: Path) -> None:
    (place / "out").write_text(KEPT)
    write("--merge")
    assert (place / "out").read_text() == f"{COMMENT}GOMAXPROCS='2'\nGOMEMLIMIT='241591910'\n{KEPT}"
    names = ("GOMAXPROCS", "GOMEMLIMIT", "PORT", "NOTE")
    assert shell_env.source(os.path.abspath("out"), *names) == {**ENV, "PORT": "8080", "NOTE": "two\nlines"}
    assert kubelet_env.lookup((place / "out").read_bytes(), "NOTE") == "two\nlines"


def test_merge_replaces_our_own_variables_however_they_are_written(place: Path) -> None:
    (place / "out").write_text(f"GOMAXPROCS=9\n{KEPT}export GOMEMLIMIT='1'\n")
    write("--merge")
    assert (place / "out").read_text() == f"{COMMENT}GOMAXPROCS='2'\nGOMEMLIMIT='241591910'\n{KEPT}"


def test_merging_again_changes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "out").write_text(KEPT)
    write("--merge", "--quiet")
    before = (place / "out").stat().st_ino
    write("--merge")
    assert (place / "out").stat().st_ino == before
    assert "unchanged" in capsys.readouterr().err


def test_merge_makes_a_file_that_is_not_there(place: Path) -> None:
    assert write("--merge") == 0
    assert (place / "out").exists()


def test_merge_for_docker_takes_an_apostrophe_for_a_letter(place: Path) -> None:
    (place / "out").write_text("NOTE=it's\nGOMAXPROCS=9\nPORT=8080\n")
    write("--merge", "--format", "docker")
    expected = f"{COMMENT}GOMAXPROCS=2\nGOMEMLIMIT=241591910\nNOTE=it's\nPORT=8080\n"
    assert (place / "out").read_text() == expected


# Limits that are given.

TWINS = {
    "CGAGENT_CPU_LIMIT": "2500m",
    "CGAGENT_CPU_LIMIT_MILLICORES": "2500",
    "CGAGENT_MEMORY_LIMIT": "64Mi",
    "CGAGENT_MEMORY_LIMIT_BYTES": "67108864",
}
GIVEN_ENV = {"GOMAXPROCS": "3", "GOMEMLIMIT": "60397977"}  # of 2.5 CPUs and 64 MiB


@pytest.mark.parametrize("root", ["pod", "free"])
@pytest.mark.parametrize("cpu", ["2.5", "2500m"])
@pytest.mark.parametrize("memory", ["64Mi", "64m", "65536k", "67108864"])
def test_a_given_limit_takes_the_place_of_the_cgroups(cpu: str, memory: str, root: str) -> None:
    assert write("--cpu-limit", cpu, "--memory-limit", memory, root=root) == 0
    assert values() == GIVEN_ENV


@pytest.mark.parametrize("name", TWINS)
def test_each_environment_twin_gives_its_limit_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, TWINS[name])
    write()
    variable = "GOMAXPROCS" if "CPU" in name else "GOMEMLIMIT"
    assert values() == {**ENV, variable: GIVEN_ENV[variable]}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("end", ["", "\n"])
def test_each_file_of_a_downward_api_volume_gives_its_limit_alone(name: str, end: str, place: Path) -> None:
    file = name.removeprefix("CGAGENT_").lower()
    build(place / "limits", {f"/{file}": TWINS[name] + end})
    write("--limits-dir", "limits")
    variable = "GOMAXPROCS" if "cpu" in file else "GOMEMLIMIT"
    assert values() == {**ENV, variable: GIVEN_ENV[variable]}


def test_the_comment_names_where_a_given_limit_came_from(place: Path) -> None:
    build(place / "limits", {"/cpu_limit_millicores": "2500"})
    write("--limits-dir", "limits", "--memory-limit", "64Mi")
    first = (place / "out").read_text().split("\n")[0]
    assert first == (
        f"# written by cgagent {__version__}: cpu 2.5 cores (limits/cpu_limit_millicores), memory 64Mi (--memory-limit)"
    )


def test_the_option_goes_before_the_volume_and_the_volume_before_the_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGAGENT_MEMORY_LIMIT_BYTES", "1000")
    monkeypatch.setenv("CGAGENT_CPU_LIMIT_MILLICORES", "1000")
    build(place / "limits", {"/memory_limit": "2000", "/cpu_limit": "4"})
    write("--limits-dir", "limits", "--cpu-limit", "6")
    assert values() == {"GOMAXPROCS": "6", "GOMEMLIMIT": "1800"}


def test_the_volume_may_be_named_by_the_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(place / "limits", {"/cpu_limit": "2500m", "/memory_limit": "64Mi"})
    monkeypatch.setenv("CGAGENT_LIMITS_DIR", "limits")
    write()
    assert values() == GIVEN_ENV


def test_limits_from_cgroup_heeds_nothing_that_is_given() -> None:
    write("--cpu-limit", "2.5", "--memory-limit", "64Mi", "--limits-from", "cgroup")
    assert values() == ENV


def test_limits_from_given_heeds_nothing_of_the_cgroup() -> None:
    write("--cpu-limit", "2.5", "--limits-from", "given")
    assert values() == {"GOMAXPROCS": "3"}


# The downward API gives the node's allocatable where a container has no limit: all CPUs, most of the memory.
@pytest.mark.parametrize("cpu", ["8", "8000m", "12"])
def test_a_cpu_limit_as_large_as_the_machine_is_probably_none(cpu: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert write("--quiet", "--cpu-limit", cpu) == 0
    assert values() == {"GOMEMLIMIT": ENV["GOMEMLIMIT"]}
    says = f"cgagent write: --cpu-limit '{cpu}' looks like no limit, not heeded (--trust-given does)\n"
    assert capsys.readouterr().err == says


@pytest.mark.parametrize("memory", [str(MEM_TOTAL_KB * 1024), str(MEM_TOTAL_KB * 1024 * 9 // 10), "1Ti"])
def test_a_memory_limit_close_to_the_machines_is_probably_none(memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert write("--quiet", "--memory-limit", memory) == 0
    assert values() == {"GOMAXPROCS": ENV["GOMAXPROCS"]}
    says = f"cgagent write: --memory-limit '{memory}' looks like no limit, not heeded (--trust-given does)\n"
    assert capsys.readouterr().err == says


# What the downward API gives for a native sidecar without limits, which is no sentinel that trust could change.
@pytest.mark.parametrize("words", [[], ["--trust-given"]])
def test_a_limit_of_zero_is_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert write("--quiet", "--cpu-limit", "0", *words) == 0
    assert values() == {"GOMEMLIMIT": ENV["GOMEMLIMIT"]}
    assert capsys.readouterr().err == "cgagent write: --cpu-limit '0' means no limit\n"


# A captured tree may lack /sys/devices/system/cpu/online: the process's mask is then what is known of the machine.
def test_without_the_machines_cpus_the_mask_tells_how_large_it_is(place: Path) -> None:
    (place / "pod/sys/devices/system/cpu/online").unlink()
    write("--cpu-limit", "8")
    assert values() == {"GOMEMLIMIT": ENV["GOMEMLIMIT"]}
    write("--cpu-limit", "12", "--trust-given")
    assert values()["GOMAXPROCS"] == "8"


def test_a_limit_that_is_not_known_is_not_called_none(place: Path) -> None:
    (place / "pod/sys/fs/cgroup/cpu.max").write_text("fast\n")
    assert write("--on-error", "ignore") == 0
    assert (place / "out").read_text().startswith(f"# written by cgagent {__version__}: cpu not known, memory 256Mi ")


def test_a_strangers_limits_are_neither_written_nor_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mounts = "25 21 0:22 /other /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    build(place / "odd", machine("0::/app\n", mounts) | {f"/sys/fs/cgroup{name}": text for name, text in POD.items()})
    assert write(root="odd") == 0
    assert (place / "out").read_text() == f"# written by cgagent {__version__}: cpu no limit, memory no limit\n"
    assert write("--require-limits", root="odd") == 3
    assert main(["explain", "--root", "odd", "--require-limits", "-o", "json"]) == 3
    capsys.readouterr()


@pytest.mark.parametrize(("words", "twin"), [(["--trust-given"], ""), ([], "true")])
def test_trust_given_takes_it_at_its_word(words: list[str], twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if twin:
        monkeypatch.setenv("CGAGENT_TRUST_GIVEN", twin)
    size = MEM_TOTAL_KB * 1024
    write("--cpu-limit", "8", "--memory-limit", str(size), *words)
    assert values() == {"GOMAXPROCS": "8", "GOMEMLIMIT": str(size * 9 // 10)}


def test_require_limits_is_not_content_with_what_is_probably_none() -> None:
    assert write("--cpu-limit", "8", "--require-limits", root="free") == 3
    assert not os.path.exists("out")


def test_an_option_goes_before_its_environment_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGAGENT_MEMORY_RATIO", "0.1")
    write("--memory-ratio", "0.5")
    assert values()["GOMEMLIMIT"] == "134217728"
    write()
    assert values()["GOMEMLIMIT"] == "26843545"
