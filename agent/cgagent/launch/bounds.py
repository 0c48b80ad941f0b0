"""The words that bound a container: CPU, memory, processes, block devices and ulimits. Pure."""

from __future__ import annotations

from cgagent.cgroup.numbers import cpu_list
from cgagent.errors import MalformedError, UsageError
from cgagent.launch.resources import UNLIMITED, IoRate, Resources, check_period, quota_of
from cgagent.record import Record
from cgagent.units import parse_count, parse_cpus, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments

_LEAST_MEMORY = 512 * 1024
# Position is number: asm-generic/resource.h
_ULIMIT_NAMES = "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime"
_ULIMITS = _ULIMIT_NAMES.split()


class Ulimit(Record):
    """A resource limit of setrlimit(2): its number, soft and hard; -1 is unlimited."""

    __slots__ = ("hard", "name", "number", "soft")

    def __init__(self, name: str, soft: int, hard: int) -> None:
        self.name = name
        self.number = _ULIMITS.index(name)
        self.soft = soft
        self.hard = hard


def read_ulimit(text: str) -> Ulimit:
    """`NAME=SOFT[:HARD]`.

    Raises:
        UsageError: it is something else.
    """
    name, _, values = text.partition("=")
    numbers = [UNLIMITED if word in ("-1", "unlimited") else _natural(word) for word in values.split(":")]
    if name not in _ULIMITS or None in numbers or len(numbers) > 2:
        raise UsageError(f"--ulimit: '{text}' is not a limit", "write NAME=SOFT or NAME=SOFT:HARD, as in nofile=1024")
    soft, hard = numbers[0], numbers[-1]
    assert soft is not None and hard is not None  # noqa: S101, PT018 None is excluded above
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        raise UsageError(f"--ulimit: '{text}': the soft limit is above the hard one", "write NAME=SOFT:HARD")
    return Ulimit(name, soft, hard)


def _natural(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) < 20 else None


def read_resources(a: Arguments) -> Resources:
    """What the limit options ask for.

    Raises:
        UsageError: one of them is off, or two contradict each other.
    """
    r = Resources()
    _cpu(a, r)
    _memory(a, r)
    if a.pids_limit is not None and a.pids_limit not in ("-1", "0"):  # docker: both mean unlimited
        r.pids = parse_count(a.pids_limit, "--pids-limit", least=1)
    for kind, dest in (
        ("rbps", "device_read_bps"),
        ("wbps", "device_write_bps"),
        ("riops", "device_read_iops"),
        ("wiops", "device_write_iops"),
    ):
        option = f"--{dest.replace('_', '-')}"
        r.io += [_io_rate(text, kind, option) for text in getattr(a, dest) or []]
    return r


def _cpu(a: Arguments, r: Resources) -> None:
    if a.cpus is not None and (a.cpu_quota or a.cpu_period):
        raise UsageError("--cpus does not go with --cpu-quota or --cpu-period", "leave one of them out")
    if a.cpus is not None:
        millicores = parse_cpus(a.cpus, "--cpus")
        if not 0 < millicores < 10**9:
            raise UsageError(f"--cpus: '{a.cpus}' is out of range", "give 0.001 to 999999")
        r.quota_us, r.period_us = quota_of(millicores)
    if a.cpu_quota not in (None, "-1"):
        r.quota_us = parse_count(a.cpu_quota, "--cpu-quota")
    if a.cpu_period is not None:
        r.period_us = parse_count(a.cpu_period, "--cpu-period")
    check_period(r.quota_us, r.period_us)
    r.shares = _between(a.cpu_shares, "--cpu-shares", 2, 262144)
    r.weight = _between(a.cpu_weight, "--cpu-weight", 1, 10000)
    if r.shares is not None and r.weight is not None:
        raise UsageError("--cpu-shares does not go with --cpu-weight", "leave one of the two out")
    r.cpuset = _list(a.cpuset_cpus, "--cpuset-cpus")
    r.mems = _list(a.cpuset_mems, "--cpuset-mems")


def _between(text: str | None, option: str, low: int, high: int) -> int | None:
    if text is None:
        return None
    value = parse_count(text, option)
    if not low <= value <= high:
        raise UsageError(f"{option}: {text} is out of range", f"give {low} to {high}")
    return value


def _list(text: str | None, option: str) -> str | None:
    if text is None:
        return None
    try:
        if cpu_list(text, option):
            return text
    except MalformedError:
        pass
    raise UsageError(f"{option}: '{text}' is not a list", "write it as 0-3 or 0,2")


def _memory(a: Arguments, r: Resources) -> None:
    r.memory = _size(a.memory, "--memory")
    r.memory_high = _size(a.memory_high, "--memory-high")
    r.memory_reservation = _size(a.memory_reservation, "--memory-reservation")
    if r.memory is not None and r.memory < _LEAST_MEMORY:
        raise UsageError(f"--memory: '{a.memory}' is too little to start anything", "give 512Ki or more")
    if a.memory_swap is None:
        r.swap_by_default = True
        r.memory_swap = r.memory  # as in Kubernetes: no swap; an allocation past the limit is the OOM killer's
        return
    if r.memory is None:
        raise UsageError("--memory-swap needs --memory", "it is the sum of memory and swap")
    r.memory_swap = UNLIMITED if a.memory_swap == "-1" else _size(a.memory_swap, "--memory-swap")
    if r.memory_swap is not None and UNLIMITED < r.memory_swap < r.memory:
        raise UsageError(f"--memory-swap: '{a.memory_swap}' is below --memory", "it is the sum of memory and swap")


def _size(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    size = parse_size(text, option)
    if not 0 < size < 1 << 62:
        raise UsageError(f"{option}: '{text}' is out of range", "give a size above 0, such as 256Mi")
    return size


def _io_rate(text: str, kind: str, option: str) -> IoRate:
    # DEVICE=RATE, or docker's DEVICE:RATE. MAJOR:MINOR holds a colon of its own.
    device, sign, rate = text.rpartition("=" if "=" in text else ":")
    if not sign or not device or not rate:
        raise UsageError(f"{option}: '{text}' is not a rate", "write DEVICE=RATE, as in /dev/sda=10Mi")
    value = parse_count(rate, option, least=1) if kind.endswith("iops") else parse_size(rate, option)
    if not value:
        raise UsageError(f"{option}: '{text}' is a rate of nothing", "give 1 or more")
    return IoRate(device, kind, value, option)
