"""Containers as runtimes make them: cgroup namespaces, private mounts, bind mounts; seen from inside and outside."""

from __future__ import annotations

import os

import pytest

from kernel import agent, cgroups
from kernel.cgroups import MIB, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any

    Contain = Callable[..., list[str]]
    Start = Callable[..., subprocess.Popen[str]]

CPUS = len(os.sched_getaffinity(0))
POD = (150_000, 192 * MIB)  # quota_us, bytes: the pod's bind
CONTAINER = (100_000, 256 * MIB)  # the container's own


@pytest.fixture
def container(top: Group) -> Group:
    """A container's cgroup whose quota binds, in a pod's cgroup whose memory limit binds."""
    inner = top.child("container")
    top.set_quota(POD[0])
    top.set_memory(POD[1])
    inner.set_quota(CONTAINER[0])
    inner.set_memory(CONTAINER[1])
    return inner


def private(group: Group) -> list[str]:
    """Docker on v2, and --cgroupns private: a cgroup namespace, the hierarchies mounted anew in it."""
    lines = [f"umount {mount.point}" for mount in reversed(cgroups.mounts())]
    for mount in cgroups.mounts():
        kind = "cgroup2" if mount.version == 2 else f"cgroup -o {','.join(_controllers(mount))}"
        lines.append(f"mount -t {kind} cgroup {mount.point}")
    return _unshare(group, lines, "--cgroup")


def bound(group: Group) -> list[str]:
    """Docker on v1, --cgroupns host: the container's cgroup bound over each hierarchy, the paths as on the host."""
    lines = []
    for controller in group.controllers:
        mount = cgroups.holder(controller)
        assert mount is not None
        line = f"mount --bind {group.directories[controller]} {mount.point}"
        if line not in lines:
            lines.append(line)
    return _unshare(group, lines)


def namespaced(group: Group) -> list[str]:
    """A cgroup namespace over the host's mounts, whose roots then are ancestors such as /../.. ."""
    return _unshare(group, [], "--cgroup")


def _controllers(mount: cgroups.Mount) -> list[str]:
    return [one for one in mount.options if one not in ("rw", "ro") and not one.startswith("release_agent=")]


def _unshare(group: Group, lines: list[str], *flags: str) -> list[str]:
    script = "\n".join(["set -e", *lines, 'exec "$@"'])
    return group.enter(["unshare", "--mount", *flags, "sh", "-c", script, "container"])


def _with(prefix: list[str], lines: list[str]) -> list[str]:
    """`prefix` with more lines of script, to be run after the mounts are made."""
    return [word.replace('\nexec "$@"', "\n".join(["", *lines, 'exec "$@"']), 1) for word in prefix]


KINDS = {"private": private, "bound": bound, "namespaced": namespaced}
SELF_CONTAINED = ("private", "bound")  # /proc/self/cgroup and the mounts together lead to the container's files


def inside(prefix: list[str], *options: str) -> dict[str, Any]:
    """What explain tells in a container."""
    return agent.document(agent.succeed([*prefix, *agent.CGAGENT, "explain", "-o", "json", *options]).stdout)


def waiting(start: Start, prefix: list[str]) -> str:
    """The PID of a process that waits in a container."""
    process = start([*prefix, "sh", "-c", "echo here; exec sleep 600"])
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return str(process.pid)


