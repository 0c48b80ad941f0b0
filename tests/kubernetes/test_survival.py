"""What goes wrong in a pod, and what comes of it; and a pod that cgagent is not in."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from kubernetes.node import (
    GO,
    PATIENCE,
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
    warnings,
)
from kubernetes.pods import LIMITS, explained, injected, pod, processes, restart_application, sidecar_restarts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

GOMEMLIMIT = 241591910


def test_a_sidecar_that_is_killed_comes_back_and_follows(tmp_path: Path) -> None:
    apply(injected(pod("killed", GO), tmp_path, "--mode=sidecar"))
    ready("killed")
    (sidecar,) = processes("killed", "cgagent")
    os.kill(sidecar, signal.SIGKILL)
    until("the restart", lambda: sidecar_restarts("killed") == 1, 60)
    resize("killed", "app", {**LIMITS, "memory": "300Mi"})
    wanted = 300 * (1 << 20) * 9 // 10
    until("the new value", lambda: metric("killed", "cgagent_gomemlimit_bytes") == wanted, 60)
    assert restarts("killed", "app") == 0


def test_an_application_that_is_killed_starts_with_the_same_values(tmp_path: Path) -> None:
    apply(injected(pod("crashed", GO), tmp_path, "--mode=sidecar"))
    ready("crashed")
    restart_application("crashed")
    assert runs_with("crashed")["gomemlimit"] == GOMEMLIMIT


def test_a_pod_ends_as_soon_with_the_sidecar_as_without(tmp_path: Path) -> None:
    manifest = pod("ending", GO)
    manifest["spec"]["terminationGracePeriodSeconds"] = int(30 * PATIENCE)
    apply(injected(manifest, tmp_path, "--mode=sidecar"))
    ready("ending")
    runs_with("ending")
    start = time.monotonic()
    kubectl("delete", "pod", "ending")
    # Nowhere near the grace period: nobody was waited for and killed.
    assert time.monotonic() - start < 20 * PATIENCE


def test_another_user_than_the_applications_is_told_of_in_words(tmp_path: Path) -> None:
    manifest = pod("stranger", GO)
    manifest["spec"]["containers"][0]["securityContext"].update({"runAsUser": 10001, "runAsGroup": 10001})
    options = ("--mode=sidecar", "--share-process-namespace", "--run-as=65532:65532")
    apply(injected(manifest, tmp_path, *options))
    ready("stranger")
    # It started, by the limits that are given; what the cgroup has is withheld, and the log says so.
    assert runs_with("stranger")["gomemlimit"] == GOMEMLIMIT
    said = until("a word in the log", lambda: [
        line for line in kubectl("logs", "stranger", "-c", "cgagent").split("\n") if "can't be read" in line
    ])  # fmt: skip
    assert "user" in said[0]


def test_limits_that_are_only_the_platforms_leave_the_program_to_itself(tmp_path: Path) -> None:
    apply(injected(pod("free", GO, resources={}), tmp_path, "--expect-limits"))
    ready("free")
    assert runs_with("free")["environ"] == {}
    said = kubectl("logs", "free", "-c", "cgagent")
    assert said.count("looks like no limit, not heeded") == 2


def test_the_sidecar_answers_for_health_and_explains(tmp_path: Path) -> None:
    apply(injected(pod("asked", GO), tmp_path, "--mode=sidecar"))
    ready("asked")
    document = json.loads(http(get("pod", "asked"), 9101, "/explain"))
    assert document["env"] == {"GOMAXPROCS": "2", "GOMEMLIMIT": str(GOMEMLIMIT)}
    assert warnings("asked") == []


@pytest.mark.usefixtures("kubectl_on_path")
def test_a_pod_that_was_never_touched_is_explained(capfd: pytest.CaptureFixture[str]) -> None:
    """By an ephemeral container, in a namespace that enforces restricted Pod Security."""
    apply(json.dumps(pod("untouched", GO)))
    ready("untouched")
    runs_with("untouched")
    document = explained("untouched", capfd)
    assert document["limits"]["memory"]["bytes"] == 256 << 20
    assert document["limits"]["cpu"]["cores"] == 1.5
    assert document["go"]["version"] == f"go{GO}"
    assert document["running"]["GOMEMLIMIT"] is None


@pytest.mark.usefixtures("kubectl_on_path")
def test_in_a_shared_process_namespace_it_is_the_application_that_is_explained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And neither the pause container, which is process 1 there, nor the sidecar."""
    apply(injected(pod("shared", GO), tmp_path, "--mode=sidecar", "--share-process-namespace"))
    ready("shared")
    pid = runs_with("shared")["pid"]
    document = explained("shared", capfd)
    assert document["process"]["pid"] == str(pid)
    assert document["limits"]["memory"]["bytes"] == 256 << 20
    assert document["running"]["GOMEMLIMIT"] == GOMEMLIMIT
