"""A simulated layout as a capture: what a process there would read, made from the options' words. Pure."""

from __future__ import annotations

from cgagent.capture.layout import Capture, Meta
from cgagent.launch.shown.layouts import V1_HIERARCHIES, place, view
from cgagent.launch.shown.levels import Level, v1_files, v2_files
from cgagent.record import Record

# What the layouts' runtimes mount beside the cgroups.
_BASE = """\
500 400 0:50 / / rw,relatime - overlay overlay rw
501 500 0:51 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
502 500 0:52 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
503 500 0:53 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
"""
_ACCESS = "ro,nosuid,nodev,noexec,relatime"
_CGROUP = "/sys/fs/cgroup"


class Layout(Record):
    """A simulated layout.

    Attributes:
        mode: v1, v2 or hybrid.
        name: one of `layouts.LAYOUTS`.
        qos: one of `layouts.QOS`, lower case.
        private: whether the container has a cgroup namespace.
        own, parent: the limits of its cgroup and of the one above (the pod, the slice, the outer container).
    """

    __slots__ = ("mode", "name", "own", "parent", "private", "qos")

    def __init__(self, mode: str, name: str, qos: str, private: bool, own: Level, parent: Level) -> None:
        self.mode = mode
        self.name = name
        self.qos = qos
        self.private = private
        self.own = own
        self.parent = parent

    def capture(self, cpus: str) -> Capture:
        """What a process in it reads, on a machine with `cpus` (in the kernel's list format)."""
        files: dict[str, str] = {}
        lines, mounts = [], [_BASE]
        if self.mode != "v2":
            mounts.append(f"510 503 0:60 / {_CGROUP} {_ACCESS} - tmpfs tmpfs ro,mode=755\n")
            for number, names in enumerate(V1_HIERARCHIES, 1):
                point = f"{_CGROUP}/{names.removeprefix('name=')}"
                seen, found = self._tree(False, names, cpus)
                lines.append(f"{number}:{names}:{seen[0]}\n")
                mounts.append(
                    f"{510 + number} 510 0:{60 + number} {seen[1]} {point} {_ACCESS} - cgroup cgroup rw,{names}\n"
                )
                files |= {f"{point}{path}": text for path, text in found.items()}
        if self.mode != "v1":
            point = _CGROUP if self.mode == "v2" else f"{_CGROUP}/unified"
            seen, found = self._tree(True, "", cpus)
            lines.append(f"0::{seen[0]}\n")
            mounts.append(f"540 503 0:90 {seen[1]} {point} {_ACCESS} - cgroup2 cgroup rw,nsdelegate\n")
            files |= {f"{point}{path}": text for path, text in found.items()}
        files["/proc/self/cgroup"] = "".join(sorted(lines, key=lambda line: -int(line.split(":")[0])))
        files["/proc/self/mountinfo"] = "".join(mounts)
        files["/proc/cgroups"] = self._cgroups()
        return Capture(Meta(), {path: text.encode() for path, text in files.items()})

    def _tree(self, unified: bool, names: str, cpus: str) -> tuple[tuple[str, str], dict[str, str]]:
        """One hierarchy: its path and mount root as seen, and its files by path below the mount point."""
        # On a hybrid host the runtime is v1's, and puts the process into the same path of the v2 tree.
        where = place(self.name, self.mode == "v2", self.qos)
        seen = view(where, self.name, unified and self.mode == "v2", self.private)
        files: dict[str, str] = {}
        for directory, depth in seen.levels.items():
            level = self._level(depth, len(where.steps), where.parent)
            if not unified:
                found = v1_files(names, level, self._bound(depth, len(where.steps), where.parent), cpus)
            elif self.mode == "v2":
                found = v2_files(level, cpus)
            else:
                found = {"cgroup.controllers": "\n", "cgroup.procs": ""}
            files |= {f"{directory}/{name}": text for name, text in found.items()}
        return (seen.own, seen.root), files

    def _level(self, depth: int, count: int, parent: int) -> Level | None:
        if depth == 0:
            return None
        return self.own if depth == count else self.parent if depth == parent else Level()

    def _bound(self, depth: int, count: int, parent: int) -> int | None:
        sizes = [self.own.memory if depth == count else None, self.parent.memory if depth >= parent else None]
        return min((size for size in sizes if size is not None), default=None)

    def _cgroups(self) -> str:
        """/proc/cgroups: hierarchy 0 is v2's."""
        lines = ["#subsys_name\thierarchy\tnum_cgroups\tenabled\n"]
        for number, names in enumerate(V1_HIERARCHIES, 1):
            shown = 0 if self.mode == "v2" else number
            lines += [f"{name}\t{shown}\t40\t1\n" for name in names.split(",") if "=" not in name]
        return "".join(lines)
