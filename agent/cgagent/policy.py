"""The decision: GOMAXPROCS and GOMEMLIMIT from limits and a policy. Pure; every number carries its reason."""

from __future__ import annotations

from cgagent.cgroup.limits import Limits
from cgagent.errors import UsageError
from cgagent.record import Record
from cgagent.texts import parse_choice
from cgagent.units import Ratio, format_cpus, format_size, parse_count, parse_ratio, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    T = TypeVar("T")

GOMAXPROCS = "GOMAXPROCS"
GOMEMLIMIT = "GOMEMLIMIT"
VARIABLES = (GOMAXPROCS, GOMEMLIMIT)

ROUNDINGS = ("ceil", "floor", "go")
GOMAXPROCS_MODES = ("auto", "always", "never")


def _rounding(text: str, what: str) -> str:
    if text not in ROUNDINGS:
        raise UsageError(f"{what}: '{text}' is not a rounding", f"choose one of {', '.join(ROUNDINGS)}")
    return text


def _mode(text: str, what: str) -> str:
    return parse_choice(text, what, GOMAXPROCS_MODES)


def _procs(text: str, what: str) -> int:
    return parse_count(text, what, least=1)


def _procs_or_none(text: str, what: str) -> int | None:
    return _procs(text, what)


def parse_yes(text: str, what: str) -> bool:
    """`text` as a switch.

    Raises:
        UsageError: it is neither yes nor no.
    """
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{what}: '{text}' is neither yes nor no", "write true or false")


class Policy(Record):
    """How limits become numbers.

    Attributes:
        memory_ratio: the share of the memory limit that Go may use.
        memory_reserve: bytes taken off before the ratio, for memory that Go does not manage.
        memory_min: the smallest GOMEMLIMIT in bytes worth setting.
        cpu_rounding: `ceil`; `floor` (uber-go/automaxprocs); `go` (Go >= 1.25: ceil, at least 2).
        min_procs: the smallest GOMAXPROCS.
        max_procs: the largest GOMAXPROCS, or None.
        gomaxprocs: `always`; `never`; `auto`: left to a program whose own runtime reaches the same number and
            follows changes, which a set variable would stop (Go >= 1.25, src/runtime/proc.go).
        override: whether variables that the environment already has are decided anew.
    """

    __slots__ = (
        "cpu_rounding",
        "gomaxprocs",
        "max_procs",
        "memory_min",
        "memory_ratio",
        "memory_reserve",
        "min_procs",
        "override",
    )

    def __init__(self, text_of: Callable[[str], tuple[str, str] | None] = lambda _: None) -> None:
        """Take each setting's text, and what to call it in errors, from `text_of`; None gives the default.

        Raises:
            UsageError: a text does not fit its setting.
        """

        def setting(name: str, parse: Callable[[str, str], T], default: T) -> T:
            given = text_of(name)
            return default if given is None else parse(*given)

        self.memory_ratio: Ratio = setting("memory_ratio", parse_ratio, Ratio(9, 10))
        self.memory_reserve: int = setting("memory_reserve", parse_size, 0)
        self.memory_min: int = setting("memory_min", parse_size, 0)
        self.cpu_rounding: str = setting("cpu_rounding", _rounding, "ceil")
        self.min_procs: int = setting("min_procs", _procs, 1)
        self.max_procs: int | None = setting("max_procs", _procs_or_none, None)
        self.gomaxprocs: str = setting("gomaxprocs", _mode, "auto")
        self.override: bool = setting("override", parse_yes, False)
        if self.max_procs is not None and self.max_procs < self.min_procs:
            raise UsageError(f"--max-procs {self.max_procs} is below --min-procs {self.min_procs}", "raise it")


class Choice(Record):
    """What was decided for one variable.

    Attributes:
        value: the number; None: leave the variable unset.
        reason: why, in words.
        kept: the text that the environment already has and that is left alone; None if it has none.
        blocked: why nothing could be decided; None if it could.
        finding: the id of the finding that `blocked` belongs to.
        wanted: the number that is right by the limits, whether it is set or left to the program; None for none.
    """

    __slots__ = ("blocked", "finding", "kept", "reason", "value", "wanted")

    def __init__(self, value: int | None, reason: str, blocked: str | None = None, finding: str = "") -> None:
        self.value = self.wanted = value
        self.reason = reason
        self.blocked = blocked
        self.finding = finding
        self.kept: str | None = None


