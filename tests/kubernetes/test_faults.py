"""Faults that are really caused: memory that runs out, a kubelet that restarts, an env file that somebody replaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from kernel.cgroups import mode
from kubernetes.node import (
    GO,
    PATIENCE,
    NodeError,
    apply,
    cluster,
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
from kubernetes.pods import (
    LIMITS,
    env_file,
    injected,
    limit_for,
    pod,
    processes,
    restart_application,
    sidecar_restarts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

KILLS = 'cgagent_memory_events_total{event="oom_kill"}'
# More than this pod may have: a million orders are some 300 MB.
HEAVY = "/?orders=1000000"


def last_end(status: dict[str, object]) -> object:
    """Why a container ended the last time."""
    state = status["lastState"]
    assert isinstance(state, dict)
    return state["terminated"]["reason"]


def test_an_application_that_is_killed_for_memory_is_counted_by_the_sidecar(tmp_path: Path) -> None:
    """Its cgroup lives some 50 ms longer than it does, and with it the only number that tells."""
    manifest = pod("hungry", GO, resources={"limits": {**LIMITS, "memory": "48Mi"}})
    apply(injected(manifest, tmp_path, "--mode=sidecar", "--share-process-namespace"))
    ready("hungry")
    until("the target", lambda: metric("hungry", KILLS) == 0, 30)
    counted = 0.0
    for number in (1, 2):
        at_rest("hungry")
        with pytest.raises(NodeError):
            http(get("pod", "hungry"), 8080, HEAVY)
        until("the restart", lambda number=number: restarts("hungry", "app") == number, 90)  # type: ignore[misc]
        assert last_end(get("pod", "hungry")["status"]["containerStatuses"][0]) == "OOMKilled"
        runs_with("hungry")
        until("the count", lambda before=counted: metric("hungry", KILLS) > before, 30)  # type: ignore[misc]
        counted = metric("hungry", KILLS)
        # With memory.oom.group, which v2's containers have, the kernel counts whom it chose once more among the group
        # (mm/oom_kill.c, oom_kill_process).
        assert number <= counted <= number * (2 if mode() == "v2" else 1)
    words = "the kernel has killed for want of memory"
    until("a word of both", lambda: sum(words in line for line in log("hungry")) >= 2, 20)
    assert sum(words in line for line in log("hungry")) <= counted


def log(name: str) -> list[str]:
    """The lines of a pod's sidecar."""
    return kubectl("logs", name, "-c", "cgagent").split("\n")


def at_rest(name: str) -> None:
    """Wait until the sidecar has done what its start and our scrapes asked of it: its CPU limit of 100m holds it up for
    most of a period of 0.1 s after each 10 ms, and that is longer than a dying cgroup lives."""
    (sidecar,) = processes(name, "cgagent")
    # The kubelet gives a container the same path in every hierarchy.
    statistics = os.path.join(memory_cgroup(sidecar).replace("/memory/", "/cpu/", 1), "cpu.stat")

    def held_up() -> str:
        with open(statistics) as file:
            return next(line for line in file if line.startswith("nr_throttled "))

    def rests() -> bool:
        before = held_up()
        time.sleep(0.5 * PATIENCE)
        return held_up() == before

    until("the sidecar at rest", rests, 30)


# Takes all the memory of the cgroup it is put into.
_HOG = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
taken = []
while True:
    taken.append(bytearray(b"x" * (1 << 20)))
"""


def memory_cgroup(pid: int) -> str:
    """The directory of the cgroup that process `pid` is charged to."""
    with open(f"/proc/{pid}/cgroup") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    for _, controllers, path in lines:
        if controllers == "memory":
            return f"/sys/fs/cgroup/memory{path}"
    return next(f"/sys/fs/cgroup{path}" for number, _, path in lines if number == "0")


def test_a_sidecar_that_is_killed_for_memory_comes_back_and_follows(tmp_path: Path) -> None:
    apply(injected(pod("starved", GO), tmp_path, "--mode=sidecar"))
    ready("starved")
    (sidecar,) = processes("starved", "cgagent")
    with open(f"/proc/{sidecar}/oom_score_adj", "w") as file:
        file.write("1000")  # it and not the hog is the one to go
    with subprocess.Popen([sys.executable, "-c", _HOG, memory_cgroup(sidecar)]) as hog:
        try:
            until("the sidecar's end", lambda: not processes("starved", "cgagent"), 60)
        finally:
            hog.kill()
    until("the restart", lambda: sidecar_restarts("starved") == 1, 60)
    assert last_end(get("pod", "starved")["status"]["initContainerStatuses"][0]) == "OOMKilled"
    resize("starved", "app", {**LIMITS, "memory": "300Mi"})
    until("the new value", lambda: metric("starved", "cgagent_gomemlimit_bytes") == limit_for(300), 60)
    assert env_file("starved")["GOMEMLIMIT"] == str(limit_for(300))
    assert restarts("starved", "app") == 0


def test_a_restart_of_the_kubelet_is_noticed_by_nobody(tmp_path: Path) -> None:
    apply(injected(pod("steady", GO), tmp_path, "--mode=sidecar"))
    ready("steady")
    cluster("restart", "kubelet")
    resize("steady", "app", {**LIMITS, "memory": "300Mi"})
    until("the new value", lambda: metric("steady", "cgagent_gomemlimit_bytes") == limit_for(300), 120)
    assert (restarts("steady", "app"), sidecar_restarts("steady")) == (0, 0)


@pytest.mark.parametrize("moment", ["starting", "resizing", "out of memory"])
def test_a_pod_that_is_deleted_in_the_middle_ends_without_being_waited_for(moment: str, tmp_path: Path) -> None:
    name = f"deleted-{moment.replace(' ', '-')}"
    manifest = pod(name, GO, resources={"limits": {**LIMITS, "memory": "48Mi"}})
    manifest["spec"]["terminationGracePeriodSeconds"] = int(60 * PATIENCE)
    apply(injected(manifest, tmp_path, "--mode=sidecar", "--share-process-namespace"))
    if moment == "starting":
        until("the sidecar", lambda: processes(name, "cgagent"), 30)
    else:
        ready(name)
    if moment == "resizing":
        resize(name, "app", {**LIMITS, "memory": "96Mi"})
    if moment == "out of memory":
        with pytest.raises(NodeError):
            http(get("pod", name), 8080, HEAVY)
    start = time.monotonic()
    kubectl("delete", "pod", name)
    # Whoever is waited for in vain is killed at the end of the grace period.
    assert time.monotonic() - start < 45 * PATIENCE


REPLACEMENTS = {
    "a symlink": "rm go.env && ln -s /etc/passwd go.env",
    "a dangling symlink": "rm go.env && ln -s nowhere go.env",
    "a FIFO": "rm go.env && mkfifo go.env",
    "other text": "rm go.env && echo GOMEMLIMIT=1 > go.env",
    "nothing": "rm go.env",
}
_TOOLS = 'for tool in rm ln mkfifo mkdir rmdir mv stat touch; do alias $tool="/busybox $tool"; done'


def with_intruder(name: str, user: int) -> dict[str, object]:
    """A pod with a second container, which runs as `user`, has a shell, and will have the env file's volume."""
    manifest = pod(name, GO)
    small = {"limits": {"cpu": "100m", "memory": "32Mi"}}
    command = ["/busybox", "sleep", "100000"]
    intruder = pod(name, GO, image="cgagent.test/shell:1", command=command, resources=small)["spec"]
    assert isinstance(intruder, dict)
    container = {**intruder["containers"][0], "name": "intruder"}
    container["securityContext"] = {**container["securityContext"], "runAsUser": user}
    manifest["spec"]["containers"].append(container)
    return manifest


