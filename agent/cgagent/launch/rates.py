"""Network rates as tc(8) reads them."""

from __future__ import annotations

from cgagent.errors import UsageError

_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_MULTIPLES |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_LEAST_RATE, _MOST_RATE = 1000, 10**12


def parse_rate(text: str, what: str) -> int:
    """`text` in bytes a second; see `cgagent.units.RATE_HELP`.

    Raises:
        UsageError: it is no rate, or so low that hardly a packet passes. `what` names the option.
    """
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text[len(digits) :].lower()
    multiple = _MULTIPLES.get(unit.removesuffix("bit").removesuffix("bps"))
    if not unit:
        multiple = 1
    elif not unit.endswith(("bit", "bps")):
        multiple = None
    whole, point, fraction = digits.partition(".")
    number = whole + fraction
    plain = number.isascii() and number.isdigit() and len(number) <= 20 and whole and (fraction or not point)
    if multiple is None or not plain:
        raise UsageError(f"{what}: '{text}' is not a rate", "write bits a second with tc's suffixes, as in 10mbit")
    rate = int(number) * multiple // int("1" + "0" * len(fraction)) // (1 if unit.endswith("bps") else 8)
    if not _LEAST_RATE <= rate <= _MOST_RATE:
        raise UsageError(f"{what}: '{text}' is out of range", "give 8kbit at least and 8tbit at most")
    return rate
