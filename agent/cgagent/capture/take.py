"""Takes a capture: the process's own files and the cgroups that they lead to. It reads, and changes nothing."""

from __future__ import annotations

import os
import time

from cgagent import __version__
from cgagent.capture.blanking import blanked, shortened
from cgagent.capture.layout import (
    FILE_BYTES,
    FILES,
    INSIDE,
    MACHINE_FILES,
    OUTSIDE,
    PROCESS_FILES,
    TOTAL_BYTES,
    Capture,
    Meta,
)
from cgagent.cgroup.hierarchy import View, parse_cgroup, place
from cgagent.cgroup.mounts import parse_mountinfo
from cgagent.cgroup.numbers import format_cpu_list
from cgagent.errors import CgagentError, MalformedError
from cgagent.host import ABSENT, MOUNTINFO_LIMIT, Host, ReadError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.hierarchy import Hierarchy

_ATTEMPTS = 10
# Beyond this the mounts that matter to no cgroup are left out of mountinfo.
_MOUNTINFO_BYTES = 1 << 20
# Of /proc/PID/status nothing that names the program, its user or its neighbours.
_STATUS = ("Cpus_allowed", "Mems_allowed", "Threads", "Vm", "Rss", "HugetlbPages")

# The limits and statistics of a cgroup; no file that lists processes.
_V2 = """
cgroup.controllers cgroup.subtree_control cgroup.type cgroup.events cgroup.max.depth cgroup.max.descendants cgroup.stat
cpu.max cpu.max.burst cpu.weight cpu.weight.nice cpu.idle cpu.stat cpu.pressure
cpuset.cpus cpuset.cpus.effective cpuset.cpus.partition cpuset.mems cpuset.mems.effective
memory.current memory.min memory.low memory.high memory.max memory.peak memory.stat memory.events memory.events.local
memory.swap.current memory.swap.max memory.swap.high memory.swap.peak memory.oom.group memory.pressure memory.zswap.max
io.max io.weight io.pressure pids.current pids.max pids.peak pids.events
"""
_V1 = {
    "cpu": "cpu.cfs_quota_us cpu.cfs_period_us cpu.cfs_burst_us cpu.shares cpu.idle cpu.rt_period_us "
    "cpu.rt_runtime_us cpu.stat",
    "cpuacct": "cpuacct.usage cpuacct.stat",
    "cpuset": "cpuset.cpus cpuset.effective_cpus cpuset.mems cpuset.effective_mems cpuset.cpu_exclusive "
    "cpuset.mem_exclusive",
    "memory": "memory.limit_in_bytes memory.usage_in_bytes memory.max_usage_in_bytes memory.failcnt "
    "memory.soft_limit_in_bytes memory.stat memory.oom_control memory.swappiness memory.use_hierarchy "
    "memory.memsw.limit_in_bytes memory.memsw.usage_in_bytes memory.memsw.max_usage_in_bytes memory.memsw.failcnt "
    "memory.kmem.limit_in_bytes memory.kmem.usage_in_bytes",
    "pids": "pids.current pids.max pids.events",
}


def take(pid: str, inside: tuple[str, str] | None = None, *, blank: bool = False) -> Capture:
    """The layout of process `pid` (a number, or `self`) as it stands now.

    `inside` holds the texts of its cgroup and mountinfo as it reads them itself, where it has a cgroup namespace of
    its own; None: as we read them.

    Raises:
        CgagentError: there is no such process, its mountinfo is not to be blanked, or its cgroup does not settle.
    """
    host = Host()
    if not host.is_directory(f"/proc/{pid}"):
        raise CgagentError(f"there is no process {pid}", "give the PID of a running process")
    for _ in range(_ATTEMPTS):
        taking = _Taking(host, pid)
        taking.process(inside, blank)
        taking.machine()
        taking.cgroups()
        if inside is not None or taking.settled():
            taking.describe()
            taking.capture.meta.blanked = blank
            return taking.capture
    raise CgagentError(f"process {pid} is moved from cgroup to cgroup faster than they can be read", "try again")


