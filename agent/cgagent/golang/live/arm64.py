"""The few instructions of arm64 by which the runtime's code tells where its variables are (Arm ARM, C6).

ADRP Xd, page       1 immlo(2) 10000 immhi(19) Rd(5)
ADD Xd, Xn, imm12   1001000100 imm12 Rn Rd
BL imm26            100101 imm26
LDR Wt, [Xn, imm]   1011100101 imm12 Rn Rt, the immediate in words; LDRSW with 10111001 10
RET                 d65f03c0
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_RET = 0xD65F03C0
_NOP = 0xD503201F


def _adrp(word: int, address: int) -> tuple[int, int] | None:
    """The register and the page that an ADRP at `address` puts into it."""
    if word & 0x9F000000 != 0x90000000:
        return None
    pages = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
    pages -= (pages & 1 << 20) << 1
    return word & 31, (address & ~0xFFF) + (pages << 12)


def receivers(code: bytes, address: int, methods: Container[int]) -> Iterator[tuple[int, int]]:
    """Each call of one of `methods` right after its receiver is put into X0: where, and the variable's address."""
    words = memoryview(code[: len(code) // 4 * 4]).cast("I")
    for index, word in enumerate(words):
        # ADD X0, X0, imm12
        if word & 0xFFC003FF != 0x91000000 or index == 0:
            continue
        page = _adrp(words[index - 1], address + 4 * (index - 1))
        call = index + 1
        while call < len(words) and words[call] == _NOP:
            call += 1
        if page is None or page[0] != 0 or call >= len(words) or words[call] & 0xFC000000 != 0x94000000:
            continue
        offset = words[call] & 0x3FFFFFF
        offset -= (offset & 1 << 25) << 1
        if address + 4 * (call + offset) in methods:
            yield address + 4 * index, page[1] + (word >> 10 & 0xFFF)


def returned_word(code: bytes, address: int) -> int | None:
    """The variable that a function of `return variable` (32 bits) returns; None where it is another function."""
    if len(code) < 12:
        return None
    first, load, last = (int.from_bytes(code[at : at + 4], "little") for at in (0, 4, 8))
    page = _adrp(first, address)
    # LDR Wt or LDRSW Xt, unsigned offset, of the register that holds the page, into the result register.
    is_load = load & 0xFFC00000 in (0xB9400000, 0xB9800000)
    if page is None or last != _RET or not is_load or load >> 5 & 31 != page[0] or load & 31 != 0:
        return None
    return page[1] + (load >> 10 & 0xFFF) * 4
