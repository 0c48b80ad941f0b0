"""Every case of the conformance corpus: what `explain` says of a tree and what `write` makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from cgagent.cgroup.reading import read_limits
from cgagent.cli import main
from cgagent.host import Host
from support import kubelet_env
from support.trees import build

_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Read once, before the tests' plain environment drops it.
_ELSEWHERE = os.environ.get("CGAGENT_CORPUS") or os.path.join(_CHECKOUT, "..", "shared", "corpus")
_DIRECTORIES = (os.path.join(_CHECKOUT, "tests", "corpus"), _ELSEWHERE)
OLD = "# kept by hand\nGOMAXPROCS='77'\n"

Case = dict[str, Any]


def _cases() -> list[Case]:
    """The cases of all directories; the same case in two of them is one."""
    found: dict[str, Case] = {}
    for directory in _DIRECTORIES:
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        for name in (name for name in names if name.endswith(".json")):
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                cases: list[Case] = json.load(file)
            for case in cases:
                found.setdefault(json.dumps(case, sort_keys=True), {**case, "id": f"{name[:-5]}/{case['name']}"})
    return list(found.values())


CASES = _cases()
each_case = pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])


@pytest.fixture
def root(case: Case, tmp_path: object) -> str:
    return build(f"{tmp_path}/root", case["files"])


def _explain(root: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["explain", "--root", root, "-o", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


@each_case
def test_the_resolver_finds_the_limits_that_bind(case: Case, root: str) -> None:
    limits = read_limits(Host(root))
    expect = case["expect"]
    assert limits.standing.mode == expect["mode"]
    assert limits.cpu.cores == expect["cpu_cores"]
    assert limits.memory.bytes == expect["memory_bytes"]
    ids = {problem.id for problem in limits.problems}
    assert ("malformed-file" in ids) == expect["malformed"]


@each_case
def test_explain_says_what_binds_and_what_is_wrong(case: Case, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = _explain(root, capsys)
    expect = case["expect"]
    assert document["schema"] == "cgagent.explain/1"
    assert document["cgroup"]["mode"] == expect["mode"]
    assert document["limits"]["cpu"]["cores"] == expect["cpu_cores"]
    assert document["limits"]["memory"]["bytes"] == expect["memory_bytes"]
    findings = {finding["id"]: finding for finding in document["findings"]}
    assert ("malformed-file" in findings) == expect["malformed"]
    if expect["malformed"]:
        # The file itself, or the one that is missed beside it.
        directories = {os.path.dirname(path) + "/" for path in case["files"]}
        assert any(directory in findings["malformed-file"]["message"] for directory in directories)
    if case["name"].startswith("outside-view"):
        assert "cgroup-outside-view" in findings
    assert set(expect.get("findings", ())) <= set(findings)
    assert {findings[one]["level"] for one in expect.get("critical", ())} <= {"critical"}
    if "allowed_cpus" in expect:
        assert document["limits"]["cpu"]["allowed_cpus"] == expect["allowed_cpus"]
    if "env" in expect:
        assert document["env"] == expect["env"]


@each_case
def test_write_writes_what_explain_says_or_leaves_the_old_file(
    case: Case, root: str, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    env = _explain(root, capsys)["env"]
    path = f"{tmp_path}/go.env"
    with open(path, "w", encoding="utf-8") as file:
        file.write(OLD)
    code = main(["write", "--root", root, "--env-file", path])
    err = capsys.readouterr().err
    with open(path, "rb") as written:
        data = written.read()
    if case["expect"]["malformed"]:
        assert code == 1
    assert code == case["expect"].get("write", code)
    if code:
        assert (code, data.decode()) == (1, OLD)
        assert err.startswith("cgagent write: ")
        assert err.count("\n") == 1
    else:
        values = {name: kubelet_env.lookup(data, name) for name in ("GOMAXPROCS", "GOMEMLIMIT")}
        assert {name: value for name, value in values.items() if value} == env


def _chosen(*names: str) -> list[Case]:
    return [case for case in CASES if case["name"] in names]


@pytest.mark.parametrize(
    "case",
    _chosen("v2-set", "v1-quota-empty", "hybrid-limits-on-v1", "outside-view-parent", "v2-64-levels"),
    ids=lambda case: case["id"],
)
def test_a_process_of_its_own_says_the_same(case: Case, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "cgagent", "explain", "--root", root, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["limits"]["cpu"]["cores"] == case["expect"]["cpu_cores"]
    assert document == _explain(root, capsys)


def test_the_corpus_is_there() -> None:
    assert len(CASES) > 200
