"""The manifests of k8s/: each builds, is valid, and says the same as `cgagent inject`, the alerts and the dashboard."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from cgagent.commands.manifest_options import add_injection
from cgagent.kube.manifests import inject, values
from cgagent.kube.workload import PLATFORM
from cgagent.parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
K8S = os.path.join(ROOT, "k8s")
_CACHED = os.path.expanduser("~/.cache/cgagent-cluster/bin/kubectl")
KUBECTL = shutil.which("kubectl") or (_CACHED if os.path.exists(_CACHED) else None)
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="no kubectl: tests/kubernetes/cluster build makes one")

ALL = ("1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
# What a kustomization needs: fileKeyRef as it is since 1.35, mutating admission policies since 1.36.
VERSIONS = {
    "examples/orders": ALL,
    "examples/orders-confirm-raises": ALL[6:],
    "examples/orders-init": ALL[6:],
    "examples/orders-sidecar": ALL[6:],
    "examples/orders-tune": ALL[6:],
    "examples/monitoring": ALL[6:],
    "examples/webhook-cert-manager": ALL,
    "policy": ALL[7:],
    "webhook": ALL,
}
_FOREIGN = ("monitoring.coreos.com", "cert-manager.io")


def built(name: str) -> list[dict[str, object]]:
    """The objects of a kustomization."""
    done = subprocess.run([str(KUBECTL), "kustomize", f"{K8S}/{name}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = values(done.stdout)
    assert all(isinstance(one, dict) for one in found)
    return found  # type: ignore[return-value]


def of_kind(documents: list[dict[str, object]], kind: str) -> dict[str, object]:
    return next(one for one in documents if one["kind"] == kind)


def test_every_kustomization_is_held_to_the_versions_that_it_is_for() -> None:
    found = {os.path.relpath(directory, K8S) for directory, _, files in os.walk(K8S) if "kustomization.yaml" in files}
    assert {name for name in found if not name.startswith("components/")} == set(VERSIONS)


@pytest.mark.parametrize("name", VERSIONS)
def test_it_builds_and_is_valid(name: str) -> None:
    for document in built(name):
        if not str(document["apiVersion"]).startswith(_FOREIGN):
            for version in VERSIONS[name]:
                kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", VERSIONS)
def test_no_image_is_without_a_version(name: str) -> None:
    text = json.dumps(built(name))
    images = [piece.split('"')[0] for piece in text.split('"image": "')[1:]]
    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("examples/orders-init", {"mode": "filekeyref"}),
        ("examples/orders-sidecar", {"mode": "sidecar"}),
        ("examples/orders-confirm-raises", {"mode": "sidecar", "confirm_raises": "true"}),
    ],
)
def test_a_component_adds_what_inject_adds(name: str, options: dict[str, str]) -> None:
    plain = json.dumps(of_kind(built("examples/orders"), "Deployment"))
    result, _ = inject(plain, lambda key: (options[key], key) if key in options else None)
    (injected,) = values(result)
    assert isinstance(injected, dict)
    del injected["spec"]["template"]["metadata"]["annotations"]
    assert of_kind(built(name), "Deployment") == injected


def test_the_components_for_tuning_add_what_inject_adds() -> None:
    options = {"mode": "sidecar", "share_process_namespace": "true", "hook": "tune"}
    plain = json.dumps(of_kind(built("examples/orders"), "Deployment"))
    (injected,) = values(inject(plain, lambda key: (options[key], key) if key in options else None)[0])
    assert isinstance(injected, dict)
    del injected["spec"]["template"]["metadata"]["annotations"]
    # inject writes down the identity that has to be the application's; here it is the pod's already.
    security = injected["spec"]["template"]["spec"]["initContainers"][0]["securityContext"]
    assert (security.pop("runAsUser"), security.pop("runAsGroup")) == (65532, 65532)
    assert of_kind(built("examples/orders-tune"), "Deployment") == injected


@pytest.mark.parametrize(
    "components",
    [
        ("share-processes", "sidecar"),
        ("sidecar", "tune"),
        ("sidecar", "tune", "share-processes"),
        ("init", "share-processes"),
        ("sidecar", "init"),
        ("confirm-raises", "sidecar"),
        ("init", "confirm-raises"),
        ("sidecar", "share-processes", "confirm-raises"),
        ("sidecar", "confirm-raises", "share-processes"),
    ],
    ids=" ".join,
)
def test_components_that_make_no_pod_together_are_refused(components: tuple[str, ...], tmp_path: Path) -> None:
    """Some would be taken by the API server, and keep the pod from starting."""
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlay"
    overlay.mkdir()
    paths = [f"../components/{name}" for name in components]
    text = {"kind": "Kustomization", "resources": ["../examples/orders"], "components": paths}
    (overlay / "kustomization.yaml").write_text(json.dumps(text))
    done = subprocess.run([str(KUBECTL), "kustomize", overlay], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"components/{components[-1]}" in done.stderr or f"components/{components[-2]}" in done.stderr


def test_who_confirms_raises_may_get_pods_and_nothing_else() -> None:
    documents = built("examples/orders-confirm-raises")
    assert of_kind(documents, "Role")["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    pod = of_kind(documents, "Deployment")["spec"]["template"]["spec"]  # type: ignore[index]
    account = pod.get("serviceAccountName", "default")
    assert of_kind(documents, "RoleBinding")["subjects"] == [{"kind": "ServiceAccount", "name": account}]
    mounting = [
        one["name"] for one in (*pod["initContainers"], *pod["containers"]) if "token" in str(one.get("volumeMounts"))
    ]
    assert mounting == ["cgagent"]


def test_the_policy_knows_the_same_sidecars_of_platforms_as_inject() -> None:
    variables = of_kind(built("policy"), "MutatingAdmissionPolicy")["spec"]["variables"]  # type: ignore[index]
    (expression,) = [one["expression"] for one in variables if one["name"] == "platform"]
    assert frozenset(ast.literal_eval(expression)) == PLATFORM


def test_the_chart_knows_every_option_of_an_injection() -> None:
    """By its schema: one that it does not know would keep the webhook from starting."""
    parser = Parser("cgagent webhook", "", "")
    add_injection(parser)
    known = {argument.names[-1].removeprefix("--") for argument in parser}
    with open(f"{K8S}/chart/values.schema.json", encoding="utf-8") as file:
        schema = json.load(file)["properties"]["options"]["properties"]
    assert set(schema) == known - {"image"}


def test_alerts_and_dashboard_are_those_of_the_project() -> None:
    documents = built("examples/monitoring")
    with open(f"{ROOT}/dashboards/alerts.yaml", encoding="utf-8") as file:
        alerts = yaml.safe_load(file)
    assert of_kind(documents, "PrometheusRule")["spec"] == alerts
    data = of_kind(documents, "ConfigMap")["data"]
    assert isinstance(data, dict)
    with open(f"{ROOT}/dashboards/cgagent.json", encoding="utf-8") as file:
        assert data == {"cgagent.json": file.read()}


def test_the_webhook_never_stands_in_a_pods_way() -> None:
    hook = of_kind(built("webhook"), "MutatingWebhookConfiguration")["webhooks"][0]  # type: ignore[index]
    assert hook["failurePolicy"] == "Ignore"
    assert hook["timeoutSeconds"] <= 5
    assert hook["sideEffects"] == "None"
    assert of_kind(built("policy"), "MutatingAdmissionPolicy")["spec"]["failurePolicy"] == "Ignore"  # type: ignore[index]
