"""The files of one simulated cgroup, as a kernel with these limits would fill them. Pure.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst.
Nothing has been used: statistics are at zero, and stay there.
"""

from __future__ import annotations

from cgagent.record import Record

_NO_LIMIT_V1 = 9223372036854771712  # PAGE_COUNTER_MAX in bytes, pages of 4 KiB
_V2_CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma misc\n"


class Level(Record):
    """The limits of one cgroup; None: it has none of its own.

    Attributes:
        quota_us, period_us: CPU time in each period.
        memory, high: bytes.
        pids: tasks.
        cpus: the CPUs of its cpuset, in the kernel's list format.
    """

    __slots__ = ("cpus", "high", "memory", "period_us", "pids", "quota_us")

    def __init__(self) -> None:
        self.quota_us: int | None = None
        self.period_us = 100_000
        self.memory: int | None = None
        self.high: int | None = None
        self.pids: int | None = None
        self.cpus: str | None = None


def v2_files(level: Level | None, machine: str) -> dict[str, str]:
    """The files of a v2 cgroup; None: of the hierarchy's root, which has no limits. `machine`: its CPUs."""
    files = {
        "cgroup.controllers": _V2_CONTROLLERS,
        "cgroup.subtree_control": _V2_CONTROLLERS if level is None else "\n",
        "cgroup.procs": "",
        "cpu.stat": "usage_usec 0\nuser_usec 0\nsystem_usec 0\n",
        "memory.stat": "anon 0\nfile 0\nkernel 0\ninactive_file 0\nactive_file 0\n",
    }
    if level is None:
        return files
    return files | {
        "cgroup.type": "domain\n",
        "cgroup.events": "populated 1\nfrozen 0\n",
        "cpu.max": f"{_or_max(level.quota_us)} {level.period_us}\n",
        "cpu.max.burst": "0\n",
        "cpu.weight": "100\n",
        "cpu.stat": files["cpu.stat"] + "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n",
        "cpuset.cpus": f"{level.cpus or ''}\n",
        "cpuset.cpus.effective": f"{level.cpus or machine}\n",
        "cpuset.mems.effective": "0\n",
        "memory.current": "0\n",
        "memory.peak": "0\n",
        "memory.min": "0\n",
        "memory.low": "0\n",
        "memory.high": f"{_or_max(level.high)}\n",
        "memory.max": f"{_or_max(level.memory)}\n",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
        "memory.swap.current": "0\n",
        "memory.swap.max": "0\n",
        "pids.current": "1\n",
        "pids.max": f"{_or_max(level.pids)}\n",
    }


def v1_files(hierarchy: str, level: Level | None, bound: int | None, machine: str) -> dict[str, str]:
    """The files of a v1 cgroup; None: of the root. `bound` is the smallest memory limit of it and all above it."""
    files = {"cgroup.procs": "", "tasks": ""}
    if hierarchy == "cpu,cpuacct":
        files |= {"cpu.shares": "1024\n", "cpuacct.usage": "0\n", "cpuacct.stat": "user 0\nsystem 0\n"}
        if level is not None:
            files["cpu.cfs_quota_us"] = f"{-1 if level.quota_us is None else level.quota_us}\n"
            files["cpu.cfs_period_us"] = f"{level.period_us}\n"
            files["cpu.stat"] = "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"
    elif hierarchy == "memory":
        own = _NO_LIMIT_V1 if level is None or level.memory is None else level.memory
        files |= {
            "memory.limit_in_bytes": f"{own}\n",
            "memory.soft_limit_in_bytes": f"{_NO_LIMIT_V1}\n",
            "memory.usage_in_bytes": "0\n",
            "memory.max_usage_in_bytes": "0\n",
            "memory.failcnt": "0\n",
            "memory.use_hierarchy": "1\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
            "memory.stat": "cache 0\nrss 0\ninactive_file 0\n"
            f"hierarchical_memory_limit {_NO_LIMIT_V1 if bound is None else bound}\n"
            "total_cache 0\ntotal_rss 0\ntotal_inactive_file 0\n",
        }
    elif hierarchy == "cpuset":
        cpus = machine if level is None or level.cpus is None else level.cpus
        files |= {"cpuset.cpus": f"{cpus}\n", "cpuset.effective_cpus": f"{cpus}\n", "cpuset.mems": "0\n"}
    elif hierarchy == "pids" and level is not None:
        files |= {"pids.current": "1\n", "pids.max": f"{_or_max(level.pids)}\n"}
    return files


def _or_max(number: int | None) -> str:
    return "max" if number is None else str(number)
