"""Every kustomization of k8s/ is taken by the real API server; custom resources with their published definitions."""

from __future__ import annotations

import os

import pytest

from kubernetes.go_module import go_module
from kubernetes.node import ROOT, cluster, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
CERT_MANAGER = "github.com/cert-manager/cert-manager@v1.18.2"
DEFINITIONS = ("podmonitors", "prometheusrules")
MONITORS = ("--set=webhook.enabled=false", "--set=podMonitor.enabled=true", "--set=prometheusRule.enabled=true")


def built(name: str) -> str:
    return cluster("kubectl", "kustomize", os.path.join(ROOT, "k8s", name))


@pytest.fixture(scope="module")
def everywhere() -> Iterator[str]:
    cluster("kubectl", "create", "namespace", "cgagent")
    yield "cgagent"
    cluster("kubectl", "delete", "namespace", "cgagent")


def dry_run(manifest: str, namespace: str) -> str:
    words = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    return cluster("kubectl", "-n", namespace, *words, text=manifest)


@pytest.mark.parametrize(
    "name",
    [
        "examples/orders",
        "examples/orders-confirm-raises",
        "examples/orders-init",
        "examples/orders-sidecar",
        "examples/orders-tune",
        "webhook",
        "policy",
    ],
)
def test_it_is_taken(name: str, everywhere: str) -> None:
    said = dry_run(built(name), everywhere)
    assert said.count("(server dry run)") == len(said.strip().split("\n"))


def test_the_cert_manager_variant_is_taken_by_its_published_definitions(everywhere: str) -> None:
    """cert-manager itself does not run here: what it would be asked for is taken."""
    definitions = os.path.join(go_module(CERT_MANAGER), "deploy", "crds")
    wanted = []
    for name in ("crd-certificates.yaml", "crd-issuers.yaml"):
        with open(os.path.join(definitions, name)) as file:  # of a chart, which has its labels filled in
            wanted.append("".join(line for line in file if "{{" not in line))
    try:
        for text in wanted:
            cluster("kubectl", "create", "-f", "-", text=text)
        names = [f"crd/{name}.cert-manager.io" for name in ("certificates", "issuers")]
        cluster("kubectl", "wait", "--for=condition=Established", *names, within(30))
        said = dry_run(built("examples/webhook-cert-manager"), everywhere)
        assert "certificate.cert-manager.io/cgagent-webhook created" in said
    finally:
        for text in wanted:
            cluster("kubectl", "delete", "--ignore-not-found", "-f", "-", text=text)


def test_monitors_are_taken_by_their_published_definitions(everywhere: str) -> None:
    directory = os.path.join(go_module(OPERATOR), "example", "prometheus-operator-crd")
    files = [os.path.join(directory, f"monitoring.coreos.com_{name}.yaml") for name in DEFINITIONS]
    try:
        for file in files:
            cluster("kubectl", "create", "-f", file)
        names = [f"crd/{name}.monitoring.coreos.com" for name in DEFINITIONS]
        cluster("kubectl", "wait", "--for=condition=Established", *names, within(30))
        charted = cluster(
            "helm", "template", "cgagent", os.path.join(ROOT, "k8s", "chart"), *MONITORS, f"-n{everywhere}"
        )
        for manifest in (built("examples/monitoring"), charted):
            said = dry_run(manifest, everywhere)
            assert "podmonitor.monitoring.coreos.com/cgagent created" in said
            assert "prometheusrule.monitoring.coreos.com/cgagent created" in said
    finally:
        for file in files:
            cluster("kubectl", "delete", "--ignore-not-found", "-f", file)
