"""The Go module decides as cgagent does: every conformance case, and its own tests by old and new toolchains."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from cgagent.cli import main
from golang.toolchain import UnavailableError, toolchain
from gomodule.module import SOURCES, VERSIONS, conformance_program, environment
from support.trees import build
from unit.test_corpus import CASES, Case

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def go(version: str) -> str:
    try:
        return toolchain(version)
    except (UnavailableError, OSError) as error:
        pytest.skip(f"Go {version} can't be had here: {error}")


@pytest.fixture(scope="module", params=VERSIONS)
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the module's test program says of each case, by the case's id."""
    program = conformance_program(go(request.param), request.param)
    top = tmp_path_factory.mktemp("corpus")
    roots = [build(f"{top}/{number}", case["files"]) for number, case in enumerate(CASES)]
    text = "".join(f"{root}\n" for root in roots)
    environ = {**os.environ, "CGAGENT_ROOTS": "1"}
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=True, env=environ)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {case["id"]: answer for case, answer in zip(CASES, lines, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_case_is_as_the_corpus_says(answers: dict[str, dict[str, Any]], case: Case) -> None:
    answer, expect = answers[case["id"]], case["expect"]
    named = {name: expect[name] for name in ("mode", "cpu_cores", "memory_bytes", "malformed")}
    for name in ("env", "allowed_cpus"):
        if name in expect:
            named[name] = expect[name]
    assert {name: answer[name] for name in named} == named
    if "write" in expect:
        assert answer["blocked"] == (expect["write"] == 1)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_case_is_decided_as_write_decides_it(
    answers: dict[str, dict[str, Any]], case: Case, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    root = build(f"{tmp_path}/root", case["files"])
    code = main(["write", "--root", root, "--format", "json", "--env-file", "-"])
    out = capsys.readouterr().out
    assert answers[case["id"]]["blocked"] == (code == 1)
    if code == 0:
        assert answers[case["id"]]["env"] == {name: str(value) for name, value in json.loads(out).items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_its_own_tests_pass_and_vet_finds_nothing(version: str) -> None:
    command = go(version)
    for words in (["vet", "./..."], ["test", "-count=1", "./..."]):
        done = subprocess.run(
            [command, *words], cwd=SOURCES, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_formatted_and_needs_the_standard_library_alone() -> None:
    command = go(VERSIONS[-1])
    gofmt = os.path.join(os.path.dirname(command), "gofmt")
    assert subprocess.run([gofmt, "-l", SOURCES], capture_output=True, text=True, check=True).stdout == ""
    words = [command, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./..."]
    listed = subprocess.run(words, cwd=SOURCES, env=environment(), capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["example.com/cgagent", "example.com/cgagent/auto"]
