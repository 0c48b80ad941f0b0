"""What is not understood is refused in one line, and never taken for something else, by each command that looks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from golang.toolchain import UnavailableError
from live.odd import GO, odd_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

REMOVED = "its build info was removed, as garble does"
# kind -> the emulator that runs it, what `explain --binary` knows of its version, why its process is not tuned
KINDS: dict[str, tuple[str | None, str | None, str]] = {
    "gccgo": (None, None, "it is no Go program"),
    "garble": (None, "unknown", REMOVED),
    "garble -tiny": (None, "unknown", REMOVED),
    "386": (None, f"go{GO}", "a 32-bit program: only 64-bit ones are understood"),
    # Its process is the emulator's: whatever is in its memory, /proc/PID/exe is no Go program.
    "arm64": ("qemu-aarch64", f"go{GO}", "it is no Go program"),
    "s390x": ("qemu-s390x", f"go{GO}", "it is no Go program"),
}


def cgagent(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cgagent", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def path(kind: str) -> str:
    emulator = KINDS[kind][0]
    if emulator is not None and shutil.which(emulator) is None:
        pytest.skip(f"there is no {emulator} (Debian: qemu-user)")
    try:
        return odd_program(kind)
    except (UnavailableError, OSError) as error:
        pytest.skip(f"{kind}: {error}")


def started(kind: str, path: str) -> list[str]:
    emulator = KINDS[kind][0]
    return [path] if emulator is None else [emulator, path]


@pytest.fixture
def pid(kind: str, path: str) -> Iterator[str]:
    """A process that runs it; it has got as far as its main function."""
    pipe = subprocess.PIPE
    with subprocess.Popen(started(kind, path), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        yield str(process.pid)
        process.kill()


def test_explain_reads_the_file_rightly_or_refuses_it(kind: str, path: str) -> None:
    version = KINDS[kind][1]
    done = cgagent("explain", "--binary", path, "-o", "json")
    if version is None:
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"{path} is not a Go program" in done.stderr
        return
    assert (done.returncode, done.stderr) == (0, "")
    go = json.loads(done.stdout)["go"]
    assert go["version"] == version
    if version == "unknown":
        # Which libraries are in it can't be read either: nothing is claimed.
        assert {one["value"] for one in go["by_itself"].values()} == {None}
        assert {one["reason"] for one in go["by_itself"].values()} == {REMOVED}
    else:
        assert go["module"] == "example.com/odd"


def test_explain_says_why_a_process_is_not_read(kind: str, pid: str) -> None:
    done = cgagent("explain", "--pid", pid, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["running"] is None
    why = [one["message"] for one in document["findings"] if one["id"] == "running-unknown"]
    if KINDS[kind][2] == "it is no Go program":
        assert (document["go"], why) == (None, [])
    else:
        assert len(why) == 1
        assert KINDS[kind][2] in why[0]


def test_tune_refuses_it_in_one_line(kind: str, pid: str) -> None:
    done = cgagent("tune", "--pid", pid, "--memory-limit", "400Mi", "--force")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"cgagent tune: process {pid} is not tuned: {KINDS[kind][2]}")
    assert done.stderr.count("\n") == 1


def test_top_lists_no_values_of_it(kind: str, path: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("a PID namespace takes root")
    script = 'sleep 60 | "$@" >/dev/null 2>&1 & sleep 1; exec "$PYTHON" -m cgagent top --once -o json'
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"]
    environ = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [*command, *started(kind, path)], capture_output=True, text=True, check=True, env=environ, timeout=120
    )
    document = json.loads(done.stdout)
    assert all(row.get("running") is None for row in document["processes"])
