"""The ways in, each on a real node: distroless Go programs start with the right values, without a change to them."""

from __future__ import annotations

import json

import pytest

from kubernetes.node import (
    GO_VERSIONS,
    NodeError,
    apply,
    cluster,
    get,
    http,
    kubectl,
    metric,
    ready,
    runs_with,
    until,
    warnings,
)
from kubernetes.pods import LIMITS, injected, pod
from support.kube import cases, path, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

# By hand: ceil(1.5), and nine tenths of 256 MiB rounded down.
GOMAXPROCS, GOMEMLIMIT = 2, 241591910


@pytest.mark.parametrize("version", GO_VERSIONS)
@pytest.mark.parametrize("mode", ["filekeyref", "sidecar", "bundle"])
def test_a_distroless_program_starts_with_the_decided_values(mode: str, version: str, tmp_path: Path) -> None:
    name = f"{mode}-{version.replace('.', '-')}"
    command = {"command": ["/orders"]} if mode == "bundle" else {}
    apply(injected(pod(name, version, **command), tmp_path, "--mode", mode))
    found = ready(name)
    limits = runs_with(name)
    assert (limits["gomaxprocs"], limits["gomemlimit"]) == (GOMAXPROCS, GOMEMLIMIT)
    assert limits["version"] == f"go{version}"
    assert found["status"]["qosClass"] == "Guaranteed"
    assert warnings(name) == []


def test_without_cgagent_the_program_has_neither() -> None:
    apply(json.dumps(pod("plain", GO_VERSIONS[0])))
    assert ready("plain")["status"]["qosClass"] == "Guaranteed"
    limits = runs_with("plain")
    assert limits["environ"] == {}
    assert limits["gomemlimit"] == 2**63 - 1


def test_the_sidecar_exports_what_it_has_decided(tmp_path: Path) -> None:
    apply(injected(pod("metrics", GO_VERSIONS[1]), tmp_path, "--mode=sidecar"))
    ready("metrics")
    assert metric("metrics", "cgagent_gomaxprocs") == GOMAXPROCS
    assert metric("metrics", "cgagent_gomemlimit_bytes") == GOMEMLIMIT
    assert http(get("pod", "metrics"), 9101, "/readyz")


def test_the_application_starts_right_after_the_sidecar(tmp_path: Path) -> None:
    """The postStart hook holds it back until the file is there, so that no start fails and is tried again."""
    apply(injected(pod("order", GO_VERSIONS[1]), tmp_path, "--mode=sidecar"))
    found = ready("order")
    status = found["status"]["containerStatuses"][0]
    assert status["restartCount"] == 0
    assert warnings("order") == []


def test_an_image_with_a_shell_reads_the_file_itself(tmp_path: Path) -> None:
    words = ["/busybox", "sh", "-c", 'set -a; . /run/cgagent/go.env; exec "$@"', "sh", "/orders"]
    mount = {"name": "cgagent-env", "mountPath": "/run/cgagent", "readOnly": True}
    shell = pod("shell", GO_VERSIONS[1], image="cgagent.test/shell:1", command=words)
    manifest = json.loads(injected(shell, tmp_path))
    container = manifest["spec"]["containers"][0]
    container["env"], container["volumeMounts"] = [], [mount]
    apply(json.dumps(manifest))
    ready("shell")
    assert runs_with("shell")["gomemlimit"] == GOMEMLIMIT


@pytest.mark.parametrize(
    ("limits", "environ"),
    [
        ({"memory": "256Mi"}, {"GOMEMLIMIT": "241591910"}),
        ({"cpu": "1500m"}, {"GOMAXPROCS": "2"}),
    ],
)
def test_one_limit_gives_one_variable(limits: dict[str, str], environ: dict[str, str], tmp_path: Path) -> None:
    apply(injected(pod("one", GO_VERSIONS[0], resources={"limits": limits}), tmp_path))
    ready("one")
    assert runs_with("one")["environ"] == environ


def test_limits_that_a_limit_range_sets_are_used_where_they_are_expected(tmp_path: Path) -> None:
    limit_range = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "defaults"},
        "spec": {"limits": [{"type": "Container", "default": LIMITS, "defaultRequest": LIMITS}]},
    }
    apply(json.dumps(limit_range))
    try:
        apply(injected(pod("ranged", GO_VERSIONS[0], resources={}), tmp_path, "--expect-limits"))
        ready("ranged")
        assert runs_with("ranged")["environ"] == {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}
    finally:
        kubectl("delete", "limitrange", "defaults")


