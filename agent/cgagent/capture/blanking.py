"""Paths of other people in mountinfo (proc(5)): taken out, with the mounts left as they stand to one another. Pure."""

from __future__ import annotations

from cgagent.cgroup.mounts import parse_mountinfo, unescape
from cgagent.errors import MalformedError

# Mounted at the same place everywhere: their names tell nothing.
_COMMON = ("/proc", "/sys", "/dev")


def blanked(text: str) -> str:
    """`text` with root, mount point, source and options blanked of all mounts that are neither cgroup's nor common.

    Which mount covers which is kept: IDs and order stay, and a mount point above a cgroup mount keeps its name.

    Raises:
        MalformedError: it is no mountinfo.
    """
    kept = _above_cgroups(text)
    return "".join(_blank(line, number, kept) + "\n" for number, line in enumerate(text.splitlines()))


def shortened(text: str) -> str:
    """`text` without the mounts that no cgroup mount stands in or below: of 10,000 lines a dozen.

    Raises:
        MalformedError: it is no mountinfo.
    """
    kept = _above_cgroups(text)
    return "".join(line + "\n" for line in text.splitlines() if _point(line) in kept)


def _above_cgroups(text: str) -> set[str]:
    """Every cgroup mount's point, and every directory above one."""
    kept = {"/"}
    for mount in parse_mountinfo(text):
        parts = mount.point.split("/")
        kept |= {"/".join(parts[:count]) for count in range(2, len(parts) + 1)}
    return kept


def _point(line: str) -> str:
    fields = line.split(" ", 5)
    if len(fields) < 6:
        raise MalformedError("mountinfo", line, "expected ten fields and a dash")
    return unescape(fields[4])


def _blank(line: str, number: int, kept: set[str]) -> str:
    head, _, tail = line.partition(" - ")
    fields = head.split(" ")
    kind, _, rest = tail.partition(" ")
    source, _, options = rest.partition(" ")
    if kind in ("cgroup", "cgroup2"):
        return line
    point = _point(line)
    if point not in kept and not any(point == place or point.startswith(f"{place}/") for place in _COMMON):
        fields[4] = f"/blanked/{number}"
    fields[3] = "/"
    return f"{' '.join(fields)} - {kind} {kind if source else ''} {options.partition(',')[0]}"
