"""A real Prometheus in the node's network finds sidecars by its discovery of pods, as our PodMonitor tells it to."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from cgagent.kube.manifests import values
from kubernetes.node import CLUSTER, GO, NAMESPACE, ROOT, NodeError, apply, cluster, get, kubectl, ready, until
from kubernetes.pods import injected, limit_for, pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

ADDRESS = "127.0.0.1:9490"
ACCOUNT = "prometheus"


@pytest.fixture
def account() -> Iterator[str]:
    """The token of a service account that may look at the namespace's pods, and at nothing else."""
    try:
        kubectl("create", "serviceaccount", ACCOUNT)
        kubectl("create", "role", ACCOUNT, "--verb=get,list,watch", "--resource=pods")
        kubectl("create", "rolebinding", ACCOUNT, f"--role={ACCOUNT}", f"--serviceaccount={NAMESPACE}:{ACCOUNT}")
        yield kubectl("create", "token", ACCOUNT)
    finally:
        kubectl("delete", "rolebinding,role,serviceaccount", ACCOUNT, "--ignore-not-found")


@pytest.fixture
def prometheus(tmp_path: Path, account: str) -> Iterator[None]:
    try:
        cluster("prometheus", "--version")
    except NodeError as error:
        pytest.skip(f"Prometheus can't be built: {error}")
    configuration = tmp_path / "prometheus.json"  # which is YAML too
    configuration.write_text(json.dumps({"scrape_configs": [scrape_config(pod_monitor(), account)]}))
    words = [f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path}/data"]
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen([CLUSTER, "prometheus", *words, f"--web.listen-address={ADDRESS}"], stderr=said)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def pod_monitor() -> dict[str, Any]:
    """The `spec` of the PodMonitor that k8s/ has."""
    objects = values(cluster("kubectl", "kustomize", os.path.join(ROOT, "k8s", "examples", "monitoring")))
    found: list[Any] = [one for one in objects if isinstance(one, dict) and one["kind"] == "PodMonitor"]
    (monitor,) = found
    spec: dict[str, Any] = monitor["spec"]
    return spec


def scrape_config(monitor: dict[str, Any], token: str) -> dict[str, Any]:
    """What the operator makes of a PodMonitor (its pkg/prometheus/promcfg.go, generatePodMonitorConfig); more often."""
    assert monitor["selector"] == {}
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert set(endpoint) == {"port", "interval"}
    server = cluster("kubectl", "config", "view", "--output=jsonpath={.clusters[0].cluster.server}")
    return {
        "job_name": f"podMonitor/{NAMESPACE}/cgagent/0",
        "scrape_interval": "2s",
        "kubernetes_sd_configs": [{
            "role": "pod",
            "namespaces": {"names": [NAMESPACE]},
            "api_server": server,
            "authorization": {"credentials": token},
            "tls_config": {"insecure_skip_verify": True},
        }],
        "relabel_configs": [
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop"},
            {
                "source_labels": ["__meta_kubernetes_pod_container_port_name"],
                "regex": endpoint["port"],
                "action": "keep",
            },
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        ],
    }  # fmt: skip


def asked(path: str, *data: str) -> Any:
    """What Prometheus' API answers."""
    words = [word for one in data for word in ("--data-urlencode", one)]
    answer = cluster("exec", "curl", "-sS", "--fail", "--get", f"http://{ADDRESS}/api/v1/{path}", *words)
    return json.loads(answer)["data"]


def samples(query: str) -> dict[str, str]:
    """The values that a query has at present, by pod."""
    return {one["metric"]["pod"]: one["value"][1] for one in asked("query", f"query={query}")["result"]}


def targets() -> dict[str, dict[str, str]]:
    """What is scraped, by pod: its labels as discovered and as kept."""
    active = asked("targets", "state=active")["activeTargets"]
    return {one["labels"]["pod"]: {**one["discoveredLabels"], **one["labels"]} for one in active}


def dropped() -> set[str]:
    """The pods of which something was discovered that is not scraped."""
    found = asked("targets", "state=dropped")["droppedTargets"]
    return {one["discoveredLabels"]["__meta_kubernetes_pod_name"] for one in found}


@pytest.mark.usefixtures("prometheus")
def test_prometheus_scrapes_every_sidecar_and_nothing_else_for_as_long_as_its_pod_is_there(tmp_path: Path) -> None:
    """A native sidecar is an init container, and the discovery of pods gives their ports as those of any other."""
    apply(injected(pod("scraped", GO), tmp_path, "--mode=sidecar"))
    apply(json.dumps(pod("plain", GO, resources={}, ports=[{"name": "http", "containerPort": 8080}])))
    ready("scraped")
    ready("plain")
    until("a sample", lambda: samples("cgagent_gomemlimit_bytes") == {"scraped": str(limit_for(256))})
    until("the other being known and not scraped", lambda: "plain" in dropped())
    until("one target, which is up", lambda: samples("up") == {"scraped": "1"})
    (found,) = targets().values()
    assert found["__meta_kubernetes_pod_container_init"] == "true"
    assert (found["namespace"], found["pod"], found["container"]) == (NAMESPACE, "scraped", "cgagent")
    assert found["instance"] == f"{get('pod', 'scraped')['status']['podIP']}:9101"
    kubectl("delete", "pod", "scraped", "--grace-period=1")
    until("the target being gone", lambda: targets() == {})
    until("its samples being stale", lambda: samples("up") == {})
