"""`cgagent explain`: what was seen, what was decided, why, and what is wrong."""

from __future__ import annotations

import os
import sys

from cgagent.cgroup.usage import read_usage
from cgagent.commands.options import TWINS_HELP, Settled, add_limits, add_policy
from cgagent.errors import EXIT_NO_LIMITS, CgagentError, UsageError
from cgagent.golang import buildinfo
from cgagent.host import Host, ReadError
from cgagent.report.findings import find
from cgagent.report.picture import Picture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.golang.buildinfo import BuildInfo
    from cgagent.golang.live import Running
    from cgagent.parser import Arguments, Parser
    from cgagent.report.text import Style

# Docker shows as many.
_ID_LENGTH = 12
OUTPUTS = ("text", "json", "yaml")
_GO_PROGRAM = "name a program that the go command built"

DESCRIPTION = "Say which limits bind a process, which GOMAXPROCS and GOMEMLIMIT follow, why, and what is wrong."
EPILOG = f"""\
{TWINS_HELP}

examples:
  cgagent explain                            this shell, or this container
  cgagent explain --pid 4711                 another process: its cgroup, its environment, its program
  cgagent explain --binary ./orders          as if this program were started here
  cgagent explain --root orders.tar.gz       what cgagent capture took from another machine
  cgagent explain -o json | jq .decision     for a script

FINDINGS.md in the repository explains each finding's id.
exit codes: 0 explained, whatever was found; 1 there is nothing to read; 2 wrong usage;
3 no limit found and --require-limits given.
"""


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--pid", metavar="N", help="explain a running process instead of this one")
    parser.add_argument(
        "--container-id",
        metavar="ID",
        help="the first process of that container (a pod's containerID), in a shared process namespace",
    )
    parser.add_argument("--binary", metavar="PATH", help="the Go program that will run under these limits")
    parser.add_argument(
        "--root",
        metavar="DIR|FILE",
        help="read a captured or mounted tree, or a file of capture, instead of this machine",
    )
    parser.add_argument("-o", "--output", metavar="|".join(OUTPUTS), help="text (default), json, yaml")
    add_policy(parser)
    add_limits(parser)


def run(arguments: Arguments) -> int:
    """Print the explanation; return the exit code."""
    pid = arguments.pid if arguments.container_id is None else _first_of(arguments.container_id)
    binary = arguments.binary or (f"/proc/{pid}/exe" if pid and not arguments.root else None)
    settled = Settled(arguments, root=arguments.root, pid=pid, binary=binary)
    output = settled.texts.choice("output", OUTPUTS)
    running, unknown = _running(settled)
    picture = Picture(
        settled.pid,
        settled.host.root,
        settled.limits,
        read_usage(settled.limits),
        settled.decision,
        settled.environment,
        _program(settled, arguments.binary),
        running,
        unknown,
        settled.host.about,
    )
    sys.stdout.write(_render(picture, output))
    return EXIT_NO_LIMITS if settled.requires_limits and not settled.limits.found else 0


def _first_of(container: str) -> str:
    """The PID of a container's first process: its cgroup's path names the container, in every runtime's shape."""
    container = container.rpartition("//")[2]
    if not (len(container) >= _ID_LENGTH and container.isascii() and container.isalnum()):
        raise UsageError(f"--container-id: '{container}' is not a container's ID", "write it as kubectl shows it")
    host = Host()
    for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        try:
            if container in host.read(f"/proc/{pid}/cgroup"):
                return pid
        except ReadError:
            pass  # it has ended
    raise CgagentError(f"no process of container {container} is to be seen", "is the process namespace shared?")


def _program(settled: Settled, binary: str | None) -> BuildInfo | None:
    if binary is not None:
        try:
            info = buildinfo.read(binary)
        except CgagentError as error:
            raise CgagentError(f"--binary: {error.message}", error.hint or _GO_PROGRAM) from None
        if info is None:
            raise CgagentError(f"--binary: {binary} is not a Go program", _GO_PROGRAM)
        return info
    if settled.pid == "self" or not settled.host.live:
        return None
    try:
        return buildinfo.read(f"/proc/{settled.pid}/exe")
    except CgagentError:
        return None  # not permitted, or gone: what it is stays unknown, and the rest is worth telling


def _running(settled: Settled) -> tuple[Running | None, str | None]:
    """What the process's Go runtime holds, or why that is not known; neither of a program that is no Go program."""
    if settled.pid == "self" or not settled.host.live:
        return None, None
    from cgagent.golang.live import FOREIGN, GONE, LiveError, Program

    try:
        with Program(settled.pid) as program:
            return program.running(), None
    except LiveError as error:
        return None, None if error.kind in (FOREIGN, GONE) else error.line()


def _render(picture: Picture, output: str) -> str:
    findings = find(picture)
    if output == "text":
        from cgagent.report.text import Style, render

        return render(picture, findings, _style(Style))
    from cgagent.report.document import document

    content = document(picture, findings)
    if output == "json":
        import json

        return json.dumps(content, indent=2) + "\n"
    from cgagent import yamltext

    return yamltext.dump(content)


def _style(make: type[Style]) -> Style:
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    blocks = terminal and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return make(terminal and not os.environ.get("NO_COLOR"), blocks)
