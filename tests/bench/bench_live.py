"""What it costs to look into running Go programs: `python tests/bench/bench_live.py [ROUNDS]`.

Budget: a small program is found in 15 ms; a big one (170,000 functions) without holding more than a few MiB. Found
once, a program is read anew in a fraction of a millisecond. The baseline, `ratio`'s 1.0, is what everybody has to do:
read the program's text once from its memory and look for four bytes in it.
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
from cgagent.golang.elf import PF_X
from cgagent.golang.live import Program
from golang.toolchain import UnavailableError, cache, toolchain
from live.programs import VERSIONS, Told, go_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES, FUNCTIONS = 17, 10_000
_VERSION = VERSIONS[-1]

# In an interpreter of its own: the most memory that was held before and after a program was found, in KiB.
_PEAK = """
import sys
def peak():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1])
from cgagent.golang.live import Program
before = peak()
program = Program(sys.argv[1])
program.running()
print(peak() - before)
"""


def big_program() -> str:
    """A program of 170,000 functions and more, built by the newest Go."""
    built = f"{cache()}/programs/live-big-{_VERSION}-{PACKAGES}x{FUNCTIONS}"
    if os.path.exists(built):
        return built
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as source:
        _write(f"{source}/go.mod", "module example.com/big\n\ngo 1.21\n")
        names = [f"p{number}" for number in range(PACKAGES)]
        for name in names:
            functions = "".join(
                f"//go:noinline\nfunc f{n}(x int) int {{ return x*{n} + {n} }}\n" for n in range(FUNCTIONS)
            )
            table = ", ".join(f"f{n}" for n in range(FUNCTIONS))
            _write(f"{source}/{name}/{name}.go", f"package {name}\n\n{functions}\nvar T = []func(int) int{{{table}}}\n")
        imports = "".join(f'\t"example.com/big/{name}"\n' for name in names)
        uses = "".join(f"\tprintln({name}.T[n%len({name}.T)](n))\n" for name in names)
        main = f'package main\n\nimport (\n\t"os"\n{imports})\n\nfunc main() {{\n\tn := len(os.Args)\n{uses}'
        _write(f"{source}/main.go", main + "\tbuffer := make([]byte, 1)\n\tos.Stdin.Read(buffer)\n}\n")
        environ = {**os.environ, "GOCACHE": f"{cache()}/go-build", "GOENV": "off", "GOTOOLCHAIN": "local"}
        environ |= {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
        command = [toolchain(_VERSION), "build", "-buildvcs=false", "-ldflags=-s -w", "-o", "big", "."]
        subprocess.run(command, cwd=source, env=environ, check=True)
        shutil.move(f"{source}/big", built)
    return built


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _text_once(program: Program) -> None:
    for segment in program.image.segments:
        if segment.flags & PF_X:
            for _, chunk in program.image.chunks(segment.address, segment.filesz):
                chunk.find(b"\xff\xfe\xfd\xfc")


def _times(action: Callable[[], object], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print."""
    rounds = rounds_wanted(20)
    programs = {
        "minimal, stripped": go_program(_VERSION, "minimal stripped"),
        "standard library": go_program(_VERSION, "std"),
        "standard library, stripped PIE": go_program(_VERSION, "std pie stripped"),
        "cgo, stripped": go_program(_VERSION, "cgo stripped"),
        "170,000 functions, stripped": big_program(),
    }
    print(f"{'':<32}{'functions':>10}{'size':>8}{'find':>9}{'minimum':>9}{'ratio':>7}{'read':>9}{'memory':>9}")
    print(f"{'':<32}{'':>10}{'MiB':>8}{'ms':>9}{'ms':>9}{'':>7}{'ms':>9}{'MiB':>9}")
    for name, path in programs.items():
        told = Told(path)
        try:
            time.sleep(0.5)
            program = Program(told.pid)
            find = _times(lambda: Program(told.pid).close(), rounds)  # noqa: B023 called at once
            base = _times(lambda: _text_once(program), rounds)  # noqa: B023
            read = _times(program.running, 10 * rounds)
            peak = subprocess.run([sys.executable, "-c", _PEAK, told.pid], capture_output=True, text=True, check=True)
            print(
                f"{name:<32}{program.addresses.module.functions[1]:>10}{os.path.getsize(path) / 2**20:>8.1f}"
                f"{statistics.median(find) * 1e3:>9.2f}{min(find) * 1e3:>9.2f}{min(find) / min(base):>7.1f}"
                f"{statistics.median(read) * 1e3:>9.3f}{int(peak.stdout) / 1024:>9.1f}"
            )
            program.close()
        finally:
            told.end()


if __name__ == "__main__":
    try:
        main()
    except UnavailableError as error:
        print(f"not measured: {error}")
