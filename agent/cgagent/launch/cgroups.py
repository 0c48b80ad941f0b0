"""The container's cgroups: one new directory in each mounted hierarchy, below the caller's own cgroup.

Directories come from /proc/self/cgroup and the mounts that show it (`cgagent.cgroup`), on v1, v2 and hybrid
hosts alike. v2's own rules on where a cgroup may be made are in `cgagent.launch.delegation`.
"""

from __future__ import annotations

import errno
import os
import stat

from cgagent.cgroup.hierarchy import INSIDE, Hierarchy, View, parse_cgroup, place
from cgagent.cgroup.mounts import namespace_points, parse_mountinfo
from cgagent.errors import CgagentError
from cgagent.host import MOUNTINFO_LIMIT, Host
from cgagent.launch.cgroupfs import READ_ONLY_HINT, read, remove, rmdir, write
from cgagent.launch.failure import failure
from cgagent.launch.resources import SWAP_FILES, IoRate, v1_files, v2_files
from cgagent.launch.syscalls import CGROUP2_SUPER_MAGIC, CGROUP_SUPER_MAGIC, statfs_type
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cgagent.launch.resources import Resources

# v1's name of a controller -> v2's
V2_NAMES = {"blkio": "io"}
# Files whose count under that key says that a limit was met, where they are.
_REFUSALS = (
    ("memory", ("memory.oom_control", "memory.events"), "oom_kill"),
    ("pids", ("pids.events",), "max"),
    ("cpu", ("cpu.stat",), "nr_throttled"),
)


class Cgroup(Record):
    """The container's directory in one hierarchy.

    Attributes:
        version: 1 or 2.
        controllers: those of the v1 hierarchy; on v2 those that the directory has.
        mount: where the hierarchy is mounted.
        directory: the container's own.
        path: the same as /proc/PID/cgroup shows it.
        options: the mount's data, which names the v1 hierarchy; empty on v2.
    """

    __slots__ = ("controllers", "directory", "mount", "options", "path", "version")

    def __init__(self, hierarchy: Hierarchy, mount: str, directory: str) -> None:
        self.version = hierarchy.version
        self.controllers = hierarchy.controllers
        self.mount = mount
        self.directory = directory
        self.options = ",".join(hierarchy.controllers)
        level = hierarchy.levels[-1]  # the mount's root
        self.path = level.path.rstrip("/") + directory.removeprefix(level.directories[0][1].rstrip("/"))


def own_mountinfo() -> str:
    """This process's mountinfo file."""
    return Host().read("/proc/self/mountinfo", MOUNTINFO_LIMIT)


def own_hierarchies(mountinfo: str) -> list[Hierarchy]:
    """The hierarchies in which this process's cgroup can be seen, by its own `mountinfo`."""
    host = Host()
    view = View(host, parse_mountinfo(mountinfo))
    memberships = parse_cgroup(host.read("/proc/self/cgroup"))
    return [one for one in (place(membership, [view]) for membership in memberships) if one.standing == INSIDE]


