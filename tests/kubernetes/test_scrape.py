"""A real Prometheus in the node's network finds the sidecar by its named port and scrapes it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from kubernetes.node import CLUSTER, GO_VERSIONS, apply, cluster, get, ready, until
from kubernetes.pods import injected, limit_for, pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADDRESS = "127.0.0.1:9490"
PORT_NAME = "cgagent-metrics"
# Debian's Prometheus is built without the discovery of pods: their named ports are looked up by `targets`.
_CONFIGURATION = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: cgagent
    file_sd_configs: [{{files: ["{targets}"], refresh_interval: 1s}}]
"""


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[None]:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus: apt-get install prometheus")
    configuration = tmp_path / "prometheus.yaml"
    configuration.write_text(_CONFIGURATION.format(targets=tmp_path / "targets.json"))
    words = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path}/data"]
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen([CLUSTER, "exec", *words, f"--web.listen-address={ADDRESS}"], stderr=said)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def targets() -> list[dict[str, object]]:
    """Every port of that name in the namespace's pods, as Prometheus' discovery gives them."""
    found: list[dict[str, object]] = []
    for one in get("pod")["items"]:
        spec = one["spec"]
        for container in spec["containers"] + spec.get("initContainers", []):
            for port in container.get("ports", []):
                if port.get("name") == PORT_NAME:
                    address = f"{one['status']['podIP']}:{port['containerPort']}"
                    found.append({"targets": [address], "labels": {"pod": one["metadata"]["name"]}})
    return found


def samples(query: str) -> list[dict[str, object]]:
    url = f"http://{ADDRESS}/api/v1/query"
    answer = cluster("exec", "curl", "-sS", "--get", url, "--data-urlencode", f"query={query}")
    found: list[dict[str, object]] = json.loads(answer)["data"]["result"]
    return found


@pytest.mark.usefixtures("prometheus")
def test_prometheus_scrapes_the_sidecar_by_its_named_port(tmp_path: Path) -> None:
    apply(injected(pod("scraped", GO_VERSIONS[1]), tmp_path, "--mode=sidecar"))
    apply(json.dumps(pod("plain", GO_VERSIONS[1], resources={})))
    ready("scraped")
    ready("plain")
    (tmp_path / "targets.json").write_text(json.dumps(targets()))
    (found,) = until("a sample", lambda: samples('cgagent_gomemlimit_bytes{pod="scraped"}'), 60)
    assert found["value"][1] == str(limit_for(256))
    assert [one["value"][1] for one in samples("up")] == ["1"]  # type: ignore[index]
