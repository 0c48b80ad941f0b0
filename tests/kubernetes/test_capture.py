"""What is captured in a pod explains the same elsewhere."""

from __future__ import annotations

import json
import subprocess

from kubernetes.node import CLUSTER, GO_VERSIONS, NAMESPACE, apply, kubectl, ready, runs_with
from kubernetes.pods import injected, pod
from support.kube import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import pytest

# What a capture is of: not the moment's usage, nor the program's memory and environment.
LASTING = ("cgroup", "limits")


def test_a_capture_from_a_pod_explains_as_the_pod_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    apply(injected(pod("captured", GO_VERSIONS[1]), tmp_path, "--mode=sidecar", "--share-process-namespace"))
    ready("captured")
    pid = str(runs_with("captured")["pid"])
    inside = json.loads(in_sidecar("explain", "--pid", pid, "--output", "json"))
    file = tmp_path / "captured.tar.gz"
    file.write_bytes(in_sidecar("capture", "--pid", pid, "--quiet", "-"))
    capsys.readouterr()
    assert run("explain", "--root", str(file), "--output", "json") == 0
    # From the sidecar the way there leads through /proc/PID/root.
    inside = json.loads(json.dumps(inside).replace(f"/proc/{pid}/root/", "/"))
    outside: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {key: outside[key] for key in LASTING} == {key: inside[key] for key in LASTING}
    assert inside["limits"]["memory"]["bytes"] == 256 << 20
    assert outside["decision"]["GOMEMLIMIT"]["value"] == inside["decision"]["GOMEMLIMIT"]["value"]
    kubectl("delete", "pod", "captured", "--grace-period=1")


def in_sidecar(*words: str) -> bytes:
    command = [CLUSTER, "kubectl", "-n", NAMESPACE, "exec", "captured", "-c", "cgagent", "--", "cgagent", *words]
    return subprocess.run(command, capture_output=True, check=True).stdout