class Cgroups:
    """All the directories of one container.

    Attributes:
        made: each hierarchy's directory.
        shared: the caller's cgroups in the hierarchies where none could be made; shown, not to be entered.
        missing: what could not be had with `--best-effort`, in words.
        namespaces: where the host has namespaces mounted.
        leave: undoes on v2 what making room for them took; None where it took nothing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.made: list[Cgroup] = []
        self.shared: list[Cgroup] = []
        self.missing: list[str] = []
        self.namespaces: list[str] = []
        self.leave: Callable[[], None] | None = None

    def create(self, resources: Resources, parent: str | None, best_effort: bool) -> None:
        """Make and limit them all.

        Raises:
            CgagentError: a controller that is asked for is missing, a directory can't be made, a value is refused.
        """
        needed = resources.controllers()
        mountinfo = own_mountinfo()
        self.namespaces = namespace_points(mountinfo)
        hierarchies = own_hierarchies(mountinfo)
        held = self._held(hierarchies, needed, best_effort)
        for hierarchy in hierarchies:
            wanted = [name for name in needed if held.get(name) is hierarchy]
            try:
                self._create_in(hierarchy, wanted, resources, parent, best_effort)
            except CgagentError as error:
                if wanted and not best_effort:
                    raise
                if wanted:
                    options = ", ".join(dict.fromkeys(needed[name] for name in wanted))
                    self.missing.append(f"going on without {options}: {error.message}")
                own = hierarchy.levels[0].directories[0][1]
                self.shared.append(Cgroup(hierarchy, hierarchy.mount or "", own))

    def _held(self, hierarchies: list[Hierarchy], needed: dict[str, str], best_effort: bool) -> dict[str, Hierarchy]:
        """The hierarchy of each controller in `needed`."""
        held: dict[str, Hierarchy] = {}
        for name, option in needed.items():
            found = next((one for one in hierarchies if name in one.controllers), None)
            if found is None:
                unified = (one for one in hierarchies if one.version == 2)
                found = next((one for one in unified if V2_NAMES.get(name, name) in _available(one)), None)
            if found is not None:
                held[name] = found
                continue
            message = f"{option}: the {V2_NAMES.get(name, name)} controller is not to be had here"
            if not best_effort:
                raise failure(message, _missing_hint(hierarchies, name))
            self.missing.append(message)
        return held

    def _create_in(
        self, hierarchy: Hierarchy, wanted: list[str], resources: Resources, parent: str | None, best_effort: bool
    ) -> None:
        mount = hierarchy.mount or ""
        if wanted:
            _check_type(hierarchy.version, mount)
        if parent is not None:
            above = f"{mount.rstrip('/')}/{parent.strip('/')}"
            if not os.path.isdir(above):
                if not wanted:
                    return
                raise failure(f"--cgroup-parent: there is no {above}", "make it first, or name one that is there")
        else:
            above = hierarchy.levels[0].directories[0][1]
        if hierarchy.version == 2 and wanted:
            from cgagent.launch.delegation import prepare

            above, self.leave = prepare(hierarchy, above, [V2_NAMES.get(name, name) for name in wanted], self.name)
        cgroup = Cgroup(hierarchy, mount, f"{above.rstrip('/')}/{self.name}")
        _make(cgroup)
        self.made.append(cgroup)
        if "cpuset" in hierarchy.controllers:
            _inherit_cpuset(above, cgroup.directory)
        writes = v2_files if hierarchy.version == 2 else v1_files
        for controller in wanted:
            for file, text in writes(_with_devices(resources), controller):
                self._limit(f"{cgroup.directory}/{file}", text, resources, best_effort)

    def _limit(self, path: str, text: str, resources: Resources, best_effort: bool) -> None:
        try:
            write(path, text)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES) and not os.path.exists(path):
                if path.endswith(SWAP_FILES) and resources.swap_by_default:
                    return
                problem = failure(f"there is no {path}", "this kernel's cgroups cannot set that limit")
            else:
                problem = _refused(path, text, error)
            if not best_effort:
                raise problem from None
            self.missing.append(problem.line())

    def find(self, controller: str) -> Cgroup | None:
        """The directory that holds `controller`; None where there is none."""
        v1 = next((one for one in self.made if controller in one.controllers), None)
        return v1 or next((one for one in self.made if one.version == 2), None)

    def unified(self) -> Cgroup | None:
        """The v2 directory."""
        return next((one for one in self.made if one.version == 2), None)

    def has_refused(self) -> bool:
        """Whether a limit has had the kernel kill a process, refuse a fork or throttle."""
        for controller, files, key in _REFUSALS:
            cgroup = self.find(controller)
            if cgroup is None:
                continue
            for file in files:
                for line in read(f"{cgroup.directory}/{file}").split("\n"):
                    name, _, count = line.partition(" ")
                    if name == key and count != "0":
                        return True
        return False

    def remove_empty(self) -> None:
        """Remove those directories that nobody is in any more."""
        self.made = [one for one in self.made if not rmdir(one.directory)]

    def remove(self) -> list[str]:
        """Kill what is left in the directories and remove them; return those that stay."""
        left = remove([one.directory for one in self.made])
        if self.leave is not None:
            self.leave()
        return left


def _make(cgroup: Cgroup) -> None:
    try:
        os.mkdir(cgroup.directory, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        above = os.path.dirname(cgroup.directory)
        reason = (error.strerror or "").lower()
        delegate = "let systemd delegate one (systemd-run --user --scope -p Delegate=yes cgagent run ...)"
        ways = f"{'run as root' if cgroup.version == 1 else delegate}, or go without the limits with --best-effort"
        hint = ways if error.errno in (errno.EACCES, errno.EPERM) else "remove unused cgroups"
        if error.errno == errno.EROFS:
            hint = READ_ONLY_HINT
        raise failure(f"cannot make a cgroup in {above}: {reason}", hint) from None


def _refused(path: str, text: str, error: OSError) -> CgagentError:
    reason = (error.strerror or "").lower()
    hints = {
        "cpuset.cpus": "the cgroup above has CPUs ",
        "cpuset.mems": "the cgroup above has memory nodes ",
        "cpu.cfs_quota_us": "a cgroup above may have a smaller quota",
        "io.max": "give a whole disk that this machine has",
    }
    file = os.path.basename(path)
    hint = hints.get(file, "give a whole disk that this machine has" if "throttle" in file else "")
    if file.startswith("cpuset."):
        hint += _above(path)
    return failure(f"cannot write '{text}' to {path}: {reason}", hint)


def _above(path: str) -> str:
    """What a cpuset's file says one level up."""
    directory, file = os.path.split(path)
    above = f"{os.path.dirname(directory)}/{file}"
    return (read(f"{above}.effective") or read(above)).strip()


