"""Sizes, CPU counts, ratios and durations as Kubernetes and Docker users write them, read exactly.

Sizes: plain bytes, or with a suffix. Kubernetes' own: Ki Mi Gi Ti Pi Ei (powers of 1024),
k M G T P E (powers of 1000). Docker's: b, and the lower-case k m g t, which are powers of 1024 there.
`k` is 1000 in Kubernetes and 1024 in Docker: a lower-case letter is read as Docker does, as `512m` of memory
can hardly mean Kubernetes' half a byte. `256Mi`, `256MiB` and `256m` are equal; `1G` is 10^9.
"""

from __future__ import annotations

from cgagent.errors import UsageError

_BINARY = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

SIZE_HELP = "bytes, or with a suffix: Ki Mi Gi Ti or k m g t (powers of 1024), K M G T (powers of 1000)"
CPU_HELP = "CPUs as 1.5, 1500m or a whole number"
RATE_HELP = (
    "as tc reads it: bits a second, bare or as bit kbit mbit gbit tbit (powers of 1000) or kibit mibit gibit tibit "
    "(1024), or bytes a second as bps kbps mbps gbps tbps; 8kbit at least"
)

# Nothing real is larger; a bound on digits keeps untrusted text from costing quadratic time.
_MAX_DIGITS = 20
# Go ends a program whose GOMEMLIMIT is above math.MaxInt64 before its first line runs.
_MAX_SIZE = (1 << 63) - 1


def _decimal(text: str) -> tuple[int, int] | None:
    """`text` as an exact fraction (numerator, power of ten), or None where it is no plain decimal number."""
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit()) or not whole or (point and not fraction):
        return None
    if len(digits) > _MAX_DIGITS:
        return None
    return int(digits), int("1" + "0" * len(fraction))


def _suffix_factor(suffix: str) -> int | None:
    if suffix in ("", "b", "B"):
        return 1
    letter, rest = suffix[0], suffix[1:]
    power = _BINARY.get(letter.lower())
    if power is None or rest not in ("", "i", "iB", "b", "B"):
        return None
    thousand = letter.isupper() and not rest.startswith("i")
    return int((1000 if thousand else 1024) ** power)


def parse_size(text: str, what: str) -> int:
    """`text` in bytes, rounded down to a whole one. `what` names the option or variable in errors.

    Raises:
        UsageError: `text` is no size, or 8 EiB or more.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    value = _decimal(number)
    factor = _suffix_factor(text[len(number) :])
    if value is None or factor is None:
        raise UsageError(f"{what}: '{text}' is not a size", "write bytes or a suffix, as in 256Mi")
    size = value[0] * factor // value[1]
    if size > _MAX_SIZE:
        raise UsageError(f"{what}: '{text}' is more than any machine has", "give less than 8Ei")
    return size


def parse_cpus(text: str, what: str) -> int:
    """`text` in millicores, rounded up to a whole one (Kubernetes rounds so too).

    Raises:
        UsageError: `text` is no CPU count.
    """
    milli = text.endswith("m")
    value = _decimal(text[:-1] if milli else text)
    if value is None:
        raise UsageError(f"{what}: '{text}' is not a CPU count", "write 1.5, 1500m or a whole number")
    return -(-value[0] * (1 if milli else 1000) // value[1])


def parse_count(text: str, what: str, least: int = 0) -> int:
    """`text` as a whole number of at least `least`.

    Raises:
        UsageError: it is none.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS or int(text) < least:
        raise UsageError(f"{what}: '{text}' is not a whole number", f"give {least} or more")
    return int(text)


def parse_duration(text: str, what: str) -> float:
    """`text` in seconds: `50ms`, `1.5s`, `2m`, `1h`, or a bare number of seconds.

    Raises:
        UsageError: it is none, or is more than a day.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    factor = _SECONDS.get(text[len(number) :] or "s")
    whole, point, fraction = number.partition(".")
    digits, bare_point = whole + fraction, point and not fraction
    if factor is None or not (digits.isascii() and digits.isdigit()) or len(digits) > 9 or not whole or bare_point:
        raise UsageError(f"{what}: '{text}' is not a duration", "write 50ms, 1.5s, 2m or a number of seconds")
    seconds = float(number) * factor
    if seconds > 86400:
        raise UsageError(f"{what}: '{text}' is more than a day", "give less")
    return seconds


class Ratio:
    """An exact share of a whole: 0.9 is nine tenths, not 0.90000000000000002."""

    __slots__ = ("denominator", "numerator")

    def __init__(self, numerator: int, denominator: int) -> None:
        self.numerator = numerator
        self.denominator = denominator

    def of(self, amount: int) -> int:
        """This share of `amount`, rounded down."""
        return amount * self.numerator // self.denominator

    def __str__(self) -> str:
        return f"{self.numerator * 100 / self.denominator:.10g}%"


def parse_ratio(text: str, what: str) -> Ratio:
    """`text` as a share above 0 and at most 1: `0.9` or `90%`.

    Raises:
        UsageError: it is none.
    """
    percent = text.endswith("%")
    value = _decimal(text.removesuffix("%"))
    if value is not None:
        ratio = Ratio(value[0], value[1] * (100 if percent else 1))
        if 0 < ratio.numerator <= ratio.denominator:
            return ratio
    raise UsageError(f"{what}: '{text}' is not a ratio", "give a number above 0 and at most 1, such as 0.9")


def format_size(size: int) -> str:
    """`size` bytes for a person: the largest binary unit that keeps it exact, else one decimal place."""
    units = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
    power = 0
    while power < len(units) - 1 and size >= 1024 ** (power + 1):
        power += 1
    if size % 1024**power == 0:
        return f"{size // 1024**power}{units[power]}"
    return f"{size / 1024**power:.1f}{units[power]}"


def format_cores(cores: float) -> str:
    """A CPU count for a person: `1.5`, `2`, `0.25`."""
    return f"{cores:.3f}".rstrip("0").rstrip(".") or "0"


def format_cpus(cores: float) -> str:
    """A CPU count with its noun: `1 CPU`, `1.5 CPUs`."""
    return f"{format_cores(cores)} CPU{'' if cores == 1 else 's'}"
