"""Options that several commands share, and their environment twins."""

from __future__ import annotations

import os
import sys

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.process import Problem, Standing
from cgagent.cgroup.reading import read_limits
from cgagent.errors import EXIT_NO_LIMITS, CgagentError, UsageError, printable
from cgagent.given import SOURCES, GivenLimits, apply_given, read_given
from cgagent.host import Host
from cgagent.policy import GOMAXPROCS_MODES, ROUNDINGS, Policy, decide, parse_yes
from cgagent.texts import Texts
from cgagent.units import CPU_HELP, SIZE_HELP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.parser import Arguments, Group, Parser

# option, metavar, help; the attribute and the environment twin (CGAGENT_MEMORY_RATIO) follow from the name.
_MEMORY_POLICY = (
    ("--memory-ratio", "RATIO", "share of the memory limit that GOMEMLIMIT gets (default 0.9)"),
    ("--memory-reserve", "SIZE", "taken off the memory limit before the ratio, for memory that Go does not manage"),
    ("--memory-min", "SIZE", "a GOMEMLIMIT below this is an error"),
)
_CPU_POLICY = (
    ("--cpu-rounding", "|".join(ROUNDINGS), "ceil (default), floor as uber-go/automaxprocs, go as Go >= 1.25"),
    ("--min-procs", "N", "smallest GOMAXPROCS"),
    ("--max-procs", "N", "largest GOMAXPROCS"),
)

_UNPACKED = "cgagent-capture.json"  # in the directory that a capture was unpacked in; its package costs 3 ms to load
_ROOT_HINT = "give a file of cgagent capture, or the root of a captured or mounted tree"
ON_ERROR = ("fail", "ignore")

TWINS_HELP = (
    """\
Every policy and limit option has an environment twin: --memory-ratio is CGAGENT_MEMORY_RATIO. The option wins.
sizes: """
    + SIZE_HELP
    + ".\ncpus: "
    + CPU_HELP
    + "."
)


def add_numbers(parser: Parser, *, cpu: bool = True) -> Group:
    """The options that say how limits become numbers; without `cpu`, those about memory alone."""
    group = parser.add_argument_group("policy")
    for name, metavar, text in (*_MEMORY_POLICY, *(_CPU_POLICY if cpu else ())):
        group.add_argument(name, metavar=metavar, help=text)
    return group


def add_policy(parser: Parser) -> None:
    """Those, and the options that say which variables are set (design section 2)."""
    group = add_numbers(parser)
    group.add_argument(
        "--gomaxprocs",
        metavar="|".join(GOMAXPROCS_MODES),
        help="auto (default): left to a program known to reach the same number by itself and to follow changes",
    )
    group.add_argument(
        "--override",
        action="store_const",
        const="true",
        help="decide anew what the environment already has; else a GOMAXPROCS or GOMEMLIMIT there is left alone",
    )
    group.add_argument(
        "--on-error",
        metavar="|".join(ON_ERROR),
        help="where a limit can't be known: fail (default), or ignore, leaving the variable out",
    )
    group.add_argument("--require-limits", action="store_const", const="true", help="end with 3 if no limit was found")


def add_limits(parser: Parser) -> None:
    """The options that say where limits come from."""
    group = parser.add_argument_group("limits")
    group.add_argument("--cpu-limit", metavar="CPUS", help="the application's CPU limit, given from outside")
    group.add_argument("--memory-limit", metavar="SIZE", help="the application's memory limit, given from outside")
    group.add_argument(
        "--limits-dir",
        metavar="DIR",
        help="a downward-API volume with files cpu_limit_millicores and memory_limit_bytes, or cpu_limit, memory_limit",
    )
    group.add_argument(
        "--limits-from",
        metavar="|".join(SOURCES),
        help="auto (default): given limits win, else the cgroup's; cgroup or given: these alone",
    )
    group.add_argument(
        "--trust-given",
        action="store_const",
        const="true",
        help="believe a given limit as large as the machine, which the downward API also reports for no limit at all",
    )


