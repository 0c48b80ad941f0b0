"""Injection at admission, on the real API server: by the webhook of k8s/webhook, and by the policy of k8s/policy."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time

import pytest

from cgagent.errors import UsageError
from cgagent.kube.additions import applied
from cgagent.kube.inject import plan
from cgagent.kube.manifests import uninject, values
from cgagent.kube.targets import SkippedError
from kubernetes.node import (
    CLUSTER,
    GO,
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
    within,
)
from kubernetes.odd_pods import odd_pod
from kubernetes.pods import ENVIRON, pod, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

LABEL = "cgagent.dev/inject"
UNGUARDED = "unguarded"
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
    cluster("kubectl", "-n", "cgagent", "rollout", "status", "deployment/cgagent-webhook", within(90))
    until_injected()
    yield
    cluster("kubectl", "delete", "--ignore-not-found", "-f", "-", text=manifest)


def apply_cluster_wide(manifest: str) -> None:
    cluster("kubectl", "apply", "-f", "-", text=manifest)


def certify(directory: Path) -> None:
    """A new certificate for the webhook: its Secret, and its CA for the API server."""
    command = directory / "kubectl"
    command.write_text(f'#!/bin/sh\nexec {CLUSTER} kubectl "$@"\n')
    command.chmod(0o755)
    script = os.path.join(ROOT, "k8s", "webhook", "certificate")
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    subprocess.run([script], check=True, capture_output=True, env=environment)


def until_injected() -> None:
    """Configurations take some seconds until the API server goes by them."""
    until("a pod being injected", lambda: is_injected(created("probe", "--dry-run=server")), 60)


def created(name: str, *options: str) -> dict[str, Any]:
    """The pod as the API server has it after admission."""
    found: dict[str, Any] = json.loads(
        kubectl("create", *options, "-o", "json", "-f", "-", text=json.dumps(pod(name, GO)))
    )
    return found


def is_injected(found: dict[str, Any]) -> bool:
    return [one["name"] for one in found["spec"].get("initContainers", [])] == ["cgagent"]


def taken_from_files(found: dict[str, Any]) -> dict[str, list[str]]:
    """The variables that each container takes from an env file; of those that take any."""
    taken = {}
    for one in found["spec"]["containers"]:
        names = [entry["name"] for entry in one.get("env", []) if "fileKeyRef" in entry.get("valueFrom", {})]
        if names:
            taken[one["name"]] = sorted(names)
    return taken


def with_second(name: str, **more: object) -> dict[str, Any]:
    """A pod with a second container."""
    manifest: dict[str, Any] = pod("several", GO)
    manifest["spec"]["containers"].append({**manifest["spec"]["containers"][0], "name": name, **more})
    return manifest


def annotated(manifest: dict[str, Any], annotation: str, value: str) -> dict[str, Any]:
    manifest["metadata"]["annotations"] = {annotation: value}
    return manifest


def with_spec(manifest: dict[str, Any], **more: object) -> dict[str, Any]:
    manifest["spec"].update(more)
    return manifest


BOTH = ["GOMAXPROCS", "GOMEMLIMIT"]
HALF = {"resources": {"limits": {"cpu": "500m", "memory": "128Mi"}}}
POD_LEVEL = {"resources": {"limits": {"cpu": "2", "memory": "512Mi"}}}
DEFAULT = "kubectl.kubernetes.io/default-container"
OUTCOMES: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "one container": (pod("one", GO), {"app": BOTH}),
    "two containers": (with_second("worker", **HALF), {"app": BOTH, "worker": BOTH}),
    "a default container": (annotated(with_second("worker", **HALF), DEFAULT, "worker"), {"worker": BOTH}),
    "a platform's sidecar": (with_second("istio-proxy", **HALF), {"app": BOTH}),
    "a memory limit alone": (pod("memory", GO, resources={"limits": {"memory": "256Mi"}}), {"app": ["GOMEMLIMIT"]}),
    "limits of the pod": (with_spec(pod("level", GO, resources={}), **POD_LEVEL), {"app": BOTH}),
    "no limits": (pod("none", GO, resources={}), {}),
    "a variable of its own": (pod("own", GO, env=[{"name": "GOMAXPROCS", "value": "1"}]), {"app": ["GOMEMLIMIT"]}),
    "unwanted": (annotated(pod("unwanted", GO), LABEL, "disabled"), {}),
    "for Windows": (with_spec(pod("windows", GO), nodeSelector={"kubernetes.io/os": "windows"}), {}),
}


ODD_PODS = 120


@pytest.fixture(scope="module")
def unguarded() -> Iterator[None]:
    """A namespace for pods that no Pod Security would let in."""
    cluster("kubectl", "create", "namespace", UNGUARDED)
    cluster("kubectl", "label", "namespace", UNGUARDED, f"{LABEL}=enabled")
    for namespace in (UNGUARDED, "default"):
        until("a service account", lambda name=namespace: get("serviceaccount", "default", "-n", name))  # type: ignore[misc]
    yield
    cluster("kubectl", "delete", "namespace", UNGUARDED)


def listed(namespace: str, pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods as the API server has them after admission."""
    words = ("-n", namespace, "create", "--dry-run=server", "--output=json", "-f", "-")
    text = cluster("kubectl", *words, text=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    found, at = [], 0
    while at < len(text.rstrip()):
        one, at = json.JSONDecoder().raw_decode(text, at)
        found.append(one)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def as_inject_has_it(manifest: dict[str, Any]) -> Any:
    """What `cgagent inject` makes of a pod; that the label leaves pods out is for the API server to know."""
    if manifest["metadata"].get("labels", {}).get(LABEL) == "disabled":
        return manifest
    try:
        return applied(manifest, plan(manifest, lambda _: None).additions)
    except (SkippedError, UsageError):
        return manifest


def without_cgagent(manifest: dict[str, Any]) -> tuple[object, object]:
    """What `cgagent uninject` leaves of a pod: its spec and its annotations."""
    (left,) = values(uninject(json.dumps(manifest))[0])
    assert isinstance(left, dict)
    # The API server adds them up of what the containers ask for, ours too.
    left["spec"].get("resources", {}).pop("requests", None)
    return left["spec"], left["metadata"].get("annotations", {})


def essence(manifest: dict[str, Any]) -> dict[str, Any]:
    """What cgagent has put into a pod: for each container its variables, and what writes them."""
    variables = taken_from_files(manifest)
    writers = [one for one in manifest["spec"].get("initContainers", []) if one["image"].startswith("cgagent:")]
    found = {}
    for one in writers:
        (container,) = {entry["valueFrom"]["resourceFieldRef"]["containerName"] for entry in one["env"]}
        resources = one.get("resources", {})
        found[container] = {
            "variables": variables.pop(container),
            "limits": [entry["name"] for entry in one["env"]],
            "words": [word for word in one["args"] if not word.startswith("--env-file=")],
            "requests": resources.get("requests") or {},
            "own limits": resources.get("limits") or {},
            "security": one["securityContext"],
        }
    assert variables == {}
    return found


class Outcomes:
    """What webhook and policy have to agree on."""

    def test_a_pod_starts_with_the_decided_values(self) -> None:
        apply(json.dumps(pod("admitted", GO)))
        assert ready("admitted")["status"]["qosClass"] == "Guaranteed"
        assert runs_with("admitted")["environ"] == ENVIRON
        assert warnings("admitted") == []

    @pytest.mark.parametrize("case", OUTCOMES)
    def test_who_gets_what(self, case: str) -> None:
        manifest, expected = OUTCOMES[case]
        words = ("create", "--dry-run=server", "--output=json", "-f", "-")
        found = json.loads(kubectl(*words, text=json.dumps(manifest)))
        assert taken_from_files(found) == expected
        writers = [one["name"] for one in found["spec"].get("initContainers", [])]
        assert len(writers) == len(expected)

    def test_odd_pods_are_served_as_inject_serves_them(self) -> None:
        """Server dry runs of pods with every choice at random: who has a file written, from which limits, by what."""
        pods = [odd_pod(seed) for seed in range(ODD_PODS)]
        # With its defaults, some of which concern us, but without cgagent: the namespace has not the label.
        plain = listed("default", pods)
        wanted = {one["metadata"]["name"]: essence(as_inject_has_it(one)) for one in plain}
        assert sum(bool(one) for one in wanted.values()) > ODD_PODS / 4
        for _ in range(3):  # a webhook that is not given the CPU to answer in time lets a pod in as it is
            admitted = listed(UNGUARDED, pods)
            found = {one["metadata"]["name"]: essence(one) for one in admitted}
            if found == wanted:
                break
        assert found == wanted
        assert [without_cgagent(one) for one in admitted] == [without_cgagent(one) for one in plain]

    def test_a_hundred_pods_at_once_are_all_injected(self) -> None:
        """By a controller, which creates them side by side; more than the node has room for: they wait for one."""
        waiting = with_spec(pod("many", GO), nodeSelector={"none": "such"})["spec"]
        template = {"metadata": {"labels": {"app": "many"}}, "spec": waiting}
        spec = {"replicas": 100, "selector": {"matchLabels": {"app": "many"}}, "template": template}
        many = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "many"}, "spec": spec}
        start = time.monotonic()
        apply(json.dumps(many))
        try:
            found = until("100 pods", lambda: len(pods := get("pod", "", "-l", "app=many")["items"]) == 100 and pods)
            print(f"100 pods created: {time.monotonic() - start:.1f} s")
            assert [one["metadata"]["name"] for one in found if not is_injected(one)] == []
        finally:
            kubectl("delete", "replicaset", "many", "--cascade=foreground")


