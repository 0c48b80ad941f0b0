r"""Mounts, as /proc/PID/mountinfo lists them (proc(5)).

    36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue
    (1)(2)(3)  (4)   (5)   (6)        (7: zero or more) (8)(9) (10)      (11)

Fields are separated by exactly one blank: a source (10) may be empty, and the super options (11) of WSL
hold blanks. In paths the kernel writes blank, tab, newline and backslash as `\040`, `\011`, `\012`, `\134`.
"""

from __future__ import annotations

from cgagent.cgroup.numbers import whole_lines
from cgagent.errors import MalformedError
from cgagent.record import Record

_FILE = "mountinfo"


class Mount(Record):
    """One cgroup mount.

    Attributes:
        version: 1 or 2, the cgroup version of its file system type.
        root: the directory of the hierarchy that it shows (field 4), relative to the reader's cgroup namespace.
        point: where it is mounted (field 5).
        options: the super options (field 11): on v1 they name the controllers.
        after: the root of the first mount before it whose root is no path, as namespaces have them
            (`net:[4026532252]`, of nsfs); None where there is none.
    """

    __slots__ = ("after", "options", "point", "root", "version")

    def __init__(self, version: int, root: str, point: str, options: tuple[str, ...], after: str | None = None) -> None:
        self.version = version
        self.root = root
        self.point = point
        self.options = options
        self.after = after


class _Line:
    """The fields of any mount that say which paths it covers."""

    __slots__ = ("id", "index", "parent", "point")

    def __init__(self, index: int, head: str) -> None:
        fields = head.split(" ", 5)
        self.index = index
        self.id, self.parent, self.point = fields[0], fields[1], unescape(fields[4])


def unescape(text: str) -> str:
    r"""A path of mountinfo with its octal escapes (`\040`) undone.

    Raises:
        MalformedError: a backslash is not followed by three octal digits of one byte.
    """
    if "\\" not in text:
        return text
    first, *rest = text.encode("utf-8", "surrogateescape").split(b"\\")
    out = bytearray(first)
    for piece in rest:
        digits = piece[:3]
        if len(digits) < 3 or digits.translate(None, b"01234567") or digits > b"377":
            raise MalformedError(_FILE, text, "expected three octal digits after a backslash")
        out.append(int(digits, 8))
        out += piece[3:]
    return out.decode("utf-8", "surrogateescape")


def namespace_points(text: str) -> list[str]:
    """Where a mountinfo file has namespaces mounted (nsfs: `ip netns`, Docker)."""
    if " - nsfs " not in text:
        return []
    return [unescape(line.split(" ", 5)[4]) for line in whole_lines(text) if " - nsfs " in line]


def parse_mountinfo(text: str) -> list[Mount]:
    """The cgroup mounts of a mountinfo file that no other mount covers, in the file's order.

    Raises:
        MalformedError: a line lacks fields that the kernel always writes.
    """
    found: list[tuple[int, Mount]] = []
    # Of each line what comes before the dash, and field 5: ten strings for each of 10,000 lines are slow and large.
    heads: list[str] = []
    points: list[str] = []
    odd: str | None = None
    for line in whole_lines(text):
        # What follows the dash is long on overlayfs, and of 10,000 lines a handful is wanted: it stays whole.
        head, dash, tail = line.partition(" - ")
        fields = head.split(" ", 5)
        kind, _, rest = tail.partition(" ")
        if not dash or len(fields) < 6 or " " not in rest:
            raise MalformedError(_FILE, line, "expected ten fields and a dash")
        if not (fields[0].isdigit() and fields[1].isdigit() and fields[0].isascii() and fields[1].isascii()):
            raise MalformedError(_FILE, line, "expected a mount ID and its parent's")
        if kind in ("cgroup", "cgroup2"):
            if not (fields[3].startswith("/") and fields[4].startswith("/")):
                raise MalformedError(_FILE, line, "expected a root and a mount point that start with /")
            version = 2 if kind == "cgroup2" else 1
            options = tuple(rest.split(" ")[1].split(","))
            mount = Mount(version, unescape(fields[3]), unescape(fields[4]), options, odd)
            found.append((len(points), mount))
        elif odd is None and fields[3][:1] != "/":
            odd = fields[3]
        heads.append(head)
        points.append(fields[4])
    return _uncovered(found, heads, points) if found else []


def _uncovered(found: list[tuple[int, Mount]], heads: list[str], points: list[str]) -> list[Mount]:
    """Those of `found` (with their index in `heads`) that a path lookup still reaches; `points` is field 5 of each.

    A later mount on the same directory, or on one above it, hides what was mounted there before, unless the
    hidden-looking mount was itself made inside it (it is then one of its descendants in the mount tree).
    """
    # Only mounts on a path to a cgroup mount can matter: on a machine of 10,000 mounts, a few dozen.
    prefixes = {prefix for _, mount in found for prefix in _prefixes(mount.point)}
    at: dict[str, list[_Line]] = {}
    by_id: dict[str, _Line] = {}
    for index, point in enumerate(points):
        if point in prefixes or "\\" in point:
            line = _Line(index, heads[index])
            at.setdefault(line.point, []).append(line)
            by_id[line.id] = line
    # A path leads to one mount, nearly always the last: of thousands on one directory, one needs a look.
    reached: dict[str, Mount] = {}
    for index, mount in reversed(found):
        if mount.point not in reached and not _is_covered(_Line(index, heads[index]), at, by_id):
            reached[mount.point] = mount
    return list(reversed(reached.values()))


def _is_covered(mount: _Line, at: dict[str, list[_Line]], by_id: dict[str, _Line]) -> bool:
    ancestors = _ancestors(mount, by_id)
    return any(
        (other.index > mount.index or _stacked(other, ancestors, by_id)) and other.id not in ancestors
        for prefix in _prefixes(mount.point)
        for other in at.get(prefix, ())
    )


def _prefixes(path: str) -> set[str]:
    """`path` and every directory above it."""
    prefixes = {"/", path}
    while path not in ("", "/"):
        prefixes.add(path)
        path = path.rpartition("/")[0]
    return prefixes


def _ancestors(line: _Line, by_id: dict[str, _Line]) -> set[str]:
    """The IDs of `line` and of the mounts that it stands in."""
    ancestors = {line.id}
    while line.parent in by_id and line.parent not in ancestors:
        line = by_id[line.parent]
        ancestors.add(line.id)
    return ancestors


def _stacked(line: _Line, ancestors: set[str], by_id: dict[str, _Line]) -> bool:
    """Whether `line` lies on top of one of `ancestors`: mounted in it, at the very directory it is mounted on."""
    below = by_id.get(line.parent)
    return below is not None and below.id in ancestors and below.point == line.point
