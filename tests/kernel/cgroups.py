"""Real cgroups for tests, in one vocabulary for v1 and v2.

Nothing here uses cgagent: what a test sets is written and read by this module's own few lines.
"""

from __future__ import annotations

import errno
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PREFIX = "cgagent-test-"
CONTROLLERS = ("cpu", "memory", "cpuset", "pids")
MIB = 1 << 20
NO_QUOTA = -1

_ENTER = 'files=$1; shift; for file in $files; do echo $$ > "$file" || exit 99; done; exec "$@"'


class Mount:
    """Where one hierarchy is mounted: version, mount point, and the cgroup that is its root."""

    def __init__(self, version: int, point: str, root: str, options: list[str]) -> None:
        self.version = version
        self.point = point
        self.root = root.rstrip("/")
        self.options = options


def mounts() -> list[Mount]:
    """The cgroup mounts of this process (proc(5), mountinfo)."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            kind, _, options = fields[fields.index("-") + 1 :][:3]
            if kind in ("cgroup", "cgroup2"):
                version = 2 if kind == "cgroup2" else 1
                found.append(Mount(version, fields[4], fields[3], options.strip().split(",")))
    return found


def mode() -> str:
    """What is mounted here, in the words of design section 4."""
    versions = {mount.version for mount in mounts()}
    return {(): "none", (1,): "v1", (2,): "v2"}.get(tuple(sorted(versions)), "hybrid")


def holder(controller: str) -> Mount | None:
    """The mount of the hierarchy that has `controller`."""
    for mount in mounts():
        if mount.version == 1 and controller in mount.options:
            return mount
    for mount in mounts():
        if mount.version == 2 and controller in read(f"{mount.point}/cgroup.controllers").split():
            return mount
    return None


def read(path: str) -> str:
    """The text of a kernel file without its final newline."""
    with open(path, encoding="utf-8") as file:
        return file.read().rstrip("\n")


def write(path: str, text: str | int) -> None:
    """Write to a kernel file: one write(2), its errors raised."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, str(text).encode())
    finally:
        os.close(fd)


class Group:
    """One cgroup: on v1 a directory in each controller's hierarchy, on v2 a single one.

    Attributes:
        name: its path below the mount roots.
        controllers: those it has; a v2 cgroup below has no more.
        directories: controller -> directory; every value is the same on v2.
    """

    def __init__(self, name: str, controllers: Sequence[str] = CONTROLLERS, parent: Group | None = None) -> None:
        self.name = name
        self.parent = parent
        self.children: list[Group] = []
        self._mounts = {one: mount for one in controllers if (mount := holder(one))}
        if "cpu" in self._mounts and self._mounts["cpu"].version == 1 and (accounting := holder("cpuacct")):
            self._mounts["cpuacct"] = accounting
        self.controllers = tuple(self._mounts)
        self.directories = {one: f"{mount.point}/{name}" for one, mount in self._mounts.items()}
        self._make()

    def _make(self) -> None:
        for controller, mount in self._mounts.items():
            if mount.version == 2:
                above = os.path.dirname(self.directories[controller])
                write(f"{above}/cgroup.subtree_control", f"+{controller}")
        for directory in sorted(set(self.directories.values())):
            os.makedirs(directory, exist_ok=True)
        if self.version("cpuset") == 1:
            for name in ("cpuset.cpus", "cpuset.mems"):
                above = os.path.dirname(self.directories["cpuset"])
                write(f"{self.directories['cpuset']}/{name}", read(f"{above}/{name}"))

    def child(self, name: str, controllers: Sequence[str] | None = None) -> Group:
        """Make a cgroup in this one."""
        made = Group(f"{self.name}/{name}", self.controllers if controllers is None else controllers, self)
        self.children.append(made)
        return made

    def version(self, controller: str) -> int | None:
        """1 or 2: where `controller` is; None where this kernel or this cgroup lacks it."""
        mount = self._mounts.get(controller)
        return mount.version if mount else None

    def path(self, controller: str) -> str:
        """Its path as /proc/PID/cgroup tells it."""
        return f"{self._mounts[controller].root}/{self.name}"

    def file(self, v1: str, v2: str) -> str:
        """The full name of a file that is called `v1` there and `v2` here; the controller is the name's start."""
        controller = v2.partition(".")[0]
        return f"{self.directories[controller]}/{v1 if self.version(controller) == 1 else v2}"

    @property
    def quota_file(self) -> str:
        return self.file("cpu.cfs_quota_us", "cpu.max")

    @property
    def memory_file(self) -> str:
        return self.file("memory.limit_in_bytes", "memory.max")

    def set_quota(self, quota_us: int, period_us: int = 100_000) -> str:
        """Limit CPU time; NO_QUOTA lifts the limit. Returns the raw text as `explain` is to show it."""
        if self.version("cpu") == 2:
            raw = f"{'max' if quota_us == NO_QUOTA else quota_us} {period_us}"
            write(self.quota_file, raw)
            return raw
        directory = self.directories["cpu"]
        write(f"{directory}/cpu.cfs_period_us", period_us)
        write(f"{directory}/cpu.cfs_quota_us", quota_us)
        return str(quota_us) if quota_us == NO_QUOTA else f"{quota_us} {period_us}"

    def set_memory(self, size: int) -> None:
        """Limit memory to `size` bytes, a multiple of the page size."""
        write(self.memory_file, size)

    def set_swap(self, size: int) -> None:
        """Limit swap to `size` bytes; memory must be limited already. Needs swap accounting."""
        if self.version("memory") == 1:
            write(self.file("memory.memsw.limit_in_bytes", "memory."), size + int(read(self.memory_file)))
        else:
            write(self.file("", "memory.swap.max"), size)

    def set_cpus(self, cpus: str) -> None:
        """Confine to these CPUs, a kernel CPU list."""
        write(self.file("cpuset.cpus", "cpuset.cpus"), cpus)

    def procs(self) -> list[str]:
        """Its cgroup.procs files, one for each hierarchy."""
        return sorted({f"{directory}/cgroup.procs" for directory in self.directories.values()})

    def pids(self) -> set[int]:
        """The processes in it, in any hierarchy."""
        return {int(pid) for file in self.procs() for pid in read(file).split()}

    def enter(self, command: Sequence[str]) -> list[str]:
        """`command` as a command that first enters this cgroup. It keeps its PID."""
        return ["/bin/sh", "-c", _ENTER, "enter", " ".join(self.procs()), *command]

    def move(self, pid: int) -> None:
        """Move a process into it."""
        for file in self.procs():
            write(file, pid)

    def remove(self) -> None:
        """Remove it and all below, killing what still runs there."""
        for child in self.children:
            child.remove()
        for directory in set(self.directories.values()):
            for below in _directories(directory):
                _remove_directory(below)


def _directories(top: str) -> Iterator[str]:
    """`top` and the cgroups below it, innermost first."""
    for path, _, _ in os.walk(top, topdown=False):
        yield path


def _members(directory: str) -> list[str]:
    try:
        return read(f"{directory}/cgroup.procs").split()
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return read(f"{directory}/cgroup.threads").split()  # of a threaded cgroup on v2


def _remove_directory(directory: str) -> None:
    for _ in range(3000):
        try:
            for pid in _members(directory):
                os.kill(int(pid), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError:  # busy until its last process is reaped
            time.sleep(0.02)
        else:
            return
    os.rmdir(directory)
