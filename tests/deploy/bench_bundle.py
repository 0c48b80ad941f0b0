"""What the bundle costs where it starts a program: `python tests/deploy/bench_bundle.py BUNDLE [ROUNDS]`.

BUNDLE is the program of build/cgagent-bundle-amd64.tar. The baseline is the interpreter that it has inside, started
bare. The peer is the same commands of the installed package.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from bench.measure import Case, measure, table


def main() -> int:
    """Measure and print."""
    if not 2 <= len(sys.argv) <= 3:
        sys.stderr.write(f"{(__doc__ or '').splitlines()[0]}\n")
        return 2
    bundle = os.path.abspath(sys.argv[1])
    installed = os.path.join(os.path.dirname(sys.executable), "cgagent")
    python = os.path.realpath(sys.executable)
    given = ["exec", "--cpu-limit", "1500m", "--memory-limit", "256Mi", "--limits-from", "given", "--", "/bin/true"]
    baseline = Case("python -I -S -c pass", [python, "-I", "-S", "-c", "pass"])
    cases = [
        Case("/bin/true", ["/bin/true"]),
        baseline,
        Case("bundle exec -- /bin/true", [bundle, "exec", "--on-error", "ignore", "--", "/bin/true"]),
        Case("bundle exec, limits given", [bundle, *given]),
        Case("bundle write", [bundle, "write", "--env-file", "-"]),
        Case("bundle explain", [bundle, "explain"]),
        Case("installed exec -- /bin/true", [installed, "exec", "--on-error", "ignore", "--", "/bin/true"]),
        Case("installed explain", [installed, "explain"]),
    ]
    measure(cases, int(sys.argv[2]) if len(sys.argv) > 2 else 100)
    print(table(cases, baseline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
