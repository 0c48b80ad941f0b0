"""Takes the gallery's real captures of Kubernetes on cgroup v2, on a node of an emulated machine.

    CLUSTER_CPUS=8 tests/kubernetes/cluster v2 python tests/gallery/on_kubernetes.py

prints each as a line `CAPTURE NAME BASE64`, as in_machine.py does, below a line `ABOUT NAME how it was taken`.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from pathlib import Path

from kubernetes import node, pods
from sample.build import sample

COMMAND = ["cgagent", "capture", "--blank-paths", "-"]
STATIC_CPUS = ("cpuManagerPolicy: static", "kubeReserved: {cpu: 500m}")


def furnish(directory: Path) -> None:
    node.cluster("load", node.ARCHIVE)
    program = directory / "orders"
    program.write_bytes(Path(sample(node.GO)).read_bytes())
    node.cluster("image", node.image_of(node.GO), str(program))
    node.cluster("kubectl", "create", "namespace", node.NAMESPACE)
    node.until("a service account", lambda: node.get("serviceaccount", "default"))


def take(name: str, cpus: str, how: str, directory: Path) -> None:
    """Print the capture of a Guaranteed pod as the kubelet makes it."""
    limits = {"cpu": cpus, "memory": "384Mi"}
    manifest = pods.pod(name, node.GO, resources={"limits": limits}, command=["/orders"])
    node.apply(pods.injected(manifest, directory, "--mode=bundle"))
    node.ready(name)
    words = [node.CLUSTER, "kubectl", "-n", node.NAMESPACE, "exec", name, "--", f"/run/cgagent/{COMMAND[0]}"]
    done = subprocess.run([*words, *COMMAND[1:], "--quiet"], capture_output=True, check=False)
    taken = f"Kubernetes {version()}, driver cgroupfs{how}, limits cpu {cpus} and memory 384Mi; kubectl exec POD --"
    machine = f"Linux {os.uname().release}, cgroup v2 alone, emulated with {os.cpu_count()} CPUs"
    print("ABOUT", name, f"{taken} {' '.join(COMMAND)}; {machine}")
    print("CAPTURE", name, base64.b64encode(done.stdout).decode())
    if done.returncode:
        print(f"{name}: {done.stderr.decode()}")


def version() -> str:
    found: str = node.get("node", "node")["status"]["nodeInfo"]["kubeletVersion"]
    return found.removeprefix("v")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        furnish(Path(work))
        take("kubernetes-cgroupfs-v2", "2500m", "", Path(work))
        node.cluster("restart", "kubelet", *STATIC_CPUS)
        take("kubernetes-static-cpus", "3", ", static CPU manager", Path(work))
