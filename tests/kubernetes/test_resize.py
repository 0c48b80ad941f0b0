"""In-place resizes, followed in each way: what the file, the metrics and the running program have in the end."""

from __future__ import annotations

import json
import os
import time

from kubernetes.node import GO_VERSIONS, apply, get, http, kubectl, metric, ready, resize, restarts, runs_with, until
from kubernetes.pods import LIMITS, env_file, injected, limit_for, pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
# Each to a size that the pod has not had: returning to one waits in CrashLoopBackOff.
RESIZES = int(os.environ.get("CGAGENT_TEST_RESIZES", "20"))
GO = GO_VERSIONS[1]


def sizes() -> list[int]:
    """MiB, up and down in turn, none twice."""
    return [256 + (16 + at) * (1 if at % 2 else -1) for at in range(RESIZES)]


def until_restarted(name: str, times: int) -> None:
    until(f"restart {times} of {name}", lambda: restarts(name, "app") >= times, 120)


def until_decided(name: str, limit: int) -> None:
    until(f"{limit} in {name}", lambda: metric(name, "cgagent_gomemlimit_bytes") == limit, 20)


def test_a_container_that_a_resize_restarts_reads_the_new_file_every_time(tmp_path: Path) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    apply(injected(pod("restarting", GO, resizePolicy=policy), tmp_path, "--mode=sidecar"))
    ready("restarting")
    found, seconds = [], []
    for number, size in enumerate(sizes(), 1):
        start = time.monotonic()
        resize("restarting", "app", {**LIMITS, "memory": f"{size}Mi"})
        until_restarted("restarting", number)
        found.append(runs_with("restarting")["gomemlimit"])
        seconds.append(time.monotonic() - start)
    print(f"restart on resize: {len(found)} resizes, median {sorted(seconds)[len(seconds) // 2]:.1f} s")
    assert found == [limit_for(size) for size in sizes()]


def test_without_a_restart_file_and_metrics_follow(tmp_path: Path) -> None:
    apply(injected(pod("following", GO), tmp_path, "--mode=sidecar"))
    ready("following")
    seconds = []
    for size in sizes():
        start = time.monotonic()
        resize("following", "app", {**LIMITS, "memory": f"{size}Mi"})
        until_decided("following", limit_for(size))
        seconds.append(time.monotonic() - start)
    print(f"following the volume: {len(seconds)} resizes, median {sorted(seconds)[len(seconds) // 2]:.2f} s")
    # Its variables are those of its start; who starts next has the new ones.
    assert runs_with("following")["gomemlimit"] == limit_for(256)
    assert restarts("following", "app") == 0


def test_a_shared_process_namespace_shows_what_is_and_not_what_is_wished(tmp_path: Path) -> None:
    """A wish that the node has no room for at present: the volume shows it, the cgroup does not."""
    apply(injected(pod("wishing", GO), tmp_path, "--mode=sidecar", "--share-process-namespace"))
    apply(json.dumps(occupant()))
    ready("wishing")
    ready("occupant")
    until("the target", lambda: metric("wishing", "cgagent_memory_limit_bytes") == 256 * MIB, 20)
    room = allocatable() - int(allocatable() * 0.6)
    resize("wishing", "app", {**LIMITS, "memory": str(room + 512 * MIB)})
    until("the resize being deferred", lambda: "PodResizePending" in conditions("wishing"), 30)
    shown = kubectl("exec", "wishing", "-c", "cgagent", "--", "cgagent", "write", "--env-file=-",
                    "--limits-dir=/etc/cgagent/limits", "--limits-from=given")  # fmt: skip
    assert f"GOMEMLIMIT='{(room + 512 * MIB) * 9 // 10}'" in shown
    wished = room + 512 * MIB
    until("the wish", lambda: metric("wishing", "cgagent_memory_limit_wished_bytes") == wished, 20)
    assert metric("wishing", "cgagent_memory_limit_bytes") == 256 * MIB
    assert metric("wishing", "cgagent_gomemlimit_bytes") == limit_for(256)
    assert env_file("wishing")["GOMEMLIMIT"] == str(limit_for(256))
    explained = json.loads(http(get("pod", "wishing"), 9101, "/explain"))
    wish = explained["limits"]["memory"]["wished"]
    assert (wish["bytes"], wish["in_force"]) == (wished, 256 * MIB)
    assert "resize-pending" in [one["id"] for one in explained["findings"]]


def test_a_decrease_that_is_held_back_is_decided_on_and_told_apart(tmp_path: Path) -> None:
    """Below what the program uses: the volume shows it, the cgroup does not; a lower GOMEMLIMIT helps it come about."""
    apply(injected(pod("held", GO), tmp_path, "--mode=sidecar", "--share-process-namespace"))
    ready("held")
    until("the target", lambda: metric("held", "cgagent_memory_limit_bytes") == 256 * MIB, 20)
    http(get("pod", "held"), 8080, "/?orders=200000")
    resize("held", "app", {**LIMITS, "memory": "8Mi"})
    until("the resize being held back", lambda: conditions("held").get("PodResizeInProgress") == "Error", 60)
    assert env_file("held")["GOMEMLIMIT"] == str(limit_for(8))
    assert metric("held", "cgagent_memory_limit_wished_bytes") == 8 * MIB
    assert metric("held", "cgagent_memory_limit_bytes") == 256 * MIB
    assert metric("held", "cgagent_gomemlimit_bytes") == limit_for(8)


