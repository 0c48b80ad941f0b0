"""IPv4 networks as numbers: the public `ipaddress` module costs 4 ms of import."""

from __future__ import annotations

from _socket import inet_ntop, inet_pton

from cgagent.errors import UsageError
from cgagent.record import Record

_AF_INET = 2


def packed(address: int) -> bytes:
    """An address as the kernel takes it: four bytes, network order."""
    return address.to_bytes(4, "big")


def dotted(address: int) -> str:
    """An address as people write it."""
    return inet_ntop(_AF_INET, packed(address))


class Subnet(Record):
    """An IPv4 network.

    Attributes:
        base: its first address, as a number.
        prefix: how many bits of it are fixed.
    """

    __slots__ = ("base", "prefix")

    def __init__(self, base: int, prefix: int) -> None:
        self.base = base
        self.prefix = prefix

    @property
    def size(self) -> int:
        """How many addresses it spans."""
        return 1 << (32 - self.prefix)

    def overlaps(self, other: Subnet) -> bool:
        """Whether an address is in both."""
        return self.base < other.base + other.size and other.base < self.base + self.size

    def __str__(self) -> str:
        return f"{dotted(self.base)}/{self.prefix}"


def parse_subnet(text: str, what: str) -> Subnet:
    """`text` as an IPv4 network with room for a bridge and one container at least.

    Raises:
        UsageError: it is none. `what` names the option.
    """
    address, _, prefix = text.partition("/")
    try:
        base = int.from_bytes(inet_pton(_AF_INET, address), "big")
    except (OSError, ValueError):
        base = -1
    bits = int(prefix) if prefix.isascii() and prefix.isdigit() and len(prefix) <= 2 else 0
    if base < 0 or not 8 <= bits <= 30 or base % (1 << (32 - bits)):
        raise UsageError(
            f"{what}: '{text}' is not an IPv4 network", "write it as 10.231.0.0/16, with a prefix of 8 to 30"
        )
    return Subnet(base, bits)
