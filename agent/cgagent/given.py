"""Limits given from outside the cgroup: by option, environment, or a downward-API directory.

An init container's own cgroup says nothing of the application's, so Kubernetes' downward API hands the limits
in. Where a container has no limit it reports the node's allocatable instead (k8s.io/kubernetes
pkg/api/v1/resource/helpers.go), and 0 for a native sidecar's; both are "probably no limit".
"""

from __future__ import annotations

from cgagent.cgroup.limits import Given, Limits
from cgagent.errors import CgagentError
from cgagent.host import Host, ReadError
from cgagent.record import Record
from cgagent.units import parse_count, parse_cpus, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SOURCES = ("auto", "cgroup", "given")

# Allocatable memory is MemTotal less what the node keeps for itself.
_ALMOST_ALL = 9, 10
_FILE_LIMIT = 4096


def _number(text: str, what: str) -> int:
    return parse_count(text, what)


# In order of preference; the names of downward-API files are these in lower case.
_CPU_TEXTS: tuple[tuple[str, Callable[[str, str], int]], ...] = (
    ("CPU_LIMIT_MILLICORES", _number),
    ("CPU_LIMIT", parse_cpus),
)
_MEMORY_TEXTS: tuple[tuple[str, Callable[[str, str], int]], ...] = (
    ("MEMORY_LIMIT_BYTES", _number),
    ("MEMORY_LIMIT", parse_size),
)


class Amount(Record):
    """A given limit: millicores or bytes, its text, and the option, variable or file that it came from."""

    __slots__ = ("source", "text", "value")

    def __init__(self, value: int, text: str, source: str) -> None:
        self.value = value
        self.text = text
        self.source = source


class GivenLimits(Record):
    """What is given, `None` where nothing is, and when to heed it.

    Attributes:
        cpu: millicores.
        memory: bytes.
        limits_from: `auto` (what is given wins, else the cgroup), `cgroup` or `given` (nothing else counts).
        trust: whether a limit as large as the machine is taken at its word.
    """

    __slots__ = ("cpu", "limits_from", "memory", "trust")

    def __init__(self, cpu: Amount | None, memory: Amount | None, limits_from: str, trust: bool) -> None:
        self.cpu = cpu
        self.memory = memory
        self.limits_from = limits_from
        self.trust = trust


def read_given(
    cpu_option: str | None, memory_option: str | None, directory: str | None, environ: Mapping[str, str]
) -> tuple[Amount | None, Amount | None]:
    """The given CPU limit (millicores) and memory limit (bytes): option, then directory, then environment.

    The directory goes before the environment: a variable keeps the limit of the container's start, a
    downward-API volume follows resizes.

    Raises:
        UsageError: a text is no CPU count or size.
        CgagentError: `directory` is not one.
    """
    if directory is not None and not Host().is_directory(directory):
        raise CgagentError(f"--limits-dir: {directory} is not a directory", "name the mounted downward-API volume")
    places = (directory, environ)
    return (
        _first(cpu_option, "--cpu-limit", parse_cpus, _CPU_TEXTS, *places),
        _first(memory_option, "--memory-limit", parse_size, _MEMORY_TEXTS, *places),
    )


def _first(
    option: str | None,
    name: str,
    parse_option: Callable[[str, str], int],
    texts: tuple[tuple[str, Callable[[str, str], int]], ...],
    directory: str | None,
    environ: Mapping[str, str],
) -> Amount | None:
    if option is not None:
        return Amount(parse_option(option, name), option, name)
    for key, parse in texts:
        if directory is not None:
            file = f"{directory}/{key.lower()}"
            text = _read(file).strip()
            if text:
                return Amount(parse(text, file), text, file)
    for key, parse in texts:
        text = environ.get(f"CGAGENT_{key}", "").strip()
        if text:
            return Amount(parse(text, f"CGAGENT_{key}"), text, f"CGAGENT_{key}")
    return None


def _read(file: str) -> str:
    """A file of the downward-API volume; empty where there is none, for not every limit has to be given."""
    try:
        return Host().read_if_there(file, _FILE_LIMIT) or ""
    except ReadError as error:
        error.hint = "mount the volume so that this user can read it"
        raise


def apply_given(limits: Limits, given: GivenLimits) -> None:
    """Put the given limits in the place of the cgroup's, as `given.limits_from` says."""
    if given.limits_from == "cgroup":
        return
    only_given = given.limits_from == "given"
    if given.cpu is not None or only_given:
        _apply_cpu(limits, given.cpu, given.trust)
    if given.memory is not None or only_given:
        _apply_memory(limits, given.memory, given.trust)


def _apply_cpu(limits: Limits, amount: Amount | None, trust: bool) -> None:
    cpu = limits.cpu
    cpu.foreign = True
    cpu.cores, cpu.source = None, None
    if amount is None:
        return
    as_large = cpu.machine is not None and amount.value >= len(cpu.machine) * 1000
    likely_none = amount.value == 0 or (as_large and not trust)
    cpu.given = Given(amount.source, amount.text, likely_none, amount.value == 0)
    if not likely_none:
        cpu.cores, cpu.source = amount.value / 1000, amount.source


def _apply_memory(limits: Limits, amount: Amount | None, trust: bool) -> None:
    memory = limits.memory
    memory.foreign = True
    memory.bytes, memory.source = None, None
    if amount is None:
        return
    part, whole = _ALMOST_ALL
    as_large = memory.total is not None and amount.value * whole >= memory.total * part
    likely_none = amount.value == 0 or (as_large and not trust)
    memory.given = Given(amount.source, amount.text, likely_none, amount.value == 0)
    if not likely_none:
        memory.bytes, memory.source = amount.value, amount.source
