"""The gallery: what each capture is, and the limits that bind the process in it, derived by hand from its layout.

`mode`, `cores`, `memory` and `allowed` are what design section 3 makes of the files named under `because`; they are
the ground truth that every program is judged by. `cores` and `memory` are None where nothing visible binds.
"""

from __future__ import annotations

import os

from cgagent.capture.layout import Capture
from gallery.layouts import GIB, MIB, Level, captured, machine, v1, v2
from support import txtar

_REAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "real")
POD = "3b4f6f1e-6c1d-4c52-9c0e-0d1f4c1a7b55"
CONTAINER = "9f2c0c1be77a4d0f8f0f0a3f7f3e4dbcc2f1f7c6a5b49382716a5b4c3d2e1f00"
TASK = "0f9de17a6465404e8b1b2356dc13c2f8"


class Entry:
    """One capture, with what binds in it.

    Attributes:
        real: taken from a running system; else made by the layout's documentation.
        title: one line for the table.
        because: how the limits follow from the files.
        cores: the CPU quota that binds, in CPUs.
        memory: the memory limit that binds, in bytes.
        allowed: how many CPUs cpuset and affinity leave.
        findings: ids that `explain` has to report.
    """

    def __init__(
        self,
        capture: Capture,
        title: str,
        because: str,
        mode: str,
        cores: float | None,
        memory: int | None,
        allowed: int | None = 64,
        findings: tuple[str, ...] = (),
        *,
        real: bool = False,
    ) -> None:
        self.capture = capture
        self.real = real
        self.title = title
        self.because = because
        self.mode = mode
        self.cores = cores
        self.memory = memory
        self.allowed = allowed
        self.findings = findings

    @property
    def env(self) -> dict[str, str]:
        """GOMAXPROCS and GOMEMLIMIT by design section 3, from the limits above."""
        env = {}
        cpus = self.capture.meta.cpu_count
        if self.cores is not None or (self.allowed and cpus and self.allowed < cpus):
            whole = -int(-self.cores // 1) if self.cores is not None else cpus or 0
            env["GOMAXPROCS"] = str(max(1, min(whole, self.allowed or whole)))
        if self.memory is not None:
            env["GOMEMLIMIT"] = str(self.memory * 9 // 10)
        return env


def _real(name: str) -> Capture:
    with open(os.path.join(_REAL, f"{name}.txtar"), encoding="utf-8", errors="surrogateescape") as file:
        return txtar.load(file.read())[0]


def _docker_v2(level: Level) -> Capture:
    return captured(v2("/", {"": level}))


def _node(path: str, levels: dict[str, Level | None]) -> Capture:
    """As the node's agent, or a pod with the host's cgroup namespace, sees a pod on v2."""
    return captured(v2(path, levels))


def _kubernetes_systemd(quota: int | None, memory: int | None, pod: Level) -> dict[str, Level | None]:
    qos = "/kubepods.slice/kubepods-burstable.slice"
    slice_ = f"{qos}/kubepods-burstable-pod{POD.replace('-', '_')}.slice"
    return {
        "/": None,
        "/kubepods.slice": Level(None, 250 * GIB),
        qos: Level(),
        slice_: pod,
        f"{slice_}/cri-containerd-{CONTAINER}.scope": Level(quota, memory),
    }


def _last(levels: dict[str, Level | None]) -> str:
    return list(levels)[-1]


def _gvisor() -> Capture:
    """runsc without --cgroupfs: a kernel of its own that has no cgroups; Cpus_allowed_list is not in its status."""
    files = {**machine("0-3", 2 * GIB // 1024)}
    files["/proc/self/status"] = "VmRSS:\t18432 kB\nThreads:\t5\n"
    files["/proc/self/mountinfo"] = (
        "1 0 0:1 / / rw - 9p none rw,trans=fd\n2 1 0:2 / /proc rw - proc none rw\n3 1 0:3 / /sys ro - sysfs none ro\n"
    )
    del files["/sys/devices/system/cpu/possible"], files["/sys/devices/system/cpu/present"]
    capture = captured(files)
    capture.meta.affinity = "0-3"  # sched_getaffinity(2) works there
    return capture


def _lxc() -> Capture:
    """lxc.payload.NAME is the namespace's root; systemd runs inside; lxcfs shows the container's share in /proc."""
    unit = "/system.slice/orders.service"
    levels: dict[str, Level | None] = {"": Level(350_000, 3 * GIB), "/system.slice": Level(), unit: Level()}
    files = v2(unit, levels)
    files |= machine("0-63", 3 * GIB // 1024)
    lxcfs = "760 725 0:71 /proc/meminfo /proc/meminfo rw,nosuid,nodev,relatime - fuse.lxcfs lxcfs rw,allow_other\n"
    return captured(files | {"/proc/self/mountinfo": files["/proc/self/mountinfo"] + lxcfs})


def _hybrid() -> Capture:
    """systemd's hybrid mode on a large node: v1 controllers, and a v2 tree at unified/ that has none of them."""
    unit = "/system.slice/orders.service"
    files = v1(unit, {"": None, "/system.slice": Level(), unit: Level(250_000, 1 * GIB)}, root="/")
    unified = "750 730 0:40 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
    return captured(
        files
        | {
            "/proc/self/mountinfo": files["/proc/self/mountinfo"] + unified,
            "/proc/self/cgroup": files["/proc/self/cgroup"] + f"0::{unit}\n",
            f"/sys/fs/cgroup/unified{unit}/cgroup.controllers": "\n",
        }
    )


def _entries() -> dict[str, Entry]:
    pod = f"/kubepods/burstable/pod{POD}"
    container = f"{pod}/{CONTAINER}"
    docker = f"/docker/{CONTAINER}"
    inner = f"/docker/{'1d' * 32}"
    fargate = f"/ecs/{TASK}/{TASK}-2531612879"
    systemd = _kubernetes_systemd(250_000, 1 * GIB, Level(300_000, 1536 * MIB))
    podlevel = _kubernetes_systemd(350_000, 2 * GIB, Level(350_000, 2 * GIB))
    rootless = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + CONTAINER + ".scope/container"
    nested = {"": Level(200_000, 1 * GIB), "/docker": Level(), inner: Level(400_000, 2 * GIB)}
    hostns_v1 = {"": Level(250_000, 1 * GIB)}
    return {
        "docker-v1": Entry(
            _real("docker-v1"),
            "Docker on v1",
            "the mounts' root is the container's cgroup: cpu.cfs_quota_us 250000 of 100000, limit_in_bytes 384 MiB",
            "v1",
            2.5,
            384 * MIB,
            8,
            real=True,
        ),
        "docker-v1-systemd": Entry(
            _real("docker-v1-systemd"),
            "Docker on v1, systemd driver",
            "the mounts' root is docker-….scope below system.slice: 250000 of 100000, 384 MiB",
            "v1",
            2.5,
            384 * MIB,
            8,
            real=True,
        ),
        "docker-v1-private": Entry(
            _real("docker-v1-private"),
            "Docker on v1, `--cgroupns private`",
            "path / and root / in the container's own namespace: 150000 of 100000, 256 MiB",
            "v1",
            1.5,
            256 * MIB,
            2,
            real=True,
        ),
        "docker-v1-node-of-64": Entry(
            captured(v1(docker, hostns_v1)),
            "Docker on v1, 64 CPUs",
            "as docker-v1, on a larger machine: 250000 of 100000, 1 GiB",
            "v1",
            2.5,
            1 * GIB,
        ),
        "docker-v2": Entry(
            _real("docker-v2"),
            "Docker on v2",
            "a cgroup namespace of its own: path / and root /, cpu.max 250000 100000, memory.max 384 MiB",
            "v2",
            2.5,
            384 * MIB,
            8,
            real=True,
        ),
        "docker-v2-systemd": Entry(
            _real("docker-v2-systemd"),
            "Docker on v2, systemd driver, `--cgroupns host`",
            "docker-….scope below system.slice: cpu.max 250000 100000 and memory.max 384 MiB; the slice has none",
            "v2",
            2.5,
            384 * MIB,
            8,
            real=True,
        ),
        "cgagent-run-v2": Entry(
            _real("cgagent-run-v2"),
            "`cgagent run` on v2",
            "as Docker on v2: cpu.max 250000 100000, memory.max 256 MiB at the namespace's root",
            "v2",
            2.5,
            256 * MIB,
            8,
            real=True,
        ),
        "kubernetes-cgroupfs-v1": Entry(
            _real("kubernetes-cgroupfs-v1"),
            "Kubernetes 1.36 on v1, cgroupfs driver",
            "the mounts' root is the container's cgroup: 120000 of 100000, 192 MiB",
            "v1",
            1.2,
            192 * MIB,
            2,
            real=True,
        ),
        "kubernetes-cgroupfs-v2": Entry(
            _real("kubernetes-cgroupfs-v2"),
            "Kubernetes 1.36 on v2, cgroupfs driver",
            "containerd gives each container its cgroup namespace: path / and root /; cpu.max 250000 100000, 384 MiB",
            "v2",
            2.5,
            384 * MIB,
            8,
            real=True,
        ),
        "kubernetes-systemd-v1": Entry(
            captured(v1(_last(systemd), {"": Level(250_000, 1 * GIB)})),
            "Kubernetes on v1, systemd driver",
            "the mounts' root is the scope below kubepods-burstable-pod….slice: 250000 of 100000, 1 GiB",
            "v1",
            2.5,
            1 * GIB,
        ),
        "kubernetes-systemd-v2-host-namespace": Entry(
            _node(_last(systemd), systemd),
            "Kubernetes on v2, systemd driver, host's cgroup namespace",
            "scope 2.5 CPUs and 1 GiB below the pod's slice of 3 CPUs and 1.5 GiB: the scope is the smaller",
            "v2",
            2.5,
            1 * GIB,
        ),
        "kubernetes-systemd-v2-runc": Entry(
            _real("kubernetes-systemd-v2-runc"),
            "runc and systemd with the kubelet's names, host's cgroup namespace",
            "scope 2.5 CPUs and 384 MiB below the pod's slice of 3 CPUs and 512 MiB: the scope is the smaller",
            "v2",
            2.5,
            384 * MIB,
            8,
            real=True,
        ),
        "kubernetes-v1-host-mounts": Entry(
            captured(
                v1(
                    container,
                    {"": None, "/kubepods": Level(None, 250 * GIB), pod: Level(250_000, 1 * GIB), container: Level()},
                    root="/",
                )
            ),
            "Kubernetes on v1, host's mounts, container without limits under a pod's",
            "the container says -1 and no limit, the pod above it 250000 of 100000 and 1 GiB",
            "v1",
            2.5,
            1 * GIB,
        ),
        "kubernetes-pod-level": Entry(
            _node(_last(podlevel), podlevel),
            "Kubernetes, pod-level resources",
            "the kubelet writes the pod's limit into a container without one (KEP-2837): 3.5 CPUs and 2 GiB at both",
            "v2",
            3.5,
            2 * GIB,
        ),
        "kubernetes-static-cpus": Entry(
            _real("kubernetes-static-cpus"),
            "Kubernetes 1.36 on v2, static CPU manager",
            "cpuset 1-3 of 8 and no quota (1.33 and newer lift it from exclusive CPUs); memory.max 384 MiB",
            "v2",
            None,
            384 * MIB,
            3,
            real=True,
        ),
        "kubernetes-memory-qos": Entry(
            _docker_v2(Level(250_000, 2 * GIB, high=1536 * MIB)),
            "Kubernetes, memory QoS",
            "memory.high 1.5 GiB (KEP-2570) lies below memory.max 2 GiB: from there on reclaim and throttling",
            "v2",
            2.5,
            1536 * MIB,
        ),
        "systemd-slice": Entry(
            _real("systemd-slice"),
            "systemd's service, limits on its slice",
            "the service has no cpu.max, and 1 GiB; orders.slice above it 250000 100000 and 512 MiB, which bind",
            "v2",
            2.5,
            512 * MIB,
            8,
            findings=("ancestor-binds",),
            real=True,
        ),
        "hybrid-host": Entry(
            _real("hybrid-host"),
            "hybrid host, systemd's service, limits on its slice",
            "v1's hierarchies: in cpu the process stands in the slice itself, 250000 of 100000; in memory the service "
            "has 1 GiB and the slice 512 MiB",
            "hybrid",
            2.5,
            512 * MIB,
            8,
            findings=("ancestor-binds",),
            real=True,
        ),
        "hybrid-node-of-64": Entry(
            _hybrid(),
            "hybrid host, a service's own limits, 64 CPUs",
            "v1's cpu and memory hierarchies have the controllers: 250000 of 100000 and 1 GiB at the service",
            "hybrid",
            2.5,
            1 * GIB,
        ),
        "lxc": Entry(
            _lxc(),
            "LXC on v2, a service in it",
            "the container's limits stand at the namespace's root, 3.5 CPUs and 3 GiB; MemTotal is 3 GiB too, "
            "but by lxcfs, which shows the limit there",
            "v2",
            3.5,
            3 * GIB,
        ),
        "nested-docker": Entry(
            captured(v2(inner, nested)),
            "Docker in Docker, outer limits smaller",
            "the outer container, 2 CPUs and 1 GiB, is the mount's root; the inner one says 4 and 2 GiB",
            "v2",
            2.0,
            1 * GIB,
            findings=("ancestor-binds",),
        ),
        "podman-rootless": Entry(
            captured(v2(rootless, {"": Level(250_000, 1 * GIB)}, root=rootless)),
            "rootless Podman, host's cgroup namespace",
            "the mount's root is the scope's `container` cgroup: cpu.max 250000 100000, 1 GiB",
            "v2",
            2.5,
            1 * GIB,
        ),
        "gvisor": Entry(
            _gvisor(),
            "gVisor without cgroups",
            "no /proc/self/cgroup and no cgroup mount; the sandbox's 4 CPUs and 2 GiB are the machine",
            "none",
            None,
            None,
            4,
        ),
        "fargate-v1": Entry(
            captured(
                v1(
                    fargate,
                    {"": Level()},
                    files={
                        **machine("0-1", 4 * GIB // 1024),
                        **{
                            f"/sys/fs/cgroup/cpuset/{name}": "0-1\n"
                            for name in ("cpuset.cpus", "cpuset.effective_cpus")
                        },
                        "/sys/fs/cgroup/memory/memory.stat": "cache 10485760\nrss 52428800\n"
                        f"hierarchical_memory_limit {512 * MIB}\ntotal_inactive_file 6291456\n",
                    },
                )
            ),
            "AWS Fargate (v1), limits on the task",
            "the container has no limits of its own; the task's CPU quota is above the mounts' root and unseen, its "
            "memory limit is told by hierarchical_memory_limit: 512 MiB",
            "v1",
            None,
            512 * MIB,
            2,
        ),
        "no-limits": Entry(
            _docker_v2(Level()),
            "Docker on v2, no limits",
            "cpu.max max, memory.max max: the machine's 64 CPUs and 252 GiB",
            "v2",
            None,
            None,
        ),
    }


ENTRIES = _entries()
