"""Kubernetes' quantities (k8s.io/apimachinery pkg/api/resource/quantity.go): `500m`, `1.5`, `512Mi`, `129e6`."""

from __future__ import annotations

from cgagent.errors import UsageError

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
# What the API server takes is bounded too; a power of ten from a stranger must not cost memory.
_MAX_DIGITS, _MAX_EXPONENT = 40, 30


def ceil_of(quantity: object, parts: int, what: str) -> int:
    """`quantity` (text or number) in units of 1/`parts`, rounded up as the downward API does: CPUs in 1/1000.

    Raises:
        UsageError: it is none; `what` names it.
    """
    numerator, denominator = _fraction(str(quantity), what)
    return -(-numerator * parts // denominator)


def _fraction(text: str, what: str) -> tuple[int, int]:
    """`text` as an exact fraction."""
    mantissa, factor, power = _split(text.removeprefix("+"), what)
    whole, point, fraction = mantissa.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS or (point and not digits):
        raise _wrong(text, what)
    power -= len(fraction)
    return int(digits) * factor * int(10 ** max(0, power)), int(10 ** max(0, -power))


def _split(text: str, what: str) -> tuple[str, int, int]:
    """`text` as its mantissa, a binary factor and a power of ten."""
    if text[-2:] in _BINARY:
        return text[:-2], int(1024 ** _BINARY[text[-2:]]), 0
    mantissa, mark, tail = text.replace("E", "e").partition("e")
    if mark and tail:
        return mantissa, 1, _exponent(tail, text, what)
    if text[-1:] in _DECIMAL:
        return text[:-1], 1, _DECIMAL[text[-1:]]
    return text, 1, 0


def _exponent(tail: str, text: str, what: str) -> int:
    digits = tail.removeprefix("+").removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 2 or int(digits) > _MAX_EXPONENT:
        raise _wrong(text, what)
    return -int(digits) if tail.startswith("-") else int(digits)


def _wrong(text: str, what: str) -> UsageError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return UsageError(f"{what}: '{shown}' is not a quantity", "write it as Kubernetes does, such as 500m or 512Mi")
