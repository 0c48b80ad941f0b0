"""`explain --binary`: what a Go program would do by itself, what the limits make of it, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from cgagent.cli import main
from support.go_elf import inline_blob, program

if TYPE_CHECKING:
    from pathlib import Path

# A container with 3 CPUs and 1 GiB on a node of 8 CPUs.
FILES = {
    "proc/self/cgroup": "0::/app\n",
    "proc/self/mountinfo": "25 21 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
    "proc/self/status": "Cpus_allowed_list:\t0-7\n",
    "proc/self/environ": "PATH=/bin\0",
    "proc/meminfo": "MemTotal:       65536000 kB\n",
    "sys/devices/system/cpu/online": "0-7\n",
    "sys/fs/cgroup/app/cpu.max": "300000 100000\n",
    "sys/fs/cgroup/app/memory.max": f"{1 << 30}\n",
}
NEW, OLD = "go1.27.3", "go1.24.11"
MODULE = "path\texample.com/orders\nmod\texample.com/orders\tv1.2.3\t\n"
LINKED = MODULE + "dep\tgo.uber.org/automaxprocs\tv1.6.0\th1:x=\n"

Explain = Callable[..., dict[str, Any]]


@pytest.fixture
def explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Explain:
    """The document about a program of a Go version and modules, in FILES with some changed."""

    def run(version: str, modules: str, files: dict[str, str] | None = None, *options: str) -> dict[str, Any]:
        for name, text in (FILES | (files or {})).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        binary = tmp_path / "orders"
        binary.write_bytes(program(inline_blob(version, modules)))
        words = ["explain", "--root", str(tmp_path), "--binary", str(binary), "-o", "json", *options]
        assert main(words) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return run


def _finding(document: dict[str, Any], name: str) -> dict[str, str] | None:
    return next((one for one in document["findings"] if one["id"] == name), None)


def test_names_version_and_module(explain: Explain) -> None:
    go = explain(NEW, MODULE)["go"]

    assert (go["version"], go["module"]) == (NEW, "example.com/orders")


def test_go_before_1_25_sees_every_cpu_and_no_limit(explain: Explain) -> None:
    document = explain(OLD, MODULE)

    alone = document["go"]["by_itself"]
    assert alone["GOMAXPROCS"]["value"] == 8
    assert alone["GOMAXPROCS"]["follows"] is False
    assert alone["GOMEMLIMIT"]["value"] is None
    assert document["env"] == {"GOMAXPROCS": "3", "GOMEMLIMIT": str((1 << 30) * 9 // 10)}
    found = _finding(document, "program-alone")
    assert found is not None
    assert found["message"] == (
        "by itself go1.24.11 would run with GOMAXPROCS=8, where the limits make it 3 and no GOMEMLIMIT, "
        "where the limits make it 921.6Mi"
    )


def test_gomaxprocs_is_left_to_a_go_that_reaches_it_and_follows(explain: Explain) -> None:
    document = explain(NEW, MODULE)

    assert document["go"]["by_itself"]["GOMAXPROCS"]["value"] == 3
    assert document["go"]["by_itself"]["GOMAXPROCS"]["follows"] is True
    assert "GOMAXPROCS" not in document["env"]
    assert document["decision"]["GOMAXPROCS"]["reason"].startswith("left to Go, which reaches 3 by itself")
    assert _finding(document, "gomaxprocs-freezes-go") is None


def test_gomaxprocs_is_set_where_a_new_go_would_reach_another_number(explain: Explain) -> None:
    document = explain(NEW, MODULE, {"sys/fs/cgroup/app/cpu.max": "50000 100000\n"})

    assert document["go"]["by_itself"]["GOMAXPROCS"]["value"] == 2
    assert document["env"]["GOMAXPROCS"] == "1"
    frozen = _finding(document, "gomaxprocs-freezes-go")
    assert frozen is not None
    assert frozen["level"] == "info"


def test_gomaxprocs_always_sets_it_all_the_same(explain: Explain) -> None:
    assert explain(NEW, MODULE, None, "--gomaxprocs", "always")["env"]["GOMAXPROCS"] == "3"


def test_a_set_gomaxprocs_stops_a_new_go_from_following(explain: Explain) -> None:
    document = explain(NEW, MODULE, {"proc/self/environ": "GOMAXPROCS=3\0"})

    frozen = _finding(document, "gomaxprocs-freezes-go")
    assert frozen is not None
    assert frozen["level"] == "warning"


def test_an_old_go_follows_nothing_that_could_be_stopped(explain: Explain) -> None:
    document = explain(OLD, MODULE, {"proc/self/environ": "GOMAXPROCS=3\0"})

    assert _finding(document, "gomaxprocs-freezes-go") is None


def test_a_library_that_sets_a_variable_is_named_with_what_it_does_not_see(explain: Explain) -> None:
    document = explain(OLD, LINKED, {"sys/fs/cgroup/app/cpu.max": "250000 100000\n"})

    (library,) = document["go"]["libraries"]
    assert (library["name"], library["version"], library["sets"]) == (
        "go.uber.org/automaxprocs",
        "v1.6.0",
        "GOMAXPROCS",
    )
    assert document["go"]["by_itself"]["GOMAXPROCS"]["value"] == 2  # the floor of 2.5
    found = _finding(document, "library-linked")
    assert found is not None
    assert "no ancestor's" in found["message"]


def test_limits_given_from_outside_say_nothing_of_what_the_program_sees(explain: Explain) -> None:
    document = explain(NEW, MODULE, None, "--cpu-limit", "2")

    assert document["go"]["by_itself"] is None
    assert document["env"]["GOMAXPROCS"] == "2"


def test_the_text_shows_both_side_by_side(tmp_path: Path, explain: Explain, capsys: pytest.CaptureFixture[str]) -> None:
    explain(OLD, MODULE)

    main(["explain", "--root", str(tmp_path), "--binary", str(tmp_path / "orders")])

    lines = capsys.readouterr().out.splitlines()
    start = lines.index("by itself the program would run with")
    assert lines[start + 1].startswith("  GOMAXPROCS 8")
    assert lines[start + 2].startswith("  GOMEMLIMIT off")
    assert "program  example.com/orders, go1.24.11" in lines