@pytest.mark.usefixtures("labelled", "unguarded", "policy")
class TestPolicy(Outcomes):
    def test_each_container_has_its_own(self) -> None:
        manifest = pod("several", GO, env=[{"name": "GOMAXPROCS", "value": "1"}])
        containers = manifest["spec"]["containers"]
        small = {"limits": {"cpu": "500m", "memory": "128Mi"}}
        containers.append({**pod("x", GO)["spec"]["containers"][0], "name": "b", "args": ["-listen=:8081"]})
        containers[1]["resources"] = small
        apply(json.dumps(manifest))
        ready("several")
        # The first sets GOMAXPROCS itself, and that stays.
        assert runs_with("several")["environ"] == {"GOMAXPROCS": "1", "GOMEMLIMIT": "241591910"}
        environ = json.loads(
            cluster("exec", "curl", "-sS", f"http://{get('pod', 'several')['status']['podIP']}:8081/debug/limits")
        )["environ"]
        assert environ == {"GOMAXPROCS": "1", "GOMEMLIMIT": str(128 * 1024 * 1024 * 9 // 10)}


@pytest.mark.usefixtures("labelled", "unguarded", "webhook")
class TestWebhook(Outcomes):
    def test_an_annotation_that_does_not_fit_is_a_warning(self) -> None:
        manifest = pod("wrong", GO)
        manifest["metadata"]["annotations"] = {"cgagent.dev/memory-ratio": "9"}
        apply(json.dumps(manifest))
        assert "initContainers" not in get("pod", "wrong")["spec"]

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

    def test_a_webhook_that_is_killed_lets_pods_in_as_they_are_and_comes_back(self) -> None:
        before = webhook_restarts()
        for name in webhook_pods():
            for pid in processes(name, "cgagent", "cgagent"):
                os.kill(pid, signal.SIGKILL)
        created("orphan", "--dry-run=server")  # injected or not: it is let in
        until("their restart", lambda: webhook_restarts() >= before + len(webhook_pods()), 60)
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


@pytest.mark.usefixtures("labelled", "policy", "webhook")
class TestBoth:
    def test_a_pod_is_injected_once(self) -> None:
        """By the policy, which comes first; the webhook is asked then, and leaves it at that."""
        until("the webhook being asked", lambda: created("both", "--dry-run=server") and "shop/both: skipped" in logs())
        found = created("both", "--dry-run=server")
        assert is_injected(found)
        assert taken_from_files(found) == {"app": BOTH}


def logs() -> str:
    """What the webhooks have said."""
    return "".join(cluster("kubectl", "-n", "cgagent", "logs", name) for name in webhook_pods())


def webhook_restarts() -> int:
    found = json.loads(cluster("kubectl", "-n", "cgagent", "get", "pods", "-o", "json"))["items"]
    return sum(status["restartCount"] for one in found for status in one["status"].get("containerStatuses", []))


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
