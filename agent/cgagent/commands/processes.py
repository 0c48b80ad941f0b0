"""The Go processes that the caller may look into, each with its cgroup's limits and what its runtime holds."""

from __future__ import annotations

import os

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.reading import read_limits
from cgagent.cgroup.usage import Usage, read_usage
from cgagent.errors import CgagentError
from cgagent.golang.live import DENIED, FOREIGN, LiveError, Program, Running
from cgagent.host import Host
from cgagent.policy import Decision, Policy, decide
from cgagent.record import Record
from cgagent.report import running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cgagent.golang.buildinfo import BuildInfo


class Row(Record):
    """One Go process.

    Attributes:
        pid: its number.
        name: its name (comm).
        build: what it was built from.
        running: what its runtime holds.
        limits: what binds it.
        usage: what its cgroup uses.
        decision: what cgagent would set.
        throttled: share of periods in which its cgroup was throttled; None: no quota.
        gc_share: the garbage collector's share of the CPU time that GOMAXPROCS allows.
    """

    __slots__ = ("build", "decision", "gc_share", "limits", "name", "pid", "running", "throttled", "usage")

    def __init__(
        self, pid: int, build: BuildInfo, now: Running, limits: Limits, usage: Usage, decision: Decision
    ) -> None:
        self.pid = pid
        self.name = _name(pid)
        self.build = build
        self.running = now
        self.limits = limits
        self.usage = usage
        self.decision = decision
        self.throttled: float | None = None
        self.gc_share: float | None = None

    @property
    def cores(self) -> float | None:
        """The CPU limit that binds it."""
        return self.limits.cpu.cores if self.limits.cpu.trusted else None

    @property
    def memory_limit(self) -> int | None:
        """The memory limit of its cgroup in bytes."""
        return self.limits.memory.bytes if self.limits.memory.trusted else None

    @property
    def of_limit(self) -> float | None:
        """Memory that Go manages, as a share of GOMEMLIMIT."""
        return self.running.managed / self.running.memory_limit if self.running.memory_limit else None

    def document(self) -> dict[str, Any]:
        """The row as plain dicts, strings, numbers and None."""
        return {
            "pid": self.pid,
            "name": self.name,
            "go": {"version": self.build.go_version, "module": self.build.module or self.build.path},
            "limits": {"cpu_cores": self.cores, "memory_bytes": self.memory_limit},
            "throttled_share": self.throttled,
            "memory_usage_bytes": self.usage.memory.get("usage_bytes"),
            "running": running.document(self.running),
            "gc_cpu_share": self.gc_share,
            "decision": {name: choice.value for name, choice in self.decision.choices()},
        }


class Processes:
    """All of them, followed from one look to the next.

    Attributes:
        denied: how many processes may not be looked into.
        why_denied: the reason for one of them.
    """

    def __init__(self, policy: Policy, pids: Iterable[int] = ()) -> None:
        self._policy = policy
        self._pids = tuple(pids)
        self._programs: dict[int, Program] = {}
        self._others: set[tuple[int, str]] = set()  # by PID and start time: no Go programs, or not understood
        self._before: dict[int, Row] = {}
        self.denied = 0
        self.why_denied = ""

    def look(self) -> list[Row]:
        """What there is now, by PID.

        Raises:
            CgagentError: a process that was named can't be looked into.
        """
        self.denied, self.why_denied = 0, ""
        pids = self._pids or tuple(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
        rows = {pid: row for pid in pids if (row := self._row(pid)) is not None}
        for pid in set(self._programs) - set(rows):
            self._programs.pop(pid).close()
        self._others = {one for one in self._others if one[0] in pids}
        self._before = rows
        return list(rows.values())

    def close(self) -> None:
        """Let go of all of them."""
        for program in self._programs.values():
            program.close()
        self._programs.clear()

    def _row(self, pid: int) -> Row | None:
        try:
            program = self._program(pid)
            if program is None:
                return None
            now = program.running()
            host = Host()
            limits = read_limits(host, str(pid))
            row = Row(pid, program.build, now, limits, read_usage(limits), decide(limits, self._policy, {}))
        except LiveError as error:
            if error.kind == DENIED:
                self.denied, self.why_denied = self.denied + 1, error.hint
            if pid in self._pids:
                raise CgagentError(f"process {pid}: {error.message}", error.hint) from None
            # What has ended, or runs another program now, is looked for anew the next time.
            if pid in self._programs:
                self._programs.pop(pid).close()
            return None
        except CgagentError:
            if pid in self._pids:
                raise
            return None
        self._rates(row, self._before.get(pid))
        return row

    def _program(self, pid: int) -> Program | None:
        """The program of `pid`, found once for its life; None for what is known to be none."""
        if pid in self._programs:
            return self._programs[pid]
        identity = (pid, _start_and_exe(pid))
        if not self._pids and (identity in self._others or not _command_line(pid)):
            return None
        try:
            self._programs[pid] = Program(str(pid))
        except LiveError as error:
            if error.kind == FOREIGN:
                self._others.add(identity)
            raise
        return self._programs[pid]

    def _rates(self, row: Row, before: Row | None) -> None:
        """The two shares: since the last look, or, at the first, since the start."""
        periods, throttled = _periods(row)
        gc, cpu = row.running.gc_cpu_seconds or 0.0, row.running.cpu_seconds or 0.0
        row.gc_share = gc / cpu if cpu else None
        row.throttled = throttled / periods if periods else (None if row.cores is None else 0.0)
        if before is None:
            return
        old_periods, old_throttled = _periods(before)
        if periods > old_periods:
            row.throttled = (throttled - old_throttled) / (periods - old_periods)
        elif periods:
            row.throttled = before.throttled
        old_gc, old_cpu = before.running.gc_cpu_seconds or 0.0, before.running.cpu_seconds or 0.0
        # Both are counted when a cycle ends: until the next one does, what was true then is all that is known.
        row.gc_share = (gc - old_gc) / (cpu - old_cpu) if cpu > old_cpu else before.gc_share


def _periods(row: Row) -> tuple[float, float]:
    binding = row.limits.cpu.binding
    stat = row.usage.throttling_by_path.get(binding.path, {}) if binding else row.usage.throttling
    return stat.get("periods") or 0, stat.get("throttled_periods") or 0


def _name(pid: int) -> str:
    return _text(f"/proc/{pid}/comm").rstrip("\n")


def _command_line(pid: int) -> str:
    """Empty for kernel threads and for what has ended."""
    return _text(f"/proc/{pid}/cmdline")


def _start_and_exe(pid: int) -> str:
    """What tells one program of this PID from the next one: when the process started, and its executable."""
    start = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()[19:20]
    try:
        return f"{start} {os.readlink(f'/proc/{pid}/exe')}"
    except OSError:
        return str(start)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096)
    except OSError:
        return ""
