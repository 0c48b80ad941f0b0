"""Injection at admission, on the real API server: by the webhook of k8s/webhook, and by the policy of k8s/policy."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time

import pytest

from kubernetes.node import (
    GO_VERSIONS,
    NAMESPACE,
    ROOT,
    apply,
    cluster,
    get,
    kubectl,
    ready,
    runs_with,
    until,
    warnings,
)
from kubernetes.pods import pod, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GO = GO_VERSIONS[1]
ENVIRON = {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}
LABEL = "cgagent.dev/inject"
HOOK = "mutatingwebhookconfiguration/cgagent.dev"


def built(name: str) -> str:
    return cluster("kubectl", "kustomize", os.path.join(ROOT, "k8s", name))


@pytest.fixture(scope="module")
def labelled() -> Iterator[None]:
    cluster("kubectl", "label", "namespace", NAMESPACE, f"{LABEL}=enabled")
    yield
    cluster("kubectl", "label", "namespace", NAMESPACE, f"{LABEL}-")


@pytest.fixture(scope="class")
def policy() -> Iterator[None]:
    # Ignore would hide every mistake in it.
    manifest = built("policy").replace("failurePolicy: Ignore", "failurePolicy: Fail")
    apply_cluster_wide(manifest)
    until_injected()
    yield
    cluster("kubectl", "delete", "--ignore-not-found", "-f", "-", text=manifest)
    until("no policy", lambda: not is_injected(created("probe", "--dry-run=server")), 60)


@pytest.fixture(scope="class")
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    manifest = built("webhook")
    apply_cluster_wide(manifest)
    certify(tmp_path_factory.mktemp("certificate"))
    cluster("kubectl", "-n", "cgagent", "rollout", "status", "deployment/cgagent-webhook", "--timeout=90s")
    until_injected()
    yield
    cluster("kubectl", "delete", "--ignore-not-found", "-f", "-", text=manifest)


def apply_cluster_wide(manifest: str) -> None:
    cluster("kubectl", "apply", "-f", "-", text=manifest)


def certify(directory: Path) -> None:
    """A new certificate for the webhook: its Secret, and its CA for the API server."""
    crt, key = directory / "tls.crt", directory / "tls.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=webhook", "-addext", "subjectAltName=DNS:cgagent-webhook.cgagent.svc"]
    subprocess.run([*words, "-keyout", key, "-out", crt], check=True, capture_output=True)
    secret = cluster("kubectl", "-n", "cgagent", "create", "secret", "tls", "cgagent-webhook", f"--cert={crt}",
                     f"--key={key}", "--dry-run=client", "-o", "yaml")  # fmt: skip
    apply_cluster_wide(secret)
    bundle = base64.b64encode(crt.read_bytes()).decode()
    change = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    cluster("kubectl", "patch", HOOK, "--type=json", "--patch", json.dumps(change))


def until_injected() -> None:
    """Configurations take some seconds until the API server goes by them."""
    until("a pod being injected", lambda: is_injected(created("probe", "--dry-run=server")), 60)


def created(name: str, *options: str) -> dict[str, object]:
    """The pod as the API server has it after admission."""
    found: dict[str, object] = json.loads(
        kubectl("create", *options, "-o", "json", "-f", "-", text=json.dumps(pod(name, GO)))
    )
    return found


def is_injected(found: dict[str, object]) -> bool:
    spec = found["spec"]
    assert isinstance(spec, dict)
    return [one["name"] for one in spec.get("initContainers", [])] == ["cgagent"]


@pytest.mark.usefixtures("labelled", "policy")
class TestPolicy:
    def test_a_pod_starts_with_the_decided_values(self) -> None:
        apply(json.dumps(pod("policy", GO)))
        assert ready("policy")["status"]["qosClass"] == "Guaranteed"
        assert runs_with("policy")["environ"] == ENVIRON
        assert warnings("policy") == []

    def test_each_container_has_its_own(self) -> None:
        manifest = pod("several", GO, env=[{"name": "GOMAXPROCS", "value": "1"}])
        containers = manifest["spec"]["containers"]  # type: ignore[index]
        small = {"limits": {"cpu": "500m", "memory": "128Mi"}}
        containers.append({**pod("x", GO)["spec"]["containers"][0], "name": "b", "args": ["-listen=:8081"]})  # type: ignore[index]
        containers[1]["resources"] = small
        apply(json.dumps(manifest))
        ready("several")
        # The first sets GOMAXPROCS itself, and that stays.
        assert runs_with("several")["environ"] == {"GOMAXPROCS": "1", "GOMEMLIMIT": "241591910"}
        environ = json.loads(
            cluster("exec", "curl", "-sS", f"http://{get('pod', 'several')['status']['podIP']}:8081/debug/limits")
        )["environ"]
        assert environ == {"GOMAXPROCS": "1", "GOMEMLIMIT": str(128 * 1024 * 1024 * 9 // 10)}

    def test_what_needs_nothing_is_left_alone(self) -> None:
        unlimited = {**pod("unlimited", GO, resources={})}
        apply(json.dumps(unlimited))
        assert "initContainers" not in get("pod", "unlimited")["spec"]


@pytest.mark.usefixtures("labelled", "webhook")
class TestWebhook:
    def test_a_pod_starts_with_the_decided_values(self) -> None:
        apply(json.dumps(pod("hooked", GO)))
        assert ready("hooked")["status"]["qosClass"] == "Guaranteed"
        assert runs_with("hooked")["environ"] == ENVIRON
        assert warnings("hooked") == []

    def test_an_annotation_that_does_not_fit_is_a_warning(self) -> None:
        manifest = pod("wrong", GO)
        manifest["metadata"]["annotations"] = {"cgagent.dev/memory-ratio": "9"}  # type: ignore[index]
        apply(json.dumps(manifest))
        assert "initContainers" not in get("pod", "wrong")["spec"]

    def test_a_hundred_pods_at_once_are_all_injected(self) -> None:
        manifests = [pod(f"many-{number}", GO) for number in range(100)]
        for one in manifests:  # more than the node has CPUs for: they are admitted, and wait
            one["spec"]["nodeSelector"] = {"none": "such"}  # type: ignore[index]
        start = time.monotonic()
        apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
        print(f"100 pods through the webhook: {time.monotonic() - start:.1f} s")
        found = [one for one in get("pod")["items"] if one["metadata"]["name"].startswith("many-")]
        assert len(found) == 100
        assert [one["metadata"]["name"] for one in found if not is_injected(one)] == []

    def test_a_certificate_is_renewed_without_a_pod_being_missed_for_long(self, tmp_path: Path) -> None:
        certify(tmp_path)
        # The kubelet brings the new Secret to the volume within about a minute; until then pods are let in as they are.
        until("injection by the new certificate", lambda: is_injected(created("renewed", "--dry-run=server")), 150)

    def test_a_wrong_certificate_lets_pods_in_as_they_are(self) -> None:
        before = cluster("kubectl", "get", HOOK, "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
        set_bundle(other_authority())
        try:
            until("the new bundle", lambda: not is_injected(created("refused", "--dry-run=server")), 30)
        finally:
            set_bundle(before)
        until_injected()

    def test_a_webhook_that_does_not_answer_costs_its_timeout_and_no_more(self) -> None:
        webhooks = [pid for name in webhook_pods() for pid in processes(name, "cgagent", "cgagent")]
        for pid in webhooks:
            os.kill(pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            assert not is_injected(created("slow", "--dry-run=server"))
            seconds = time.monotonic() - start
        finally:
            for pid in webhooks:
                os.kill(pid, signal.SIGCONT)
        print(f"a webhook that does not answer: {seconds:.1f} s")
        assert len(webhooks) >= 2
        assert seconds >= 5  # timeoutSeconds: it was asked
        until_injected()

    def test_a_webhook_that_is_gone_costs_nothing(self) -> None:
        cluster("kubectl", "-n", "cgagent", "scale", "deployment/cgagent-webhook", "--replicas=0")
        until("no webhook", lambda: not is_injected(created("gone", "--dry-run=server")), 60)
        apply(json.dumps(pod("alone", GO)))
        ready("alone")
        assert runs_with("alone")["environ"] == {}


def webhook_pods() -> list[str]:
    names = cluster("kubectl", "-n", "cgagent", "get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
    return names.split()


def set_bundle(bundle: str) -> None:
    change = [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    cluster("kubectl", "patch", HOOK, "--type=json", "--patch", json.dumps(change))


def other_authority() -> str:
    """A certificate authority that has signed nothing."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    done = subprocess.run(
        [*words, "-days", "2", "-subj", "/CN=other", "-keyout", "/dev/null"], check=True, capture_output=True
    )
    return base64.b64encode(done.stdout).decode()