@pytest.mark.parametrize("kind", SELF_CONTAINED)
def test_a_container_explains_itself(container: Group, kind: str) -> None:
    explained = inside(KINDS[kind](container))

    cpu, memory = explained["limits"]["cpu"], explained["limits"]["memory"]
    mount = cgroups.holder("cpu")
    assert mount is not None
    assert cpu["cores"] == CONTAINER[0] / 100_000
    assert cpu["source"] == f"{mount.point}/{os.path.basename(container.quota_file)}"
    if container.version("memory") == 1:
        # memory.stat tells the ancestors' limit even so.
        assert memory["bytes"] == POD[1]
        assert "ancestor-binds" in agent.findings(explained)
    else:
        # What lies above the namespace can't be seen from inside.
        assert memory["bytes"] == CONTAINER[1]
        assert memory["source"] == "/sys/fs/cgroup/memory.max"
    assert not {"cgroup-outside-view", "controller-not-visible"} & set(agent.findings(explained))
    assert explained["env"] == {"GOMAXPROCS": "1", "GOMEMLIMIT": str(memory["bytes"] * 9 // 10)}


def test_a_cgroup_namespace_over_the_hosts_mounts_is_told_as_outside_the_view(container: Group) -> None:
    """The path is `/` and the mounts' root `/../..`: the names between the two are not to be had."""
    explained = inside(namespaced(container))

    finding = agent.findings(explained)["cgroup-outside-view"]
    assert finding["level"] == "warning"
    assert {one["standing"] for one in explained["cgroup"]["hierarchies"] if "memory" in one["controllers"]} <= {
        "ancestor"
    }
    done = agent.succeed([*namespaced(container), *agent.CGAGENT, "write", "--env-file", "-"])
    assert "true bounds" in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_is_explained_by_pid_from_the_host(container: Group, start: Start, kind: str) -> None:
    """The host sees the ancestors that the container can't."""
    pid = waiting(start, KINDS[kind](container))

    explained = agent.explain("--pid", pid)

    cpu, memory = explained["limits"]["cpu"], explained["limits"]["memory"]
    assert (cpu["cores"], cpu["source"]) == (CONTAINER[0] / 100_000, container.quota_file)
    assert container.parent is not None
    assert (memory["bytes"], memory["source"]) == (POD[1], container.parent.memory_file)
    assert memory["binding"] == container.parent.path("memory")
    assert "cgroup-outside-view" not in agent.findings(explained)
    assert "conflicting-mounts" not in agent.findings(explained)


@pytest.mark.parametrize("kind", SELF_CONTAINED)
def test_a_container_explains_its_sibling_by_pid(top: Group, container: Group, start: Start, kind: str) -> None:
    """A sidecar with a shared PID namespace: the sibling's cgroup lies outside what the sidecar has mounted."""
    sidecar = top.child("sidecar")
    sidecar.set_quota(50_000)
    sidecar.set_memory(128 * MIB)
    pid = waiting(start, KINDS[kind](container))

    explained = inside(KINDS[kind](sidecar), "--pid", pid)

    cpu, memory = explained["limits"]["cpu"], explained["limits"]["memory"]
    assert cpu["cores"] == CONTAINER[0] / 100_000
    assert cpu["source"].startswith(f"/proc/{pid}/root/sys/fs/cgroup/")
    assert memory["bytes"] == (POD if container.version("memory") == 1 else CONTAINER)[1]
    assert "cgroup-outside-view" not in agent.findings(explained)


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_explains_a_process_of_the_host_as_far_as_it_can_see(
    top: Group, container: Group, sleeper: Callable[..., int], kind: str
) -> None:
    """As with hostPID: true. From a cgroup namespace the way to the other's directory can't be known."""
    other = top.child("other")
    other.set_quota(50_000)
    other.set_memory(64 * MIB)

    explained = inside(KINDS[kind](container), "--pid", str(sleeper(other)))

    told = explained["limits"]["cpu"]["cores"], explained["limits"]["memory"]["bytes"]
    if kind == "bound":
        assert told == (0.5, 64 * MIB)
    else:
        assert "cgroup-outside-view" in agent.findings(explained)
        assert told == (None, None), "no other cgroup's limits may be taken for its own"


def test_a_process_deeper_in_the_container_is_bounded_by_the_containers_root(container: Group) -> None:
    """A supervisor in the container puts its workers into cgroups of their own, without limits."""
    points = sorted({mount.point for one in ("cpu", "memory") if (mount := cgroups.holder(one))})
    deeper = [f"mkdir {point}/worker; echo $$ > {point}/worker/cgroup.procs" for point in points]

    explained = inside(_with(private(container), deeper))

    assert agent.path_of(explained, "cpu") == "/worker"
    assert (explained["limits"]["cpu"]["cores"], explained["limits"]["cpu"]["binding"]) == (1.0, "/")
    bound = POD if container.version("memory") == 1 else CONTAINER
    assert explained["limits"]["memory"]["bytes"] == bound[1]
    assert "ancestor-binds" in agent.findings(explained)


def test_a_process_that_left_its_namespaces_root_is_not_given_that_cgroups_limits(top: Group) -> None:
    """Its own cgroup lies beside what is mounted: a stranger's limits are shown and not used."""
    worker, supervisor = top.child("worker"), top.child("supervisor")
    supervisor.set_quota(CONTAINER[0])
    supervisor.set_memory(CONTAINER[1])
    leave = [f'echo $$ > "{file}"' for file in worker.procs()]
    script = private(supervisor)
    # The host's files, still mounted then, lead it out.
    prefix = [word.replace("set -e\n", "\n".join(["set -e", *leave, ""]), 1) for word in script]

    explained = inside(prefix)

    assert agent.path_of(explained, "cpu") == "/../worker"
    assert explained["limits"]["cpu"]["cores"] == 1.0
    assert agent.findings(explained)["cgroup-outside-view"]["level"] == "critical"
    assert explained["env"] == {}
    assert "=" not in agent.succeed([*prefix, *agent.CGAGENT, "write", "--env-file", "-"]).stdout


def test_a_container_whose_cgroup_files_are_not_mounted_is_told_so(container: Group) -> None:
    lines = [f"umount {mount.point}" for mount in reversed(cgroups.mounts())]
    prefix = _unshare(container, lines, "--cgroup")

    explained = inside(prefix)

    assert explained["cgroup"]["mode"] == "none"
    assert explained["limits"]["cpu"]["cores"] is None
    assert explained["env"] == {}
    assert agent.findings(explained)["controller-not-visible"]["level"] == "critical"
    done = agent.run([*prefix, *agent.CGAGENT, "write", "--env-file", "-"])
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_process_in_another_pid_namespace_has_the_pid_it_has_here(container: Group, start: Start) -> None:
    command = [*private(container), "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo here; sleep 600"]
    process = start(command)
    assert process.stdout is not None
    process.stdout.readline()
    children = cgroups.read(f"/proc/{process.pid}/task/{process.pid}/children").split()

    explained = agent.explain("--pid", children[0])

    assert explained["limits"]["cpu"]["source"] == container.quota_file


def test_an_empty_directory_bound_over_the_cgroup_mount_hides_it(container: Group, tmp_path: str) -> None:
    """Some sandboxes lay an empty directory over /sys/fs/cgroup: what it covers is not to be read."""
    point = os.path.commonpath([mount.point for mount in cgroups.mounts()])
    prefix = _unshare(container, [f"mount --bind {tmp_path} {point}"])

    explained = inside(prefix)

    assert explained["cgroup"]["mode"] == "none"
    assert explained["env"] == {}
