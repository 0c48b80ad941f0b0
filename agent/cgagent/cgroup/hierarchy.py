"""From a process to its cgroups' directories: /proc/PID/cgroup joined with the mounts that show them.

A line of /proc/PID/cgroup is `HIERARCHY-ID:CONTROLLERS:PATH` (cgroups(7)); `0::PATH` is cgroup v2. Paths there
and roots in mountinfo are both relative to the *reader's* cgroup namespace: `/..` is what lies above its root.
"""

from __future__ import annotations

from cgagent.cgroup.mounts import Mount
from cgagent.cgroup.numbers import unsigned, whole_lines
from cgagent.errors import MalformedError
from cgagent.host import Host
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from cgagent.cgroup.dialect import Dialect

    Line = TypeVar("Line", "Membership", "Hierarchy")

# How the process's cgroup stands to the mounts that show its hierarchy.
INSIDE = "inside"  # a mount shows its directory
NO_DIRECTORY = "no directory"  # a mount's root is above it, but the directory is not there
ANCESTOR = "ancestor"  # a mount's root is above it, at an unknown distance: true bounds, not all of them
STRANGER = "stranger"  # mounts show some other part of the hierarchy
INVISIBLE = "invisible"  # no mount shows the hierarchy

# The kernel refuses to print a longer one (kernel/cgroup/cgroup.c, proc_cgroup_show).
_PATH_MAX = 4096


class Membership(Record):
    """One line of /proc/PID/cgroup: version 1 or 2, the controllers (or `name=...`), and the cgroup's path."""

    __slots__ = ("controllers", "path", "version")

    def __init__(self, version: int, controllers: tuple[str, ...], path: str) -> None:
        self.version = version
        self.controllers = controllers
        self.path = path


class View(Record):
    """The cgroup mounts of one mount namespace and the host through which their files are reached."""

    __slots__ = ("host", "mounts")

    def __init__(self, host: Host, mounts: list[Mount]) -> None:
        self.host = host
        self.mounts = mounts


class Level(Record):
    """One cgroup on the way up: its path in the hierarchy and the directories that show it."""

    __slots__ = ("directories", "path")

    def __init__(self, path: str, directories: list[tuple[Host, str]]) -> None:
        self.path = path
        self.directories = directories


class Hierarchy(Record):
    """One hierarchy as the process stands in it.

    Attributes:
        version: 1 or 2.
        controllers: those of its /proc/PID/cgroup line; empty on v2.
        path: the process's cgroup, as that line says.
        standing: INSIDE, NO_DIRECTORY, ANCESTOR, STRANGER or INVISIBLE.
        mount: the mount point that shows the most of it; None if INVISIBLE.
        levels: the process's cgroup and every visible ancestor, innermost first.
        after: `Mount.after` of the first mount that shows the cgroup, as the process itself has them.
    """

    __slots__ = ("after", "controllers", "levels", "mount", "path", "standing", "version")

    def __init__(
        self,
        membership: Membership,
        standing: str,
        mount: str | None,
        levels: tuple[Level, ...],
        after: str | None = None,
    ) -> None:
        self.version = membership.version
        self.controllers = membership.controllers
        self.path = membership.path
        self.standing = standing
        self.mount = mount
        self.levels = levels
        self.after = after

    @property
    def dialect(self) -> Dialect:
        """The file names and formats of this version."""
        # Loaded when files are read: the launcher needs the directories alone, and has 8 ms for everything.
        from cgagent.cgroup import v1, v2

        return v2 if self.version == 2 else v1


def parse_cgroup(text: str) -> list[Membership]:
    """The lines of a /proc/PID/cgroup file.

    Raises:
        MalformedError: a line is not `ID:CONTROLLERS:/PATH`.
    """
    memberships = []
    for line in whole_lines(text):
        fields = line.split(":", 2)  # named hierarchies hold no colon, but paths may
        if len(fields) < 3 or not fields[2].startswith("/"):
            raise MalformedError("cgroup", line, "expected ID:CONTROLLERS:/PATH")
        if len(fields[2]) >= _PATH_MAX:
            raise MalformedError("cgroup", line, f"expected a path shorter than {_PATH_MAX} bytes")
        number = unsigned(fields[0], "cgroup")
        names = tuple(fields[1].split(",")) if fields[1] else ()
        if not names and number:
            raise MalformedError("cgroup", line, "expected the controllers of a v1 hierarchy")
        memberships.append(Membership(1 if names else 2, names, fields[2]))
    return memberships


