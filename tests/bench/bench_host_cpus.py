"""What showing another machine costs: system calls that no supervisor hears of, one that it answers, and the start.

    python tests/bench/bench_host_cpus.py [ROUNDS]

The same loop of system calls runs alone, under `cgagent run`, and under `run` with --host-cpus and with --simulate.
CPU time of the loop's own process for the calls that pass, wall time for the ones that wait for an answer; the
minimum of the rounds, as the machine's other work only adds. It prints the table of README.md, and the same as ratios
to a plain `run`.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from bench.measure import rounds_wanted

CGAGENT = os.path.join(os.path.dirname(sys.executable), "cgagent")
PASSING, ANSWERED, STARTS = 200_000, 2_000, 20
CALLS = ("getpid", "read", "openat and close", "sched_getaffinity")
_C = """\
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv) {
    int count = atoi(argv[2]), zero = open("/dev/zero", O_RDONLY);
    char byte;
    cpu_set_t mask;
    clockid_t clock = strcmp(argv[1], "sched_getaffinity") ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    double start = now(clock);
    for (int i = 0; i < count; i++) {
        if (!strcmp(argv[1], "getpid")) syscall(SYS_getpid);
        else if (!strcmp(argv[1], "read")) { if (read(zero, &byte, 1) != 1) return 1; }
        else if (!strcmp(argv[1], "openat")) close(open("/dev/null", O_RDONLY));
        else syscall(SYS_sched_getaffinity, 0, sizeof mask, &mask);
    }
    printf("%f\\n", (now(clock) - start) / count);
    return 0;
}
"""
SETTINGS = {
    "alone": [],
    "run": [CGAGENT, "run", "--"],
    "run --host-cpus 64": [CGAGENT, "run", "--host-cpus", "64", "--"],
    "run --simulate v2 --host-cpus 64": [CGAGENT, "run", "--simulate", "v2", "--host-cpus", "64", "--"],
}


def loop(place: str) -> str:
    """The compiled loop."""
    if shutil.which("gcc") is None:
        sys.exit("bench_host_cpus: gcc is not installed")
    source, program = f"{place}/loop.c", f"{place}/loop"
    with open(source, "w", encoding="ascii") as file:
        file.write(_C)
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    return program


def per_call(program: str, call: str, count: int, rounds: int) -> dict[str, float]:
    """Nanoseconds a call takes in each setting, which take turns."""
    best = dict.fromkeys(SETTINGS, float("inf"))
    for _ in range(rounds):
        for name, words in SETTINGS.items():
            done = subprocess.run([*words, program, call, str(count)], stdout=subprocess.PIPE, text=True, check=True)
            best[name] = min(best[name], float(done.stdout))
    return best


def starts(rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds from start to end of `true` in each setting: minimum and median."""
    taken: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(rounds):
        for name, words in SETTINGS.items():
            start = time.perf_counter()
            subprocess.run([*words, "/bin/true"], check=True)
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: (min(times), statistics.median(times)) for name, times in taken.items()}


def table(*heads: str, rows: dict[str, list[str]]) -> None:
    """A table in Markdown, as README.md has it."""
    lines = [heads, ["---"] * len(heads), *([f"`{name}`", *cells] for name, cells in rows.items())]
    print("".join(f"| {' | '.join(cells)} |\n" for cells in lines))


def main() -> None:
    rounds = rounds_wanted(5)
    with tempfile.TemporaryDirectory(prefix="cgagent-bench-") as place:
        program = loop(place)
        columns = [per_call(program, call, PASSING, rounds) for call in ("getpid", "read", "openat")]
        columns.append(per_call(program, "sched_getaffinity", ANSWERED, rounds))
    table("ns a call", *CALLS, rows={name: [f"{best[name]:,.0f}" for best in columns] for name in SETTINGS})
    ratios = {name: [f"{best[name] / best['run']:.2f}" for best in columns] for name in SETTINGS}
    table("a call, of `run`'s", *CALLS, rows=ratios)
    times = {name: [f"{one:.1f}" for one in both] for name, both in starts(max(STARTS, rounds)).items()}
    table("start and end of `true`, ms", "minimum", "median", rows=times)


if __name__ == "__main__":
    main()