def test_a_limit_range_that_asks_for_more_than_cgagent_takes_refuses_the_pod(tmp_path: Path) -> None:
    """With the words of Kubernetes; the sidecar has 64Mi."""
    limits = [{"type": "Container", "min": {"memory": "48Mi"}}]
    limit_range = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "least"}, "spec": {"limits": limits}}
    apply(json.dumps(limit_range))
    try:
        with pytest.raises(NodeError, match="minimum memory usage per Container is 48Mi"):
            apply(injected(pod("small", GO_VERSIONS[0]), tmp_path))
        apply(injected(pod("larger", GO_VERSIONS[0]), tmp_path, "--mode=sidecar"))
    finally:
        kubectl("delete", "limitrange", "least")


def test_a_job_is_done_when_its_application_is(tmp_path: Path) -> None:
    """A native sidecar holds up no job, and ends without being killed."""
    once = pod("once", GO_VERSIONS[1], image="cgagent.test/shell:1", command=["/busybox", "env"])["spec"]
    template = {"spec": {**once, "restartPolicy": "Never"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": template}}
    apply(injected(job, tmp_path, "--mode=sidecar"))
    try:
        until("the job's end", lambda: get("job", "once")["status"].get("succeeded") == 1)
        (found,) = get("pod", "", "-l", "job-name=once")["items"]
        name = found["metadata"]["name"]
        assert f"GOMEMLIMIT={GOMEMLIMIT}" in kubectl("logs", name, "-c", "app").split("\n")
        sidecar = until(
            "the sidecar's end", lambda: get("pod", name)["status"]["initContainerStatuses"][0]["state"]["terminated"]
        )
        assert (sidecar["exitCode"], warnings(name)) == (0, [])
    finally:
        kubectl("delete", "job", "once")


def test_a_resource_quota_lets_in_what_inject_adds_and_counts_it(tmp_path: Path) -> None:
    """A quota refuses every container without requests and limits."""
    hard = {"requests.cpu": "2", "limits.cpu": "2", "requests.memory": "1Gi", "limits.memory": "1Gi"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": hard}}
    apply(json.dumps(quota))
    try:
        until("the quota", lambda: get("resourcequota", "all")["status"]["hard"] == hard)
        apply(injected(pod("counted", GO_VERSIONS[0]), tmp_path, "--mode=sidecar"))
        ready("counted")
        assert runs_with("counted")["environ"] == {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}
        # 1500m and 256Mi of the application, 100m and 64Mi of the sidecar.
        used = {"requests.cpu": "1600m", "limits.cpu": "1600m", "requests.memory": "320Mi", "limits.memory": "320Mi"}
        until("its use", lambda: get("resourcequota", "all")["status"]["used"] == used)
    finally:
        kubectl("delete", "resourcequota", "all")


def test_pod_level_limits_are_shared_out(tmp_path: Path) -> None:
    manifest = pod("level", GO_VERSIONS[0], resources={})
    spec = manifest["spec"]
    assert isinstance(spec, dict)
    spec["resources"] = {"limits": {"cpu": "2", "memory": "512Mi"}}
    spec["containers"].append({**spec["containers"][0], "name": "other", "args": ["-listen=:8081"]})
    apply(injected(manifest, tmp_path, "--split"))
    ready("level")
    # Two containers have 2 CPUs and 512 MiB between them: 1 CPU, and nine tenths of 256 MiB.
    assert runs_with("level")["environ"] == {"GOMAXPROCS": "1", "GOMEMLIMIT": "241591910"}


def test_every_manifest_that_inject_makes_is_taken_by_the_api_server() -> None:
    """A dry run on the server, in a namespace without Pod Security: of the originals not all would pass that."""
    everywhere = "golden"
    cluster("kubectl", "create", "namespace", everywhere)
    try:
        until("a service account", lambda: get("serviceaccount", "default", "-n", everywhere))
        for case in (case for case in cases() if case != "not-kubernetes"):
            manifest = text(path(case, "golden.yaml")).replace("namespace: shop", f"namespace: {everywhere}")
            manifest = manifest.replace("name: shop ", "name: another ")
            manifest = manifest.replace("serviceAccountName: orders", "serviceAccountName: default")
            words = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
            cluster("kubectl", "-n", everywhere, *words, text=manifest)
    finally:
        cluster("kubectl", "delete", "namespace", everywhere, "--wait=false")