def _available(hierarchy: Hierarchy) -> list[str]:
    return read(f"{hierarchy.levels[0].directories[0][1]}/cgroup.controllers").split()


def _missing_hint(hierarchies: list[Hierarchy], controller: str) -> str:
    """Which cgroup lacks the controller, and what mends that."""
    name = V2_NAMES.get(controller, controller)
    for hierarchy in hierarchies:
        if hierarchy.version != 2:
            continue
        lacking = None
        for level in hierarchy.levels:
            directory = level.directories[0][1]
            if name in read(f"{directory}/cgroup.controllers").split():
                break
            lacking = directory
        if lacking is not None and lacking != (hierarchy.mount or ""):
            above = os.path.dirname(lacking)
            return (
                f"{above}/cgroup.subtree_control does not pass it on: echo +{name} there as root, or for a "
                f"systemd user 'systemctl edit user@.service' with [Service] Delegate={name}; or --best-effort"
            )
    return "this kernel or host does not offer it; --best-effort goes on without"


def _inherit_cpuset(above: str, directory: str) -> None:
    """A new v1 cpuset is empty, and nobody may join it (ENOSPC) until it has CPUs and memory nodes."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{directory}/{file}").strip():
            write(f"{directory}/{file}", read(f"{above}/{file}").strip())


def _check_type(version: int, mount: str) -> None:
    expected = CGROUP2_SUPER_MAGIC if version == 2 else CGROUP_SUPER_MAGIC
    if statfs_type(mount) != expected:
        raise failure(f"{mount} is no cgroup file system", "something else is mounted over it")


def _with_devices(resources: Resources) -> Resources:
    """Device paths as the `MAJOR:MINOR` of the whole disk, which is what throttling goes by."""
    resources.io = [IoRate(_device_number(one), one.kind, one.rate, one.option) for one in resources.io]
    return resources


def _device_number(rate: IoRate) -> str:
    if rate.device.replace(":", "", 1).isdigit() and ":" in rate.device:
        return rate.device
    try:
        found = os.stat(rate.device)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise failure(f"{rate.option}: {rate.device}: {reason}", "name a block device") from None
    if not stat.S_ISBLK(found.st_mode):
        raise failure(f"{rate.option}: {rate.device} is not a block device", "lsblk lists them")
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    directory = f"/sys/dev/block/{number}"
    if os.path.exists(f"{directory}/partition"):
        return read(f"{os.path.dirname(os.path.realpath(directory))}/dev").strip() or number
    return number
