"""What a capture holds: the kernel files that say which limits bind one process, and what was known beside them.

The archive FILE.tar.gz has one member `cgagent-capture.json` (the meta document, below) and, under `root/`, the files
as they stood: unpacked, `explain --root DIR` reads it as it reads any captured tree. The process is always `self`.

    root/proc/self/{cgroup,mountinfo,status,uid_map,gid_map}    status: CPU masks and memory alone
    root/proc/{meminfo,stat,cgroups}                            stat: the lines of CPUs alone
    root/sys/devices/system/cpu/{online,possible,present}
    root/sys/fs/cgroup/...      limits and statistics of the process's cgroup and of every ancestor that it sees

No environment, command line, process name or list of processes is among them. The meta document:

    {"schema": "cgagent.capture/1", "cgagent": "0.1.0", "taken": "2026-11-25T11:48:39Z",
     "kernel": "6.1.0-31-amd64", "machine": "x86_64", "pid": 4711,
     "cpus": {"online": "0-63", "count": 64, "affinity": "0-63"}, "memory_total_bytes": 270582939648,
     "uid_map": [[0, 100000, 65536]], "view": "inside", "blanked": false,
     "missing": [{"path": "/sys/fs/cgroup/cpu.max", "kind": "not permitted", "why": "permission denied"}]}

`view` is `inside` where /proc/self/cgroup and mountinfo are as the process reads them itself, `outside` where they were
read from another cgroup namespace. Absent knowledge is null. Of `missing` each file was there and could not be had.
"""

from __future__ import annotations

from cgagent.cgroup.numbers import cpu_list, unsigned
from cgagent.errors import CgagentError, MalformedError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeVar

    T = TypeVar("T")

SCHEMA = "cgagent.capture/1"
META = "cgagent-capture.json"
TREE = "root"
PROCESS_FILES = tuple(f"/proc/self/{name}" for name in ("cgroup", "mountinfo", "status", "uid_map", "gid_map"))
MACHINE_FILES = (
    *("/proc/meminfo", "/proc/stat", "/proc/cgroups"),
    *(f"/sys/devices/system/cpu/{name}" for name in ("online", "possible", "present")),
)
INSIDE, OUTSIDE = "inside", "outside"

# Far above what the kernel's files come to: 64 levels in ten hierarchies are 3,000 files and 2 MB.
FILES = 10_000
FILE_BYTES = 4 << 20
TOTAL_BYTES = 16 << 20
PATH_BYTES = 6000  # a cgroup path has 4095 at the most, before it the mount point
NAME_BYTES = 255


class CaptureError(CgagentError):
    """A file that is no capture, or one that is not to be trusted."""


class Meta(Record):
    """What is known beside the files; None where it is not.

    Attributes:
        cgagent: the version that took it.
        taken: when, as `2026-11-25T11:48:39Z`.
        kernel: the kernel's release, as uname(2) says.
        machine: its architecture, likewise.
        pid: the process's number where it was taken.
        online: the machine's CPUs, as /sys/devices/system/cpu/online lists them.
        affinity: the CPUs of sched_getaffinity(2), in the same form.
        memory_total: MemTotal in bytes.
        uid_map: rows of /proc/PID/uid_map: first inside, first outside, count.
        view: INSIDE or OUTSIDE.
        blanked: whether paths in mountinfo were blanked.
        missing: path -> kind (as in `host.ReadError`) and reason, of files that could not be had.
    """

    __slots__ = (
        "affinity",
        "blanked",
        "cgagent",
        "kernel",
        "machine",
        "memory_total",
        "missing",
        "online",
        "pid",
        "taken",
        "uid_map",
        "view",
    )

    def __init__(self) -> None:
        self.cgagent: str | None = None
        self.taken: str | None = None
        self.kernel: str | None = None
        self.machine: str | None = None
        self.pid: int | None = None
        self.online: str | None = None
        self.affinity: str | None = None
        self.memory_total: int | None = None
        self.uid_map: list[list[int]] | None = None
        self.view = INSIDE
        self.blanked = False
        self.missing: dict[str, tuple[str, str]] = {}

    @property
    def cpu_count(self) -> int | None:
        """How many CPUs are online."""
        return None if self.online is None else len(cpu_list(self.online, META))

    def learn(self, capture: Capture) -> None:
        """Take from a capture's files what they tell; what is not to be understood there stays None."""
        try:
            online = (capture.text("/sys/devices/system/cpu/online") or "").strip()
            self.online = online if cpu_list(online, META) else None
            for line in (capture.text("/proc/meminfo") or "").split("\n"):
                if line.startswith("MemTotal:"):
                    self.memory_total = unsigned(line[9:].strip(" ").removesuffix(" kB"), META) * 1024
            rows = (capture.text("/proc/self/uid_map") or "").split("\n")
            self.uid_map = [[unsigned(one, META) for one in row.split()] for row in rows if row] or None
        except MalformedError:
            pass

    def document(self) -> dict[str, object]:
        """As the JSON document of the module's docstring."""
        return {
            "schema": SCHEMA,
            "cgagent": self.cgagent,
            "taken": self.taken,
            "kernel": self.kernel,
            "machine": self.machine,
            "pid": self.pid,
            "cpus": {"online": self.online, "count": self.cpu_count, "affinity": self.affinity},
            "memory_total_bytes": self.memory_total,
            "uid_map": self.uid_map,
            "view": self.view,
            "blanked": self.blanked,
            "missing": [{"path": path, "kind": kind, "why": why} for path, (kind, why) in self.missing.items()],
        }

    @classmethod
    def of(cls, document: object) -> Meta:
        """The meta document as text from a stranger's file gives it; what it does not say is None.

        Raises:
            CaptureError: it is not of this schema, or a value is not of its kind.
        """
        if not isinstance(document, dict):
            raise CaptureError(f"{META} is no JSON object", "take the capture anew")
        schema = document.get("schema")
        if schema != SCHEMA:
            hint = f"this cgagent reads {SCHEMA}; use the version that took it"
            raise CaptureError(f"{META}: its schema is {_shown(schema)}", hint)
        meta = cls()
        cpus = _value(document, "cpus", dict) or {}
        meta.cgagent = _value(document, "cgagent", str)
        meta.taken = _value(document, "taken", str)
        meta.kernel = _value(document, "kernel", str)
        meta.machine = _value(document, "machine", str)
        meta.pid = _count(document, "pid")
        meta.online = _cpus(cpus, "online")
        meta.affinity = _cpus(cpus, "affinity")
        meta.memory_total = _count(document, "memory_total_bytes")
        meta.uid_map = _rows(_value(document, "uid_map", list))
        meta.view = _value(document, "view", str) or INSIDE
        meta.blanked = bool(_value(document, "blanked", bool))
        for one in _value(document, "missing", list) or []:
            if not isinstance(one, dict):
                raise _wrong("missing", one)
            path, kind, why = (_value(one, name, str) or "" for name in ("path", "kind", "why"))
            meta.missing[path] = (kind, why)
        if meta.view not in (INSIDE, OUTSIDE):
            raise _wrong("view", meta.view)
        return meta


