"""The test node as Python sees it: kubectl, images, what a pod's program says of itself."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import time

from support.kube import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
CLUSTER = os.path.join(HERE, "cluster")
ROOT = os.path.dirname(os.path.dirname(HERE))
# Made by `make image`.
ARCHIVE = os.environ.get("CGAGENT_TEST_IMAGE") or os.path.join(ROOT, "build", "cgagent-image.tar")
# The last release whose runtime looks at no cgroup, and one that does.
GO_VERSIONS = ("1.24.11", "1.27.3")
GO = GO_VERSIONS[1]  # where one is enough
# An emulated machine is slower: every time limit here is that many times as long.
PATIENCE = float(os.environ.get("CLUSTER_PATIENCE", "1"))
NAMESPACE = "shop"
# What tests have measured, told at the end of a run.
FIGURES: list[str] = []
PORT = 8080
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def image_of(version: str) -> str:
    """The image of the sample service, built by that version of Go."""
    return f"cgagent.test/orders:{version}"


class NodeError(Exception):
    """A command that failed, with what it said."""


def cluster(*words: str, text: str | None = None) -> str:
    """`tests/kubernetes/cluster WORDS…`: its output."""
    done = subprocess.run([CLUSTER, *words], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NodeError(f"{' '.join(words[:6])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def cgagent(name: str, *words: str) -> str:
    """`cgagent NAME WORDS…`: its output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert run(name, *words) == 0
    return out.getvalue()


def kubectl(*words: str, text: str | None = None) -> str:
    """`kubectl WORDS…` in the tests' namespace."""
    return cluster("kubectl", "-n", NAMESPACE, *words, text=text)


def get(kind: str, name: str = "", *words: str) -> Any:
    """An object, or with no name a list of them, as plain values."""
    return json.loads(kubectl("get", kind, *([name] if name else []), "-o", "json", *words))


def apply(manifest: str) -> None:
    """Create or change what `manifest` says."""
    kubectl("apply", "-f", "-", text=manifest)


def within(seconds: float) -> str:
    """The option by which kubectl and helm wait for so long at most."""
    return f"--timeout={seconds * PATIENCE:g}s"


def until(what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What `condition` returns, once that is true; `what` names it where it never is."""
    deadline = time.monotonic() + seconds * PATIENCE
    last: object = None
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except (NodeError, ValueError, KeyError, IndexError) as error:
            last = error
        time.sleep(0.1 * PATIENCE)  # each look costs an emulated machine seconds that the node needs
    raise AssertionError(f"{what} did not come about in {seconds * PATIENCE:g} s; last: {last}")


def ready(pod: str, seconds: float = 60) -> Any:
    """The pod, once it is ready."""

    def look() -> Any:
        found = get("pod", pod)
        conditions = {one["type"]: one["status"] for one in found["status"].get("conditions", [])}
        return found if conditions.get("Ready") == "True" else None

    return until(f"pod {pod} being ready", look, seconds)


def http(pod: Any, port: int, path: str) -> str:
    """What a pod answers to GET `path`."""
    url = f"http://{pod['status']['podIP']}:{port}{path}"
    return cluster("exec", "curl", "--silent", "--show-error", "--fail", "--max-time", f"{5 * PATIENCE:g}", url)


def runs_with(pod: str) -> dict[str, Any]:
    """What the sample service in `pod` says its Go runtime has."""
    found: dict[str, Any] = until(
        f"{pod} answering", lambda: json.loads(http(get("pod", pod), PORT, "/debug/limits")), 30
    )
    return found


def metric(pod: str, name: str, port: int = 9101) -> float:
    """The value of the sidecar's metric `name`.

    Raises:
        KeyError: it has none at present.
    """
    lines = http(get("pod", pod), port, "/metrics").split("\n")
    found = [line.split(" ")[1] for line in lines if line.startswith(f"{name} ")]
    if not found:
        raise KeyError(name)
    return float(found[0])


def warnings(pod: str) -> list[str]:
    """The warning events about `pod`, and not about an earlier one of that name."""
    uid = get("pod", pod)["metadata"]["uid"]
    events = get("events", "", "--field-selector", f"involvedObject.uid={uid},type=Warning")["items"]
    return [f"{one['reason']}: {one['message']}" for one in events]


def resize(pod: str, container: str, limits: dict[str, str]) -> None:
    """Ask for new limits and requests of one container, in place."""
    change = {"spec": {"containers": [{"name": container, "resources": {"requests": limits, "limits": limits}}]}}
    kubectl("patch", "pod", pod, "--subresource", "resize", "--patch", json.dumps(change))


def restarts(pod: str, container: str) -> int:
    """How often a container was started again."""
    statuses = get("pod", pod)["status"]["containerStatuses"]
    return int(next(one["restartCount"] for one in statuses if one["name"] == container))
