"""Who gets it right: programs of Go, really run under `cgagent run --replay` on each capture of the gallery.

    make gallery        prints the table and writes it into GALLERY.md, between its markers

The judge is each capture's documented limit (entries.py). GOMAXPROCS is right from the quota's floor to what Go's
own rule makes of it (its ceiling, two at least), as far as there are CPUs; a memory limit is right at 90% of the limit.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile

from cgagent.capture.archive import pack
from gallery.entries import ENTRIES, Entry
from golang.toolchain import UnavailableError
from golang_matrix.observer import observer

AUTOMAXPROCS, AUTOMEMLIMIT = "go.uber.org/automaxprocs@v1.6.0", "github.com/KimMachineGun/automemlimit@v1.0.1"
# column -> toolchain, go.mod's `go` line, module
PROGRAMS = {
    "Go 1.24": ("1.24.11", "1.24", ""),
    "Go 1.25.0": ("1.25.0", "1.25", ""),
    "Go 1.26": ("1.26.6", "1.26", ""),
    "Go 1.27": ("1.27.3", "1.27", ""),
    "automaxprocs": ("1.24.11", "1.24", AUTOMAXPROCS),
    "automemlimit": ("1.24.11", "1.24", AUTOMEMLIMIT),
}
NOTHING = (1 << 63) - 1  # debug.SetMemoryLimit's "no limit"
BEGIN, END = "<!-- gallery: made by `make gallery` -->", "<!-- end of gallery -->"
DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "GALLERY.md")
CGAGENT = (sys.executable, "-m", "cgagent")


def right_procs(entry: Entry, procs: int) -> bool:
    """Whether GOMAXPROCS is what the limits that bind make of it, by any of the usual roundings."""
    cpus = entry.allowed or entry.capture.meta.cpu_count or procs
    if entry.cores is None:
        return procs == cpus
    least, most = max(1, math.floor(entry.cores)), max(2, math.ceil(entry.cores))
    return min(least, cpus) <= procs <= min(most, cpus)


def right_memory(entry: Entry, limit: int) -> bool:
    """Whether GOMEMLIMIT is 90% of the limit that binds, up to rounding; none where there is none."""
    wanted = NOTHING if entry.memory is None else entry.memory * 9 // 10
    return abs(limit - wanted) <= 1


def run(program: str, archive: str, *options: str) -> tuple[int, int]:
    """GOMAXPROCS and memory limit of a program that is shown a capture.

    Raises:
        RuntimeError: it did not start, or said something else.
    """
    words = [*CGAGENT, "run", "--replay", archive, *options, "--", program]
    kept = {name: text for name, text in os.environ.items() if name not in ("GOMAXPROCS", "GOMEMLIMIT", "GODEBUG")}
    done = subprocess.run(words, env=kept, input="", capture_output=True, text=True, check=False, timeout=120)
    fields = done.stdout.split()
    if done.returncode or len(fields) != 2:
        raise RuntimeError(f"{' '.join(words[2:])} ended with {done.returncode}: {done.stderr.strip()}")
    return int(fields[0]), int(fields[1])


def size(count: int | None) -> str:
    """Bytes as people write them."""
    if count is None or count == NOTHING:
        return "none"
    return (
        f"{count / (1 << 30):g}Gi" if count >= 1 << 30 and count % (1 << 28) == 0 else f"{round(count / (1 << 20))}Mi"
    )


def row(entry: Entry, archive: str, programs: dict[str, str]) -> list[str]:
    """One line of the table: the truth, and what each program ran with, wrong ones in bold."""
    cores = "none" if entry.cores is None else f"{entry.cores:g}"
    truth = f"{cores} of {entry.allowed or '?'}, {size(entry.memory)}"
    cells = [f"{entry.title} ({'real' if entry.real else 'made'})", truth]
    for column, program in programs.items():
        procs, limit = run(program, archive)
        if column == "automemlimit":
            cells.append(size(limit) if right_memory(entry, limit) else f"**{size(limit)}**")
        else:
            cells.append(str(procs) if right_procs(entry, procs) else f"**{procs}**")
    procs, limit = run(programs["Go 1.24"], archive, "--go-env")
    judged = (str(procs), right_procs(entry, procs)), (size(limit), right_memory(entry, limit))
    return [*cells, ", ".join(text if right else f"**{text}**" for text, right in judged)]


def table() -> str:
    """The whole table in Markdown.

    Raises:
        UnavailableError: a toolchain or module can't be had.
    """
    programs = {column: observer(*what) for column, what in PROGRAMS.items()}
    heads = ["layout", "limits that bind", *programs, "with `--go-env`"]
    lines = [heads, ["---"] * len(heads)]
    rights = [0] * (len(heads) - 2)
    with tempfile.TemporaryDirectory(prefix="cgagent-gallery-") as directory:
        for name, entry in ENTRIES.items():
            archive = f"{directory}/{name}.tar.gz"
            with open(archive, "wb") as file:
                file.write(pack(entry.capture))
            cells = row(entry, archive, programs)
            print(name, *cells[1:], sep=" | ", file=sys.stderr)
            rights = [count + ("**" not in cell) for count, cell in zip(rights, cells[2:], strict=True)]
            lines.append(cells)
    lines.append([f"**right, of {len(ENTRIES)}**", "", *map(str, rights)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> int:
    """Write the table into the document."""
    try:
        text = table()
    except (UnavailableError, RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 1
    with open(DOCUMENT, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    after = rest.partition(END)[2]
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
