"""What is put into a pod: containers, volumes, variables. Plain values, each from its arguments alone."""

from __future__ import annotations

from cgagent.kube.targets import CPU, EXPECTED, MEMORY, OWN, PART, POD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgagent.kube.settings import Settings
    from cgagent.kube.targets import Target

    Object = dict[str, object]

DIRECTORY = "/run/cgagent"
LIMITS_DIRECTORY = "/etc/cgagent/limits"
# Made by who needs it, for its user alone: the volume itself is everybody's.
STATE_DIRECTORY = f"{DIRECTORY}/state"
# Where a client in a pod looks: what is mounted here keeps Kubernetes from mounting its own.
ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
# The shortest that there is; the kubelet renews it in time.
_TOKEN_SECONDS = 600
PORT_NAME = "cgagent-metrics"
# The application's start waits for the file; a minute is long enough for any image that is there already.
_PATIENCE = "60s"
_DIVISOR = {CPU: "1m", MEMORY: "1"}
_FILE = {CPU: "cpu_limit_millicores", MEMORY: "memory_limit_bytes"}
_FIXED = {CPU: ("CGAGENT_CPU_LIMIT", "m"), MEMORY: ("CGAGENT_MEMORY_LIMIT_BYTES", "")}
# For the start and for one scrape at a time; measured on the node.
INIT_RESOURCES = {"cpu": "100m", "memory": "32Mi"}
SIDECAR_RESOURCES = {"cpu": "100m", "memory": "64Mi"}
ENV_VOLUME_SIZE, BUNDLE_VOLUME_SIZE = "1Mi", "16Mi"


def container(name: str, settings: Settings, identity: str, resources: dict[str, str], args: Sequence[str]) -> Object:
    """A container of cgagent that restricted Pod Security lets in, and that keeps a Guaranteed pod Guaranteed.

    `resources` are those that the pod does not state at its own level.
    """
    user, _, group = identity.partition(":")
    identified: Object = {"runAsUser": int(user), "runAsGroup": int(group)} if identity else {}
    return {
        "name": name,
        "image": settings.image,
        "args": list(args),
        **({"resources": {"requests": dict(resources), "limits": dict(resources)}} if resources else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            **identified,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def policy_args(settings: Settings) -> list[str]:
    """The policy options, as words."""
    return [f"--{name.replace('_', '-')}={text}" for name, text in settings.policy.items()]


def deciding_args(target: Target, settings: Settings, file: str) -> list[str]:
    """The words that say what to write and by which rules; nothing that goes wrong may keep the pod from starting."""
    trusting = [] if EXPECTED in target.sources.values() else ["--trust-given"]
    return [f"--env-file={DIRECTORY}/{file}", "--on-error=ignore", *trusting, *policy_args(settings)]


def given_env(target: Target, sources: Sequence[str]) -> list[Object]:
    """The limits whose source is one of `sources`, as variables for cgagent."""
    entries: list[Object] = []
    for resource, source in target.sources.items():
        if source not in sources:
            continue
        if source == PART:
            name, unit = _FIXED[resource]
            entries.append({"name": name, "value": f"{target.parts[resource]}{unit}"})
        else:
            reference = limit_reference(target, resource)
            entries.append({"name": f"CGAGENT_{_FILE[resource].upper()}", "valueFrom": {"resourceFieldRef": reference}})
    return entries


def limit_reference(target: Target, resource: str) -> Object:
    """The downward API's reference to a limit, in whole millicores or bytes."""
    return {"containerName": target.name, "resource": f"limits.{resource}", "divisor": _DIVISOR[resource]}


def limits_volume(name: str, target: Target) -> Object:
    """The limits as files, which follow an in-place resize. It shows limits that are the container's own alone."""
    items = [
        {"path": _FILE[resource], "resourceFieldRef": limit_reference(target, resource)}
        for resource, source in target.sources.items()
        if source in (OWN, EXPECTED)
    ]
    return {"name": name, "downwardAPI": {"items": items}}


def in_environment(target: Target) -> list[Object]:
    """For an init container: all limits."""
    return given_env(target, (OWN, POD, PART, EXPECTED))


def not_in_volume(target: Target) -> list[Object]:
    """For a sidecar: the limits that its volume does not show."""
    return given_env(target, (POD, PART))


def confirming_env(target: Target) -> list[Object]:
    """For a sidecar that asks before it takes a raised limit: its pod's name, and what the kubelet has granted."""
    name: Object = {"name": "CGAGENT_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return [name, *given_env(target, (OWN, EXPECTED))]


def token_volume(name: str) -> Object:
    """What a client of the API server needs: a token, the CA, the namespace."""
    sources: list[Object] = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": name, "projected": {"sources": sources}}


def memory_volume(name: str, size: str) -> Object:
    """A directory in memory: with its sticky bit another user can't replace what stands there."""
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def file_reference(variable: str, volume: str, file: str) -> Object:
    """A variable that the kubelet takes from the env file, and leaves unset where the file has no line for it."""
    reference = {"volumeName": volume, "path": file, "key": variable, "optional": True}
    return {"name": variable, "valueFrom": {"fileKeyRef": reference}}


def mount(volume: str, path: str, *, read_only: bool = False) -> Object:
    """A volume's mount."""
    return {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}


def restart_all(code: int) -> list[Object]:
    """What has the kubelet restart all containers of the pod when a container ends with `code` (KEP-5532)."""
    return [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [code]}}]


def wait_for_file(file: str) -> Object:
    """A hook that lets the containers behind a sidecar start when its first decision is written, and no sooner."""
    command = ["cgagent", "wait", f"--env-file={DIRECTORY}/{file}", f"--timeout={_PATIENCE}"]
    return {"postStart": {"exec": {"command": command}}}
