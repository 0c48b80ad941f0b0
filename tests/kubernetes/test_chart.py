"""The chart, by the real helm on the real API server: linted, installed, upgraded, removed; it says what k8s/ says."""

from __future__ import annotations

import json
import os

import pytest

from cgagent.commands import webhook
from cgagent.commands.manifest_options import settings_texts
from cgagent.kube.manifests import values
from cgagent.kube.settings import Settings
from cgagent.parser import Parser
from kubernetes.node import (
    GO,
    NAMESPACE,
    ROOT,
    NodeError,
    cluster,
    get,
    kubectl,
    ready,
    runs_with,
    until,
    warnings,
    within,
)
from kubernetes.pods import pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CHART = os.path.join(ROOT, "k8s", "chart")
EVERYTHING = ("policy", "podMonitor", "prometheusRule")


def helm(*words: str) -> str:
    return cluster("helm", "--namespace", "cgagent", *words)


def templated(*sets: str, version: str = "1.36.0") -> list[dict[str, object]]:
    words = ("template", "cgagent", CHART, f"--kube-version={version}")
    found = values(helm(*words, *(f"--set={one}" for one in sets)))
    return [one for one in found if isinstance(one, dict)]


def deployed(*sets: str, version: str = "1.36.0") -> dict[str, Any]:
    """The spec of the webhook's pods."""
    (deployment,) = [one for one in templated(*sets, version=version) if one["kind"] == "Deployment"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]  # type: ignore[index]
    return spec


def understood(spec: dict[str, Any]) -> Settings:
    """What the webhook makes of its words."""
    command, *words = spec["containers"][0]["args"]
    assert command == "webhook"
    parser = Parser("cgagent webhook", webhook.DESCRIPTION, webhook.EPILOG)
    webhook.configure(parser)
    arguments = parser.parse(words)
    assert arguments is not None
    return Settings(settings_texts(arguments))


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    try:
        helm("version")
    except NodeError as error:
        pytest.skip(f"helm can't be built: {error}")


@pytest.fixture
def namespace() -> Iterator[None]:
    cluster("kubectl", "create", "namespace", "cgagent")
    cluster("kubectl", "label", "namespace", "cgagent", "pod-security.kubernetes.io/enforce=restricted")
    cluster("kubectl", "label", "namespace", NAMESPACE, "cgagent.dev/inject=enabled")
    yield
    cluster("kubectl", "label", "namespace", NAMESPACE, "cgagent.dev/inject-")
    cluster("kubectl", "delete", "namespace", "cgagent")


def test_it_lints() -> None:
    helm("lint", "--strict", CHART)


@pytest.mark.parametrize(
    "wrong",
    [
        "image.tag=latest",
        "image.digest=sha256:1",
        "webhook.replicas=0",
        "webhook.failurePolicy=Never",
        "typo=1",
        "webhook.typo=1",
        "options.typo=1",
        "options.mode=else",
        "options.split=maybe",
        "namespaceSelector=null",  # which would be every namespace
    ],
)
def test_wrong_values_are_refused(wrong: str) -> None:
    with pytest.raises(NodeError, match="values"):
        templated(wrong)


def test_options_are_words_that_the_webhook_takes() -> None:
    given = {
        "mode": "sidecar",
        "memory-ratio": "0.8",
        "min-procs": "2",
        "max-procs": "64",
        "share-process-namespace": "true",
        "split": "false",
        "hook": "signal:TERM",
    }
    settings = understood(deployed(*(f"options.{name}={value}" for name, value in given.items())))
    assert (settings.mode, settings.hook) == ("sidecar", "signal:TERM")
    assert (settings.share_process_namespace, settings.split) == (True, False)
    assert settings.policy == {"memory_ratio": "0.8", "min_procs": "2", "max_procs": "64"}


@pytest.mark.parametrize(
    ("version", "mode"), [("1.29.0", "bundle"), ("v1.34.1-gke.100", "bundle"), ("1.35.0", "filekeyref")]
)
def test_a_cluster_gets_what_its_version_knows(version: str, mode: str) -> None:
    """An API server before 1.34 does not know fileKeyRef, and 1.34 has it off."""
    assert understood(deployed(version=version)).mode == mode


def test_the_webhooks_pods_go_where_they_are_wanted() -> None:
    digest = "sha256:" + "0" * 64
    sets = {
        "image.digest": digest,
        "imagePullSecrets[0].name": "registry",
        "webhook.nodeSelector.pool": "system",
        "webhook.tolerations[0].operator": "Exists",
        "webhook.priorityClassName": "system-cluster-critical",
        "webhook.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution": "null",
    }
    spec = deployed(*(f"{name}={value}" for name, value in sets.items()))
    assert spec["containers"][0]["image"] == understood(spec).image == f"cgagent:0.1.0@{digest}"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["nodeSelector"] == {"pool": "system"}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert "nodeAffinity" in spec["affinity"]


