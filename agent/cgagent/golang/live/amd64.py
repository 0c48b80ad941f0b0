"""The few instructions of amd64 by which the runtime's code tells where its variables are (Intel SDM, volume 2).

48 8d 05 rel32      LEA RAX, [RIP+rel32]        the receiver, Go's first argument
e8 rel32            CALL rel32
8b 05|0d|15.. rel32 MOV r32, [RIP+rel32]
0f b6 05.. rel32    MOVZX r32, byte [RIP+rel32]
8a 05.. rel32       MOV r8, byte [RIP+rel32]
80 3d rel32 imm8    CMP byte [RIP+rel32], imm8
c6 05 rel32 imm8    MOV byte [RIP+rel32], imm8
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_LEA_RAX = b"\x48\x8d\x05"
_CALL = b"\xe8"
_LEA_SIZE, _CALL_SIZE = 7, 5
# What the assembler fills up with (Go: cmd/internal/obj/x86, Intel's recommended multi-byte NOPs).
_NOPS = (
    b"\x90",
    b"\x66\x90",
    b"\x0f\x1f\x00",
    b"\x0f\x1f\x40\x00",
    b"\x0f\x1f\x44\x00\x00",
    b"\x66\x0f\x1f\x44\x00\x00",
    b"\x0f\x1f\x80\x00\x00\x00\x00",
    b"\x0f\x1f\x84\x00\x00\x00\x00\x00",
    b"\x66\x0f\x1f\x84\x00\x00\x00\x00\x00",
)


def _relative(code: bytes, at: int, address: int, behind: int = 0) -> int:
    """The address that the rel32 at `at` means; `behind` it follow so many bytes of the same instruction."""
    return address + at + 4 + behind + int.from_bytes(code[at : at + 4], "little", signed=True)


def _skip_nops(code: bytes, at: int) -> int:
    while code[at : at + 1] in (b"\x90", b"\x66", b"\x0f"):
        nop = next((nop for nop in _NOPS if code.startswith(nop, at)), None)
        if nop is None:
            break
        at += len(nop)
    return at


def receivers(code: bytes, address: int, methods: Container[int], within: int = 0) -> Iterator[tuple[int, int]]:
    """Each call of one of `methods` (addresses) on a variable: where the LEA is, and the variable's address.

    The LEA of the receiver comes right before the call, or, with `within`, at most that many bytes before it, and
    no other LEA in between.
    """
    at = code.find(_LEA_RAX)
    while at >= 0:
        following = code.find(_LEA_RAX, at + 1)
        call = _skip_nops(code, at + _LEA_SIZE)
        if within:
            call = _find_call(code, address, methods, at + _LEA_SIZE, within, following)
        if call >= 0 and code[call : call + 1] == _CALL and _relative(code, call + 1, address) in methods:
            yield address + at, _relative(code, at + 3, address)
        at = following


def _find_call(code: bytes, address: int, methods: Container[int], start: int, within: int, before: int) -> int:
    end = min(start + within, before if before >= 0 else len(code))
    at = code.find(_CALL, start, end)
    while at >= 0 and _relative(code, at + 1, address) not in methods:
        at = code.find(_CALL, at + 1, end)
    return at


def returned_word(code: bytes, address: int) -> int | None:
    """The variable that a function of `return variable` (32 bits) returns; None where it is another function."""
    if code[:2] == b"\x8b\x05" and code[6:7] == b"\xc3":
        return _relative(code, 2, address)
    return None


def loads_word(code: bytes, address: int) -> list[int]:
    """The addresses of all 32-bit variables that the code loads, or hands to a function that does."""
    return _operands(code, address, b"\x8b") + _operands(code, address, b"\x48\x8d")


def loads_byte(code: bytes, address: int) -> list[int]:
    """The addresses of all bytes that the code loads with MOVZX."""
    return _operands(code, address, b"\x0f\xb6")


def loads_atomic_byte(code: bytes, address: int) -> list[int]:
    """The addresses of all bytes that the code loads as sync/atomic does, with MOV."""
    return _operands(code, address, b"\x8a")


def compares_byte(code: bytes, address: int) -> list[int]:
    """The addresses of all bytes that the code compares with 0."""
    return list(_with_immediate(code, address, b"\x80\x3d", 0))


def stores_byte(code: bytes, address: int, value: int) -> list[int]:
    """The addresses of all bytes that the code sets to `value`."""
    return list(_with_immediate(code, address, b"\xc6\x05", value))


def _operands(code: bytes, address: int, opcode: bytes) -> list[int]:
    found = []
    at = code.find(opcode)
    while at >= 0:
        operand = at + len(opcode)
        # ModRM: mod 00, r/m 101 is RIP-relative; any register.
        if operand + 5 <= len(code) and code[operand] & 0xC7 == 0x05:
            found.append(_relative(code, operand + 1, address))
        at = code.find(opcode, at + 1)
    return found


def _with_immediate(code: bytes, address: int, opcode: bytes, value: int) -> Iterator[int]:
    at = code.find(opcode)
    while at >= 0:
        if at + len(opcode) + 5 <= len(code) and code[at + len(opcode) + 4] == value:
            yield _relative(code, at + len(opcode), address, 1)
        at = code.find(opcode, at + 1)
