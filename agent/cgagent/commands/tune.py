"""`cgagent tune`: bring new limits to a running Go program, without a restart and without a library in it."""

from __future__ import annotations

import os

from cgagent.commands.options import TWINS_HELP, Settled, add_numbers, pid_of, say
from cgagent.errors import CgagentError, UsageError, printable
from cgagent.golang.live import LiveError, Program
from cgagent.golang.live.controller import NO_LIMIT
from cgagent.golang.live.retune import apply_follow, plan_follow
from cgagent.golang.live.tuning import tune_limit
from cgagent.policy import GOMAXPROCS, GOMEMLIMIT
from cgagent.report.running import limits_started_with
from cgagent.report.variables import parse_gomaxprocs
from cgagent.units import format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments, Parser

AUTO, OFF, FOLLOW = "auto", "off", "follow"
_TARGET_PID = "CGAGENT_TARGET_PID"  # as the sidecar sets it for an exec hook

DESCRIPTION = "Bring a new memory limit to a running Go program, or hand GOMAXPROCS back to its runtime."
EPILOG = f"""\
Programs built by Go 1.21 to 1.27 for amd64 are understood, stripped or not, and nothing is asked of them. It takes
what a debugger takes: the same user and group, or CAP_SYS_PTRACE. Every condition is checked before a byte is
written; what is in doubt is refused. A limit that the program set itself is left alone unless --force is given.

{TWINS_HELP}

examples:
  cgagent tune --pid 4711 --memory-limit auto              90% of what its cgroup allows now, after a resize
  cgagent tune --pid 4711 --memory-limit 400Mi --dry-run   check everything, write nothing
  cgagent tune --pid 4711 --memory-limit off               no limit
  cgagent tune --pid 4711 --gomaxprocs follow              Go >= 1.25 started with GOMAXPROCS: follow the quota again

exit codes: 0 done, or nothing to do; 1 refused or failed; 2 wrong usage.
"""


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--pid", metavar="N", help="the running Go program (default: CGAGENT_TARGET_PID, as in a hook)")
    parser.add_argument(
        "--memory-limit",
        dest="limit",  # `memory_limit` is the cgroup's, where it is given from outside
        metavar="SIZE|auto|off",
        help="its new GOMEMLIMIT; auto: as decided by cgagent",
    )
    parser.add_argument(
        "--gomaxprocs", dest="hand_back", metavar="follow", help="hand the number back to the runtime (Go >= 1.25)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument("--force", action="store_true", help="override what the program, or a library in it, has set")
    add_numbers(parser, cpu=False)


def run(arguments: Arguments) -> int:
    """Tune; return the exit code."""
    pid = arguments.pid or os.environ.get(_TARGET_PID)
    if not pid:
        raise UsageError("--pid is missing", "write --pid N")
    pid_of(pid, "--pid" if arguments.pid else _TARGET_PID)
    limit = arguments.limit
    if limit is None and arguments.hand_back is None:
        raise UsageError("nothing to tune is named", "write --memory-limit auto, or --gomaxprocs follow")
    if arguments.hand_back not in (None, FOLLOW):
        hint = "write --gomaxprocs follow; a number can't be set from outside without risk to the program"
        raise UsageError(f"--gomaxprocs: '{arguments.hand_back}' is not known", hint)
    settled = Settled(arguments, pid=pid)
    size = None if limit is None else _size(limit, settled)
    try:
        with Program(settled.pid, write=not arguments.dry_run) as program:
            if size is not None:
                _tune_limit(program, size, settled, arguments)
            if arguments.hand_back is not None:
                _hand_back(program, settled, arguments)
    except LiveError as error:
        where = f"process {settled.pid} is not tuned"
        raise CgagentError(f"{where}: {error.message}", error.hint) from None
    return 0


def _size(text: str, settled: Settled) -> int:
    """The memory limit that is meant, in bytes."""
    if text == OFF:
        return NO_LIMIT
    if text != AUTO:
        return parse_size(text, "--memory-limit")
    choice = settled.decision.gomemlimit
    if choice.blocked:
        raise CgagentError(f"GOMEMLIMIT: {choice.blocked}", "mend it, or name the limit")
    return NO_LIMIT if choice.value is None else choice.value


def _tune_limit(program: Program, size: int, settled: Settled, arguments: Arguments) -> None:
    started_with = limits_started_with(settled.environment)
    done = tune_limit(program, size, started_with, force=arguments.force, dry_run=arguments.dry_run)
    if done.old == done.new:
        print(f"process {program.pid}: {GOMEMLIMIT} is {_shown(done.old)} already")
        return
    if not done.noted:
        say("tune", "no directory to note this change in: the next one will need --force (see CGAGENT_STATE_DIR)")
    verb = "would go" if arguments.dry_run else "went"
    version = printable(program.build.go_version)
    print(f"process {program.pid} ({version}): {GOMEMLIMIT} {verb} from {_shown(done.old)} to {_shown(done.new)}")


def _hand_back(program: Program, settled: Settled, arguments: Arguments) -> None:
    given = parse_gomaxprocs((settled.environment or {}).get(GOMAXPROCS, "")) is not None
    number = program.running().gomaxprocs
    if not plan_follow(program, set_by_environment=given, force=arguments.force):
        print(f"process {program.pid}: the runtime follows its quota already, {GOMAXPROCS} is {number}")
        return
    if not arguments.dry_run:
        apply_follow(program)
    verb = "would be" if arguments.dry_run else "is"
    print(
        f"process {program.pid} ({printable(program.build.go_version)}): {GOMAXPROCS} {verb} left to the runtime, now"
        f" {number}; it follows its quota within about a second, an idle program when it wakes"
    )


def _shown(size: int) -> str:
    return "off" if size == NO_LIMIT else f"{size} ({format_size(size)})"