class Decision(Record):
    """The choices for both variables."""

    __slots__ = ("gomaxprocs", "gomemlimit")

    def __init__(self, gomaxprocs: Choice, gomemlimit: Choice) -> None:
        self.gomaxprocs = gomaxprocs
        self.gomemlimit = gomemlimit

    def choices(self) -> tuple[tuple[str, Choice], ...]:
        """Each variable's name with its choice."""
        return ((GOMAXPROCS, self.gomaxprocs), (GOMEMLIMIT, self.gomemlimit))

    def env(self) -> dict[str, str]:
        """The assignments to make: exactly what `write` writes and `exec` sets."""
        chosen = ((name, choice) for name, choice in self.choices() if choice.kept is None)
        return {name: str(choice.value) for name, choice in chosen if choice.value is not None}

    def blocked(self) -> list[tuple[str, Choice]]:
        """The variables for which nothing could be decided, though nobody else has set them."""
        return [(name, choice) for name, choice in self.choices() if choice.blocked and choice.kept is None]


def decide(
    limits: Limits,
    policy: Policy,
    environment: Mapping[str, str],
    own_procs: Callable[[], int | None] = lambda: None,
) -> Decision:
    """Decide both variables for a program that starts with `environment`.

    `own_procs` gives the GOMAXPROCS that the program's own runtime reaches and keeps current, None where that is not
    known; it is asked only where the answer matters.
    """
    decision = Decision(_left_or_set(_decide_procs(limits, policy), policy, own_procs), _decide_memory(limits, policy))
    for name, choice in decision.choices():
        # Go takes an empty variable for an unset one.
        if not policy.override and environment.get(name):
            choice.kept = environment[name]
    return decision


def _left_or_set(choice: Choice, policy: Policy, own_procs: Callable[[], int | None]) -> Choice:
    """`choice`, or that the variable stays unset though there is a number for it."""
    if policy.gomaxprocs == "never":
        told = choice.reason if choice.value is None else f"{choice.value}, {choice.reason}"
        return _left(choice, f"left unset, as --gomaxprocs never says; by the limits: {told}")
    if choice.value is None or policy.gomaxprocs == "always" or own_procs() != choice.value:
        return choice
    return _left(choice, f"left to Go, which reaches {choice.value} by itself and follows changes: {choice.reason}")


def _left(choice: Choice, reason: str) -> Choice:
    left = Choice(None, reason)
    left.wanted = choice.value
    return left


def _decide_procs(limits: Limits, policy: Policy) -> Choice:
    problem = limits.blocked("cpu")
    if problem:
        return Choice(None, f"not decided: {problem.message}", problem.message, problem.id)
    cpu = limits.cpu
    cores = cpu.cores if cpu.counts else None
    usable = len(cpu.usable) if cpu.usable else None
    if cores is not None:
        value, reason = _round(cores, usable, policy.cpu_rounding)
        reason += f" ({cpu.source})"
    elif cpu.narrowed:
        value, reason = len(cpu.narrowed), f"cpuset or affinity leaves {format_cpus(len(cpu.narrowed))}"
    elif policy.max_procs is not None and usable is not None and usable > policy.max_procs:
        value, reason = usable, f"no CPU limit, {format_cpus(usable)}"
    else:
        return Choice(None, "no CPU limit, and no CPU of the machine is withheld: left to Go")
    return _bounded(value, usable, policy, reason)


def _round(cores: float, usable: int | None, rounding: str) -> tuple[int, str]:
    shown = format_cpus(cores)
    if rounding == "floor":
        return max(1, int(cores)), f"floor of {shown}, at least 1"
    value = -int(-cores // 1)
    if rounding == "go":
        return max(2 if usable is None else min(2, usable), value), f"ceil of {shown}, at least 2 as in Go"
    return value, f"ceil of {shown}"


def _bounded(value: int, usable: int | None, policy: Policy, reason: str) -> Choice:
    if value < policy.min_procs:
        value, reason = policy.min_procs, f"{reason}, raised to --min-procs"
    if policy.max_procs is not None and value > policy.max_procs:
        value, reason = policy.max_procs, f"{reason}, lowered to --max-procs"
    if usable is not None and value > usable:
        value, reason = usable, f"{reason}, lowered to the {format_cpus(usable)} that may be used"
    return Choice(value, reason)


def _decide_memory(limits: Limits, policy: Policy) -> Choice:
    problem = limits.blocked("memory")
    if problem:
        return Choice(None, f"not decided: {problem.message}", problem.message, problem.id)
    memory = limits.memory
    if memory.bytes is None or not memory.counts:
        return Choice(None, "no memory limit: left unset")
    reserve = policy.memory_reserve
    value = policy.memory_ratio.of(memory.bytes - reserve)
    rest = f" less {format_size(reserve)} reserve" if reserve else ""
    what = f"{policy.memory_ratio} of {format_size(memory.bytes)}{rest} ({memory.source})"
    if value <= 0 or value < policy.memory_min:
        least = f"--memory-min {format_size(policy.memory_min)}" if policy.memory_min else "more than nothing"
        message = f"{what} leaves {format_size(max(0, value))}, and {least} is wanted"
        return Choice(None, f"not set: {message}", message, "reserve-exceeds-limit")
    return Choice(value, what)
