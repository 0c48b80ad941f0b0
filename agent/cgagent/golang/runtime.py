"""What a Go program does by itself: the GOMAXPROCS and memory limit that it will run with. Pure.

Sources: Go's runtime (proc.go schedinit, cgroup_linux.go, mgcpacer.go readGOMEMLIMIT, runtime1.go parsegodebug)
and internal/runtime/cgroup. What the program's own code sets with runtime.GOMAXPROCS or debug.SetMemoryLimit
can't be read from its build.
"""

from __future__ import annotations

from cgagent.errors import printable
from cgagent.golang import libraries, sight
from cgagent.golang.expected import ENVIRONMENT, RUNTIME, Expected, Library
from cgagent.record import Record
from cgagent.units import format_cores

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.cgroup.limits import Limits
    from cgagent.golang.buildinfo import BuildInfo

NO_MEMORY_LIMIT = 2**63 - 1  # math.MaxInt64, debug.SetMemoryLimit's "no limit"
REMOVED = "its build info was removed, as garble does"
_INT32_MAX = 2**31 - 1
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class Prediction(Record):
    """What a program will run with if nobody helps it.

    Attributes:
        gomaxprocs: the number of Ps.
        gomemlimit: the memory limit in bytes; NO_MEMORY_LIMIT for none.
        libraries: the modules in it that set one of the two.
    """

    __slots__ = ("gomaxprocs", "gomemlimit", "libraries")

    def __init__(self, gomaxprocs: Expected, gomemlimit: Expected, found: tuple[Library, ...]) -> None:
        self.gomaxprocs = gomaxprocs
        self.gomemlimit = gomemlimit
        self.libraries = found


def predict(info: BuildInfo, limits: Limits, environment: Mapping[str, str]) -> Prediction:
    """What the program `info` will run with under `limits`, started with `environment`."""
    return Prediction(
        _procs(info, limits, environment), _memory(info, limits, environment), libraries.find(info.dependencies)
    )


def own_procs(info: BuildInfo, limits: Limits, environment: Mapping[str, str]) -> int | None:
    """The GOMAXPROCS that the program's own runtime reaches and keeps current if nobody sets it; None: it does not."""
    if limits.cpu.foreign:
        return None
    unset = {name: value for name, value in environment.items() if name != "GOMAXPROCS"}
    expected = _procs(info, limits, unset)
    return expected.value if expected.setter == RUNTIME and expected.follows else None


def _procs(info: BuildInfo, limits: Limits, environment: Mapping[str, str]) -> Expected:
    given = _whole(environment.get("GOMAXPROCS", ""), _INT32_MAX)
    if given:  # Go takes no notice of 0 and of what is no number
        return Expected(given, "GOMAXPROCS is set in its environment", ENVIRONMENT)
    set_by_library = libraries.automaxprocs(info.dependencies, limits, environment)
    return set_by_library or _runtime_procs(info, limits, environment)


def _runtime_procs(info: BuildInfo, limits: Limits, environment: Mapping[str, str]) -> Expected:
    release, compiler = info.release, info.settings.get("-compiler", "gc")
    cpus = sight.usable_cpus(limits)
    if info.removed:
        return Expected(None, REMOVED)
    if release is None or compiler != "gc":
        return Expected(None, f"not known of {info.go_version} ({compiler})")
    name = f"Go {release[0]}.{release[1]}"
    if cpus is None:
        return Expected(None, "the CPUs that it may run on are not known")
    if release < (1, 25):
        return Expected(cpus, f"{name} takes the {_cpus(cpus)} that it may run on; no Go before 1.25 reads the quota")
    reads, where = _godebug("containermaxprocs", info, environment)
    if not reads:
        return Expected(cpus, f"{name} takes the {_cpus(cpus)} that it may run on: containermaxprocs=0 in {where}")
    updates, where = _godebug("updatemaxprocs", info, environment)
    rule = _quota_rule(name, release, cpus, limits)
    if rule.follows and not updates:
        return Expected(rule.value, f"{rule.reason}, read once: updatemaxprocs=0 in {where}")
    return rule


