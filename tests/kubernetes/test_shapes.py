"""Every shape of pod: the program has the decision, the QoS class is the one without cgagent, no event is a warning."""

from __future__ import annotations

import json
import os

import pytest

from kubernetes.node import (
    GO,
    ROOT,
    apply,
    cluster,
    get,
    image_of,
    kubectl,
    metric,
    ready,
    runs_with,
    until,
    warnings,
    within,
)
from kubernetes.pods import ENVIRON, LIMITS, SHARED, injected, pod
from support.kube import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

SHAPES: dict[str, tuple[str, ...]] = {
    "init container": ("--mode=filekeyref",),
    "sidecar": ("--mode=sidecar",),
    "sidecar that sees the application": SHARED,
    "sidecar that tunes": (*SHARED, "--hook=tune"),
    "sidecar that signals": (*SHARED, "--hook=signal:TERM"),
    "sidecar that restarts all": ("--mode=sidecar", "--hook=exit:88"),
    "bundle": ("--mode=bundle",),
}
# By the rules of Kubernetes: all limits requested, or less, or nothing said of one resource.
CLASSES: dict[str, dict[str, object]] = {
    "Guaranteed": {"limits": LIMITS, "requests": LIMITS},
    "Burstable": {"limits": LIMITS, "requests": {"cpu": "100m", "memory": "64Mi"}},
}


@pytest.mark.parametrize("quality", CLASSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_inject_makes_changes_nothing_but_the_variables(shape: str, quality: str, tmp_path: Path) -> None:
    name = f"{shape.replace(' ', '-')}-{quality.lower()}"
    manifest = pod(name, GO, command=["/orders"], resources=CLASSES[quality])
    apply(injected(manifest, tmp_path, *SHAPES[shape]))
    found = ready(name)
    assert runs_with(name)["environ"] == ENVIRON
    assert found["status"]["qosClass"] == quality
    assert warnings(name) == []


def test_a_pod_that_a_resize_restarts_is_as_good(tmp_path: Path) -> None:
    """`inject` adds a preStop hook there."""
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    apply(injected(pod("policy", GO, resizePolicy=policy), tmp_path, "--mode=sidecar"))
    assert ready("policy")["status"]["qosClass"] == "Guaranteed"
    assert runs_with("policy")["environ"] == ENVIRON
    assert warnings("policy") == []


def kustomized(name: str) -> str:
    """An example of k8s/, of one pod, with the image that the node has."""
    built = cluster("kubectl", "kustomize", os.path.join(ROOT, "k8s", "examples", name))
    return built.replace("image: orders:0.1.0", f"image: {image_of(GO)}").replace("replicas: 2", "replicas: 1")


@pytest.mark.parametrize("example", ["orders", "orders-init", "orders-sidecar", "orders-tune"])
def test_what_k8s_has_runs_as_it_says(example: str) -> None:
    manifest = kustomized(example)
    apply(manifest)
    try:
        kubectl("rollout", "status", "deployment/orders", within(90))
        (found,) = get("pod", "", "-l", "app.kubernetes.io/name=orders")["items"]
        name = found["metadata"]["name"]
        # Half a CPU and 256 MiB.
        expected = {} if example == "orders" else {"GOMAXPROCS": "1", "GOMEMLIMIT": "241591910"}
        assert runs_with(name)["environ"] == expected
        assert found["status"]["qosClass"] == "Guaranteed"
        # With cgagent or without, the application's own probe may come before it listens.
        assert [one for one in warnings(name) if "Readiness probe failed" not in one] == []
        if example == "orders-tune":
            until("the program", lambda: metric(name, "cgagent_go_gomemlimit_bytes") == 241591910, 30)
    finally:
        kubectl("delete", "-f", "-", text=manifest)


def reported(manifest: object, directory: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    """What `cgagent inject` makes of `manifest`, and what it says."""
    file = directory / "pod.json"
    file.write_text(json.dumps(manifest))
    capsys.readouterr()
    assert run("inject", *options, str(file)) == 0
    said = capsys.readouterr()
    return said.out, said.err


def of_pod_level(name: str, containers: int) -> dict[str, Any]:
    """A pod whose limits are the pod's alone."""
    manifest = pod(name, GO, resources={})
    spec = manifest["spec"]
    spec["resources"] = {"limits": {"cpu": "2", "memory": "512Mi"}}
    spec["containers"] += [{**spec["containers"][0], "name": f"other-{at}", "args": [f"-listen=:{8080 + at}"]}
                           for at in range(1, containers)]  # fmt: skip
    return manifest


@pytest.mark.parametrize("mode", ["filekeyref", "sidecar", "bundle"])
def test_the_only_container_of_a_pod_has_the_pods_limits(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = of_pod_level("alone", 1)
    manifest["spec"]["containers"][0]["command"] = ["/orders"]
    result, said = reported(manifest, tmp_path, capsys, f"--mode={mode}")
    assert ("the pod's own limits don't show in a volume: not followed" in said) == (mode == "sidecar")
    apply(result)
    found = ready("alone")
    assert runs_with("alone")["environ"] == {"GOMAXPROCS": "2", "GOMEMLIMIT": str(512 * (1 << 20) * 9 // 10)}
    assert found["status"]["qosClass"] == "Guaranteed"
    assert warnings("alone") == []


@pytest.mark.parametrize("mode", ["filekeyref", "sidecar"])
def test_containers_that_share_the_pods_limits_have_the_whole_each_and_that_is_said(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, said = reported(of_pod_level("sharing", 2), tmp_path, capsys, f"--mode={mode}")
    for resource in ("cpu", "memory"):
        among = f"containers app, other-1 share the pod's {resource} limit, and each sees all of it"
        assert f"container app: {among}: --split gives each its part" in said
    apply(result)
    assert ready("sharing")["status"]["qosClass"] == "Guaranteed"
    assert runs_with("sharing")["environ"] == {"GOMAXPROCS": "2", "GOMEMLIMIT": str(512 * (1 << 20) * 9 // 10)}
    assert warnings("sharing") == []


def test_a_pod_without_any_request_becomes_burstable_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where limits are expected and none come: what is added has requests of its own."""
    apply(json.dumps(pod("plain", GO, resources={})))
    assert ready("plain")["status"]["qosClass"] == "BestEffort"
    result, said = reported(pod("asking", GO, resources={}), tmp_path, capsys, "--expect-limits")
    assert "it requests nothing (BestEffort): by cgagent's own requests it becomes Burstable" in said
    apply(result)
    assert ready("asking")["status"]["qosClass"] == "Burstable"
    assert runs_with("asking")["environ"] == {}
    assert warnings("asking") == []
