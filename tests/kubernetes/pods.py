"""Pods of the sample service, as restricted Pod Security wants them."""

from __future__ import annotations

import json

from kubernetes.node import cgagent, image_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

LIMITS = {"cpu": "1500m", "memory": "256Mi"}
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
USER = {"runAsUser": 65532, "runAsGroup": 65532}


def pod(name: str, version: str, **more: object) -> dict[str, object]:
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
    return cgagent("inject", *options, str(file))
