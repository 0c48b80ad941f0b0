"""Tiny ELF files with Go build info, assembled by hand after elf(5) and Go's debug/buildinfo."""

from __future__ import annotations

import struct
from typing import Literal

Order = Literal["little", "big"]

MAGIC = b"\xff Go buildinf:"
_SENTINELS = b"0w\xaf\x0c\x92t\x08\x02A\xe1\xc1\x07\xe6\xd6\x18\xe6", b"\xf92C1\x86\x18 r\x00\x82B\x10A\x16\xd8\xf2"
_TEXT, _DATA = 0x400000, 0x500000
_HEADERS = 0x200  # room for the ELF header and three program headers


def framed(text: str) -> bytes:
    """The text of modules and settings between its two sentinels."""
    return _SENTINELS[0] + text.encode("utf-8", "surrogateescape") + _SENTINELS[1]


def inline_blob(version: str, text: str) -> bytes:
    """The blob of Go >= 1.18: the strings follow the header, each with its length before it."""
    strings = (_varint(len(part)) + part for part in (version.encode(), framed(text)))
    return MAGIC + bytes([8, 2]) + bytes(16) + b"".join(strings)


def pointer_blob(version: str, text: str, address: int, size: int, order: Order) -> bytes:
    """The blob of Go < 1.18 at `address`: pointers to two string headers, which point to the strings."""
    parts = (version.encode(), framed(text))
    headers = address + 32
    first = headers + 4 * size
    numbers = (first, len(parts[0]), first + len(parts[0]), len(parts[1]))
    flags = 1 if order == "big" else 0
    pointers = b"".join(number.to_bytes(size, order) for number in (headers, headers + 2 * size))
    head = (MAGIC + bytes([size, flags]) + pointers).ljust(32, b"\0")
    return head + b"".join(number.to_bytes(size, order) for number in numbers) + parts[0] + parts[1]


def program(
    blob: bytes,
    wide: bool = True,
    order: Order = "little",
    *,
    named: bool = True,
    before: bytes = b"",
    relro: bytes = b"",
    behind_headers: bytes = b"",
    code: bytes = b"\x90" * 64,
) -> bytes:
    """An ELF file whose writable segment holds `before` and `blob`; `named`: the section .go.buildinfo names it.

    `relro` goes into a writable segment of its own before that one, as in a position independent executable.
    """
    relro_at = _HEADERS + len(code)
    data_at = relro_at + len(relro)
    data = before + blob
    segments = [(5, 0, _TEXT, _HEADERS + len(code)), (6, data_at, data_address(), len(data))]
    if relro:
        segments.insert(1, (6, relro_at, _DATA - 0x10000, len(relro)))
    names = b"\0.go.buildinfo\0.shstrtab\0"
    names_at = data_at + len(data)
    sections = [(0, 0, 0, 0), (1, data_address() + len(before), data_at + len(before), len(blob))]
    sections.append((15, 0, names_at, len(names)))
    sections_at = names_at + len(names) if named else 0
    head = _elf_header(wide, order, len(segments), sections_at, len(sections) if named else 0)
    head += b"".join(_program_header(wide, order, *segment) for segment in segments) + behind_headers
    assert len(head) <= _HEADERS
    body = head.ljust(_HEADERS, b"\0") + code + relro + data
    if named:
        body += names + b"".join(_section_header(wide, order, *section) for section in sections)
    return body


def data_address() -> int:
    """The address of the writable segment of `program`."""
    return _DATA


def _pack(order: Order, layout: str, *values: int) -> bytes:
    return struct.pack((">" if order == "big" else "<") + layout, *values)


def _elf_header(wide: bool, order: Order, segments: int, sections_at: int, sections: int) -> bytes:
    ident = b"\x7fELF" + bytes([2 if wide else 1, 2 if order == "big" else 1, 1]) + bytes(9)
    layout, sizes = ("HHIQQQIHHHHHH", (64, 56, 64)) if wide else ("HHIIIIIHHHHHH", (52, 32, 40))
    ehdr, phdr, shdr = sizes
    return ident + _pack(
        order, layout, 2, 62, 1, _TEXT, ehdr, sections_at, 0, ehdr, phdr, segments, shdr, sections, max(0, sections - 1)
    )


def _program_header(wide: bool, order: Order, flags: int, offset: int, address: int, size: int) -> bytes:
    if wide:
        return _pack(order, "IIQQQQQQ", 1, flags, offset, address, address, size, size, 4096)
    return _pack(order, "IIIIIIII", 1, offset, address, address, size, size, flags, 4096)


def _section_header(wide: bool, order: Order, name: int, address: int, offset: int, size: int) -> bytes:
    layout = "IIQQQQIIQQ" if wide else "IIIIIIIIII"
    return _pack(order, layout, name, 1 if name else 0, 3, address, offset, size, 0, 0, 16, 0)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])
