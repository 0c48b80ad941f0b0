"""Who may explain a pod that was never touched: by security context, as README.md says."""

from __future__ import annotations

import json

import pytest

from cgagent.commands import kubectl_plugin
from cgagent.kube.settings import IMAGE
from kubernetes.node import GO, NAMESPACE, apply, cluster, get, kubectl, ready, until, within
from kubernetes.pods import SECURITY, explained, pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

OPEN = "open"
pytestmark = pytest.mark.usefixtures("kubectl_on_path")


def of_user(name: str, **security: object) -> dict[str, Any]:
    """A pod whose own security context says nothing of users, and its container's what `security` says."""
    manifest = pod(name, GO, securityContext={**SECURITY, **security})
    for field in ("runAsUser", "runAsGroup", "runAsNonRoot"):
        del manifest["spec"]["securityContext"][field]
    return manifest


@pytest.mark.parametrize(
    "security",
    [
        {"runAsUser": 10001, "runAsGroup": 10002},
        {"runAsUser": 10001},  # its group is then the image's to say, and root's where that says nothing
        {},  # the image's user, which is the one of cgagent's image
    ],
    ids=["user and group", "a user alone", "the image's"],
)
def test_restricted_pod_security_lets_it_see_an_application_of_its_own_user(
    security: dict[str, int], capfd: pytest.CaptureFixture[str]
) -> None:
    apply(json.dumps(of_user("owned", runAsNonRoot=True, **security)))
    ready("owned")
    document = explained("owned", capfd)
    assert document["limits"]["memory"]["bytes"] == 256 << 20
    assert document["go"]["version"] == f"go{GO}"


def test_the_same_can_be_had_from_kubectl_alone() -> None:
    """By the lines of `kubectl cgagent explain --help`."""
    apply(json.dumps(pod("plain", GO)))
    ready("plain")
    debug, logs = (
        line.split()
        for line in kubectl_plugin.EPILOG.split("\n")
        if line.startswith(("  kubectl debug", "  kubectl logs"))
    )
    given = {"POD": "plain", "IMAGE": IMAGE}
    kubectl(*(given.get(word, word) for word in debug[1:]))

    def ended() -> object:
        (look,) = get("pod", "plain")["status"]["ephemeralContainerStatuses"]
        return look["state"]["terminated"]

    until("the end of look", ended)
    said = kubectl(*(given.get(word, word) for word in logs[1:]))
    assert "GOMEMLIMIT=241591910" in said
    assert f"example.com/cgagent/orders, go{GO}" in said


def test_another_user_is_told_why_it_sees_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    apply(json.dumps(pod("strange", GO)))
    ready("strange")
    words = ["explain", "strange", "--namespace", NAMESPACE, "--run-as=10001:10001"]
    kubectl_plugin.main(words)
    said = capfd.readouterr().out
    assert "with the same user (in Kubernetes runAsUser)" in said


@pytest.fixture
def namespace() -> Iterator[str]:
    """One that enforces no Pod Security."""
    cluster("kubectl", "create", "namespace", OPEN)
    until("a service account", lambda: get("serviceaccount", "default", "-n", OPEN))
    yield OPEN
    cluster("kubectl", "delete", "namespace", OPEN)


def test_root_without_capabilities_sees_root_without_capabilities(
    namespace: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster("kubectl", "-n", namespace, "apply", "-f", "-", text=json.dumps(of_user("root", runAsUser=0, runAsGroup=0)))
    cluster("kubectl", "-n", namespace, "wait", "--for=condition=Ready", "pod/root", within(60))
    assert explained("root", capfd, namespace=namespace)["limits"]["memory"]["bytes"] == 256 << 20


def test_root_with_capabilities_is_not_seen_and_that_is_said(namespace: str, capfd: pytest.CaptureFixture[str]) -> None:
    manifest = of_user("able", runAsUser=0, runAsGroup=0)
    manifest["spec"]["containers"][0]["securityContext"] = {"runAsUser": 0, "runAsGroup": 0}
    cluster("kubectl", "-n", namespace, "apply", "-f", "-", text=json.dumps(manifest))
    cluster("kubectl", "-n", namespace, "wait", "--for=condition=Ready", "pod/able", within(60))
    kubectl_plugin.main(["explain", "able", "--namespace", namespace])
    said = capfd.readouterr().out
    assert "drop them there (capabilities: drop: [ALL])" in said
