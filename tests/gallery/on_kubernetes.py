"""Takes the gallery's real captures of Kubernetes on cgroup v2, on a node of an emulated machine.

    CLUSTER_CPUS=8 tests/kubernetes/cluster v2 python tests/gallery/on_kubernetes.py

prints each as a line `CAPTURE NAME BASE64`, as in_machine.py does, below a line `ABOUT NAME how it was taken`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from kubernetes import node, pods
from sample.build import sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GO = node.GO_VERSIONS[1]
LIMITS = {"cpu": "2500m", "memory": "384Mi"}
LARGER = {"cpu": "3500m", "memory": "512Mi"}
RESOURCES = {
    "guaranteed": {"limits": LIMITS},
    "burstable": {"requests": {"cpu": "500m", "memory": "128Mi"}, "limits": LIMITS},
}
CAPTURE = ["capture", "--quiet", "--blank-paths"]
BUNDLE = "/run/cgagent/cgagent"


def emit(name: str, about: str, words: list[str]) -> None:
    """Run a command that writes a capture to standard output, and print it as a line."""
    name = f"kubernetes-cgroupfs-v2-{name}"
    done = subprocess.run(words, capture_output=True, check=False)
    print("ABOUT", name, f"Kubernetes {version()}, driver cgroupfs, cgroup v2 alone, {about}", flush=True)
    print("CAPTURE", name, base64.b64encode(done.stdout).decode(), flush=True)
    if done.returncode:
        print(f"{name}: {done.stderr.decode()}", flush=True)


def version() -> str:
    found: str = node.get("node", "node")["status"]["nodeInfo"]["kubeletVersion"]
    return found.removeprefix("v")


def inside(name: str, container: str, *words: str) -> list[str]:
    return [node.CLUSTER, "kubectl", "-n", node.NAMESPACE, "exec", name, "-c", container, "--", *words]


def on_the_node(name: str) -> list[str]:
    """With the node's own mounts and namespaces, in the application's cgroup: every level above it is seen."""
    (pid,) = pods.processes(name, "orders")
    enter = 'echo $$ > "/sys/fs/cgroup$(sed s/^0::// /proc/$0/cgroup)/cgroup.procs" && exec "$@"'
    return ["sh", "-c", enter, str(pid), sys.executable, "-m", "cgagent", *CAPTURE, "-"]


def furnish(directory: Path) -> None:
    node.cluster("load", node.ARCHIVE)
    program = directory / "orders"
    program.write_bytes(Path(sample(GO)).read_bytes())
    node.cluster("image", node.image_of(GO), str(program))
    node.cluster("kubectl", "create", "namespace", node.NAMESPACE)
    node.until("a service account", lambda: node.get("serviceaccount", "default"))


def plain(name: str, directory: Path) -> None:
    """A pod as the kubelet makes it, by the application itself and from the node."""
    manifest = pods.pod(name, GO, resources=RESOURCES[name], command=["/orders"])
    node.apply(pods.injected(manifest, directory, "--mode=bundle"))
    node.ready(name)
    limits = f"{name}, {json.dumps(RESOURCES[name])}"
    emit(
        name,
        f"{limits}; kubectl exec POD -- cgagent capture --blank-paths -",
        inside(name, "app", BUNDLE, *CAPTURE, "-"),
    )
    emit(
        f"{name}-node",
        f"{limits}; on the node, in the application's cgroup: cgagent capture --blank-paths -",
        on_the_node(name),
    )


def resized(directory: Path) -> None:
    """A pod that was resized in place, by the sidecar that shares its process namespace and from the node."""
    name = "resized"
    manifest = pods.pod(name, GO, resources=RESOURCES["guaranteed"])
    node.apply(pods.injected(manifest, directory, "--mode=sidecar", "--share-process-namespace"))
    node.ready(name)
    node.resize(name, "app", LARGER)
    node.until("the resize", lambda: _has(node.get("pod", name), LARGER))
    pid = str(node.runs_with(name)["pid"])
    how = f"guaranteed, {json.dumps(LIMITS)}, resized in place to {json.dumps(LARGER)}"
    words = inside(name, "cgagent", "cgagent", *CAPTURE, f"--pid={pid}", "-")
    emit(name, f"{how}; kubectl exec POD -c cgagent -- cgagent capture --blank-paths --pid PID -", words)
    emit(
        f"{name}-node",
        f"{how}; on the node, in the application's cgroup: cgagent capture --blank-paths -",
        on_the_node(name),
    )


def _has(pod: Any, limits: dict[str, str]) -> bool:
    """Whether the kubelet says that the application's container has these limits."""
    statuses = pod["status"]["containerStatuses"]
    return any(one["name"] == "app" and one["resources"]["limits"] == limits for one in statuses)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        furnish(Path(work))
        for one in RESOURCES:
            plain(one, Path(work))
        resized(Path(work))