def _quota_rule(name: str, release: tuple[int, int], cpus: int, limits: Limits) -> Expected:
    """The rule of Go >= 1.25: ceil of its own cgroup's quota, at least 2, at most `cpus`."""
    cpu = limits.cpu
    if cpu.foreign:
        return _rounded(name, cpu.cores, cpu.source or "none given", cpus)
    link = sight.own_quota(limits)
    problem = limits.blocked("cpu")
    if link is None and problem and problem.id != "controller-not-visible":
        return Expected(None, f"not known: {problem.message}")
    hierarchy = sight.seen_hierarchy(limits, "cpu")
    unseen = f"{name} takes the {_cpus(cpus)} that it may run on: it sees no quota"
    if hierarchy is None:
        return Expected(cpus, f"{unseen}, as no mount shows its cgroup")
    if release == (1, 25) and not sight.joined_finds(hierarchy):
        return Expected(
            cpus, f"{unseen}, as {hierarchy.mount} is mounted from below the hierarchy's root (Go 1.26 does)"
        )
    if release >= (1, 26) and hierarchy.after is not None:
        # internal/runtime/cgroup/cgroup.go, parseCPUMount: the whole file counts as malformed.
        return Expected(
            cpus, f"{unseen}, as it gives up on mountinfo at the mount of a namespace, {printable(hierarchy.after)}"
        )
    if link is None:
        return Expected(cpus, f"{unseen}, as its own cgroup {hierarchy.path} has none")
    return _rounded(name, link.quota.cores, link.file, cpus)


def _rounded(name: str, cores: float | None, source: str, cpus: int) -> Expected:
    if cores is None:
        return Expected(cpus, f"{name} takes the {_cpus(cpus)} that it may run on: no quota ({source})", follows=True)
    value = min(cpus, max(2, -int(-cores // 1)))
    reason = (
        f"{name} takes ceil of {format_cores(cores)} CPUs, at least 2, at most the {_cpus(cpus)} that it may run on"
    )
    return Expected(value, f"{reason} ({source})", follows=True)


def _cpus(count: int) -> str:
    return f"{count} CPU" if count == 1 else f"{count} CPUs"


def _godebug(name: str, info: BuildInfo, environment: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the GODEBUG setting `name` is on, and where that is said; later texts and fields win."""
    value, where = 1, ""
    texts = {"DefaultGODEBUG of its build": info.settings.get("DefaultGODEBUG", "")}
    texts["GODEBUG of its environment"] = environment.get("GODEBUG", "")
    for source, text in texts.items():
        for field in text.split(","):
            key, _, number = field.partition("=")
            if key == name and (parsed := _whole(number.removeprefix("-"), _INT32_MAX)) is not None:
                value, where = -parsed if number.startswith("-") else parsed, source
    # A negative number: the runtime reads `containermaxprocs > 0`, but `updatemaxprocs != 0`.
    return value > 0 or (value < 0 and name == "updatemaxprocs"), where


def _memory(info: BuildInfo, limits: Limits, environment: Mapping[str, str]) -> Expected:
    text = environment.get("GOMEMLIMIT", "")
    if info.release is not None and info.release < (1, 19):
        return Expected(None, "Go before 1.19 has no memory limit")
    if text == "off":
        return Expected(NO_MEMORY_LIMIT, "GOMEMLIMIT is off in its environment", ENVIRONMENT)
    if text:
        size = parse_memory_limit(text)
        if size is None:
            return Expected(None, f"GOMEMLIMIT '{text}' is malformed: the program ends at its start", ENVIRONMENT)
        return Expected(size, "GOMEMLIMIT is set in its environment", ENVIRONMENT)
    if info.removed:
        return Expected(None, REMOVED)
    set_by_library = libraries.automemlimit(info.dependencies, limits, environment)
    return set_by_library or Expected(NO_MEMORY_LIMIT, "no Go version sets a memory limit by itself")


def parse_memory_limit(text: str) -> int | None:
    """The bytes Go takes from `text`; `off` is no limit; None: malformed (src/runtime/string.go, parseByteCount)."""
    if text == "off":
        return NO_MEMORY_LIMIT
    digits = text.rstrip("BKMGTi")
    unit = text[len(digits) :]
    number = _whole(digits, NO_MEMORY_LIMIT)
    if number is None or (unit and unit not in _UNITS):
        return None
    size = number * _UNITS.get(unit, 1)
    return size if size <= NO_MEMORY_LIMIT else None


def _whole(text: str, largest: int) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > largest:
        return None
    return int(text)
