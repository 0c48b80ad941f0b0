"""The one vocabulary that cgroup v1 and v2 are dialects of.

A dialect's functions take `get`, which gives the text of a file of one cgroup by its name, or None where the
cgroup has no such file. They raise MalformedError for text that the kernel would not write.
"""

from __future__ import annotations

from cgagent.cgroup.numbers import INT64_MAX, one_line, unsigned
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    Number = int | float | None
    Get = Callable[[str], str | None]

    class Dialect(Protocol):
        """What `v1` and `v2` both offer."""

        def cpu_quota(self, get: Get) -> Quota | None: ...
        def memory_bounds(self, get: Get) -> list[Bound]: ...
        def cpuset(self, get: Get) -> tuple[str, frozenset[int]] | None: ...
        def cpu_settings(self, get: Get) -> dict[str, int | None]: ...
        def cpu_usage(self, get: Get) -> dict[str, Number]: ...
        def cpu_throttling(self, get: Get) -> dict[str, Number]: ...
        def memory_usage(self, get: Get) -> dict[str, Number]: ...
        def memory_events(self, get: Get) -> dict[str, int]: ...


# "No limit" of v1 is PAGE_COUNTER_MAX in bytes: LONG_MAX rounded down to a page, of 64 KiB at the largest.
UNLIMITED = INT64_MAX & ~0xFFFF


class Quota(Record):
    """A CPU bandwidth limit of one cgroup.

    Attributes:
        file: the file that holds the quota.
        raw: its text; on v1 quota and period, which stand in two files, with a blank between.
        quota_us: CPU time in microseconds per period; None is no quota.
        period_us: the period in microseconds; None where there is no quota and none is given.
    """

    __slots__ = ("file", "period_us", "quota_us", "raw")

    def __init__(self, file: str, raw: str, quota_us: int | None, period_us: int | None) -> None:
        self.file = file
        self.raw = raw
        self.quota_us = quota_us
        self.period_us = period_us

    @property
    def cores(self) -> float | None:
        """The quota in CPUs; None is no quota."""
        if self.quota_us is None or not self.period_us:
            return None
        return self.quota_us / self.period_us


class Bound(Record):
    """A memory limit of one cgroup: the file, its text (of `memory.stat`, the field's) and bytes, None for none."""

    __slots__ = ("bytes", "file", "raw")

    def __init__(self, file: str, raw: str, size: int | None) -> None:
        self.file = file
        self.raw = raw
        self.bytes = size


def number(get: Get, name: str) -> int | None:
    """The number in a single-value file; None where it is absent or says that there is no limit."""
    text = get(name)
    if text is None:
        return None
    line = one_line(text)
    if line in ("max", "-1"):
        return None
    value = unsigned(line, name)
    return None if value >= UNLIMITED else value


def field(fields: dict[str, str], key: str, file: str, unit: int = 1) -> int | float | None:
    """The value of `key` in a flat keyed file in units of `unit`; None where this kernel has no such key."""
    if key not in fields:
        return None
    value = unsigned(fields[key], file)
    return value if unit == 1 else value / unit


def throttling(fields: dict[str, str], time_key: str, unit: int) -> dict[str, int | float | None]:
    """`cpu.stat`: periods with a quota in force, those in which it ran out, and the seconds spent waiting."""
    return {
        "periods": field(fields, "nr_periods", "cpu.stat"),
        "throttled_periods": field(fields, "nr_throttled", "cpu.stat"),
        "throttled_seconds": field(fields, time_key, "cpu.stat", unit),
    }


def working_set(usage: int | None, fields: dict[str, str], key: str) -> int | None:
    """Usage without the inactive page cache, which the kernel takes back first; as cAdvisor and kubelet count."""
    inactive = field(fields, key, "memory.stat")
    return None if usage is None or inactive is None else max(0, usage - int(inactive))
