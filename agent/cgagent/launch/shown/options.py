"""What machine is to be shown, read from the words of the command line. Pure."""

from __future__ import annotations

from cgagent.errors import UsageError
from cgagent.record import Record
from cgagent.units import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.spec import Spec
    from cgagent.parser import Arguments

MOST_CPUS = 1024  # glibc's cpu_set_t holds no more
_LEAST_MEMORY = 16 << 20


class Shown(Record):
    """The machine to show.

    Attributes:
        option: the first option that asks for it.
        cpus: how many CPUs; 0 for those that are here.
        allowed: the CPUs that `--cpuset-cpus` leaves; None for all.
        memory: bytes; 0 for what is here.
    """

    __slots__ = ("allowed", "cpus", "memory", "option")

    def __init__(self, arguments: Arguments, spec: Spec) -> None:
        """Understand the words.

        Raises:
            UsageError: one of them is off.
        """
        a = arguments
        self.option = "--host-cpus" if a.host_cpus is not None else "--host-memory"
        self.cpus = 0 if a.host_cpus is None else _cpus(a.host_cpus)
        self.memory = 0 if a.host_memory is None else _memory(a.host_memory)
        if "mnt" not in spec.namespaces:
            raise UsageError(f"{self.option} does not go with --share mnt", "leave one of the two out")
        self.allowed = self._allowed(spec.resources.cpuset) if self.cpus else None

    def _allowed(self, cpuset: str | None) -> frozenset[int] | None:
        from cgagent.cgroup.numbers import cpu_list

        if cpuset is None:
            return None
        allowed = cpu_list(cpuset, "--cpuset-cpus") or frozenset()
        if not allowed or max(allowed) >= self.cpus:
            last = self.cpus - 1
            raise UsageError(f"--cpuset-cpus: '{cpuset}' is not within --host-cpus", f"CPUs 0 to {last} are shown")
        return allowed


def _cpus(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 4 or not 1 <= int(text) <= MOST_CPUS:
        raise UsageError(f"--host-cpus: '{text}' is not a number of CPUs", f"give 1 to {MOST_CPUS}")
    return int(text)


def _memory(text: str) -> int:
    size = parse_size(text, "--host-memory")
    if size < _LEAST_MEMORY:
        raise UsageError(f"--host-memory: '{text}' is too little for a machine", "give 16Mi or more")
    return size