class Settled:
    """What a command goes by: the options' texts, limits, decision, and the environment of the program."""

    def __init__(
        self,
        arguments: Arguments,
        *,
        root: str | None = None,
        pid: str | None = None,
        binary: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Read, apply what is given, decide; `binary` is the program that it is for, where that is known.

        Raises:
            CgagentError: an option is off, or there is nothing to read.
        """
        self.texts = Texts(arguments, environ)
        self.policy = Policy(self.texts)
        self._ignores_errors = self.texts.choice("on_error", ON_ERROR) == "ignore"
        self.requires_limits = self.texts.parsed("require_limits", parse_yes, False)
        given = _given(self.texts, arguments, environ)
        self.pid = pid_of(pid)
        self.host = _host(root)
        if pid is not None and self.host.holds_one:
            raise UsageError("--pid does not go with a capture", "it holds one process: leave --pid out")
        # What the caller named has to be there; of ourselves it may be that nothing can be read.
        bear = root is None and pid is None and self._ignores_errors
        self.limits = _limits_or_unknown(self.host) if bear else read_limits(self.host, self.pid)
        apply_given(self.limits, given)
        ourselves = self.host.live and self.pid == "self"
        self.environment = environ if ourselves else self.host.environment(self.pid)
        self.decision = decide(self.limits, self.policy, self.environment or {}, lambda: self._own_procs(binary))

    def _own_procs(self, binary: str | None) -> int | None:
        """The GOMAXPROCS that the program itself keeps current; None where it keeps none, or is not known."""
        if binary is None:
            return None
        from cgagent.golang import buildinfo
        from cgagent.golang.runtime import own_procs

        try:
            info = buildinfo.read(binary)
        except CgagentError:
            return None
        return None if info is None else own_procs(info, self.limits, self.environment or {})

    def check(self, command: str) -> int:
        """Say on stderr what a person must know before the decision is used; return 0, or 3 to stop.

        Raises:
            CgagentError: nothing could be decided for a variable, and `--on-error` does not say to ignore that.
        """
        for name, choice in self.decision.blocked():
            if not self._ignores_errors:
                raise CgagentError(f"{name}: {choice.blocked}", f"mend it, or leave {name} out with --on-error ignore")
            say(command, f"{name} left out: {choice.blocked}")
        for name, choice in self.decision.choices():
            if choice.kept is not None:
                say(command, f"{name} left alone: the environment has '{choice.kept}' (--override decides anew)")
        for given in (self.limits.cpu.given, self.limits.memory.given):
            if given is not None and given.likely_none:
                means = "means no limit" if given.is_zero else "looks like no limit, not heeded (--trust-given does)"
                say(command, f"{given.source} '{given.text}' {means}")
        for problem in self.limits.problems:
            if problem.id == "cgroup-outside-view":
                say(command, problem.message)
        if self.requires_limits and not self.limits.found:
            say(command, "no CPU and no memory limit found, and --require-limits asks for one")
            return EXIT_NO_LIMITS
        return 0


def say(command: str, text: str) -> None:
    """One line for a person on stderr."""
    try:
        print(f"cgagent {command}: {printable(text)}", file=sys.stderr)
    except OSError:
        pass  # a stderr that is full or gone must not keep a service from starting


def _given(texts: Texts, arguments: Arguments, environ: Mapping[str, str]) -> GivenLimits:
    # The texts in CGAGENT_CPU_LIMIT and CGAGENT_MEMORY_LIMIT are read by read_given, after the directory.
    cpu, memory = read_given(
        getattr(arguments, "cpu_limit", None),
        getattr(arguments, "memory_limit", None),
        texts.text("limits_dir"),
        environ,
    )
    return GivenLimits(cpu, memory, texts.choice("limits_from", SOURCES), texts.parsed("trust_given", parse_yes, False))


def _host(root: str | None) -> Host:
    if root is None:
        return Host()
    if root and not os.path.isdir(root):
        if not os.path.exists(root):
            raise CgagentError(f"--root: there is no {root}", _ROOT_HINT)
        return _captured(root)
    if not root:
        raise UsageError("--root: its value is empty", _ROOT_HINT)
    unpacked = os.path.isfile(os.path.join(root, _UNPACKED))
    return _captured(root) if unpacked else Host(os.path.abspath(root))


def _captured(path: str) -> Host:
    from cgagent.capture import load
    from cgagent.capture.captured import CapturedHost

    return CapturedHost(load(path), os.path.abspath(path))


def _limits_or_unknown(host: Host) -> Limits:
    """Our own limits, or, where there is nothing to read them from, limits of which nothing is known."""
    try:
        return read_limits(host)
    except CgagentError as error:
        standing = Standing()
        standing.problems.append(Problem("unreadable", "", error.message))
        return Limits(standing)


def pid_of(text: str | None, what: str = "--pid") -> str:
    """The process that `text` names, `self` for None; `what` is where it is given.

    Raises:
        UsageError: it is no number that a process can have.
    """
    if text is None:
        return "self"
    # pid_max is 4194304 at the most
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 1 << 22):
        raise UsageError(f"{what}: '{text}' is not a process ID", "give a number, such as 1")
    return text
