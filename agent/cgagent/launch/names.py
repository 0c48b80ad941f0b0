"""The names of what a launcher makes outside the container; each tells whose it is, and whether that still lives.

`cgagent-PIDNS-PID-START`: the inode of the launcher's PID namespace, its PID there, and its start time in clock
ticks since boot (proc(5), stat, field 22), less the offset of the reader's time namespace. A PID alone may be another
process's by now.
"""

from __future__ import annotations

import os

PREFIX = "cgagent-"
_INITIAL_TIME = "time:[4026531834]"  # PROC_TIME_INIT_INO, linux/proc_ns.h


def own() -> str:
    """The name for what this process makes.

    Raises:
        OSError: /proc cannot be read. Without the start time nobody could tell that we live.
    """
    pid = os.getpid()
    return f"{PREFIX}{pid_namespace()}-{pid}-{_start_time(pid)}"


def owner(name: str) -> tuple[int, int, int] | None:
    """PID namespace, PID and start time in a name; None if it is none of ours."""
    parts = name.removeprefix(PREFIX).split("-")
    if not name.startswith(PREFIX) or len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    namespace, pid, start = parts
    return int(namespace), int(pid), int(start)


def is_alive(name: str) -> bool | None:
    """Whether the launcher that made `name` still runs; None if we can't see its PID namespace, or /proc."""
    known = owner(name)
    try:
        if known is None or known[0] != pid_namespace():
            return None
        started = _start_time(known[1])
        return started is not None and abs(started - known[2]) <= 1  # two offsets, each rounded to a tick
    except OSError:
        return None


def pid_namespace() -> int:
    """The inode that names our PID namespace."""
    return int(os.readlink("/proc/self/ns/pid")[5:-1])


def _start_time(pid: int) -> int | None:
    """Of a living process; None for one that has ended. Not to be able to look is an OSError: it may well live."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in field 2 may hold blanks and parentheses; fields are counted from its end.
    fields = text.rpartition(b")")[2].split()
    # A zombie launcher holds nothing any more.
    return None if fields[0] in (b"Z", b"X") else int(fields[19]) - _time_offset()


def _time_offset() -> int:
    """Clock ticks that our time namespace adds to each start time that we read (time_namespaces(7))."""
    try:
        if os.readlink("/proc/self/ns/time") == _INITIAL_TIME:
            return 0
    except FileNotFoundError:
        return 0  # a kernel without them
    with open("/proc/self/timens_offsets", encoding="ascii") as file:
        offsets = dict(line.split(None, 1) for line in file)
    seconds, nanoseconds = offsets["boottime"].split()
    ticks: int = os.sysconf("SC_CLK_TCK")
    return int(seconds) * ticks + int(nanoseconds) * ticks // 10**9
