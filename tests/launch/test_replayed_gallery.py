"""The gallery shown by `run --replay`: what cgagent explains there is what it explains of the capture itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cgagent.capture.archive import pack
from gallery.entries import ENTRIES
from gallery.table import right_memory, right_procs, run
from golang.toolchain import UnavailableError
from golang_matrix.observer import observer
from kernel.test_capture import alike

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CGAGENT = [sys.executable, "-m", "cgagent"]
each = pytest.mark.parametrize("name", ENTRIES)


@pytest.fixture
def archive(name: str, tmp_path: object) -> str:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = f"{tmp_path}/{name}.tar.gz"
    with open(path, "wb") as file:
        file.write(pack(ENTRIES[name].capture))
    return path


def explained(*words: str) -> dict[str, Any]:
    done = subprocess.run([*CGAGENT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@each
def test_a_replayed_capture_explains_as_the_original(name: str, archive: str) -> None:  # noqa: ARG001 names the archive
    captured = explained("explain", "--root", archive, "-o", "json")
    replayed = explained("run", "--replay", archive, "--", *CGAGENT, "explain", "-o", "json")
    assert alike(replayed) == alike(captured)


@each
def test_a_capture_of_the_replay_is_the_capture(name: str, archive: str, tmp_path: object) -> None:  # noqa: ARG001
    again = f"{tmp_path}/again.tar.gz"
    with open(again, "wb") as file:
        words = [*CGAGENT, "run", "--replay", archive, "--", *CGAGENT, "capture", "--quiet", "-"]
        subprocess.run(words, stdout=file, check=True)
    first, second = (explained("explain", "--root", path, "-o", "json") for path in (archive, again))
    assert alike(second) == alike(first)


@each
def test_an_old_go_program_is_right_with_what_cgagent_decides(name: str, archive: str) -> None:
    try:
        program = observer("1.24.11", "1.24")
    except UnavailableError as error:
        pytest.skip(str(error))
    procs, limit = run(program, archive, "--go-env")
    assert right_procs(ENTRIES[name], procs)
    assert right_memory(ENTRIES[name], limit)
