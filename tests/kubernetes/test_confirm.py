"""`--confirm-raises`: without a shared process namespace too, a higher GOMEMLIMIT never comes before the cgroup's."""

from __future__ import annotations

import json
import os

import pytest

from cgagent.cgroup.reading import read_limits
from cgagent.host import Host
from kubernetes.node import (
    GO,
    apply,
    get,
    http,
    kubectl,
    metric,
    ready,
    resize,
    restarts,
    runs_with,
    until,
)
from kubernetes.pods import (
    CONFIRMING,
    LIMITS,
    ROLE,
    SECURITY,
    conditions,
    env_file,
    file_has,
    injected,
    limit_for,
    pod,
    processes,
    restart_application,
    sidecar_restarts,
    until_agreed,
)
from kubernetes.test_resize import (
    MIB,
    deferred_raise,
    each_start_has_the_new_value,
    occupant,
    program_has,
    resized,
    too_much_beside_the_occupant,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def in_force(name: str) -> int | None:
    """The memory limit that the kernel has for the application, in bytes."""
    (application,) = processes(name, "orders")
    return read_limits(Host(), str(application)).memory.bytes


def no_sooner_than_the_cgroup(name: str, limit: int) -> bool:
    """Whether the env file has `limit`, which then has to fit what is in force."""
    found = int(env_file(name)["GOMEMLIMIT"])
    assert found <= (in_force(name) or 0)
    return found == limit


@pytest.mark.usefixtures("role")
def test_a_deferred_raise_is_written_when_the_cgroup_has_it(tmp_path: Path) -> None:
    wished = deferred_raise("patient", tmp_path, *CONFIRMING)
    until("the wish", lambda: metric("patient", "cgagent_memory_limit_wished_bytes") == wished, 20)
    explained = until("the kubelet's word", lambda: pending("patient"), 20)
    assert metric("patient", "cgagent_memory_limit_bytes") == 256 * MIB
    wish = explained["limits"]["memory"]["wished"]
    assert (wish["bytes"], wish["in_force"]) == (wished, 256 * MIB)
    # An application that starts anew meanwhile, and a sidecar that does, have what fits the limit.
    until_agreed("patient", limit_for(256))
    restart_application("patient")
    assert program_has("patient", limit_for(256))
    (sidecar,) = processes("patient", "cgagent")
    os.kill(sidecar, 9)
    until("another sidecar", lambda: sidecar_restarts("patient") == 1, 60)
    until("its word with the kubelet's", lambda: pending("patient"), 60)
    until_agreed("patient", limit_for(256))
    kubectl("delete", "pod", "occupant", "--grace-period=1")
    until("the raise", lambda: no_sooner_than_the_cgroup("patient", wished * 9 // 10), 120)
    until_agreed("patient", wished * 9 // 10)
    asked = metric("patient", "cgagent_pod_status_requests_total")
    resize("patient", "app", {**LIMITS, "memory": "200Mi"})
    until_agreed("patient", limit_for(200))
    assert metric("patient", "cgagent_pod_status_requests_total") <= asked + 1, "what is lower is not asked about"


def pending(name: str) -> object:
    """The sidecar's own explanation, once it has the kubelet's reason."""
    explained = json.loads(http(get("pod", name), 9101, "/explain"))
    said = [one["message"] for one in explained["findings"] if one["id"] == "resize-pending"]
    return (
        explained if said and "the resize is pending: Deferred: Node didn't have enough resource" in said[0] else None
    )


@pytest.mark.usefixtures("role")
def test_what_is_asked_for_before_the_application_starts_is_held_back_too(tmp_path: Path) -> None:
    """What was granted at the sidecar's start is known from its environment."""
    manifest = json.loads(injected(pod("early", GO), tmp_path, *CONFIRMING))
    waiting = {"name": "waiting", "image": "cgagent.test/shell:1", "securityContext": SECURITY}
    words = ["/busybox", "sh", "-c", "until [ -f /tmp/go ]; do /busybox sleep 0.1; done"]
    mounts = [{"name": "gate", "mountPath": "/tmp"}]
    limits = {"limits": {"cpu": "50m", "memory": "16Mi"}}
    manifest["spec"]["initContainers"].insert(
        0, {**waiting, "command": words, "volumeMounts": mounts, "resources": limits}
    )
    manifest["spec"]["volumes"].append({"name": "gate", "emptyDir": {}})
    apply(json.dumps(occupant()))
    ready("occupant")
    apply(json.dumps(manifest))
    until(
        "the first container",
        lambda: "running" in get("pod", "early")["status"]["initContainerStatuses"][0]["state"],
        30,
    )
    resize("early", "app", {**LIMITS, "memory": str(too_much_beside_the_occupant())})
    until("the resize being deferred", lambda: conditions("early").get("PodResizePending") == "Deferred", 30)
    kubectl("exec", "early", "-c", "waiting", "--", "/busybox", "touch", "/tmp/go")
    ready("early")
    assert program_has("early", limit_for(256))


@pytest.mark.usefixtures("role")
def test_a_container_that_a_granted_raise_restarts_reads_the_new_file_every_time(tmp_path: Path) -> None:
    each_start_has_the_new_value("restart on resize, raises confirmed", "confirmed", tmp_path, "--confirm-raises")


@pytest.mark.usefixtures("role")
def test_without_a_restart_file_and_metrics_follow_too(tmp_path: Path) -> None:
    apply(injected(pod("asking", GO), tmp_path, *CONFIRMING))
    ready("asking")
    resized("raises confirmed", "asking", file_has)
    assert restarts("asking", "app") == 0


@pytest.mark.usefixtures("asked_by_pods")
def test_without_the_role_a_raise_is_held_back_and_told(tmp_path: Path) -> None:
    apply(injected(pod("refused", GO), tmp_path, *CONFIRMING))
    ready("refused")
    resize("refused", "app", {**LIMITS, "memory": "320Mi"})
    until("the refusal", lambda: "HTTP status 403" in kubectl("logs", "refused", "-c", "cgagent"), 30)
    said = [line for line in kubectl("logs", "refused", "-c", "cgagent").split("\n") if "403" in line]
    assert len(said) == 1
    assert "may get pods" in said[0]
    assert metric("refused", "cgagent_pod_status_request_failures_total") > 0
    until_agreed("refused", limit_for(256))
    resize("refused", "app", {**LIMITS, "memory": "200Mi"})
    until_agreed("refused", limit_for(200))
    resize("refused", "app", {**LIMITS, "memory": "300Mi"})
    kubectl("apply", "-f", ROLE)
    try:
        until_agreed("refused", limit_for(300))
    finally:
        kubectl("delete", "-f", ROLE)
    assert runs_with("refused")["gomemlimit"] == limit_for(256)
