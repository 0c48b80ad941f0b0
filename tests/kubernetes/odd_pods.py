"""Pods as nobody writes them on purpose: every choice that an injection looks at, at random, and valid all the same."""

from __future__ import annotations

import random

from kubernetes.node import GO, image_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMES = ("app", "worker", "istio-proxy", "config-reloader", "cgagent-ui", "server")
_LIMITS: tuple[dict[str, object], ...] = (
    {"cpu": "500m"},
    {"memory": "64Mi"},
    {"cpu": 1, "memory": "128Mi"},
    {"cpu": "0.5", "memory": "1e8"},
    {"cpu": "0", "memory": "64Mi"},
    {"ephemeral-storage": "1Gi"},
)
_ENTRIES: tuple[dict[str, object], ...] = (
    {"name": "GOMAXPROCS", "value": "1"},
    {"name": "GOMEMLIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
    {"name": "GOGC", "value": "50"},
)
# The last three fit nothing.
_WISHES = ("enabled", "disabled", "true", "On", "1", "False", "no", "off", "0", "maybe", "Enabled", "")


def odd_pod(seed: int) -> dict[str, Any]:
    """The pod of that number, the same each time."""
    chance = random.Random(seed)

    def maybe(one_in: int) -> bool:
        return chance.randrange(one_in) == 0

    names = chance.sample(_NAMES, chance.choice((1, 1, 2, 3)))
    spec: dict[str, Any] = {
        "containers": [_container(name, chance) for name in names],
        "nodeSelector": {"none": "such"},
        "automountServiceAccountToken": False,  # its volume has another name each time
    }
    annotations: dict[str, str] = {}
    if maybe(3):
        limits = chance.choice(({"cpu": "2"}, {"memory": "1Gi"}, {"cpu": "3", "memory": "1Gi"}))
        spec["resources"] = {"limits": limits}
    if maybe(4):
        spec["securityContext"] = {"runAsUser": chance.choice((0, 1000))}
    if maybe(4):
        spec["volumes"] = [{"name": chance.choice(("data", "cgagent-data")), "emptyDir": {}}]
    if maybe(5):
        spec["initContainers"] = [_container(chance.choice(("prepare", "cgagent-prepare")), chance)]
    if maybe(6):
        spec["hostNetwork"] = True
    if maybe(8):
        spec["nodeSelector"]["kubernetes.io/os"] = chance.choice(("linux", "windows"))
    if maybe(4):
        annotations["kubectl.kubernetes.io/default-container"] = chance.choice((*names, "gone"))
    if maybe(4):
        annotations["cgagent.dev/inject"] = chance.choice(_WISHES)
    if maybe(6):
        annotations["example.com/note"] = "~/"
    metadata: dict[str, object] = {"name": f"odd-{seed}"}
    if annotations or maybe(2):
        metadata["annotations"] = annotations
    if maybe(8):
        metadata["labels"] = {"cgagent.dev/inject": "disabled"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _container(name: str, chance: random.Random) -> dict[str, Any]:
    container: dict[str, Any] = {"name": name, "image": image_of(GO)}
    if chance.randrange(4):
        container["resources"] = {"limits": dict(chance.choice(_LIMITS))}
    if not chance.randrange(3):
        container["env"] = [dict(one) for one in chance.sample(_ENTRIES, chance.randrange(3))]
    return container