def outside(pid: str) -> bool:
    """Whether process `pid` is in a cgroup namespace that is not ours; where that can't be known, as if not."""
    try:
        return pid != "self" and os.readlink(f"/proc/{pid}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
    except OSError:
        return False


def _same_mounts(host: Host, pid: str) -> bool:
    """Whether process `pid` sees the mounts that we see, by the text, which all may read: then our /sys is its own."""
    try:
        own = host.read("/proc/self/mountinfo", MOUNTINFO_LIMIT)
        return pid == "self" or host.read(f"/proc/{pid}/mountinfo", MOUNTINFO_LIMIT) == own
    except ReadError:
        return pid == "self"


class _Taking:
    """One attempt: `capture` grows file by file."""

    def __init__(self, host: Host, pid: str) -> None:
        self._host = host
        self._pid = pid
        self._size = 0
        self._ours = _same_mounts(host, pid)
        self._reached = self._ours or host.is_directory(f"/proc/{pid}/root/.")
        self.capture = Capture(Meta(), {})
        self._membership: str | None = None

    def process(self, inside: tuple[str, str] | None, blank: bool) -> None:
        """The files below /proc/PID, put as /proc/self's."""
        for path in PROCESS_FILES:
            name = path.rpartition("/")[2]
            # Its mounts lead nowhere where its root may not be looked into; ours may show its cgroups even so.
            pid = "self" if name == "mountinfo" and not self._reached else self._pid
            if inside is not None and self._reached and name in ("cgroup", "mountinfo"):
                text: str | None = inside[name == "mountinfo"]
            else:
                limit = MOUNTINFO_LIMIT if name == "mountinfo" else FILE_BYTES
                text = self._text(self._host, f"/proc/{pid}/{name}", path, limit)
            if text is not None:
                self._put(path, _fit(name, text, blank))
        self._membership = self.capture.text("/proc/self/cgroup")

    def machine(self) -> None:
        """The files that tell of the machine."""
        for path in MACHINE_FILES:
            text = self._text(self._host, path, path)
            if text is not None:
                self._put(path, _lines(text, "cpu") if path == "/proc/stat" else text)

    def cgroups(self) -> None:
        """The process's cgroup in every hierarchy, and each visible ancestor."""
        try:
            mounts = parse_mountinfo(self.capture.text("/proc/self/mountinfo") or "")
            memberships = parse_cgroup(self.capture.text("/proc/self/cgroup") or "")
        except MalformedError:
            return  # that it is malformed is what the capture has to show
        views = [View(self._files_of(), mounts)]
        for membership in memberships:
            self._hierarchy(place(membership, views))

    def settled(self) -> bool:
        """Whether the process is still in the cgroups that were read."""
        try:
            return self._host.read_if_there(f"/proc/{self._pid}/cgroup") == self._membership
        except ReadError:
            return True  # it ended, or may not be read: it can't have moved on

    def describe(self) -> None:
        """What is known beside the files."""
        meta, kernel = self.capture.meta, os.uname()
        meta.cgagent, meta.kernel, meta.machine = __version__, kernel.release, kernel.machine
        meta.taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        meta.pid = os.getpid() if self._pid == "self" else int(self._pid)
        affinity = self._host.affinity(self._pid)
        meta.affinity = None if affinity is None else format_cpu_list(affinity)
        meta.view = INSIDE if self._reached else OUTSIDE
        meta.learn(self.capture)

    def _files_of(self) -> Host:
        """Where the process's mounts are reached: through its root, unless they are ours."""
        return self._host if self._ours or not self._reached else Host(f"/proc/{self._pid}/root")

    def _hierarchy(self, hierarchy: Hierarchy) -> None:
        names = _V2 if hierarchy.version == 2 else " ".join(_V1.get(one, "") for one in hierarchy.controllers)
        for level in hierarchy.levels:
            for host, directory in level.directories:
                if host.is_directory(directory):
                    self.capture.add_directory(directory)
                for name in names.split():
                    path = f"{directory}/{name}"
                    text = self._text(host, path, path)
                    if text is not None:
                        self._put(path, text)

    def _text(self, host: Host, path: str, shown: str, limit: int = FILE_BYTES) -> str | None:
        """The text of a file; None where it is absent, or noted as missing under the name `shown`."""
        try:
            return host.read(path, limit)
        except ReadError as error:
            if error.kind != ABSENT:
                self.capture.meta.missing[shown] = (error.kind, error.detail)
            return None

    def _put(self, path: str, text: str) -> None:
        content = text.encode("utf-8", "surrogateescape")
        self._size += len(content)
        if self._size > TOTAL_BYTES or len(self.capture.files) >= FILES:
            raise CgagentError(f"the layout is over {FILES} files or {TOTAL_BYTES >> 20} MiB", "it can't be captured")
        self.capture.add_file(path, content)


def _fit(name: str, text: str, blank: bool) -> str:
    """What is kept of one of the process's own files."""
    if name == "status":
        return _lines(text, *_STATUS)
    if name != "mountinfo":
        return text
    try:
        text = shortened(text) if len(text) > _MOUNTINFO_BYTES else text
        return blanked(text) if blank else text
    except MalformedError as error:
        if blank:
            raise CgagentError(f"--blank-paths: {error.message}", "take it without, and look through it") from None
        return text


def _lines(text: str, *starts: str) -> str:
    return "".join(line + "\n" for line in text.split("\n") if line.startswith(starts))
