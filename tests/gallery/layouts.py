"""Layouts made by their documentation, for a node of 64 CPUs and 256 GiB: what a process there would read.

A level's files are those that its kernel documentation names (cgroup-v2.rst, cgroup-v1/, sched-bwc.rst), with the
statistics at values of a container that has run for a while.
"""

from __future__ import annotations

from cgagent.capture.layout import Capture, Meta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MIB, GIB = 1 << 20, 1 << 30
CPUS = "0-63"
TOTAL_KB = 264241152  # 252 GiB of the machine's 256: the kernel keeps some
NO_LIMIT_V1 = 9223372036854771712  # PAGE_COUNTER_MAX of pages of 4 KiB
V1 = ("cpu,cpuacct", "memory", "cpuset", "pids", "name=systemd")


class Level:
    """One cgroup: a quota in microseconds of 100,000, bytes of memory; None: no limit of its own."""

    def __init__(self, quota: int | None = None, memory: int | None = None, high: int | None = None) -> None:
        self.quota = quota
        self.memory = memory
        self.high = high


def machine(cpus: str = CPUS, total_kb: int = TOTAL_KB) -> dict[str, str]:
    """The files beside the cgroups: CPUs of the machine, all of which the process may run on, and memory."""
    first, last = (int(one) for one in cpus.split("-"))
    lines = "".join(f"cpu{number} 9041 0 2023 880012 12 0 3 0 0 0\n" for number in range(first, last + 1))
    return {
        "/proc/self/status": f"VmRSS:\t   18432 kB\nThreads:\t11\nCpus_allowed_list:\t{cpus}\n",
        "/proc/self/uid_map": "         0          0 4294967295\n",
        "/proc/meminfo": f"MemTotal:       {total_kb} kB\nMemFree:        {total_kb // 2} kB\n"
        f"MemAvailable:   {total_kb // 4 * 3} kB\nSwapTotal:             0 kB\n",
        "/proc/stat": f"cpu  578624 0 129472 56320768 768 0 192 0 0 0\n{lines}",
        "/sys/devices/system/cpu/online": f"{cpus}\n",
        "/sys/devices/system/cpu/possible": f"{cpus}\n",
        "/sys/devices/system/cpu/present": f"{cpus}\n",
    }


def v2(
    path: str,
    levels: Mapping[str, Level | None],
    root: str = "/",
    files: Mapping[str, str] | None = None,
    unprivileged: bool = True,
) -> dict[str, str]:
    """A process in cgroup `path` with one cgroup2 mount whose root is `root`; `levels` by path below the mount.

    None is the machine's own root cgroup, which has no limits' files.
    """
    access = "ro" if unprivileged else "rw"
    mounts = (
        f"731 730 0:28 {root} /sys/fs/cgroup {access},nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n"
    )
    tree = {**machine(), "/proc/self/cgroup": f"0::{path}\n", "/proc/self/mountinfo": _BASE + mounts}
    for name, level in levels.items():
        directory = f"/sys/fs/cgroup{name.rstrip('/')}"
        tree |= {f"{directory}/{file}": text for file, text in _v2_files(level).items()}
    return tree | dict(files or {})


def v1(
    path: str,
    levels: Mapping[str, Level | None],
    root: str | None = None,
    files: Mapping[str, str] | None = None,
    controllers: tuple[str, ...] = V1,
) -> dict[str, str]:
    """A process in cgroup `path` of each v1 hierarchy, mounted with the root `root` (default: its own cgroup)."""
    tree = {**machine()}
    lines, mounts = [], [_BASE, "730 729 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec - tmpfs tmpfs rw,mode=755\n"]
    for number, names in enumerate(controllers):
        point = f"/sys/fs/cgroup/{names.removeprefix('name=')}"
        lines.append(f"{len(controllers) - number}:{names}:{path}\n")
        seen = path if root is None else root
        options = f"ro,nosuid,nodev,noexec,relatime - cgroup cgroup rw,{names}"
        mounts.append(f"{740 + number} 730 0:{30 + number} {seen} {point} {options}\n")
        for name, level in levels.items():
            directory = f"{point}{name.rstrip('/')}"
            tree |= {f"{directory}/{file}": text for file, text in _v1_files(names, level, levels, name).items()}
    return tree | {"/proc/self/cgroup": "".join(lines), "/proc/self/mountinfo": "".join(mounts)} | dict(files or {})


