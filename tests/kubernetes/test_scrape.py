"""A real Prometheus in the node's network finds the sidecar by its named port and scrapes it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from kubernetes.node import CLUSTER, GO_VERSIONS, NAMESPACE, apply, cluster, ready, until
from kubernetes.pods import injected, limit_for, pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADDRESS = "127.0.0.1:9490"
# As the PodMonitor of k8s/components/monitoring has it, in Prometheus' own words.
_CONFIGURATION = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: cgagent
    kubernetes_sd_configs:
      - role: pod
        kubeconfig_file: {kubeconfig}
        namespaces: {{names: [{namespace}]}}
    relabel_configs:
      - source_labels: [__meta_kubernetes_pod_container_port_name]
        regex: cgagent-metrics
        action: keep
      - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
"""


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[None]:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus: apt-get install prometheus")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster("kubectl", "config", "view", "--raw"))
    configuration = tmp_path / "prometheus.yaml"
    configuration.write_text(_CONFIGURATION.format(kubeconfig=kubeconfig, namespace=NAMESPACE))
    words = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path}/data"]
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen([CLUSTER, "exec", *words, f"--web.listen-address={ADDRESS}"], stderr=said)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def samples(query: str) -> list[dict[str, object]]:
    answer = cluster("exec", "curl", "-sS", "--get", f"http://{ADDRESS}/api/v1/query", "--data-urlencode", f"query={query}")
    found: list[dict[str, object]] = json.loads(answer)["data"]["result"]
    return found


@pytest.mark.usefixtures("prometheus")
def test_prometheus_scrapes_the_sidecar_by_its_named_port(tmp_path: Path) -> None:
    apply(injected(pod("scraped", GO_VERSIONS[1]), tmp_path, "--mode=sidecar"))
    ready("scraped")
    (found,) = until("a sample", lambda: samples('cgagent_gomemlimit_bytes{pod="scraped"}'), 60)
    assert found["value"][1] == str(limit_for(256))  # type: ignore[index]
    # The application's port has another name, so there is one target and no more.
    assert [one["value"][1] for one in samples("up")] == ["1"]  # type: ignore[index]
