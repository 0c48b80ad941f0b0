"""Manifests that well-known projects publish in their Go modules: injected, undone, valid, taken by the API server.

They are read where `go mod download` puts them; none is kept here. What each is expected to get was read off it.
"""

from __future__ import annotations

import json
import os

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from cgagent.kube.manifests import inject, uninject, values
from kubernetes.go_module import go_module
from kubernetes.node import cluster

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE = "published"
KNATIVE = "knative.dev/serving@v0.47.0"
FLUX = "github.com/fluxcd/source-controller@v1.7.0"
TEKTON = "github.com/tektoncd/pipeline@v1.4.0"
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
STATE_METRICS = "k8s.io/kube-state-metrics/v2@v2.15.0"
ARGO = "github.com/argoproj/argo-cd/v3@v3.1.0"
# The workloads of each, and the container of it that has limits; none: it has none, and is left as it is.
MANIFESTS: dict[tuple[str, str], dict[str, str | None]] = {
    (KNATIVE, "config/core/deployments/activator.yaml"): {"deployment/activator": "activator"},
    (KNATIVE, "config/core/deployments/autoscaler.yaml"): {"deployment/autoscaler": "autoscaler"},
    (KNATIVE, "config/core/deployments/controller.yaml"): {"deployment/controller": "controller"},
    (FLUX, "config/manager/deployment.yaml"): {"deployment/source-controller": "manager"},
    (TEKTON, "config/webhook.yaml"): {"deployment/tekton-pipelines-webhook": "webhook"},
    (TEKTON, "config/controller.yaml"): {"deployment/tekton-pipelines-controller": None},
    (OPERATOR, "example/rbac/prometheus-operator/prometheus-operator-deployment.yaml"): {
        "deployment/prometheus-operator": "prometheus-operator"
    },
    (STATE_METRICS, "examples/autosharding/statefulset.yaml"): {"statefulset/kube-state-metrics": None},
    (STATE_METRICS, "examples/daemonsetsharding/daemonset.yaml"): {"daemonset/kube-state-metrics-shard": None},
    # 25,000 lines, most of them definitions of custom resources.
    (ARGO, "manifests/install.yaml"): {
        "deployment/argocd-applicationset-controller": None,
        "deployment/argocd-dex-server": None,
        "deployment/argocd-notifications-controller": None,
        "deployment/argocd-redis": None,
        "deployment/argocd-repo-server": None,
        "deployment/argocd-server": None,
        "statefulset/argocd-application-controller": None,
    },
}
OPTIONS: tuple[dict[str, str], ...] = (
    {},
    {"expect_limits": "true"},
    {"mode": "sidecar", "expect_limits": "true", "share_process_namespace": "true", "hook": "tune"},
)


@pytest.fixture(scope="module", autouse=True)
def _namespace() -> Iterator[None]:
    cluster("kubectl", "create", "namespace", NAMESPACE)
    yield
    cluster("kubectl", "delete", "namespace", NAMESPACE)


def published(module: str, path: str) -> str:
    """The text of a file of a published Go module."""
    with open(os.path.join(go_module(module), path), encoding="utf-8", newline="") as file:
        return file.read()


def injected(text: str, options: dict[str, str]) -> tuple[str, dict[str, str]]:
    """`text` with cgagent in it, and what is said of each of its workloads."""
    result, outcomes = inject(text, lambda name: (options[name], name) if name in options else None)
    said = {one.name: f"{one.state}, {one.summary}" for one in outcomes if one.state != "unchanged"}
    return result, said


@pytest.mark.parametrize(("module", "path"), MANIFESTS, ids=lambda value: value)
def test_it_is_injected_as_its_limits_say_and_taken(module: str, path: str) -> None:
    text = published(module, path)
    expected = MANIFESTS[module, path]
    for options in OPTIONS:
        result, said = injected(text, options)
        assert said.keys() == expected.keys()
        for name, container in expected.items():
            if container is None and not options:
                assert said[name].startswith("skipped, ")
                assert "it has no CPU and no memory limit" in said[name]
            else:
                assert said[name].startswith(f"injected, {options.get('mode', 'filekeyref')}: {container or ''}")
                assert "(GOMAXPROCS, GOMEMLIMIT)" in said[name]
        assert injected(result, options)[0] == result
        assert uninject(result)[0] == text
        accepted(result)


def accepted(text: str) -> None:
    """The workloads of `text` are valid, and taken by the API server."""
    workloads = [one for one in values(text) if isinstance(one, dict) and one["kind"] in _WORKLOADS]
    for one in workloads:
        one["metadata"].pop("namespace", None)
        kubernetes_validate.validate(one, "1.36", strict=True)
    everything = {"apiVersion": "v1", "kind": "List", "items": workloads}
    words = ("-n", NAMESPACE, "create", "--dry-run=server", "--validate=strict", "-f", "-")
    cluster("kubectl", *words, text=json.dumps(everything))


_WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")
