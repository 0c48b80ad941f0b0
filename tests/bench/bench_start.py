"""What it costs to start cgagent, against the bare interpreter: `python tests/bench/bench_start.py [ROUNDS]`.

Budget (design section 8): `write` and `exec` take at most 2.5 times the bare interpreter's time and 6 MB more
memory. The modules are compiled first, as an installation from a wheel compiles them.
"""

from __future__ import annotations

import compileall
import os
import sys
import tempfile

import cgagent

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from bench.measure import Case, measure, rounds_wanted, table

TIMES, MEGABYTES = 2.5, 6.0


def main() -> None:
    """Measure and print."""
    compileall.compile_dir(os.path.dirname(cgagent.__file__), quiet=1)
    python = sys.executable
    program = os.path.join(os.path.dirname(python), "cgagent")
    with tempfile.TemporaryDirectory() as directory:
        bare = Case("python -c pass", [python, "-c", "pass"])
        budgeted = [
            Case("cgagent write (unchanged)", [program, "write", "--env-file", f"{directory}/go.env"]),
            Case("cgagent write --env-file -", [program, "write", "--env-file", "-"]),
            Case("cgagent exec -- true", [program, "exec", "--", "true"]),
        ]
        others = [
            Case("cgagent explain -o json", [program, "explain", "-o", "json"]),
            Case("cgagent explain", [program, "explain"]),
            Case("cgagent capture", [program, "capture", "--quiet", "-"]),
            Case("cgagent --version", [program, "--version"]),
            Case("for scale: import argparse", [python, "-c", "import argparse"]),
        ]
        cases = [bare, *budgeted, *others]
        measure(cases, rounds_wanted(41))
    print(table(cases, bare))
    for case in budgeted:
        times, more = min(case.wall) / min(bare.wall), (case.peak - bare.peak) / 1e6
        verdict = "within" if times <= TIMES and more <= MEGABYTES else "OVER"
        print(f"{verdict} budget: {case.name}: {times:.2f} of {TIMES} times, {more:+.1f} of +{MEGABYTES} MB")


if __name__ == "__main__":
    main()
