"""Captures out of pods that have no shell, by the lines that the README gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from kernel.test_capture import alike
from kubernetes import node
from kubernetes.node import GO_VERSIONS, kubectl, ready, until
from kubernetes.pods import LIMITS, SECURITY, pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

IMAGE = os.environ.get("CGAGENT_TEST_IMAGE_NAME", "cgagent:0.1.0")
WAITS = ["cgagent", "wait", "--env-file", "/none", "--timeout", "600s"]


# Little is asked for: a node of two CPUs has other guests.
RESOURCES = {"limits": LIMITS, "requests": {"cpu": "10m", "memory": "16Mi"}}


def captured(name: str, path: Path, *words: str) -> dict[str, Any]:
    """What `explain --root` tells of the capture that the container `cgagent` of a pod takes."""
    exec_ = ["kubectl", "-n", node.NAMESPACE, "exec", name, "-c", "cgagent", "--"]
    with path.open("wb") as file:
        subprocess.run([node.CLUSTER, *exec_, "cgagent", "capture", *words, "-"], stdout=file, check=True)
    words_ = [sys.executable, "-m", "cgagent", "explain", "--root", str(path), "-o", "json"]
    document: dict[str, Any] = json.loads(subprocess.run(words_, capture_output=True, check=True).stdout)
    return document


def explained(name: str, *words: str) -> dict[str, Any]:
    """What a container `cgagent` explains itself."""
    text = kubectl("exec", name, "-c", "cgagent", "--", "cgagent", "explain", "-o", "json", *words)
    document: dict[str, Any] = json.loads(text)
    return document


def test_a_sidecar_captures_itself_and_the_application_beside_it(tmp_path: Path) -> None:
    manifest: Any = pod("captured", GO_VERSIONS[0], resources=RESOURCES)
    limits = RESOURCES | {"limits": {"cpu": "500m", "memory": "64Mi"}}
    manifest["spec"]["shareProcessNamespace"] = True
    manifest["spec"]["containers"].append(
        {"name": "cgagent", "image": IMAGE, "command": WAITS, "resources": limits, "securityContext": SECURITY}
    )
    kubectl("apply", "-f", "-", text=json.dumps(manifest))
    ready("captured")
    found = kubectl("exec", "captured", "-c", "cgagent", "--", "cgagent", "top", "--once", "-o", "json")
    pid = next(str(one["pid"]) for one in json.loads(found)["processes"] if one["name"] == "orders")  # pause is Go too

    own, application = captured("captured", tmp_path / "own"), captured("captured", tmp_path / "app", "--pid", pid)

    assert alike(own) == alike(explained("captured"))
    assert (own["limits"]["cpu"]["cores"], own["limits"]["memory"]["bytes"]) == (0.5, 64 << 20)
    assert (application["limits"]["cpu"]["cores"], application["limits"]["memory"]["bytes"]) == (1.5, 256 << 20)


def test_a_pod_that_was_never_touched_is_captured_by_an_ephemeral_container(tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", text=json.dumps(pod("plain", GO_VERSIONS[0], resources=RESOURCES)))
    ready("plain")
    words = ["--container=cgagent", "--target=app", "--profile=restricted", "--", *WAITS]
    kubectl("debug", "plain", "-q", f"--image={IMAGE}", *words)
    until("the ephemeral container", lambda: kubectl("exec", "plain", "-c", "cgagent", "--", "cgagent", "--version"))

    application = captured("plain", tmp_path / "app", "--pid", "1")

    assert (application["limits"]["cpu"]["cores"], application["limits"]["memory"]["bytes"]) == (1.5, 256 << 20)