def captured(files: Mapping[str, str], view: str = "inside") -> Capture:
    """The capture of such a process."""
    meta = Meta()
    meta.cgagent, meta.taken, meta.machine, meta.pid, meta.view = "0.1.0", "2026-11-25T12:00:00Z", "x86_64", 1, view
    capture = Capture(meta, {path: text.encode() for path, text in files.items()})
    # A named hierarchy has no controller's files: only that its directory is there is to be seen.
    for line in files.get("/proc/self/mountinfo", "").splitlines():
        if "name=systemd" in line:
            capture.add_directory(line.split(" ")[4])
    meta.learn(capture)
    return capture


_BASE = """\
720 600 0:60 / / rw,relatime - overlay overlay rw
725 720 0:62 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
726 720 0:63 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
729 720 0:26 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
"""


def _v2_files(level: Level | None) -> dict[str, str]:
    stat = "usage_usec 95310000\nuser_usec 81200000\nsystem_usec 14110000\n"
    memory_stat = "anon 52428800\nfile 10485760\nkernel 2097152\ninactive_file 6291456\nactive_file 4194304\n"
    controllers = "cpuset cpu io memory pids\n"
    if level is None:
        return {
            "cgroup.controllers": controllers,
            "cgroup.subtree_control": controllers,
            "cpu.stat": stat,
            "cpuset.cpus.effective": f"{CPUS}\n",
            "memory.stat": memory_stat,
        }
    return {
        "cgroup.controllers": controllers,
        "cgroup.subtree_control": "\n",
        "cgroup.type": "domain\n",
        "cpu.max": f"{'max' if level.quota is None else level.quota} 100000\n",
        "cpu.max.burst": "0\n",
        "cpu.weight": "39\n",
        "cpu.stat": stat + "nr_periods 6100\nnr_throttled 120\nthrottled_usec 4200000\nnr_bursts 0\nburst_usec 0\n",
        "cpuset.cpus": "\n",
        "cpuset.cpus.effective": f"{CPUS}\n",
        "memory.current": "67108864\n",
        "memory.min": "0\n",
        "memory.low": "0\n",
        "memory.high": f"{'max' if level.high is None else level.high}\n",
        "memory.max": f"{'max' if level.memory is None else level.memory}\n",
        "memory.peak": "83886080\n",
        "memory.stat": memory_stat,
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
        "memory.oom.group": "1\n",
        "memory.swap.current": "0\n",
        "memory.swap.max": "0\n",
        "pids.current": "12\n",
        "pids.max": "max\n",
    }


def _v1_files(names: str, level: Level | None, levels: Mapping[str, Level | None], path: str) -> dict[str, str]:
    """The files of one controller; the root cgroup (None) has no quota, and every other file."""
    if names == "cpu,cpuacct":
        files = {"cpu.shares": "1024\n", "cpuacct.usage": "95310000000\n", "cpuacct.stat": "user 8120\nsystem 1411\n"}
        if level is not None:
            files |= {
                "cpu.cfs_quota_us": f"{-1 if level.quota is None else level.quota}\n",
                "cpu.cfs_period_us": "100000\n",
                "cpu.stat": "nr_periods 6100\nnr_throttled 120\nthrottled_time 4200000000\n",
            }
        return files
    if names == "memory":
        own = NO_LIMIT_V1 if level is None or level.memory is None else level.memory
        # The kernel's own minimum over all ancestors, seen or not.
        above = [one.memory for name, one in levels.items() if one and one.memory and f"{path}/".startswith(f"{name}/")]
        bound = min([own, *above])
        return {
            "memory.limit_in_bytes": f"{own}\n",
            "memory.usage_in_bytes": "67108864\n",
            "memory.max_usage_in_bytes": "83886080\n",
            "memory.failcnt": "0\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
            "memory.use_hierarchy": "1\n",
            "memory.stat": "cache 10485760\nrss 52428800\ninactive_file 6291456\nactive_file 4194304\n"
            f"hierarchical_memory_limit {bound}\ntotal_cache 10485760\ntotal_rss 52428800\n"
            "total_inactive_file 6291456\n",
        }
    if names == "cpuset":
        return {"cpuset.cpus": f"{CPUS}\n", "cpuset.effective_cpus": f"{CPUS}\n", "cpuset.mems": "0\n"}
    if names == "pids":
        return {"pids.current": "12\n", "pids.max": "max\n"} if level is not None else {}
    return {}
