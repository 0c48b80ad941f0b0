"""In-place resizes, followed in each way: what the file, the metrics and the running program have in the end."""

from __future__ import annotations

import json
import os
import time

import pytest

from kubernetes.node import (
    FIGURES,
    GO,
    NodeError,
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
    LIMITS,
    SHARED,
    conditions,
    file_has,
    findings,
    injected,
    limit_for,
    pod,
    restart_application,
    until_agreed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
# Each to a size that the pod has not had: returning to one waits in CrashLoopBackOff.
RESIZES = int(os.environ.get("CGAGENT_TEST_RESIZES", "20"))
RESTARTED_BY_KUBELET = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]


def sizes() -> list[int]:
    """MiB, up and down in turn, none twice."""
    return [256 + (16 + at) * (1 if at % 2 else -1) for at in range(RESIZES)]


def program_has(name: str, limit: int) -> bool:
    """Whether the running program has that memory limit."""
    return bool(runs_with(name)["gomemlimit"] == limit)


def resized(way: str, name: str, followed: Callable[[str, int], bool]) -> None:
    """Resize pod `name` up and down; each time, within time, `followed` holds, and file and metrics agree.

    Of the program each way has its own to say, by `followed`.
    """
    seconds = []
    for size in sizes():
        limit = limit_for(size)
        start = time.monotonic()
        resize(name, "app", {**LIMITS, "memory": f"{size}Mi"})
        until(f"{limit} in {name}", lambda limit=limit: followed(name, limit), 120)  # type: ignore[misc]
        seconds.append(time.monotonic() - start)
        until_agreed(name, limit)
    FIGURES.append(f"{way}: {len(seconds)} resizes, median {sorted(seconds)[len(seconds) // 2]:.2f} s")


def each_start_has_the_new_value(way: str, name: str, directory: Path, *options: str) -> None:
    """The first start after each resize has it: with an old one the container would be started once too often."""
    apply(injected(pod(name, GO, resizePolicy=RESTARTED_BY_KUBELET), directory, "--mode=sidecar", *options))
    ready(name)
    found: list[int] = []

    def restarted(name: str, _limit: int) -> bool:
        if restarts(name, "app") == len(found):
            return False
        found.append(runs_with(name)["gomemlimit"])
        return True

    resized(way, name, restarted)
    assert found == [limit_for(size) for size in sizes()]
    assert restarts(name, "app") == len(found)


def test_a_container_that_a_resize_restarts_reads_the_new_file_every_time(tmp_path: Path) -> None:
    each_start_has_the_new_value("restart on resize", "restarting", tmp_path)


def test_without_a_restart_file_and_metrics_follow(tmp_path: Path) -> None:
    apply(injected(pod("following", GO), tmp_path, "--mode=sidecar"))
    ready("following")
    resized("following the volume", "following", file_has)
    # Its variables are those of its start; who starts next has the new ones.
    assert program_has("following", limit_for(256))
    assert restarts("following", "app") == 0
    restart_application("following")
    assert program_has("following", limit_for(sizes()[-1]))


def test_a_running_program_is_tuned_after_every_resize(tmp_path: Path) -> None:
    """By the sidecar's own hook, in a pod of restricted Pod Security, with no capability and no restart."""
    apply(injected(pod("tuning", GO), tmp_path, *SHARED, "--hook=tune"))
    ready("tuning")
    resized("tune", "tuning", program_has)
    until(
        "the program in the metrics", lambda: metric("tuning", "cgagent_go_gomemlimit_bytes") == limit_for(sizes()[-1])
    )
    assert restarts("tuning", "app") == 0


def test_a_signal_restarts_the_application_where_that_is_configured(tmp_path: Path) -> None:
    apply(injected(pod("signalled", GO), tmp_path, *SHARED, "--hook=signal:TERM"))
    ready("signalled")
    resized("signal", "signalled", program_has)
    assert restarts("signalled", "app") == RESIZES


def test_all_containers_are_restarted_where_that_is_configured(tmp_path: Path) -> None:
    """The sidecar ends with a code that a rule of the pod turns into RestartAllContainers: no preStop, no race."""
    apply(injected(pod("together", GO), tmp_path, "--mode=sidecar", "--hook=exit:88"))
    ready("together")
    resized("restart all", "together", program_has)


def test_a_running_program_is_tuned_from_the_sidecar_by_hand(tmp_path: Path) -> None:
    """Under restricted Pod Security, with no capability: the same user and group are enough."""
    apply(injected(pod("tuned", GO), tmp_path, *SHARED))
    ready("tuned")
    assert program_has("tuned", limit_for(256))
    resize("tuned", "app", {**LIMITS, "memory": "320Mi"})
    until_agreed("tuned", limit_for(320))
    pid = runs_with("tuned")["pid"]
    kubectl("exec", "tuned", "-c", "cgagent", "--", "cgagent", "tune", "--pid", str(pid), "--memory-limit=auto")
    until("the program's own limit", lambda: program_has("tuned", limit_for(320)), 10)
    assert restarts("tuned", "app") == 0


def occupant() -> dict[str, object]:
    """A pod that takes six tenths of the node's memory by asking for it."""
    asked = {"cpu": "100m", "memory": str(int(allocatable() * 0.6))}
    return pod("occupant", GO, resources={"requests": asked, "limits": asked})


