"""Numbers as the kernel writes them: strictly, for a number with rubbish behind it is not a number."""

from __future__ import annotations

from cgagent.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

UINT64_MAX = (1 << 64) - 1
INT64_MAX = (1 << 63) - 1
_MAX_CPUS = 1 << 16  # CONFIG_NR_CPUS is 8192 at most; the bound keeps `0-4000000000` from taking all memory


def one_line(text: str) -> str:
    """`text` without its one final newline. The kernel writes one; captures and tests may have lost it."""
    return text.removesuffix("\n")


def unsigned(text: str, file: str, most: int = UINT64_MAX) -> int:
    """`text` as a whole number from 0 to `most`.

    Raises:
        MalformedError: it holds anything but ASCII digits, or is larger.
    """
    # 20 digits hold every 64-bit number; a bound on length first keeps int() from costing quadratic time.
    if text.isascii() and text.isdigit() and len(text) <= 20:
        number = int(text)
        if number <= most:
            return number
    raise MalformedError(file, text, "expected a whole number")


def cpu_list(text: str, file: str) -> frozenset[int]:
    """A kernel CPU list (cpuset(7), "List format"), such as `0-3,8`, as the set of its CPU numbers.

    Raises:
        MalformedError: it is none.
    """
    line = one_line(text).strip(" \t")
    cpus: set[int] = set()
    count = 0
    for part in line.split(",") if line else ():
        first, dash, last = part.partition("-")
        low = unsigned(first, file, _MAX_CPUS)
        high = unsigned(last, file, _MAX_CPUS) if dash else low
        if high < low:
            raise MalformedError(file, part, "expected a CPU list such as 0-3,8")
        count += high - low + 1
        if count > _MAX_CPUS + 1:  # the kernel names each once; a long text that names all again and again takes hours
            raise MalformedError(file, line, "expected each CPU once")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def format_cpu_list(cpus: frozenset[int]) -> str:
    """`cpus` in the kernel's list format."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def whole_lines(text: str) -> Iterator[str]:
    """The lines of a file whose every line the kernel ends with a newline, one by one; an empty line stays one.

    No line at all is no malformed file: a kernel without cgroup mounts has an empty /proc/PID/cgroup.
    """
    start, size = 0, len(text)
    while start < size:
        end = text.find("\n", start)
        if end < 0:
            end = size
        yield text[start:end]
        start = end + 1


def flat_keyed(text: str) -> dict[str, str]:
    """A flat keyed file (`memory.stat`, `cpu.stat`, `memory.events`): `KEY VALUE` on each line.

    Values stay text, and lines of another shape are skipped: new kernels add keys, and only what a caller
    asks for by name has to be right.
    """
    parts = [line.partition(" ") for line in text.split("\n")]
    return {key: value for key, blank, value in parts if blank}
