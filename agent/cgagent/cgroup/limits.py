"""The limits that bind a process, as records: its cgroups' and every visible ancestor's, each with where it was read.

What cannot be known stays unknown: a malformed or unreadable level makes the limit None, and a `Problem`
that blocks says why. None without such a problem is "no limit".
"""

from __future__ import annotations

from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.dialect import Quota
    from cgagent.cgroup.process import Problem, Standing

# With one of these, a number is not known, and nothing may be decided on it.
BLOCKING = ("malformed-file", "unreadable", "controller-not-visible")


class CpuLink(Record):
    """One level's CPU quota: the cgroup's path, the file, and what it says."""

    __slots__ = ("file", "path", "quota")

    def __init__(self, path: str, file: str, quota: Quota) -> None:
        self.path = path
        self.file = file
        self.quota = quota


class MemoryLink(Record):
    """One memory limit of one level: the cgroup's path, the file, its text, and bytes (None: no limit)."""

    __slots__ = ("bytes", "file", "path", "raw")

    def __init__(self, path: str, file: str, raw: str, size: int | None) -> None:
        self.path = path
        self.file = file
        self.raw = raw
        self.bytes = size


class Given(Record):
    """A limit given from outside, for a process that is not the one we read (an init container's application).

    Attributes:
        source: the option, variable or file that gives it.
        text: as it was given.
        likely_none: whether it looks like the node's size, which the downward API reports where no limit is set.
        is_zero: whether it is none by its very number, which no trust changes.
    """

    __slots__ = ("is_zero", "likely_none", "source", "text")

    def __init__(self, source: str, text: str, likely_none: bool, is_zero: bool = False) -> None:
        self.source = source
        self.text = text
        self.likely_none = likely_none
        self.is_zero = is_zero


class Wish(Record):
    """A limit that is asked for, beside the one that the cgroup has: a resize may be deferred, refused or held back.

    Attributes:
        value: CPUs or bytes that are asked for.
        fact: what the cgroup has; None: no limit.
        source: the option, variable or file that tells.
        reason: why it is not in force, where that is known; else empty.
    """

    __slots__ = ("fact", "reason", "source", "value")

    def __init__(self, value: float, fact: float | None, source: str, reason: str = "") -> None:
        self.value = value
        self.fact = fact
        self.source = source
        self.reason = reason


class CpuLimit(Record):
    """What bounds the process's CPU time.

    Attributes:
        cores: the smallest quota in CPUs; None for no quota, or where it is not known.
        source: where that number comes from: a file, or an option's name.
        chain: every level that has a quota file, innermost first.
        binding: the link of the chain that holds the smallest quota.
        trusted: False where the chain is that of a cgroup that is neither the process's nor above it.
        given: the limit given from outside, which then takes the place of the chain's.
        foreign: whether the process that is decided for is not the one whose files were read.
        wish: what is asked for, where that is known beside what is; `cores` is then the smaller of the two.
        allowed: the CPUs that cpuset and affinity leave, as far as they are online; None if not known.
        cpuset: the file and CPUs of the cpuset that binds; None if there is none.
        affinity: the CPUs of the process's own mask; None if not known.
        online: the machine's CPUs; None if not known.
    """

    __slots__ = (
        "affinity",
        "allowed",
        "binding",
        "chain",
        "cores",
        "cpuset",
        "foreign",
        "given",
        "online",
        "source",
        "trusted",
        "wish",
    )

    def __init__(self) -> None:
        self.cores: float | None = None
        self.source: str | None = None
        self.chain: list[CpuLink] = []
        self.binding: CpuLink | None = None
        self.trusted = True
        self.given: Given | None = None
        self.foreign = False
        self.wish: Wish | None = None
        self.allowed: frozenset[int] | None = None
        self.cpuset: tuple[str, frozenset[int]] | None = None
        self.affinity: frozenset[int] | None = None
        self.online: frozenset[int] | None = None

    @property
    def counts(self) -> bool:
        """Whether `cores` is to be decided on, not only shown."""
        return self.trusted or self.foreign

    @property
    def machine(self) -> frozenset[int] | None:
        """The machine's CPUs; where they are not known (a captured tree) the process's mask stands for them."""
        return self.online or self.affinity

    @property
    def usable(self) -> frozenset[int] | None:
        """The CPUs that bound GOMAXPROCS: an init container's own cpuset says nothing of the application's."""
        return self.machine if self.foreign else self.allowed

    @property
    def narrowed(self) -> frozenset[int] | None:
        """The CPUs that are left where cpuset or affinity withhold some of the machine's, else None."""
        if self.foreign or self.allowed is None:
            return None
        return self.allowed if self.machine and len(self.allowed) < len(self.machine) else None


class MemoryLimit(Record):
    """What bounds the process's memory: as `CpuLimit`, in bytes; `total` is the machine's MemTotal."""

    __slots__ = ("binding", "bytes", "chain", "foreign", "given", "source", "total", "trusted", "wish")

    def __init__(self) -> None:
        self.bytes: int | None = None
        self.source: str | None = None
        self.chain: list[MemoryLink] = []
        self.binding: MemoryLink | None = None
        self.trusted = True
        self.given: Given | None = None
        self.foreign = False
        self.wish: Wish | None = None
        self.total: int | None = None

    @property
    def counts(self) -> bool:
        """Whether `bytes` is to be decided on, not only shown."""
        return self.trusted or self.foreign


class Limits(Record):
    """All that was read for a decision: where the process stands, its limits, and what is not known of them."""

    __slots__ = ("cpu", "memory", "problems", "standing")

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.problems = list(standing.problems)
        self.cpu = CpuLimit()
        self.memory = MemoryLimit()

    @property
    def found(self) -> bool:
        """Whether there is any limit to decide on."""
        cpu, memory = self.cpu, self.memory
        return (cpu.counts and cpu.cores is not None) or (memory.counts and memory.bytes is not None)

    def blocked(self, resource: str) -> Problem | None:
        """Why nothing may be decided for `resource`, or None."""
        foreign = self.cpu.foreign if resource == "cpu" else self.memory.foreign
        return None if foreign else self.unknown(resource)

    def unknown(self, resource: str) -> Problem | None:
        """Why it is not known what the cgroups say of `resource`, or None."""
        for problem in self.problems:
            if problem.id in BLOCKING and problem.resource in ("", resource):
                return problem
        return None
