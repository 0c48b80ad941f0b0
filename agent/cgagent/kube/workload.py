"""Which objects of Kubernetes have a pod in them and where, and which containers of it are the application."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# (API group, kind) -> the way to the pod template; of a pod that is the object itself.
_TEMPLATE = ("spec", "template")
TEMPLATES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (),
    ("", "PodTemplate"): ("template",),
    ("", "ReplicationController"): _TEMPLATE,
    ("apps", "DaemonSet"): _TEMPLATE,
    ("apps", "Deployment"): _TEMPLATE,
    ("apps", "ReplicaSet"): _TEMPLATE,
    ("apps", "StatefulSet"): _TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("batch", "Job"): _TEMPLATE,
}
# Containers that platforms put beside an application. They know themselves what they may use.
PLATFORM = frozenset(
    (
        *("istio-proxy", "istio-validation", "linkerd-proxy", "consul-dataplane", "envoy", "envoy-sidecar"),
        *("kuma-sidecar", "vault-agent", "cloud-sql-proxy", "cloudsql-proxy", "daprd", "queue-proxy"),
        *("jaeger-agent", "otc-container", "datadog-agent", "fluent-bit", "fluentbit", "filebeat", "promtail"),
        *("config-reloader", "kube-rbac-proxy", "oauth-proxy", "oauth2-proxy", "nginx-sidecar", "git-sync"),
    )
)
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def template_path(api_version: object, kind: object) -> tuple[str, ...] | None:
    """Where the pod template is in an object of this kind; None where it has none that is known."""
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return None
    group = api_version.rpartition("/")[0]
    return TEMPLATES.get((group, kind))


def as_map(value: object) -> dict[str, object]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def named(items: object) -> dict[str, dict[str, object]]:
    """The mappings in a list by their `name`."""
    return {str(one["name"]): one for one in map(as_map, as_list(items)) if isinstance(one.get("name"), str)}


def limits_of(owner: Mapping[str, object]) -> dict[str, object]:
    """The limits of a container or, at pod level, of a pod spec; without those that are 0, which means none."""
    limits = as_map(as_map(owner.get("resources")).get("limits"))
    return {name: limit for name, limit in limits.items() if limit is not None and str(limit) != "0"}


def requested(owner: Mapping[str, object]) -> set[str]:
    """The resources that a container or, at pod level, a pod spec requests or limits."""
    resources = as_map(owner.get("resources"))
    return {name for kind in ("requests", "limits") for name in as_map(resources.get(kind))}


def is_best_effort(spec: Mapping[str, object]) -> bool:
    """Whether the pod has the QoS class BestEffort: nothing in it requests CPU or memory, or limits them."""
    containers = [*named(spec.get("containers")).values(), *named(spec.get("initContainers")).values()]
    return not any(requested(one) for one in (spec, *containers))


def likely_application(spec: Mapping[str, object], annotations: Mapping[str, object]) -> list[str]:
    """The containers that look like the application: the one that kubectl takes, else all but platforms' sidecars."""
    names = list(named(spec.get("containers")))
    default = annotations.get(DEFAULT_CONTAINER)
    if isinstance(default, str) and default in names:
        return [default]
    return [name for name in names if name not in PLATFORM] if len(names) > 1 else names
