"""What the behaviour table runs: `cgagent run`, and `runc run` doing the same in the same root file system."""

from __future__ import annotations

import atexit
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

CGAGENT = os.path.join(os.path.dirname(sys.executable), "cgagent")
RUNC = shutil.which("runc")
BUSYBOX = shutil.which("busybox") or "/bin/busybox"
V1 = os.path.isdir("/sys/fs/cgroup/cpu")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="limits and a root file system of one's own need root")
needs_v1 = pytest.mark.skipif(not V1, reason="no v1 cgroups here")


class Row(NamedTuple):
    """One line of the behaviour table.

    Attributes:
        name: what it shows.
        options: words between `cgagent run` and `--`; `{root}`, `{dir}` stand for directories.
        command: a shell's text.
        stdout: all that is printed.
        code: the exit code.
        runc: how runc's default spec must be changed to do the same, by dotted path; None where it can't.
        direct: the command is given as words, without a shell.
    """

    name: str
    options: str
    command: str
    stdout: str = ""
    code: int = 0
    runc: Mapping[str, object] | None = None
    direct: tuple[str, ...] = ()


class Append(list[object]):
    """Items to add to a list of runc's default spec."""


class Result(NamedTuple):
    code: int
    stdout: str
    stderr: str


def run(options: list[str], *command: str, given: str = "", timeout: float = 60, **popen: object) -> Result:
    """`cgagent run OPTIONS -- COMMAND`."""
    words = [CGAGENT, "run", *options, "--", *command]
    done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=timeout, check=False, **popen)  # type: ignore[call-overload]
    return Result(done.returncode, done.stdout, done.stderr)


def words(row: Row) -> list[str]:
    """The command of a row."""
    return list(row.direct) or ["sh", "-c", row.command]


@cache
def busybox_root() -> str:
    """A root file system of busybox alone, shared by all tests of this run; tests write to its /tmp only."""
    if not os.path.exists(BUSYBOX):
        pytest.skip("busybox-static is not installed")
    place = tempfile.mkdtemp(prefix="cgagent-test-root-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    root = os.path.join(place, "rootfs")
    for name in ("bin", "dev", "etc", "mnt", "proc", "root", "sys", "tmp", "data"):
        os.makedirs(os.path.join(root, name))
    os.chmod(os.path.join(root, "tmp"), 0o1777)
    shutil.copy(BUSYBOX, os.path.join(root, "bin", "busybox"))
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(root, "bin", applet))
    with open(os.path.join(root, "etc", "passwd"), "w", encoding="ascii") as file:
        file.write("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/tmp:/bin/sh\n")
    with open(os.path.join(root, "etc", "group"), "w", encoding="ascii") as file:
        file.write("root:x:0:\napp:x:1001:\nextra:x:1002:app\n")
    return root


class Runc:
    """A bundle for runc with the busybox root; `edits` change its default spec."""

    _count = 0

    def __init__(self, edits: Mapping[str, object], *command: str) -> None:
        assert RUNC is not None
        Runc._count += 1
        self.name = f"cgagent-test-{os.getpid()}-{Runc._count}"
        self.bundle = tempfile.mkdtemp(prefix="cgagent-test-bundle-")
        subprocess.run([RUNC, "spec"], cwd=self.bundle, check=True)
        with open(os.path.join(self.bundle, "config.json"), encoding="utf-8") as file:
            spec = json.load(file)
        spec["root"] = {"path": busybox_root(), "readonly": False}
        spec["process"].update(terminal=False, args=list(command))
        spec["process"]["env"].append("HOME=/root")
        for path, value in edits.items():
            place, *parts = spec, *path.split(".")
            for part in parts[:-1]:
                place = place.setdefault(part, {})
            place[parts[-1]] = [*place.get(parts[-1], []), *value] if isinstance(value, Append) else value
        with open(os.path.join(self.bundle, "config.json"), "w", encoding="utf-8") as file:
            json.dump(spec, file)

    def words(self) -> list[str]:
        assert RUNC is not None
        return [RUNC, "run", "--bundle", self.bundle, self.name]

    def run(self, given: str = "") -> Result:
        try:
            done = subprocess.run(self.words(), input=given, capture_output=True, text=True, timeout=60, check=False)
        finally:
            self.remove()
        return Result(done.returncode, done.stdout, done.stderr)

    def remove(self) -> None:
        assert RUNC is not None
        subprocess.run([RUNC, "delete", "--force", self.name], capture_output=True, check=False)
        shutil.rmtree(self.bundle)


def default_signals() -> None:
    """For a child: what pytest has changed."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def check(row: Row, directory: str) -> None:
    """Run a row, here and in runc where it can do the same, and compare both with what the row says."""
    places = {"dir": directory, "root": busybox_root() if "{root}" in row.options else ""}
    options = [word.format(**places) for word in shlex.split(row.options)]
    ours = run(options, *words(row))
    assert (ours.code, ours.stdout) == (row.code, row.stdout), ours
    if row.runc is None or RUNC is None:
        return
    edits = {path: _filled(value, places) for path, value in row.runc.items()}
    theirs = Runc(edits, *words(row)).run()
    assert (theirs.code, theirs.stdout) == (ours.code, ours.stdout), theirs


def _filled(value: object, places: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return value.format(**places)
    if isinstance(value, list):
        return type(value)(_filled(item, places) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, places) for key, item in value.items()}
    return value
