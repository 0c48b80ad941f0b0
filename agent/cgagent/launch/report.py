"""What a container used and what held it back, read from its cgroups before they are removed."""

from __future__ import annotations

import os

from cgagent.cgroup.dialect import number
from cgagent.cgroup.numbers import flat_keyed
from cgagent.errors import EXIT_RUN_FAILED, CgagentError, MalformedError
from cgagent.launch.cgroupfs import read
from cgagent.launch.cgroups import Cgroups
from cgagent.launch.resources import Resources
from cgagent.units import format_cores, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cgagent.cgroup.dialect import Dialect, Get, Number

    Numbers = dict[str, Number]

SCHEMA = "cgagent.run/1"


class Report:
    """The numbers of one container; None where the kernel gives none.

    Attributes:
        code: its exit code.
        seconds: from start to end.
        cpu: usage_seconds, user_seconds, system_seconds, periods, throttled_periods, throttled_seconds.
        memory: peak_bytes.
        events: memory events, `oom_kill` and `max` among them.
        pids: `peak`, and `limit_hits`: forks that the limit refused.
    """

    def __init__(self, made: Cgroups | None, resources: Resources, code: int, seconds: float) -> None:
        self.code = code
        self.seconds = seconds
        self._resources = resources
        self._made = made
        self.events = self._read("memory", lambda dialect, get: dialect.memory_events(get))
        self.pids = self._read("pids", _pids)
        self.cpu = self._read("cpuacct", lambda dialect, get: dialect.cpu_usage(get))
        self.cpu.update(self._read("cpu", lambda dialect, get: dialect.cpu_throttling(get)))
        self.memory = self._read("memory", lambda dialect, get: dialect.memory_usage(get))

    def _read(self, controller: str, parse: Callable[[Dialect, Get], Mapping[str, Number]]) -> Numbers:
        cgroup = self._made.find(controller) if self._made else None
        if cgroup is None:
            return {}
        from cgagent.cgroup import v1, v2

        try:
            return dict(
                parse(v2 if cgroup.version == 2 else v1, lambda file: read(f"{cgroup.directory}/{file}") or None)
            )
        except MalformedError:
            return {}

    def reasons(self) -> list[str]:
        """Why it ended as it did, each in one line; empty where no limit had a part in it."""
        r = self._resources
        lines = []
        kills = self.events.get("oom_kill")
        if kills:
            where = "a memory limit of a cgroup above, or all of the machine's memory,"
            if r.memory and self._reached(r.memory):
                where = f"the memory limit of {format_size(r.memory)}"
            lines.append(f"OOM-killed: the kernel killed {_count(kills, 'process', 'es')}, as {where} was reached")
        hits = self.pids.get("limit_hits")
        if hits:
            lines.append(f"the limit of {r.pids} processes was hit: {_count(hits, 'fork')} refused")
        throttled = self._share()
        if throttled and throttled >= 0.1:
            lines.append(self._throttling())
        return lines

    def _reached(self, limit: int) -> bool:
        """Whether the container came near its own limit; some kernels' v1 counts no failures (`memory.failcnt`)."""
        return bool(self.events.get("max")) or (self.memory.get("peak_bytes") or 0) >= limit - limit // 32

    def _share(self) -> float | None:
        periods, throttled = self.cpu.get("periods"), self.cpu.get("throttled_periods")
        return throttled / periods if periods and throttled is not None else None

    def _throttling(self) -> str:
        r, cpu = self._resources, self.cpu
        quota = f" (quota {format_cores(r.quota_us / (r.period_us or 100_000))} CPUs)" if r.quota_us else ""
        share, seconds = self._share() or 0.0, cpu.get("throttled_seconds") or 0.0
        return (
            f"throttled in {cpu.get('throttled_periods')} of {cpu.get('periods')} periods, {share:.0%}, "
            f"{seconds:.1f} s in all{quota}"
        )

    def screen(self) -> str:
        """All of it for a person."""
        r, cpu = self._resources, self.cpu
        rows = [("exit code", f"{self.code} after {self.seconds:.3f} s")]
        if cpu.get("usage_seconds") is not None:
            parts = f"user {cpu.get('user_seconds') or 0:.2f}, system {cpu.get('system_seconds') or 0:.2f}"
            rows.append(("CPU time", f"{cpu['usage_seconds']:.3f} s ({parts})"))
        if cpu.get("periods"):
            rows.append(("throttled", self._throttling().removeprefix("throttled ")))
        peak = self.memory.get("peak_bytes")
        if peak is not None:
            rows.append(
                ("memory peak", f"{format_size(int(peak))}{f' of {format_size(r.memory)}' if r.memory else ''}")
            )
        rows.append(("OOM kills", str(self.events.get("oom_kill", "not known"))))
        if self.pids:
            rows.append(("pids", f"limit {r.pids or 'none'}, forks refused {self.pids.get('limit_hits') or 0}"))
        return "".join(f"  {name:<13}{text}\n" for name, text in rows)

    def document(self) -> dict[str, object]:
        """All of it for a program."""
        r = self._resources
        memory = {"limit_bytes": r.memory, "peak_bytes": self.memory.get("peak_bytes"), "events": self.events}
        return {
            "schema": SCHEMA,
            "exit_code": self.code,
            "signal": self.code - 128 if 128 < self.code < 193 else None,
            "seconds": round(self.seconds, 6),
            "oom_killed": None if "oom_kill" not in self.events else bool(self.events["oom_kill"]),
            "cpu": {"quota_us": r.quota_us, "period_us": r.period_us, **self.cpu, "throttled_share": self._share()},
            "memory": memory,
            "pids": {"limit": r.pids, **self.pids},
            "reasons": self.reasons(),
        }


class StatsFile:
    """The file of `--stats-file`, opened before the container starts: a bad name costs no run."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._failure(error) from None

    def write(self, report: Report) -> None:
        """Replace the file's content."""
        import json

        data = json.dumps(report.document(), indent=2).encode() + b"\n"
        try:
            os.ftruncate(self._fd, 0)
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> CgagentError:
        reason = (error.strerror or "").lower()
        return CgagentError(f"--stats-file: {self._path}: {reason}", "name a file that can be written", EXIT_RUN_FAILED)


def _pids(_: Dialect, get: Get) -> Numbers:
    hits = flat_keyed(get("pids.events") or "").get("max")
    return {"peak": number(get, "pids.peak"), "limit_hits": int(hits) if hits and hits.isdigit() else None}


def _count(count: Number, what: str, plural: str = "s") -> str:
    return f"{count} {what}{'' if count == 1 else plural}"
