"""Pods of the sample service, as restricted Pod Security wants them."""

from __future__ import annotations

import json
import os
import signal

from cgagent import envfile
from cgagent.commands import kubectl_plugin
from kubernetes.node import NAMESPACE, PATIENCE, ROOT, cgagent, get, http, image_of, metric, restarts, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import pytest

LIMITS = {"cpu": "1500m", "memory": "256Mi"}
ENVIRON = {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}  # what follows from them
CONFIRMING = ("--mode=sidecar", "--confirm-raises")
ROLE = os.path.join(ROOT, "k8s", "components", "confirm-raises", "role.yaml")
SHARED = ("--mode=sidecar", "--share-process-namespace")
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
USER = {"runAsUser": 65532, "runAsGroup": 65532}


def pod(name: str, version: str, **more: object) -> dict[str, Any]:
    """A Guaranteed pod; `more` goes into its container."""
    container = {
        "name": "app",
        "image": image_of(version),
        "resources": {"limits": LIMITS},
        "securityContext": SECURITY,
        **more,
    }
    security = {"runAsNonRoot": True, **USER, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "securityContext": security, "terminationGracePeriodSeconds": 5}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def injected(manifest: object, directory: Path, *options: str) -> str:
    """What `cgagent inject` makes of `manifest`."""
    file = directory / "pod.json"
    file.write_text(json.dumps(manifest))
    manifest = cgagent("inject", *options, str(file))
    return manifest if PATIENCE < 5 else _unthrottled(manifest)


def _unthrottled(manifest: str) -> str:
    """With more CPU and time for what is injected: under its quota an emulated one takes a minute to start Python."""
    found = json.loads(manifest.replace("--timeout=60s", f"--timeout={60 * PATIENCE:g}s"))
    for container in found["spec"].get("initContainers", []):
        for quantities in container.get("resources", {}).values():
            if quantities.get("cpu") == "100m":
                quantities["cpu"] = "400m"
    return json.dumps(found)


def explained(
    name: str, capfd: pytest.CaptureFixture[str], *options: str, namespace: str = NAMESPACE
) -> dict[str, Any]:
    """What `kubectl cgagent explain` says of a pod."""
    capfd.readouterr()
    words = ["explain", name, "--namespace", namespace, "--output", "json", *options]
    assert kubectl_plugin.main(words) == 0, capfd.readouterr().err
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def limit_for(mebibytes: int) -> int:
    """The GOMEMLIMIT for so much memory: nine tenths, rounded down."""
    return mebibytes * (1 << 20) * 9 // 10


def env_file(name: str) -> dict[str, str]:
    """What the env file of a pod with a sidecar holds; nothing where there is none."""
    (sidecar,) = processes(name, "cgagent")
    try:
        with open(f"/proc/{sidecar}/root/run/cgagent/go.env") as file:
            return envfile.parse(file.read(), "go.env")
    except OSError:
        return {}


def file_has(name: str, limit: int) -> bool:
    """Whether the env file has that memory limit: who starts next gets it."""
    return env_file(name).get("GOMEMLIMIT") == str(limit)


def until_agreed(name: str, limit: int) -> None:
    """Until file and metrics say `limit`."""
    until(f"{limit} in the env file of {name}", lambda: file_has(name, limit), 20)
    until(f"{limit} in the metrics of {name}", lambda: metric(name, "cgagent_gomemlimit_bytes") == limit, 20)


def findings(name: str) -> list[str]:
    """The ids of what a pod's sidecar finds."""
    return [one["id"] for one in json.loads(http(get("pod", name), 9101, "/explain"))["findings"]]


def conditions(name: str) -> dict[str, str]:
    """The pod's conditions with their reasons."""
    return {one["type"]: one.get("reason", "") for one in get("pod", name)["status"]["conditions"]}


def processes(name: str, command: str, namespace: str = NAMESPACE) -> list[int]:
    """The host's PIDs of the processes called `command` in a pod's containers."""
    uid = get("pod", name, "-n", namespace)["metadata"]["uid"]
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cgroup") as cgroup, open(f"/proc/{pid}/comm") as comm:
                if f"pod{uid}" in cgroup.read() and comm.read().strip() == command:
                    found.append(int(pid))
        except OSError:
            pass
    return found


def sidecar_restarts(name: str) -> int:
    """How often a pod's sidecar was started again."""
    return int(get("pod", name)["status"]["initContainerStatuses"][0]["restartCount"])


def restart_application(name: str) -> None:
    """Kill the sample service in a pod, and wait until it was started again."""
    before = restarts(name, "app")
    (application,) = processes(name, "orders")
    os.kill(application, signal.SIGKILL)
    until("the restart", lambda: restarts(name, "app") == before + 1, 60)
