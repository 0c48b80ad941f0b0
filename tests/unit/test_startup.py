"""Start-up is a budget: what each command has imported when it is done, never how long that took."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from support.trees import build, v2

# Each of these costs milliseconds, or is what another command pays for.
EXPENSIVE = {
    "argparse",
    "asyncio",
    "dataclasses",
    "enum",
    "hashlib",
    "inspect",
    "logging",
    "pathlib",
    "prometheus_client",
    "pyroute2",
    "random",
    "re",
    "socket",
    "subprocess",
    "tempfile",
    "typing",
    "watchdog",
    "yaml",
}

# Runs a command line and writes the modules that were loaded for it. `exec` ends by becoming the command: there
# the modules are counted at that moment.
_DRIVER = """
import sys
before = set(sys.modules)
import os
def tell(*_):
    loaded = set(sys.modules) - before
    import json
    with open(report, "w") as file:
        json.dump(sorted(loaded), file)
    os._exit(0)
os.execvpe = tell
report = sys.argv[1]
from cgagent.cli import main
code = main(sys.argv[2:])
if code == 0:
    tell()
sys.exit(code)
"""


def _loaded(tmp_path: object, *words: str) -> set[str]:
    report = f"{tmp_path}/modules.json"
    # -S: what a site's own .pth files import is nobody's choice here.
    command = [sys.executable, "-S", "-c", _DRIVER, report, *words]
    environ = {**os.environ, "PYTHONPATH": _agent()}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with open(report, encoding="utf-8") as file:
        return set(json.load(file))


def _agent() -> str:
    import cgagent

    return os.path.dirname(os.path.dirname(os.path.abspath(cgagent.__file__)))


def _root(tmp_path: object) -> str:
    return build(f"{tmp_path}/root", v2({"/cpu.max": "150000 100000\n", "/memory.max": "268435456\n"}))


@pytest.mark.parametrize(
    "words",
    [
        ("write", "--env-file", "{tmp}/go.env"),
        ("write", "--env-file", "{tmp}/go.env", "--format", "json", "--merge", "--format", "dotenv"),
        ("write", "--root", "{root}", "--env-file", "-"),
        ("exec", "--", "true"),
        ("exec", "--memory-ratio", "0.8", "--cpu-limit", "1500m", "--", "true"),
    ],
    ids=" ".join,
)
def test_write_and_exec_import_nothing_expensive(tmp_path: object, words: tuple[str, ...]) -> None:
    root = _root(tmp_path)
    loaded = _loaded(tmp_path, *(word.format(tmp=tmp_path, root=root) for word in words))
    assert loaded & EXPENSIVE == set()
    assert not any(name.startswith(("cgagent.report", "cgagent.watch", "cgagent.launch")) for name in loaded)


@pytest.mark.parametrize("style", ["text", "json"])
def test_explain_imports_nothing_expensive(tmp_path: object, style: str) -> None:
    loaded = _loaded(tmp_path, "explain", "--root", _root(tmp_path), "-o", style)
    # json's decoder is written with regular expressions.
    allowed = {"re", "enum"} if style == "json" else set()
    assert loaded & (EXPENSIVE - allowed) == set()
    assert not any(name.startswith(("cgagent.watch", "cgagent.launch", "cgagent.metrics")) for name in loaded)


def test_the_driver_sees_what_a_command_imports(tmp_path: object) -> None:
    loaded = _loaded(tmp_path, "explain", "--root", _root(tmp_path), "-o", "json")
    assert {"json", "cgagent.report.findings"} <= loaded


def test_capture_and_reading_one_import_nothing_expensive(tmp_path: object) -> None:
    path = f"{tmp_path}/x.tar.gz"
    expensive = (EXPENSIVE - {"re", "enum"}) | {"tarfile", "gzip", "ctypes", "_ctypes"}  # json takes those two
    assert not _loaded(tmp_path, "capture", path) & expensive
    assert not _loaded(tmp_path, "explain", "--root", path) & expensive
