"""cgagent run as users run it: a process of its own, in a cgroup, its output read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from kernel.cgroups import Group

CGAGENT = (sys.executable, "-m", "cgagent")
# A booted kernel under emulation is some 20 times slower than the machine.
TIMEOUT = 240.0

# Runs one command line over and over in one interpreter, whose start would be most of the time of each; prints
# code, stdout and stderr of each.
_REPEAT = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from cgagent.cli import main
for _ in range(int(sys.argv[1])):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(sys.argv[2:])
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tests' own environment without what would change a decision."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMAXPROCS", "GOMEMLIMIT", "GODEBUG") and not name.startswith("CGAGENT_")
    }
    return kept | dict(extra or {})


def run(
    command: Sequence[str], group: Group | None = None, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command`, in `group` if one is given, with `extra` variables; a failure is the caller's to judge."""
    words = list(command) if group is None else group.enter(command)
    return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, env=environment(extra), check=False)


def succeed(
    command: Sequence[str], group: Group | None = None, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As `run`, for a command that has to end with 0."""
    done = run(command, group, extra)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def repeat(times: int, *words: str) -> list[subprocess.CompletedProcess[str]]:
    """What `cgagent WORDS` does, `times` times in a row."""
    done = succeed([sys.executable, "-c", _REPEAT, str(times), *words])
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == times
    return [subprocess.CompletedProcess(words, *result) for result in results]


def explain(*options: str, group: Group | None = None, extra: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON document that `cgagent explain` prints, run in `group`."""
    return document(succeed([*CGAGENT, "explain", "-o", "json", *options], group, extra).stdout)


def document(text: str) -> dict[str, Any]:
    """`text` as the document of design section 4."""
    loaded: dict[str, Any] = json.loads(text)
    assert loaded["schema"] == "cgagent.explain/1"
    return loaded


def findings(explained: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The findings by id."""
    return {finding["id"]: finding for finding in explained["findings"]}


def path_of(explained: dict[str, Any], controller: str) -> str:
    """The cgroup that the document gives for `controller`: v1's hierarchy if one names it, else v2's."""
    hierarchies = explained["cgroup"]["hierarchies"]
    for hierarchy in hierarchies:
        if controller in hierarchy["controllers"] and hierarchy["version"] == 1:
            return str(hierarchy["path"])
    return next(str(hierarchy["path"]) for hierarchy in hierarchies if hierarchy["version"] == 2)