class Capture(Record):
    """A captured tree in memory.

    Attributes:
        meta: what is known beside it.
        files: absolute path -> content.
        directories: absolute paths of all directories, those of the files included.
    """

    __slots__ = ("directories", "files", "meta")

    def __init__(self, meta: Meta, files: Mapping[str, bytes], directories: Iterable[str] = ()) -> None:
        self.meta = meta
        self.files: dict[str, bytes] = {}
        self.directories: set[str] = {"/"}
        for path, content in files.items():
            self.add_file(path, content)
        for path in directories:
            self.add_directory(path)

    def add_file(self, path: str, content: bytes) -> None:
        """Put a file there, and the directories above it."""
        self.files[path] = content
        self.add_directory(path.rpartition("/")[0])

    def add_directory(self, path: str) -> None:
        """Put a directory there, and those above it."""
        while path not in self.directories and path:
            self.directories.add(path)
            path = path.rpartition("/")[0]

    def text(self, path: str) -> str | None:
        """A file's text, bytes that are no UTF-8 as surrogates; None where it is not there."""
        content = self.files.get(path)
        return None if content is None else content.decode("utf-8", "surrogateescape")


def check_path(path: str) -> None:
    """Refuse a path below the tree that no capture needs: relative, with `..`, or too long.

    Raises:
        CaptureError: it is one.
    """
    parts = path.split("/")[1:]
    if not path.startswith("/") or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise CaptureError(f"the path '{_short(path)}' leads elsewhere", "captures hold plain paths below root/ alone")
    size = len(path.encode("utf-8", "surrogateescape"))
    longest = max(len(part.encode("utf-8", "surrogateescape")) for part in parts)
    if size > PATH_BYTES or longest > NAME_BYTES:
        raise CaptureError(f"the path '{_short(path)}' is too long", f"{PATH_BYTES} bytes are the limit")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:50]}...{text[-27:]}"


def _shown(value: object) -> str:
    return _short(repr(value))


def _wrong(name: str, value: object) -> CaptureError:
    return CaptureError(f"{META}: '{name}' can't be {_shown(value)}", "take the capture anew")


def _value(document: dict[str, object], name: str, kind: type[T]) -> T | None:
    value = document.get(name)
    # True is an int to Python.
    if value is None or (isinstance(value, kind) and not (type(value) is bool and kind is int)):
        return value
    raise _wrong(name, value)


def _count(document: dict[str, object], name: str) -> int | None:
    value = _value(document, name, int)
    if value is not None and not 0 <= value < 1 << 63:
        raise _wrong(name, value)
    return value


def _cpus(document: dict[str, object], name: str) -> str | None:
    text = _value(document, name, str)
    if text is not None:
        try:
            cpu_list(text, META)
        except MalformedError:
            raise _wrong(name, text) from None
    return text


def _rows(rows: list[object] | None) -> list[list[int]] | None:
    if rows is None:
        return None
    found = []
    for row in rows:
        if not (isinstance(row, list) and len(row) == 3 and all(type(one) is int and one >= 0 for one in row)):
            raise _wrong("uid_map", row)
        found.append(row)
    return found