def mounted(manifest: object, directory: Path, *options: str) -> str:
    """`manifest` injected for the application alone, with the env file's volume in the other container too."""
    found = json.loads(injected(manifest, directory, *options, "--container=app"))
    found["spec"]["containers"][1]["volumeMounts"] = [{"name": "cgagent-env", "mountPath": "/run/cgagent"}]
    return json.dumps(found)


def intrude(name: str, script: str) -> str:
    words = ("/busybox", "sh", "-c", f"{_TOOLS}\ncd /run/cgagent\n{script}")
    return kubectl("exec", name, "-c", "intruder", "--", *words)


@pytest.mark.parametrize("what", REPLACEMENTS)
def test_an_env_file_that_is_replaced_is_put_right_at_once(what: str, tmp_path: Path) -> None:
    """By a container of the same user; what it linked to is left as it is, nobody hangs at a FIFO, and who starts
    after that has the right values."""
    apply(mounted(with_intruder("replaced", 65532), tmp_path, "--mode=sidecar"))
    ready("replaced")
    intrude("replaced", REPLACEMENTS[what])
    until("the file", lambda: intrude("replaced", "stat -c %F go.env").strip() == "regular file", 20)
    until("its content", lambda: env_file("replaced").get("GOMEMLIMIT") == str(limit_for(256)), 20)
    restart_application("replaced")
    assert runs_with("replaced")["gomemlimit"] == limit_for(256)
    resize("replaced", "app", {**LIMITS, "memory": "300Mi"})
    until("the new value", lambda: env_file("replaced").get("GOMEMLIMIT") == str(limit_for(300)), 30)


def test_a_directory_in_the_place_of_the_file_is_told_of_and_holds_an_application_up_until_it_is_gone(
    tmp_path: Path,
) -> None:
    """It may hold anything: cgagent does not remove it."""
    apply(mounted(with_intruder("blocked", 65532), tmp_path, "--mode=sidecar"))
    ready("blocked")
    intrude("blocked", "rm go.env && mkdir go.env && touch go.env/of-somebody")
    until("a failure", lambda: metric("blocked", "cgagent_env_file_write_failures_total") > 0, 30)
    until("a word of it", lambda: [line for line in log("blocked") if "directory" in line and "go.env" in line], 20)
    (application,) = processes("blocked", "orders")
    os.kill(application, signal.SIGKILL)
    until("the kubelet's word", lambda: waits_for("blocked") == "CreateContainerConfigError", 60)
    until("its event", lambda: [one for one in warnings("blocked") if "couldn't parse env file" in one], 20)
    intrude("blocked", "rm go.env/of-somebody && rmdir go.env")
    until("the restart", lambda: restarts("blocked", "app") == 1, 60)
    assert runs_with("blocked")["gomemlimit"] == limit_for(256)


def waits_for(name: str) -> str:
    """Why the application is not running."""
    statuses = get("pod", name)["status"]["containerStatuses"]
    state = next(one["state"] for one in statuses if one["name"] == "app")
    return str(state["waiting"]["reason"])


def test_another_user_of_the_volume_cannot_replace_the_file(tmp_path: Path) -> None:
    apply(mounted(with_intruder("sticky", 10001), tmp_path, "--mode=sidecar"))
    ready("sticky")
    with pytest.raises(NodeError, match="not permitted"):
        intrude("sticky", "mv go.env elsewhere")
    assert env_file("sticky")["GOMEMLIMIT"] == str(limit_for(256))
