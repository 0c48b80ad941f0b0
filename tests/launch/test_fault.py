"""The fault that happens on large nodes, on this machine: too many Ps under a small quota, and how it is mended."""

from __future__ import annotations

import json
import os
from functools import cache
from typing import TYPE_CHECKING

import pytest

from launch.behaviour import needs_root, needs_v1, run
from launch.onlookers import go_load

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [needs_root, needs_v1, pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU here")]
QUOTA = 1


@cache
def measured(go_env: bool, directory: str) -> dict[str, float]:
    """What two seconds of load cost under --host-cpus 64 --cpus 1."""
    stats = f"{directory}/stats-{go_env}"
    # What else the machine does must not keep the program from its quota: it comes first.
    options = ["--host-cpus", "64", "--cpus", str(QUOTA), "--cpu-shares", "262144", "--stats-file", stats]
    options += ["--go-env"] if go_env else []
    done = run(options, go_load("1.24.11"))
    assert done.code == 0, done.stderr
    with open(stats, encoding="utf-8") as file:
        cpu = json.load(file)["cpu"]
    return {**cpu, "procs": int(done.stdout.split()[0]), "work": int(done.stdout.split()[1])}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory: Path = tmp_path_factory.mktemp("fault")
    return str(directory)


def test_without_help_the_program_has_a_p_for_each_cpu_of_the_node(place: str) -> None:
    assert measured(False, place)["procs"] == 64


def test_with_go_env_it_has_one_for_its_quota(place: str) -> None:
    assert measured(True, place)["procs"] == QUOTA


def test_the_kernel_holds_it_back_less(place: str) -> None:
    """One thread that runs all the time stays within a quota of one CPU; 64 use it up early in each period."""
    faulty, mended = measured(False, place), measured(True, place)
    if faulty["throttled_seconds"] < 0.1:
        pytest.skip("the machine is too busy to give the program more than its quota")
    assert mended["throttled_seconds"] < faulty["throttled_seconds"] / 2
    assert mended["throttled_periods"] < faulty["throttled_periods"]
