"""A pod without Kubernetes: a shared process namespace, each container in a cgroup and mount namespace of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from kernel import agent, cgroups
from kernel.cgroups import MIB, Group
from watch.sidecar import CPUS, UNBOUND, read_env, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "64001"


def _mounts(group: Group) -> str:
    """What a container runtime does: the container sees its own cgroup as the root of each hierarchy."""
    lines = ["umount -R -l /sys/fs/cgroup"]
    versions = {group.version(one) for one in ("cpu", "memory")}
    if versions == {2}:
        lines.append("mount -t cgroup2 none /sys/fs/cgroup")
    else:
        lines.append("mount -t tmpfs none /sys/fs/cgroup")
        for controller in ("cpu", "memory"):
            lines.append(f"mkdir /sys/fs/cgroup/{controller}")
            lines.append(f"mount -t cgroup -o {controller} none /sys/fs/cgroup/{controller}")
    return " && ".join(lines)


class Pod:
    """A pause process that starts containers as it is told to."""

    def __init__(self, place: str) -> None:
        self._groups: list[Group] = []
        shutil.copy("/bin/sh", f"{place}/pause")
        shutil.copy("/bin/sleep", f"{place}/orders")
        command = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", f"{place}/pause"]
        self._pause = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=agent.environment())

    def run(self, group: Group, *words: str, log: str = "/dev/null") -> None:
        """Start a container in `group`, as a user without capabilities."""
        self._groups.append(group)
        inner = f'{_mounts(group)} && exec setpriv --reuid {USER} --regid {USER} --clear-groups "$@"'
        outer = ["unshare", "--cgroup", "--mount", "sh", "-c", inner, "sh", *words]
        enter = " && ".join(f"echo 0 > {file}" for file in group.procs())
        assert self._pause.stdin is not None
        self._pause.stdin.write(f"({enter} && exec {shlex.join(outer)}) > {log} 2>&1 < /dev/null &\n")
        self._pause.stdin.flush()

    def end(self) -> None:
        """End it and all that runs in it."""
        assert self._pause.stdin is not None
        self._pause.stdin.close()
        self._pause.kill()
        self._pause.wait()
        # The kernel kills the namespace's processes behind its back; a sidecar among them may just be writing.
        wait_until(lambda: not any(group.pids() for group in self._groups), "the end of all that ran in it")


@pytest.fixture
def pod(top: Group, place: str) -> Iterator[Pod]:
    """An empty pod."""
    for name in ("unshare", "setpriv"):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}(1)")
    if os.stat(os.path.realpath(sys.executable)).st_mode & 5 != 5:
        pytest.skip("other users can't run this Python")
    if top.version("cpu") != top.version("memory"):
        pytest.skip("the controllers are on both versions")
    if not os.path.exists("/proc/self/ns/cgroup"):
        pytest.skip("this kernel has no cgroup namespaces")
    one = Pod(place)
    yield one
    one.end()


def test_a_native_sidecar_finds_the_application_follows_it_and_finds_it_again(pod: Pod, top: Group, place: str) -> None:
    controllers = ("cpu", "memory")
    beside, first, second = (top.child(name, controllers) for name in ("sidecar", "first", "second"))
    beside.set_memory(512 * MIB)
    first.set_memory(128 * MIB)
    first.set_quota(150_000)
    second.set_memory(64 * MIB)
    env_file, log = f"{place}/go.env", f"{place}/log"
    pod.run(beside, *agent.CGAGENT, "watch", "--env-file", env_file, "--target", "auto", "--poll", "1h", log=log)
    wait_until(lambda: os.path.exists(log) and "no process of another container" in cgroups.read(log), "it waits")
    assert not os.path.exists(env_file)

    pod.run(first, f"{place}/orders", "600")
    procs = min(2, CPUS)
    wait_until(lambda: os.path.exists(env_file) and read_env(env_file) == (procs, 128 * MIB * 9 // 10), "the limits")
    first.set_memory(96 * MIB)
    wait_until(lambda: read_env(env_file) == (procs, 96 * MIB * 9 // 10), "the new limit")
    for pid in first.pids():
        os.kill(pid, 9)
    wait_until(lambda: "target has ended" in cgroups.read(log), "its end")
    pod.run(second, f"{place}/orders", "600")

    wait_until(lambda: read_env(env_file) == (UNBOUND, 64 * MIB * 9 // 10), "the next one's limits")
    second.set_memory(80 * MIB)
    wait_until(lambda: read_env(env_file) == (UNBOUND, 80 * MIB * 9 // 10), "a change of the next one's")
    assert "Traceback" not in cgroups.read(log)
