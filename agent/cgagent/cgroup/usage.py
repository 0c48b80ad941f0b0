"""What a process's cgroups use, how often they were throttled, and what else is set there: for `explain`.

None of it decides anything, so a file that is absent, unreadable or malformed costs its own numbers alone.
"""

from __future__ import annotations

from cgagent.cgroup.dialect import number
from cgagent.cgroup.hierarchy import INVISIBLE, STRANGER, Hierarchy, Level
from cgagent.cgroup.limits import Limits
from cgagent.cgroup.numbers import unsigned
from cgagent.cgroup.reading import getter
from cgagent.errors import MalformedError
from cgagent.host import ReadError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from cgagent.cgroup.dialect import Get, Number
    from cgagent.host import Host

    Getter = Callable[[Host, str], Get]

    V = TypeVar("V", bound=Mapping[str, object])

PRESSURES = ("cpu", "memory", "io")


class Usage(Record):
    """Numbers by name, None where the kernel does not give them.

    Attributes:
        cpu: `usage_seconds`, `user_seconds`, `system_seconds`, `weight` or `shares`, `burst_us`.
        throttling: `periods`, `throttled_periods`, `throttled_seconds` of the process's own cgroup.
        throttling_by_path: the same of every visible cgroup that has a quota.
        memory: `usage_bytes`, `working_set_bytes`, `peak_bytes`, ... of the process's own cgroup.
        memory_by_path: the same of every visible cgroup that has a limit.
        memory_events: how often `oom_kill`, `oom`, `max`, `high` happened.
        pids: `current` and `limit`.
        pressure: resource -> `some_seconds` (waiting), `full_seconds` (stalled); only what the kernel gives.
        errors: the files that could not be read or understood.
    """

    __slots__ = (
        "cpu",
        "errors",
        "memory",
        "memory_by_path",
        "memory_events",
        "pids",
        "pressure",
        "throttling",
        "throttling_by_path",
    )

    def __init__(self) -> None:
        self.cpu: dict[str, Number] = {}
        self.throttling: dict[str, Number] = {}
        self.throttling_by_path: dict[str, dict[str, Number]] = {}
        self.memory: dict[str, Number] = {}
        self.memory_by_path: dict[str, dict[str, Number]] = {}
        self.memory_events: dict[str, int] = {}
        self.pids: dict[str, int | None] = {}
        self.pressure: dict[str, dict[str, float]] = {}
        self.errors: list[str] = []


class _Reading(Record):
    """What has been read so far, and how a cgroup's files are read."""

    __slots__ = ("getter", "usage")

    def __init__(self, getter: Getter) -> None:
        self.usage = Usage()
        self.getter = getter


def read_usage(limits: Limits, getter: Getter = getter) -> Usage:
    """Read the usage of the cgroups where `limits` were found, by `getter`."""
    reading = _Reading(getter)
    usage = reading.usage
    cpu, memory = _innermost(limits, "cpu"), _innermost(limits, "memory")
    if cpu:
        read = cpu[0].dialect.cpu_throttling
        usage.cpu.update(_read(reading, cpu, cpu[0].dialect.cpu_settings) or {})
        limited = {link.path for link in limits.cpu.chain if link.quota.cores is not None}
        usage.throttling_by_path = _by_path(reading, cpu[0], limited, read)
        # One reading for both: a second one would differ from the first.
        own = usage.throttling_by_path.get(cpu[1].path)
        usage.throttling = (_read(reading, cpu, read) or {}) if own is None else own
    accounting = _innermost(limits, "cpuacct")
    if accounting:
        usage.cpu.update(_read(reading, accounting, accounting[0].dialect.cpu_usage) or {})
    if memory:
        usage.memory_events = _read(reading, memory, memory[0].dialect.memory_events) or {}
        limited = {link.path for link in limits.memory.chain if link.bytes is not None}
        usage.memory_by_path = _by_path(reading, memory[0], limited, memory[0].dialect.memory_usage)
        own = usage.memory_by_path.get(memory[1].path)
        usage.memory = (_read(reading, memory, memory[0].dialect.memory_usage) or {}) if own is None else own
    pids = _innermost(limits, "pids")
    if pids:
        usage.pids = _read(reading, pids, _pids) or {}
    for resource in PRESSURES:
        pressure = _read_pressure(reading, limits, resource)
        if pressure:
            usage.pressure[resource] = pressure
    return usage


def _by_path(
    reading: _Reading, hierarchy: Hierarchy, paths: set[str], read: Callable[[Get], dict[str, Number]]
) -> dict[str, dict[str, Number]]:
    """What `read` gives for each level of `hierarchy` whose path is one of `paths`."""
    levels = [level for level in hierarchy.levels if level.path in paths]
    return {level.path: _read(reading, (hierarchy, level), read) or {} for level in levels}


def _innermost(limits: Limits, controller: str) -> tuple[Hierarchy, Level] | None:
    """The hierarchy of `controller` and the process's own cgroup in it; a stranger's numbers are nobody's."""
    hierarchy = limits.standing.hierarchy_of(controller)
    if hierarchy is None or hierarchy.standing in (INVISIBLE, STRANGER):
        return None
    return hierarchy, hierarchy.levels[0]


def _read(reading: _Reading, where: tuple[Hierarchy, Level], read: Callable[[Get], V]) -> V | None:
    """What `read` gives. A file that can't be read or understood is noted, and then counts as absent."""
    host, directory = where[1].directories[0]
    get = reading.getter(host, directory)
    bad: set[str] = set()
    while True:
        try:
            return read((lambda name: None if name in bad else get(name)) if bad else get)
        except MalformedError as error:
            file, message = error.file, error.at(f"{host.shown(directory)}/{error.file}").message
        except ReadError as error:
            file, message = error.path.rpartition("/")[2], error.message
        reading.usage.errors.append(message)
        if file in bad:
            return None
        bad.add(file)


def _pids(get: Get) -> dict[str, int | None]:
    return {"current": number(get, "pids.current"), "limit": number(get, "pids.max")}


def _read_pressure(reading: _Reading, limits: Limits, resource: str) -> dict[str, float] | None:
    """PSI of the process's v2 cgroup, which a hybrid host has too; absent where the kernel keeps none."""
    for hierarchy in limits.standing.hierarchies:
        if hierarchy.version == 2 and hierarchy.standing not in (INVISIBLE, STRANGER):
            return _read(reading, (hierarchy, hierarchy.levels[0]), lambda get: pressure(get, f"{resource}.pressure"))
    return None


def pressure(get: Get, name: str) -> dict[str, float]:
    """A PSI file (kernel: Documentation/accounting/psi.rst): seconds in which some, or all, tasks waited."""
    seconds = {}
    for line in (get(name) or "").split("\n"):
        kind, *fields = line.split(" ")
        for field in fields if kind in ("some", "full") else ():
            if field.startswith("total="):
                seconds[f"{kind}_seconds"] = unsigned(field.removeprefix("total="), name) / 1e6
    return seconds