def test_webhook_and_policy_say_what_the_kustomizations_say() -> None:
    chart = {str(one["kind"]): one for one in templated("policy.enabled=true")}
    for name in ("webhook", "policy"):
        kustomized = values(cluster("kubectl", "kustomize", f"{ROOT}/k8s/{name}"))
        for one in kustomized:
            assert isinstance(one, dict)
            if one["kind"] != "Namespace":
                assert without_labels(chart[one["kind"]]) == without_labels(one), one["kind"]


def test_the_role_is_what_the_component_has_in_each_namespace_that_is_named() -> None:
    kustomized = {str(one["kind"]): one for one in parsed(f"{ROOT}/k8s/components/confirm-raises/role.yaml")}
    chart = templated("confirmRaises.namespaces={shop,bakery}", "confirmRaises.serviceAccounts={default}")
    for kind, one in kustomized.items():
        found = [other for other in chart if other["kind"] == kind]
        assert [other["metadata"]["namespace"] for other in found] == ["shop", "bakery"]  # type: ignore[index]
        assert all(without_labels(other) == without_labels(one) for other in found)
    assert not {"Role", "RoleBinding"} & {one["kind"] for one in templated()}, "none where none is asked for"


def parsed(file: str) -> list[dict[str, object]]:
    with open(file, encoding="utf-8") as opened:
        return [one for one in values(opened.read()) if isinstance(one, dict)]


def without_labels(document: dict[str, object]) -> object:
    """What both have to agree on: not names, labels, certificates and checksums."""
    text = json.dumps(document).replace("cgagent.cgagent.dev", "cgagent.dev")
    copy = json.loads(text)
    del copy["metadata"]
    spec = copy.get("spec", {})
    for holder in (copy.get("webhooks") or [{}])[0], spec.get("template", {}).get("spec", {}):
        holder.get("clientConfig", {}).pop("caBundle", None)
        for container in holder.get("containers", []):
            container.pop("imagePullPolicy", None)
    if "template" in spec:
        spec["template"]["metadata"].pop("annotations", None)
    return drop(copy, "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/part-of")


def drop(value: object, *keys: str) -> object:
    """`value` without the entries `keys`, wherever; in texts any white space is as good as any other."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        return {key: drop(one, *keys) for key, one in value.items() if key not in keys}
    return [drop(one, *keys) for one in value] if isinstance(value, list) else value


def test_monitors_are_only_made_where_they_are_asked_for() -> None:
    kinds = {one["kind"] for one in templated()}
    assert kinds.isdisjoint({"PodMonitor", "PrometheusRule", "MutatingAdmissionPolicy"})
    all_kinds = {one["kind"] for one in templated(*(f"{name}.enabled=true" for name in EVERYTHING))}
    assert {"PodMonitor", "PrometheusRule", "MutatingAdmissionPolicy"} <= all_kinds


@pytest.mark.usefixtures("namespace")
def test_it_is_installed_upgraded_and_removed() -> None:
    helm("install", "cgagent", CHART, "--wait", within(90))
    until("injection", lambda: injected("first"), 60)
    kubectl("create", "-f", "-", text=json.dumps(pod("charted", GO)))
    assert ready("charted")["status"]["qosClass"] == "Guaranteed"
    assert runs_with("charted")["environ"] == {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}
    assert warnings("charted") == []

    # The node has 2 CPUs: a third pod of the webhook has to find room.
    kubectl("delete", "pod", "charted", "--grace-period=1")

    # A new certificate with each upgrade: the webhook's pods and the API server have to agree on it.
    helm("upgrade", "cgagent", CHART, "--set-string=options.memory-ratio=0.5", "--wait", within(90))
    until("the new ratio", lambda: "--memory-ratio=0.5" in json.dumps(seen("second")), 90)

    # By the policy alone, which names the file after the container: no server of ours is left.
    policy = ("--set=webhook.enabled=false", "--set=policy.enabled=true")
    helm("upgrade", "cgagent", CHART, *policy, "--wait", within(90))
    until("the policy", lambda: "--env-file=/run/cgagent/app.env" in json.dumps(seen("third")), 60)
    until("no webhook", lambda: get("deployment", "", "--all-namespaces")["items"] == [], 60)

    helm("uninstall", "cgagent", "--wait")
    until("no injection", lambda: not injected("fourth"), 60)


def seen(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", text=json.dumps(pod(name, GO)))
    )
    return found


def injected(name: str) -> bool:
    return "initContainers" in json.dumps(seen(name))