def test_a_running_program_is_tuned_from_the_sidecar(tmp_path: Path) -> None:
    """Under restricted Pod Security, with no capability: the same user and group are enough."""
    apply(injected(pod("tuned", GO), tmp_path, "--mode=sidecar", "--share-process-namespace"))
    ready("tuned")
    assert runs_with("tuned")["gomemlimit"] == limit_for(256)
    resize("tuned", "app", {**LIMITS, "memory": "320Mi"})
    until_decided("tuned", limit_for(320))
    pid = runs_with("tuned")["pid"]
    kubectl("exec", "tuned", "-c", "cgagent", "--", "cgagent", "tune", "--pid", str(pid), "--memory-limit=auto")
    until("the program's own limit", lambda: runs_with("tuned")["gomemlimit"] == limit_for(320), 10)
    assert restarts("tuned", "app") == 0


def occupant() -> dict[str, object]:
    """A pod that takes six tenths of the node's memory by asking for it."""
    asked = {"cpu": "100m", "memory": str(int(allocatable() * 0.6))}
    return pod("occupant", GO, resources={"requests": asked, "limits": asked})


def allocatable() -> int:
    """The node's memory that pods may ask for, in bytes."""
    quantity = get("node", "node")["status"]["allocatable"]["memory"]
    return int(quantity.removesuffix("Ki")) * (1024 if quantity.endswith("Ki") else 1)


def conditions(name: str) -> dict[str, str]:
    """The pod's conditions with their reasons."""
    return {one["type"]: one.get("reason", "") for one in get("pod", name)["status"]["conditions"]}


def with_arguments(manifest: str, *words: str, **more: object) -> str:
    """`manifest` with more words for the sidecar, and more fields for its container."""
    found = json.loads(manifest)
    sidecar = found["spec"]["initContainers"][0]
    sidecar["args"] += words
    sidecar.update(more)
    return json.dumps(found)


def test_a_running_program_is_tuned_after_every_resize(tmp_path: Path) -> None:
    """By the sidecar's own hook, in a pod of restricted Pod Security; file, metrics and program agree each time."""
    manifest = injected(pod("tuning", GO), tmp_path, "--mode=sidecar", "--share-process-namespace")
    apply(with_arguments(manifest, "--hook=tune"))
    ready("tuning")
    seconds = []
    for size in sizes():
        start = time.monotonic()
        resize("tuning", "app", {**LIMITS, "memory": f"{size}Mi"})
        until("the program's limit", lambda size=size: runs_with("tuning")["gomemlimit"] == limit_for(size), 30)  # type: ignore[misc]
        seconds.append(time.monotonic() - start)
        until_decided("tuning", limit_for(size))
        assert env_file("tuning")["GOMEMLIMIT"] == str(limit_for(size))
    print(f"tune: {len(seconds)} resizes, median {sorted(seconds)[len(seconds) // 2]:.2f} s")
    assert metric("tuning", "cgagent_go_gomemlimit_bytes") == limit_for(sizes()[-1])
    assert restarts("tuning", "app") == 0


def test_all_containers_are_restarted_where_that_is_configured(tmp_path: Path) -> None:
    """The sidecar ends with a code that a rule of the pod turns into RestartAllContainers: no preStop, no race."""
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}
    manifest = injected(pod("together", GO), tmp_path, "--mode=sidecar")
    apply(with_arguments(manifest, "--hook=exit:88", restartPolicyRules=[rule]))
    ready("together")
    seconds = []
    for size in sizes():
        start = time.monotonic()
        resize("together", "app", {**LIMITS, "memory": f"{size}Mi"})
        until("the new value", lambda size=size: runs_with("together")["gomemlimit"] == limit_for(size), 120)  # type: ignore[misc]
        seconds.append(time.monotonic() - start)
        until_decided("together", limit_for(size))
    print(f"restart all: {len(seconds)} resizes, median {sorted(seconds)[len(seconds) // 2]:.1f} s")


def test_a_signal_restarts_the_application_where_that_is_configured(tmp_path: Path) -> None:
    manifest = injected(pod("signalled", GO), tmp_path, "--mode=sidecar", "--share-process-namespace")
    apply(with_arguments(manifest, "--hook=signal:TERM"))
    ready("signalled")
    seconds = []
    for size in sizes():
        start = time.monotonic()
        resize("signalled", "app", {**LIMITS, "memory": f"{size}Mi"})
        until("the new value", lambda size=size: runs_with("signalled")["gomemlimit"] == limit_for(size), 120)  # type: ignore[misc]
        seconds.append(time.monotonic() - start)
        until_decided("signalled", limit_for(size))
    print(f"signal: {len(seconds)} resizes, median {sorted(seconds)[len(seconds) // 2]:.1f} s")
    assert restarts("signalled", "app") == len(seconds)
