"""Which memory limits were written into which process: they are no choice of the program's own.

One small file for each process, named by its PID and start time, in a directory that only this user can write to:
CGAGENT_STATE_DIR, /run/cgagent (root), XDG_RUNTIME_DIR/cgagent, or /tmp/cgagent-UID.
"""

from __future__ import annotations

import os
import stat

from cgagent.golang.live.retune import Change, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "tuned-"
_LONGEST = 64


class Ledger:
    """The changes that were written to one process.

    Attributes:
        path: its file; None where no directory for it can be had.
    """

    def __init__(self, pid: str, environ: Mapping[str, str] = os.environ) -> None:
        self._directory = _directory(environ)
        start = _start_time(pid)
        self.path = f"{self._directory}/{_PREFIX}{pid}-{start}" if self._directory and start else None

    def known(self) -> set[int]:
        """The values that the last change can have left, whole or interrupted; empty if there was none."""
        if self.path is None:
            return set()
        try:
            with open(self.path, encoding="ascii") as file:
                old, new = (int(word) for word in file.read(_LONGEST).split())
            return {old, new, *(value for *_, value in steps(old, new))}
        except (OSError, ValueError, OverflowError):
            return set()

    def note(self, change: Change) -> bool:
        """Write down a change that is about to be made; whether that could be done."""
        if self.path is None:
            return False
        temporary = f"{self.path}.{os.getpid()}"
        try:
            self._forget_the_dead()
            with open(temporary, "w", encoding="ascii") as file:
                file.write(f"{change.old} {change.new}\n")
            os.rename(temporary, self.path)
        except OSError:
            return False
        return True

    def _forget_the_dead(self) -> None:
        for name in os.listdir(self._directory):
            pid, _, start = name.removeprefix(_PREFIX).partition("-")
            if name.startswith(_PREFIX) and pid.isdigit() and _start_time(pid) != start.partition(".")[0]:
                os.unlink(f"{self._directory}/{name}")


def _directory(environ: Mapping[str, str]) -> str | None:
    """The first of the places that is there, or can be made, and is ours alone to write to."""
    uid = os.geteuid()
    places = [environ.get("CGAGENT_STATE_DIR", ""), "/run/cgagent" if uid == 0 else ""]
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    places += [f"{runtime}/cgagent" if runtime else "", f"/tmp/cgagent-{uid}"]  # noqa: S108 checked below
    for place in places:
        if not place:
            continue
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)
            status = os.lstat(place)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022:
            return place
    return None


def _start_time(pid: str) -> str:
    """Field 22 of /proc/PID/stat (proc(5)), in clock ticks since the boot; empty where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