def holder(controller: str, lines: list[Line]) -> Line | None:
    """The hierarchy that holds `controller`: v1's if a line names it, else v2's (as the Go runtime decides)."""
    unified = None
    for line in lines:
        if controller in line.controllers:
            return line
        if line.version == 2:
            unified = line
    return unified


def place(membership: Membership, views: list[View]) -> Hierarchy:
    """Find the directories of the process's cgroup and of every visible ancestor.

    Several mounts may show one hierarchy: all whose root holds the path and whose directory exists count.
    """
    shown = [(view.host, mount) for view in views for mount in view.mounts if _shows(mount, membership)]
    path = _normal(membership.path)
    inside, above, strangers = [], [], []
    for host, mount in shown:
        rest = _below(_normal(mount.root), path)
        if rest is not None:
            inside.append((host, mount, rest))
        elif _is_above(_normal(mount.root), path):
            above.append((host, mount))
        else:
            strangers.append((host, mount))
    existing = [one for one in inside if one[0].is_directory(_directory(one[1], one[2]))]
    levels = _chains(existing or inside) + [_root_level(host, mount) for host, mount in above]
    if existing:
        standing = INSIDE
    elif inside:
        standing = NO_DIRECTORY
    elif above:
        standing = ANCESTOR
    elif strangers:
        standing = STRANGER
        levels = [_root_level(host, mount) for host, mount in strangers]
    else:
        standing = INVISIBLE
    used = [one[1] for one in existing or inside] or [mount for _, mount in above or strangers]
    widest = min(used, key=lambda mount: len(_normal(mount.root)[1]), default=None)
    # The process's own view is the last.
    own = [mount for host, mount, _ in inside if host is views[-1].host]
    after = own[0].after if own else None
    return Hierarchy(membership, standing, widest.point if widest else None, _merged(levels), after)


def _shows(mount: Mount, membership: Membership) -> bool:
    if membership.version == 2:
        return mount.version == 2
    return mount.version == 1 and any(name in mount.options for name in membership.controllers)


# A path relative to the namespace root: how many steps up, then the names down.
_Path = tuple[int, tuple[str, ...]]


def _normal(path: str) -> _Path:
    ups, names = 0, list[str]()
    for part in path.split("/"):
        if part == "..":
            if names:
                names.pop()
            else:
                ups += 1
        elif part not in ("", "."):
            names.append(part)
    return ups, tuple(names)


def _text(ups: int, names: tuple[str, ...]) -> str:
    return "/" + "/".join(("..",) * ups + names)


def _below(root: _Path, path: _Path) -> tuple[str, ...] | None:
    """The names that lead from `root` down to `path`, or None where that way is not known or not there."""
    if root[0] == path[0] and path[1][: len(root[1])] == root[1]:
        return path[1][len(root[1]) :]
    return None


def _is_above(root: _Path, path: _Path) -> bool:
    """Whether `root` is an ancestor of `path` by going up alone (`/..` of `/x`)."""
    return root[0] > path[0] and not root[1]


def _directory(mount: Mount, names: tuple[str, ...]) -> str:
    return "/".join((mount.point.rstrip("/"), *names)) or "/"


def _chains(inside: list[tuple[Host, Mount, tuple[str, ...]]]) -> list[Level]:
    levels = []
    for host, mount, rest in inside:
        ups, names = _normal(mount.root)
        for depth in range(len(rest), -1, -1):
            part = rest[:depth]
            levels.append(Level(_text(ups, names + part), [(host, _directory(mount, part))]))
    return levels


def _root_level(host: Host, mount: Mount) -> Level:
    return Level(_text(*_normal(mount.root)), [(host, mount.point)])


def _merged(levels: list[Level]) -> tuple[Level, ...]:
    """`levels` with one entry for each cgroup, innermost first."""
    merged: dict[str, Level] = {}
    for level in levels:
        known = merged.setdefault(level.path, Level(level.path, []))
        known.directories += [one for one in level.directories if one not in known.directories]

    def height(level: Level) -> tuple[int, int]:
        ups, names = _normal(level.path)
        return ups, -len(names)

    return tuple(sorted(merged.values(), key=height))
