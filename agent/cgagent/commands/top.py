"""`cgagent top`: every Go process here that the caller may look into, with what it runs with and what binds it."""

from __future__ import annotations

import json
import os
import sys

from cgagent.commands.options import TWINS_HELP, add_numbers, pid_of, say
from cgagent.commands.processes import Processes, Row
from cgagent.errors import UsageError, printable
from cgagent.policy import Policy
from cgagent.texts import Texts
from cgagent.units import format_cores, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cgagent.parser import Arguments, Parser

SCHEMA = "cgagent.top/1"
OUTPUTS = ("text", "json")

DESCRIPTION = "Show what every Go process here really runs with, beside its limits: live, or once."
EPILOG = f"""\
Nothing is asked of the programs: their memory is read, as a debugger does. So only those are shown that the caller may
look into, in /proc as it is here: the machine's, the container's, or the pod's with shareProcessNamespace.

columns: cpus (the CPU limit), thr (share of periods throttled), procs (GOMAXPROCS), wantprocs (what cgagent would
set), memory (in use in the cgroup), limit (the cgroup's), gomemlimit, wantlimit (what cgagent would set), go (memory
that Go manages, and its share of GOMEMLIMIT), live (the heap as of the last cycle), gc (the garbage collector's share
of the CPU time that GOMAXPROCS allows).
Shares are those since the last look; at the first, since the start.

keys: left and right choose the column to sort by, r turns the order, q ends.

{TWINS_HELP}

examples:
  cgagent top                                    live
  cgagent top --once --sort gc                   a table
  cgagent top --once -o json | jq '.processes[] | select(.running.GOMAXPROCS > .decision.GOMAXPROCS)'

exit codes: 0 done; 1 a process that --pid names can't be looked into; 2 wrong usage.
"""


class Column:
    """One column: its title, the row's text in it, what it is sorted by, and whether the largest comes first."""

    def __init__(
        self, title: str, text: Callable[[Row], str], key: Callable[[Row], float | str | None], *, largest: bool = True
    ) -> None:
        self.title = title
        self.text = text
        self.key = key
        self.largest = largest


def _size(size: float | None, none: str = "-") -> str:
    return none if size is None else format_size(int(size))


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _used(row: Row) -> int | None:
    used = row.usage.memory.get("usage_bytes")
    return None if used is None else int(used)


def _managed(row: Row) -> str:
    return format_size(row.running.managed) + (f" {row.of_limit:.0%}" if row.of_limit is not None else "")


COLUMNS = (
    Column("pid", lambda row: str(row.pid), lambda row: row.pid, largest=False),
    Column("name", lambda row: printable(row.name), lambda row: row.name, largest=False),
    Column(
        "version", lambda row: printable(row.build.go_version.split()[0]), lambda row: (row.build.release or (0, 0))[1]
    ),
    Column("cpus", lambda row: "-" if row.cores is None else format_cores(row.cores), lambda row: row.cores),
    Column("thr", lambda row: _share(row.throttled), lambda row: row.throttled),
    Column("procs", lambda row: str(row.running.gomaxprocs or "?"), lambda row: row.running.gomaxprocs),
    Column(
        "wantprocs", lambda row: str(row.decision.gomaxprocs.value or "-"), lambda row: row.decision.gomaxprocs.value
    ),
    Column("memory", lambda row: _size(_used(row)), _used),
    Column("limit", lambda row: _size(row.memory_limit), lambda row: row.memory_limit),
    Column("gomemlimit", lambda row: _size(row.running.memory_limit, "off"), lambda row: row.running.memory_limit),
    Column("wantlimit", lambda row: _size(row.decision.gomemlimit.value), lambda row: row.decision.gomemlimit.value),
    Column("go", _managed, lambda row: row.running.managed),
    Column("live", lambda row: format_size(row.running.heap_live), lambda row: row.running.heap_live),
    Column("gc", lambda row: "-" if row.gc_share is None else f"{row.gc_share:.1%}", lambda row: row.gc_share),
)
NAMES = tuple(dict.fromkeys(column.title for column in COLUMNS))


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--pid", action="append", metavar="N", help="this process alone; may be given several times")
    parser.add_argument("--once", action="store_true", help="print what is so now, and end")
    parser.add_argument("--sort", metavar="COLUMN", help=f"one of {', '.join(NAMES)} (default gc)")
    parser.add_argument("--interval", metavar="SECONDS", help="time between two looks (default 2)")
    parser.add_argument("-o", "--output", metavar="|".join(OUTPUTS), help="with --once: text (default), json")
    add_numbers(parser)


def run(arguments: Arguments) -> int:
    """Show the processes; return the exit code."""
    texts = Texts(arguments, {})
    output = texts.choice("output", OUTPUTS)
    chosen = texts.choice("sort", ("gc", *NAMES))
    column = next(index for index, one in enumerate(COLUMNS) if one.title == chosen)
    interval = _interval(arguments.interval)
    once = arguments.once or not sys.stdout.isatty()
    if output == "json" and not once:
        raise UsageError("-o json prints once", "write --once -o json")
    processes = Processes(Policy(Texts(arguments, os.environ)), [int(pid_of(text)) for text in arguments.pid or ()])
    try:
        if not once:
            from cgagent.commands.screen import show

            return show(processes, column, interval)
        rows = ordered(processes.look(), column)
        if output == "json":
            document = {"schema": SCHEMA, "processes": [row.document() for row in rows]}
            print(json.dumps(document | {"not_permitted": processes.denied}, indent=2))
        else:
            print("\n".join(table(rows)))
            if processes.denied:
                say("top", remark(processes))
        return 0
    finally:
        processes.close()


def ordered(rows: Sequence[Row], column: int, *, turned: bool = False) -> list[Row]:
    """`rows` sorted by a column; what is not known comes last."""
    key = COLUMNS[column].key
    known = sorted((row for row in rows if key(row) is not None), key=lambda row: row.pid)
    known.sort(key=key, reverse=COLUMNS[column].largest != turned)  # type: ignore[arg-type]  # one type in a column
    return [*known, *(row for row in rows if key(row) is None)]


def table(rows: Sequence[Row]) -> list[str]:
    """Title and rows in columns: the name to the left, numbers to the right."""
    cells = [[column.title.upper() for column in COLUMNS], *([one.text(row) for one in COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(COLUMNS))]
    left = (1, 2)
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def remark(processes: Processes) -> str:
    """What to know of those that are not shown."""
    noun = "process" if processes.denied == 1 else "processes"
    return f"{processes.denied} {noun} may not be looked into: {printable(processes.why_denied)}"


def _interval(text: str | None) -> float:
    try:
        interval = 2.0 if text is None else float(text)
    except ValueError:
        interval = 0.0
    if not 0.1 <= interval <= 3600:
        raise UsageError(f"--interval: '{text}' is no time between two looks", "give 0.1 to 3600 seconds")
    return interval