def allocatable() -> int:
    """The node's memory that pods may ask for, in bytes."""
    quantity = get("node", "node")["status"]["allocatable"]["memory"]
    return int(quantity.removesuffix("Ki")) * (1024 if quantity.endswith("Ki") else 1)


def too_much_beside_the_occupant() -> int:
    """Whole MiB, as the kernel keeps whole pages alone."""
    return (allocatable() - int(allocatable() * 0.6)) // MIB * MIB + 512 * MIB


def deferred_raise(name: str, directory: Path, *options: str) -> int:
    """A pod that is asked to grow to what the node has no room for at present; the bytes that are wished."""
    apply(injected(pod(name, GO), directory, *options))
    apply(json.dumps(occupant()))
    ready(name)
    ready("occupant")
    until("the decision", lambda: metric(name, "cgagent_gomemlimit_bytes") == limit_for(256), 20)
    wished = too_much_beside_the_occupant()
    resize(name, "app", {**LIMITS, "memory": str(wished)})
    until("the resize being deferred", lambda: conditions(name).get("PodResizePending") == "Deferred", 30)
    return wished


def test_a_shared_process_namespace_shows_what_is_and_not_what_is_wished(tmp_path: Path) -> None:
    """A raise that is deferred: the volume shows it, the cgroup does not; file, metrics and program go by the fact."""
    wished = deferred_raise("wishing", tmp_path, *SHARED)
    until("the target", lambda: metric("wishing", "cgagent_memory_limit_bytes") == 256 * MIB, 20)
    until("the wish", lambda: metric("wishing", "cgagent_memory_limit_wished_bytes") == wished, 20)
    until_agreed("wishing", limit_for(256))
    wish = json.loads(http(get("pod", "wishing"), 9101, "/explain"))["limits"]["memory"]["wished"]
    assert (wish["bytes"], wish["in_force"]) == (wished, 256 * MIB)
    assert "resize-pending" in findings("wishing")
    # An application that starts anew meanwhile gets what fits its limit.
    restart_application("wishing")
    assert program_has("wishing", limit_for(256))
    # Once there is room, the wish comes about, and is written.
    kubectl("delete", "pod", "occupant", "--grace-period=1")
    until("the raise", lambda: metric("wishing", "cgagent_memory_limit_bytes") == wished, 120)
    until_agreed("wishing", wished * 9 // 10)


def test_a_sidecar_that_sees_only_wishes_writes_a_deferred_raise_early(tmp_path: Path) -> None:
    """As README.md and the report of `inject` say: nothing that the sidecar can see tells the wish from the fact."""
    wished = deferred_raise("blind", tmp_path, "--mode=sidecar")
    until_agreed("blind", wished * 9 // 10)
    own = kubectl("exec", "blind", "-c", "cgagent", "--", "cgagent", "explain", "--output=json")
    assert json.loads(own)["limits"]["memory"]["bytes"] == 64 * MIB  # the sidecar's, and nobody else's


def test_the_program_that_starts_by_itself_takes_what_is_in_force_whatever_is_wished(tmp_path: Path) -> None:
    """`--mode bundle` decides inside of the application's container, at each of its starts."""
    manifest = pod("inside", GO, command=["/orders"])
    apply(injected(manifest, tmp_path, "--mode=bundle"))
    apply(json.dumps(occupant()))
    ready("inside")
    ready("occupant")
    wished = too_much_beside_the_occupant()
    resize("inside", "app", {**LIMITS, "memory": str(wished)})
    until("the resize being deferred", lambda: conditions("inside").get("PodResizePending") == "Deferred", 30)
    restart_application("inside")
    assert program_has("inside", limit_for(256))


def test_a_resize_that_the_node_can_never_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """Infeasible: the API server says so at once, and the volume does not show it."""
    apply(injected(pod("refused", GO), tmp_path, "--mode=sidecar"))
    ready("refused")
    with pytest.raises(NodeError, match="allocatable"):
        resize("refused", "app", {**LIMITS, "memory": str(allocatable() * 2)})
    resize("refused", "app", {**LIMITS, "memory": "300Mi"})
    until_agreed("refused", limit_for(300))
    said = kubectl("logs", "refused", "-c", "cgagent")
    assert [line for line in said.split("\n") if "env file written" in line and "GOMEMLIMIT=" in line][1:] == [
        line for line in said.split("\n") if f"GOMEMLIMIT={limit_for(300)}" in line
    ]


def test_a_decrease_that_is_held_back_is_decided_on_and_told_apart(tmp_path: Path) -> None:
    """Below what the program uses: the volume shows it, the cgroup does not; a lower GOMEMLIMIT helps it come about."""
    apply(injected(pod("held", GO), tmp_path, *SHARED))
    ready("held")
    until("the target", lambda: metric("held", "cgagent_memory_limit_bytes") == 256 * MIB, 20)
    http(get("pod", "held"), 8080, "/?orders=200000")
    resize("held", "app", {**LIMITS, "memory": "8Mi"})
    until("the resize being held back", lambda: conditions("held").get("PodResizeInProgress") == "Error", 60)
    until("the wish", lambda: metric("held", "cgagent_memory_limit_wished_bytes") == 8 * MIB, 20)
    until_agreed("held", limit_for(8))
    assert metric("held", "cgagent_memory_limit_bytes") == 256 * MIB
    assert "resize-pending" in findings("held")
