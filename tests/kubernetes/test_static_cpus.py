"""A kubelet that gives CPUs away whole (static CPU manager): resizes that it alone refuses, a limit with no quota."""

from __future__ import annotations

import json

import pytest

from kubernetes.node import GO, apply, cluster, get, http, metric, ready, resize, runs_with, until
from kubernetes.pods import (
    CONFIRMING,
    ENVIRON,
    SHARED,
    conditions,
    env_file,
    findings,
    injected,
    limit_for,
    pod,
    restart_application,
    until_agreed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
SMALL = {"cpu": "500m", "memory": "256Mi"}
LARGER = {"cpu": "1100m", "memory": "300Mi"}


@pytest.fixture(scope="module", autouse=True)
def _static_cpus() -> Iterator[None]:
    """It keeps half a CPU for the node, and so one CPU that it gives nobody alone."""
    before = allocatable_cpus()
    cluster("restart", "kubelet", "cpuManagerPolicy: static", "kubeReserved: {cpu: 500m}")
    until("what the kubelet keeps", lambda: allocatable_cpus() != before)
    yield
    cluster("restart", "kubelet")
    until("what it was before", lambda: allocatable_cpus() == before)


def allocatable_cpus() -> str:
    return str(get("node", "node")["status"]["allocatable"]["cpu"])


def refused(name: str, directory: Path, *options: str) -> None:
    """A pod whose resize the kubelet refuses: of CPU, of whoever is Guaranteed, and whatever is asked for with it.

    The API server, which refuses what exceeds the node, lets it through.
    """
    apply(injected(pod(name, GO, resources={"limits": SMALL}), directory, *options))
    ready(name)
    until_agreed(name, limit_for(256))
    resize(name, "app", LARGER)
    until("the kubelet's refusal", lambda: conditions(name).get("PodResizePending") == "Infeasible", 30)


def test_what_the_kubelet_refuses_stays_a_wish(tmp_path: Path) -> None:
    """Infeasible: the volume shows it for as long as the pod's spec does; file, metrics and program go by the fact."""
    refused("wishing", tmp_path, *SHARED)
    until("the memory wished", lambda: metric("wishing", "cgagent_memory_limit_wished_bytes") == 300 * MIB, 20)
    until("the CPUs wished", lambda: metric("wishing", "cgagent_cpu_limit_wished_cores") == 1.1, 20)
    assert metric("wishing", "cgagent_memory_limit_bytes") == 256 * MIB
    assert metric("wishing", "cgagent_cpu_limit_cores") == 0.5
    until_agreed("wishing", limit_for(256))
    assert findings("wishing").count("resize-pending") == 2
    restart_application("wishing")
    assert runs_with("wishing")["environ"] == {"GOMAXPROCS": "1", "GOMEMLIMIT": str(limit_for(256))}
    # Asked for without the CPUs, the memory comes at once.
    resize("wishing", "app", {**LARGER, "cpu": SMALL["cpu"]})
    until("the memory", lambda: metric("wishing", "cgagent_memory_limit_bytes") == 300 * MIB, 60)
    until_agreed("wishing", limit_for(300))
    assert "resize-pending" not in findings("wishing")


def test_a_sidecar_that_sees_only_wishes_writes_it_nevertheless(tmp_path: Path) -> None:
    """As a raise that is deferred; but this one never comes about."""
    refused("blind", tmp_path, "--mode=sidecar")
    until_agreed("blind", limit_for(300))
    assert env_file("blind")["GOMAXPROCS"] == "2"


@pytest.mark.usefixtures("role")
def test_a_sidecar_that_asks_whether_it_is_granted_does_not(tmp_path: Path) -> None:
    refused("asking", tmp_path, *CONFIRMING)
    until("the memory wished", lambda: metric("asking", "cgagent_memory_limit_wished_bytes") == 300 * MIB, 20)
    said = until("the kubelet's reason", lambda: infeasible("asking"), 30)
    assert said == ["cpu", "memory"]
    assert metric("asking", "cgagent_memory_limit_bytes") == 256 * MIB
    assert env_file("asking") == {"GOMAXPROCS": "1", "GOMEMLIMIT": str(limit_for(256))}
    resize("asking", "app", {**LARGER, "cpu": SMALL["cpu"]})
    until_agreed("asking", limit_for(300))


def infeasible(name: str) -> list[str]:
    """The resources of which the sidecar says so."""
    limits = json.loads(http(get("pod", name), 9101, "/explain"))["limits"]
    return [one for one in ("cpu", "memory") if str(limits[one]["wished"]["reason"]).startswith("Infeasible")]


WHOLE = {"limits": {"cpu": "1", "memory": "256Mi"}}
ONE = {**ENVIRON, "GOMAXPROCS": "1"}


def test_exclusive_cpus_are_a_limit_without_a_quota(tmp_path: Path) -> None:
    """The kubelet lifts the quota of who has CPUs of its own: the cpuset holds it to them, and no resize is pending."""
    apply(injected(pod("exclusive", GO, resources=WHOLE), tmp_path, *SHARED))
    ready("exclusive")
    until("the target", lambda: metric("exclusive", "cgagent_cpu_allowed_cpus") == 1, 20)
    document = json.loads(http(get("pod", "exclusive"), 9101, "/explain"))
    assert document["limits"]["cpu"]["quota_us"] is None
    assert document["env"] == ONE
    assert "resize-pending" not in findings("exclusive")
    assert (runs_with("exclusive")["environ"], runs_with("exclusive")["numcpu"]) == (ONE, 1)


def test_a_program_that_starts_by_itself_counts_its_exclusive_cpus(tmp_path: Path) -> None:
    apply(injected(pod("inside", GO, resources=WHOLE, command=["/orders"]), tmp_path, "--mode=bundle"))
    ready("inside")
    assert runs_with("inside")["environ"] == ONE
