"""The limits that are asked for, and the cgroup files that hold them on v1 and v2. Pure.

Files: kernel, Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst; conversions between shares and weight as
runc makes them (libcontainer/cgroups, ConvertCPUSharesToCgroupV2Value).
"""

from __future__ import annotations

from cgagent.errors import UsageError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    Writes = list[tuple[str, str]]

UNLIMITED = -1
_PERIOD_US = 100_000
_LONGEST_PERIOD_US = 1_000_000
_SHORTEST_US = 1_000  # of a period and of a quota: kernel/sched/core.c, min_cfs_quota_period

SWAP_FILES = ("memory.memsw.limit_in_bytes", "memory.swap.max")
# v2's name of a rate in io.max -> v1's file
_V1_IO = {
    "rbps": "blkio.throttle.read_bps_device",
    "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device",
    "wiops": "blkio.throttle.write_iops_device",
}


class IoRate(Record):
    """A block device (`path`, or `MAJOR:MINOR`), its kind (`rbps`, `wbps`, `riops`, `wiops`), bytes or operations a
    second, and its option.
    """

    __slots__ = ("device", "kind", "option", "rate")

    def __init__(self, device: str, kind: str, rate: int, option: str) -> None:
        self.device = device
        self.kind = kind
        self.rate = rate
        self.option = option


class Resources(Record):
    """What bounds the container; None where nothing is asked.

    Attributes:
        quota_us: CPU microseconds in each `period_us`.
        shares: CPU shares, v1's unit (2 to 262144).
        weight: CPU weight, v2's unit (1 to 10000).
        cpuset, mems: CPUs and memory nodes in the kernel's list format.
        memory: bytes.
        memory_swap: bytes of memory and swap together, or UNLIMITED.
        memory_high: bytes from which on the kernel reclaims and throttles (v2 alone has it).
        memory_reservation: bytes that reclaim leaves alone while it can.
        pids: tasks.
        io: rates of block devices.
        swap_by_default: whether `memory_swap` was not asked for, and may be left out where swap is not counted.
    """

    __slots__ = (
        "cpuset",
        "io",
        "memory",
        "memory_high",
        "memory_reservation",
        "memory_swap",
        "mems",
        "period_us",
        "pids",
        "quota_us",
        "shares",
        "swap_by_default",
        "weight",
    )

    def __init__(self) -> None:
        self.quota_us: int | None = None
        self.period_us: int | None = None
        self.shares: int | None = None
        self.weight: int | None = None
        self.cpuset: str | None = None
        self.mems: str | None = None
        self.memory: int | None = None
        self.memory_swap: int | None = None
        self.memory_high: int | None = None
        self.memory_reservation: int | None = None
        self.pids: int | None = None
        self.io: list[IoRate] = []
        self.swap_by_default = False

    def controllers(self) -> dict[str, str]:
        """The controllers that are needed, each with the first option that needs it (`blkio` is v2's `io`)."""
        wanted = (
            ("cpu", "--cpus", self.quota_us or self.period_us),
            ("cpu", "--cpu-shares", self.shares or self.weight),
            ("cpuset", "--cpuset-cpus", self.cpuset),
            ("cpuset", "--cpuset-mems", self.mems),
            ("memory", "--memory", self.memory),
            ("memory", "--memory-swap", self.memory_swap),
            ("memory", "--memory-high", self.memory_high),
            ("memory", "--memory-reservation", self.memory_reservation),
            ("pids", "--pids-limit", self.pids),
            ("blkio", self.io[0].option if self.io else "", self.io),
        )
        options: dict[str, str] = {}
        for controller, option, value in wanted:
            if value:
                options.setdefault(controller, option)
        return options


def quota_of(millicores: int) -> tuple[int, int]:
    """Quota and period in microseconds: the usual period, a longer one where the quota would fall below 1 ms."""
    quota = millicores * _PERIOD_US // 1000
    if quota >= _SHORTEST_US:
        return quota, _PERIOD_US
    return max(_SHORTEST_US, millicores * _LONGEST_PERIOD_US // 1000), _LONGEST_PERIOD_US


def check_period(quota_us: int | None, period_us: int | None) -> None:
    """What the kernel would answer with EINVAL.

    Raises:
        UsageError: a quota below 1 ms, or a period outside 1 ms to 1 s.
    """
    if period_us is not None and not _SHORTEST_US <= period_us <= _LONGEST_PERIOD_US:
        raise UsageError(f"--cpu-period: {period_us} is out of range", "give 1000 to 1000000 microseconds")
    if quota_us is not None and quota_us < _SHORTEST_US:
        raise UsageError(f"--cpu-quota: {quota_us} is out of range", "give 1000 microseconds or more")


def v1_files(resources: Resources, controller: str) -> Writes:
    """The files of a v1 controller's directory to write, in order: name and text."""
    r = resources
    if controller == "cpu":
        shares = r.shares if r.shares is not None else _shares_of(r.weight)
        return _given(("cpu.cfs_period_us", r.period_us), ("cpu.cfs_quota_us", r.quota_us), ("cpu.shares", shares))
    if controller == "cpuset":
        return _given(("cpuset.cpus", r.cpuset), ("cpuset.mems", r.mems))
    if controller == "memory":
        # v1 has no memory.high: writing it fails with that file's name.
        # A new cgroup has no limits: memory may be lowered first, and then the sum must not be below it.
        return _given(
            ("memory.limit_in_bytes", r.memory),
            ("memory.memsw.limit_in_bytes", r.memory_swap),
            ("memory.soft_limit_in_bytes", r.memory_reservation),
            ("memory.high", r.memory_high),
        )
    if controller == "pids":
        return _given(("pids.max", r.pids))
    if controller == "blkio":
        return [(_V1_IO[one.kind], f"{one.device} {one.rate}") for one in r.io]
    return []


def v2_files(resources: Resources, controller: str) -> Writes:
    """The files of a v2 directory that belong to `controller`, in order: name and text."""
    r = resources
    if controller == "cpu":
        maximum = None
        if r.quota_us is not None or r.period_us is not None:
            maximum = f"{'max' if r.quota_us is None else r.quota_us} {r.period_us or _PERIOD_US}"
        weight = r.weight if r.weight is not None else _weight_of(r.shares)
        return _given(("cpu.max", maximum), ("cpu.weight", weight))
    if controller == "cpuset":
        return _given(("cpuset.cpus", r.cpuset), ("cpuset.mems", r.mems))
    if controller == "memory":
        swap: int | str | None = None
        if r.memory_swap is not None:
            swap = "max" if r.memory_swap == UNLIMITED else r.memory_swap - (r.memory or 0)
        return _given(
            ("memory.max", r.memory),
            ("memory.swap.max", swap),
            ("memory.high", r.memory_high),
            ("memory.low", r.memory_reservation),
        )
    if controller == "pids":
        return _given(("pids.max", r.pids))
    if controller == "blkio":
        return [("io.max", f"{one.device} {one.kind}={one.rate}") for one in r.io]
    return []


def _given(*values: tuple[str, int | str | None]) -> Writes:
    return [(name, str(value)) for name, value in values if value is not None]


def _weight_of(shares: int | None) -> int | None:
    return None if shares is None else 1 + (shares - 2) * 9999 // 262142


def _shares_of(weight: int | None) -> int | None:
    """Shares that stand to the default of 1024 as `weight` stands to its own of 100."""
    return None if weight is None else min(262144, max(2, weight * 1024 // 100))
