"""The quick look runs from end to end, each kind of trial on real cgroups, to page and picture; figures are free."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cgagent.launch import names
from golang.toolchain import UnavailableError
from kernel.cgroups import holder
from proof import plan
from proof.programs import program

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")


@pytest.fixture(scope="module")
def programs() -> None:
    if os.geteuid() != 0 or holder("memory") is None or holder("cpu") is None:
        pytest.skip("cgroups with CPU and memory limits take root and a kernel that has them")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs: one more than the load generator's")
    pytest.importorskip("matplotlib", reason="the picture needs it: pip install '.[picture]'")
    try:
        program("service", plan.OLD)
        program("service", plan.NEW, cgo=True)
    except (UnavailableError, OSError) as error:
        pytest.skip(f"the programs can't be built here: {error}")


@pytest.mark.usefixtures("programs")
def test_the_quick_look_gives_every_trial_a_result_a_page_and_a_picture(tmp_path: object) -> None:
    words = [sys.executable, "-m", "proof", "--quick", "--output", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}/tests"}
    before = _leftovers()

    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=540)

    assert done.returncode == 0, done.stderr
    with open(f"{tmp_path}/results.json", encoding="utf-8") as file:
        document = json.load(file)
    assert len(document["trials"]) == len(plan.trials(quick=True, seed=1))
    assert not any("failed" in trial for trial in document["trials"])
    by_setting = {
        trial["case"]["setting"]: trial["measured"]["gomaxprocs"]
        for trial in document["trials"]
        if trial["kind"] == "cpu" and trial["case"]["cpus"] == 0.5
    }
    assert by_setting == {plan.BIG_HOST: 32, plan.OWN: 2, plan.CGAGENT: 1}
    assert "A quick look, not to be quoted" in done.stdout
    with open(f"{tmp_path}/proof.png", "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert _leftovers() <= before


@pytest.mark.usefixtures("programs")
def test_a_quick_look_is_not_let_into_the_readme(tmp_path: object) -> None:
    words = [sys.executable, "-m", "proof", "--quick", "--update-readme", "--output", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}/tests"}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "leave out --quick" in done.stderr


def _leftovers() -> set[str]:
    """Containers' cgroups whose launcher has ended."""
    mount = holder("memory")
    assert mount is not None
    return {name for name in os.listdir(mount.point) if names.is_alive(name) is False and names.owner(name)}
