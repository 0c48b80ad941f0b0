"""A capture from a distroless container of a real Docker engine: what it explains is what the container explains."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cgagent.capture import load
from kernel.test_capture import alike

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from deploy.engine import Engine

LIMITS = ["--cpus", "1.5", "--memory", "256m", "--read-only", "--cap-drop", "ALL", "--user", "65532:65532"]
PROGRAM = "/opt/cgagent/cgagent"
CGAGENT = [sys.executable, "-m", "cgagent"]


@pytest.fixture(scope="module", params=["host", "private"])
def container(request: pytest.FixtureRequest, engine: Engine, image: str) -> Iterator[str]:
    """A container of cgagent's own image that waits, with the host's cgroup namespace or one of its own."""
    words = ["run", "--detach", "--network", "none", "--cgroupns", request.param, *LIMITS]
    made = engine.done(*words, image, "wait", "--env-file", "/nowhere", "--timeout", "600s").strip()
    yield made
    engine.done("rm", "--force", made)


def explained(*words: str) -> dict[str, Any]:
    done = subprocess.run([*CGAGENT, "explain", "-o", "json", *words], capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_capture_through_exec_explains_as_the_container_itself(
    engine: Engine, container: str, tmp_path: object
) -> None:
    path = f"{tmp_path}/c.tar.gz"
    with open(path, "wb") as file:
        words = ["docker", "exec", container, PROGRAM, "capture", "-"]
        subprocess.run(words, env=engine.environ, stdout=file, check=True)
    live = json.loads(engine.done("exec", container, PROGRAM, "explain", "-o", "json"))

    captured = explained("--root", path)

    assert alike(captured) == alike(live)
    assert captured["limits"]["cpu"]["cores"] == 1.5
    assert captured["limits"]["memory"]["bytes"] == 256 << 20
    keep = os.environ.get("CGAGENT_TEST_KEEP")
    if keep:  # how the gallery's real capture was made
        os.replace(path, keep)


def test_a_capture_from_the_host_shows_what_the_container_sees(
    engine: Engine, container: str, tmp_path: object
) -> None:
    pid = engine.done("inspect", "--format", "{{.State.Pid}}", container).strip()
    path = f"{tmp_path}/c.tar.gz"
    subprocess.run([*CGAGENT, "capture", "--quiet", "--pid", pid, path], check=True)
    live = json.loads(engine.done("exec", container, PROGRAM, "explain", "-o", "json"))

    assert load(path).meta.pid == int(pid)
    assert load(path).meta.view == "inside"
    assert alike(explained("--root", path)) == alike(live)
