"""Where a process stands: its cgroups by /proc/PID/cgroup, and the mounts through which they can be seen."""

from __future__ import annotations

from cgagent.cgroup.hierarchy import (
    ANCESTOR,
    INSIDE,
    INVISIBLE,
    NO_DIRECTORY,
    STRANGER,
    Hierarchy,
    Membership,
    View,
    holder,
    parse_cgroup,
    place,
)
from cgagent.cgroup.mounts import Mount, parse_mountinfo
from cgagent.errors import CgagentError, MalformedError
from cgagent.host import ABSENT, MOUNTINFO_LIMIT, VANISHED, Host, ReadError
from cgagent.record import Record

# The controllers that bear a limit; of others (pids, cpuset) what is not visible is not missed.
_LIMITING = ("cpu", "memory")


class Problem(Record):
    """Something that could not be read, understood or trusted.

    Attributes:
        id: the stable id of its finding, such as `malformed-file`.
        resource: `cpu`, `memory`, or "" for both.
        message: one sentence that names the file.
    """

    __slots__ = ("id", "message", "resource")

    def __init__(self, id: str, resource: str, message: str) -> None:  # noqa: A002 as in the JSON document
        self.id = id
        self.resource = resource
        self.message = message


class Standing(Record):
    """A process in its hierarchies.

    Attributes:
        mode: `v1`, `v2`, `hybrid` or `none`, as the process has them mounted; None where that is not known.
        hierarchies: one for each line of /proc/PID/cgroup.
        lxcfs: whether LXC's file system is laid over files of our /proc: they show the container's share.
        problems: what could not be read or seen.
    """

    __slots__ = ("hierarchies", "lxcfs", "mode", "problems")

    def __init__(self) -> None:
        self.mode: str | None = None
        self.hierarchies: list[Hierarchy] = []
        self.lxcfs = False
        self.problems: list[Problem] = []

    def hierarchy_of(self, controller: str) -> Hierarchy | None:
        """The hierarchy that holds `controller`; None where none does."""
        return holder(controller, self.hierarchies)


def read_membership(host: Host, pid: str) -> str | None:
    """The text of /proc/PID/cgroup; None on a kernel, or in a sandbox, without cgroups.

    Raises:
        CgagentError: there is no such process, or no /proc.
        ReadError: the file is there and can't be read.
    """
    try:
        return host.read(f"/proc/{pid}/cgroup")
    except ReadError as error:
        if error.kind not in (ABSENT, VANISHED):
            raise
    if host.is_directory(f"/proc/{pid}"):
        return None
    if not host.live:
        raise CgagentError(f"{host.root} holds no proc/{pid}", "give the root of a captured or mounted tree")
    if not host.is_directory("/proc/self"):
        raise CgagentError(
            f"there is no proc file system at {host.shown('/proc')}", "cgagent needs Linux with it mounted"
        )
    raise CgagentError(f"there is no process {pid}", "give the PID of a running process")


def locate(host: Host, pid: str, cgroup_text: str | None, refusal: str = "") -> Standing:
    """Join the text of /proc/PID/cgroup with the mounts that the process, and we, see.

    `refusal` is why that file could not be read, where it is there.
    """
    standing = Standing()
    try:
        views = _views(host, pid, standing)
        memberships = _memberships(pid, cgroup_text)
    except MalformedError as error:
        standing.problems = [Problem("malformed-file", "", error.message)]
        standing.mode = None
        return standing
    if views:
        standing.hierarchies = [place(membership, views) for membership in memberships]
        if refusal or (not memberships and standing.mode != "none"):
            what = "there is no /proc/{}/cgroup" if cgroup_text is None else "/proc/{}/cgroup names no cgroup"
            standing.problems.append(Problem("unreadable", "", refusal or what.format(pid)))
        for controller in _LIMITING:
            _judge(host, standing, controller)
    return standing


def _memberships(pid: str, text: str | None) -> list[Membership]:
    try:
        return parse_cgroup(text or "")
    except MalformedError as error:
        raise error.at(f"/proc/{pid}/cgroup") from None


def _views(host: Host, pid: str, standing: Standing) -> list[View]:
    """The cgroup mounts that show the process's cgroups: ours, and its own where they are others."""
    try:
        text = host.read(f"/proc/{pid}/mountinfo", MOUNTINFO_LIMIT)
        ours = host.read("/proc/self/mountinfo", MOUNTINFO_LIMIT) if pid != "self" and host.live else text
    except ReadError as error:
        standing.problems.append(Problem("unreadable", "", error.message))
        return []
    standing.lxcfs = " - fuse.lxcfs " in ours
    view = View(host, _mounts(f"/proc/{pid}/mountinfo", text))
    standing.mode = _mode(view)
    if ours == text:
        return [view]
    # Another mount namespace: our mounts may show ancestors that the process itself can't see, its own
    # mounts may show what ours can't. Both bound it.
    root = f"/proc/{pid}/root"
    views = [View(host, _mounts("/proc/self/mountinfo", ours))]
    if host.is_directory(f"{root}/."):
        views.append(View(Host(root, shown_below=root), view.mounts))
    return views


def _mounts(file: str, text: str) -> list[Mount]:
    try:
        return parse_mountinfo(text)
    except MalformedError as error:
        raise error.at(file) from None


def _mode(view: View) -> str:
    versions = {mount.version for mount in view.mounts}
    if versions == {1, 2}:
        return "hybrid"
    return f"v{versions.pop()}" if versions else "none"


def _judge(host: Host, standing: Standing, controller: str) -> None:
    """Say where what is seen of `controller` is not, or not all of, what binds the process."""
    hierarchy = standing.hierarchy_of(controller)
    if hierarchy is None or hierarchy.standing == INSIDE:
        return
    where = f"its cgroup {hierarchy.path} ({controller})"
    if hierarchy.standing == INVISIBLE:
        if hierarchy.version == 1 or _enabled(host, controller):
            message = f"{where} is in a hierarchy that no mount here shows"
            standing.problems.append(Problem("controller-not-visible", controller, message))
        return
    telling = {
        NO_DIRECTORY: "has no directory; limits of the cgroups above it are true bounds, its own are not known",
        ANCESTOR: "lies below the mount's root at an unknown place; the root's limits are true bounds",
        STRANGER: "lies outside every mount; the limits shown are those of another cgroup and are not used",
    }
    message = f"{where}, seen from {hierarchy.mount}, {telling[hierarchy.standing]}"
    standing.problems.append(Problem("cgroup-outside-view", controller, message))


def _enabled(host: Host, controller: str) -> bool:
    """Whether the kernel has the controller at all (/proc/cgroups, column 4): `cgroup_disable=memory` is common."""
    try:
        text = host.read_if_there("/proc/cgroups")
    except ReadError:
        return True
    rows = [line.split() for line in (text or "").split("\n")]
    return text is None or any(row[0] == controller and row[-1] == "1" for row in rows if row)
