"""What deep cgroups and many mounts cost: `python tests/bench/bench_growth.py [ROUNDS]`.

Budget (design section 8): linear growth; 64 levels, or 10,000 mounts, take less than 3 times the plain case.
The trees are captured ones below a temporary directory (`--root`): the kernel's own time to make up a mountinfo
of 10,000 lines is nobody's merit.
"""

from __future__ import annotations

import compileall
import os
import sys
import tempfile

import cgagent

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from bench.measure import Case, measure, rounds_wanted, table

TIMES = 3.0
_V1 = ("cpu,cpuacct", "memory", "cpuset", "pids")


def main() -> None:
    """Measure and print."""
    compileall.compile_dir(os.path.dirname(cgagent.__file__), quiet=1)
    program = os.path.join(os.path.dirname(sys.executable), "cgagent")
    with tempfile.TemporaryDirectory() as directory:
        for command in (["write", "--env-file", "-"], ["explain", "-o", "json"]):
            cases = [
                Case(f"{command[0]} v{version}, {levels} levels, {mounts} mounts", [program, *command, "--root", root])
                for version in (2, 1)
                for levels, mounts in ((3, 40), (64, 40), (3, 10_000))
                if (root := make_tree(directory, version, levels, mounts))
            ]
            measure(cases, rounds_wanted(15))
            for plain, *grown in (cases[:3], cases[3:]):
                print(table([plain, *grown], plain))
                for case in grown:
                    times = min(case.wall) / min(plain.wall)
                    print(f"{'within' if times < TIMES else 'OVER'} budget: {case.name}: {times:.2f} of {TIMES} times")


def make_tree(directory: str, version: int, levels: int, mounts: int) -> str:
    """A captured tree of a process `levels` deep on a machine with `mounts` mounts; the name of its root."""
    root = f"{directory}/v{version}-{levels}-{mounts}"
    path = "".join(f"/level{number:02}" for number in range(1, levels))
    hierarchies = [("", "unified")] if version == 2 else [(names, names) for names in _V1]
    memberships = "".join(
        f"{0 if version == 2 else number}:{names}:{path or '/'}\n" for number, (names, _) in enumerate(hierarchies, 1)
    )
    lines = [_overlay(number) for number in range(mounts - len(hierarchies))]
    for names, place in hierarchies:
        kind, options = ("cgroup2", "rw") if version == 2 else ("cgroup", f"rw,{names}")
        lines.append(
            f"{len(lines) + 100} 1 0:30 / /sys/fs/cgroup/{place} rw,nosuid shared:9 - {kind} cgroup {options}\n"
        )
        for depth in range(levels):
            _fill(f"{root}/sys/fs/cgroup/{place}" + "".join(f"/level{n:02}" for n in range(1, depth + 1)), version)
    _put(f"{root}/proc/self/cgroup", memberships)
    _put(f"{root}/proc/self/mountinfo", "".join(lines))
    _put(f"{root}/proc/self/status", "Cpus_allowed_list:\t0-7\n")
    _put(f"{root}/proc/meminfo", "MemTotal:       32768000 kB\n")
    _put(f"{root}/sys/devices/system/cpu/online", "0-7\n")
    return root


def _overlay(number: int) -> str:
    """A container's root file system as containerd mounts it."""
    snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
    lower = ":".join(f"{snapshots}/{number * 8 + layer}/fs" for layer in range(6))
    point = f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{number:064x}/rootfs"
    return f"{number + 100} 1 0:{number} / {point} rw shared:{number} - overlay overlay rw,lowerdir={lower}\n"


def _fill(directory: str, version: int) -> None:
    """The files of one cgroup, with limits at every level."""
    files = {
        "cpu.max": "150000 100000\n",
        "cpu.stat": "usage_usec 100\nuser_usec 60\nsystem_usec 40\nnr_periods 9\nnr_throttled 1\nthrottled_usec 5\n",
        "cpuset.cpus.effective": "0-3\n",
        "memory.max": "536870912\n",
        "memory.high": "max\n",
        "memory.current": "1048576\n",
        "memory.stat": "anon 4096\nfile 8192\ninactive_file 4096\n",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n",
        "pids.max": "max\n",
    }
    if version == 1:
        files = {
            "cpu.cfs_quota_us": "150000\n",
            "cpu.cfs_period_us": "100000\n",
            "cpu.shares": "1024\n",
            "cpu.stat": "nr_periods 9\nnr_throttled 1\nthrottled_time 5000\n",
            "cpuset.effective_cpus": "0-3\n",
            "memory.limit_in_bytes": "536870912\n",
            "memory.usage_in_bytes": "1048576\n",
            "memory.stat": "total_rss 4096\ntotal_inactive_file 4096\nhierarchical_memory_limit 536870912\n",
            "pids.max": "max\n",
        }
    for name, text in files.items():
        _put(f"{directory}/{name}", text)


def _put(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
