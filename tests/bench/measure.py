"""Whole-process cost of commands, side by side: wall time, CPU time and peak memory.

The commands take turns, so what else the machine does hits all of them alike, and every figure is shown as a
ratio to a baseline of the same run. The minimum is what the command itself costs; the median is what one sees.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

WARM_UP = 3
MEMORY_ROUNDS = 5

# ru_maxrss (getrusage(2)) of a child counts what it had before execve(2): a copy of its parent's memory. So the
# parent is the smallest interpreter there is.
_PEAK = """
import os, sys
null = os.open(os.devnull, os.O_RDWR)
pid = os.fork()
if not pid:
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.execv(sys.argv[1], sys.argv[1:])
print(os.wait4(pid, 0)[2].ru_maxrss)
"""


@dataclass
class Case:
    """A command to measure, and what was measured: wall and CPU seconds of each run, peak memory in bytes."""

    name: str
    argv: list[str]
    exit_code: int = 0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def median(self) -> float:
        """Median wall time in seconds."""
        return statistics.median(self.wall)

    @property
    def spread(self) -> float:
        """The middle half of the wall times, in seconds."""
        low, _, high = statistics.quantiles(self.wall, n=4)
        return high - low


def measure(cases: list[Case], rounds: int) -> None:
    """Run the cases in turn, `rounds` times each.

    Raises:
        RuntimeError: a command did not end as its case says; figures of a failure are no figures.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CGAGENT_", "GO"))}
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(-WARM_UP, rounds):
        for case in cases:
            start = time.perf_counter()
            pid = os.posix_spawn(case.argv[0], case.argv, environ, file_actions=_to(null))
            _, status, usage = os.wait4(pid, 0)
            wall = time.perf_counter() - start
            if os.waitstatus_to_exitcode(status) != case.exit_code:
                raise RuntimeError(f"{' '.join(case.argv)} did not end with {case.exit_code}")
            if number >= 0:
                case.wall.append(wall)
                case.cpu.append(usage.ru_utime + usage.ru_stime)
    os.close(null)
    for case in cases:
        case.peak = max(_peak(case, environ) for _ in range(MEMORY_ROUNDS))


def _to(null: int) -> list[tuple[int, int, int]]:
    return [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]


def _peak(case: Case, environ: dict[str, str]) -> int:
    argv = [sys.executable, "-I", "-S", "-c", _PEAK, *case.argv]
    return int(subprocess.run(argv, env=environ, check=True, stdout=subprocess.PIPE).stdout) * 1024


def table(cases: list[Case], baseline: Case) -> str:
    """The figures as text: milliseconds, MiB, and what they are to the baseline's."""
    lines = [
        f"{'':<34}{'median':>9}{'x':>7}{'minimum':>10}{'x':>7}{'spread':>9}{'cpu':>8}{'peak':>9}{'above':>9}",
        f"{'':<34}{'ms':>9}{'':>7}{'ms':>10}{'':>7}{'ms':>9}{'ms':>8}{'MiB':>9}{'MiB':>9}",
    ]
    lines += [
        f"{case.name:<34}"
        f"{case.median * 1e3:>9.1f}{case.median / baseline.median:>7.2f}"
        f"{min(case.wall) * 1e3:>10.1f}{min(case.wall) / min(baseline.wall):>7.2f}"
        f"{case.spread * 1e3:>9.1f}{statistics.median(case.cpu) * 1e3:>8.1f}"
        f"{case.peak / 2**20:>9.1f}{(case.peak - baseline.peak) / 2**20:>+9.1f}"
        for case in cases
    ]
    return "\n".join(lines)


def rounds_wanted(default: int) -> int:
    """How many rounds the command line asks for."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else default
