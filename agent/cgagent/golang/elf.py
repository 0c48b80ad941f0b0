"""A bounded reader of ELF files (elf(5)): 32 and 64 bit, either byte order, with or without section headers.

Nothing in a file is believed before it is checked: what points outside of it is not read.
"""

from __future__ import annotations

import os
from struct import Struct

from cgagent.errors import CgagentError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x7fELF"
PT_LOAD = 1
PF_X = 1
PF_W = 2

# A linker makes some ten segments and, of an executable, some forty sections.
_MAX_SEGMENTS = 1024
_MAX_SECTIONS = 16384
_MAX_NAMES = 1 << 20
_MAX_NAME = 128


class Segment(Record):
    """A loadable program header: where `filesz` bytes of the file at `offset` are mapped, and with which flags."""

    __slots__ = ("address", "filesz", "flags", "memsz", "offset")

    def __init__(self, address: int, offset: int, filesz: int, memsz: int, flags: int) -> None:
        self.address = address
        self.offset = offset
        self.filesz = filesz
        self.memsz = memsz
        self.flags = flags


class Section(Record):
    """A section header: its name, address in memory and size in bytes."""

    __slots__ = ("address", "name", "size")

    def __init__(self, name: bytes, address: int, size: int) -> None:
        self.name = name
        self.address = address
        self.size = size


class Elf:
    """An ELF file behind an open descriptor, which stays the caller's to close.

    Attributes:
        wide: whether it is of 64 bits.
        order: its byte order, as `struct` writes it: `<` little, `>` big.
        segments: the loadable program headers, in the file's order.
    """

    __slots__ = ("_fd", "_names_index", "_section_count", "_sections_at", "order", "segments", "wide")

    def __init__(self, fd: int) -> None:
        """Read the header and the program headers.

        Raises:
            CgagentError: this is no ELF file that could run.
            OSError: the file can't be read.
        """
        self._fd = fd
        ident = os.pread(fd, 16, 0)
        if len(ident) < 16 or ident[:4] != MAGIC or ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise CgagentError("no ELF header")
        self.wide = ident[4] == 2
        self.order = "<" if ident[5] == 1 else ">"
        header = self._struct("HHIQQQIHHHHHH" if self.wide else "HHIIIIIHHHHHH")
        raw = os.pread(fd, header.size, 16)
        if len(raw) < header.size:
            raise CgagentError("the file ends in its ELF header")
        fields = header.unpack(raw)
        phoff, shoff, phentsize, phnum, shentsize, shnum, shstrndx = (*fields[4:6], *fields[8:])
        self.segments = self._read_segments(phoff, phentsize, phnum)
        self._sections_at = shoff
        self._section_count = shnum if shentsize == self._section_struct().size and shnum <= _MAX_SECTIONS else 0
        self._names_index = shstrndx

    def _struct(self, layout: str) -> Struct:
        return Struct(self.order + layout)

    def _section_struct(self) -> Struct:
        return self._struct("IIQQQQIIQQ" if self.wide else "IIIIIIIIII")

    def _read_segments(self, offset: int, entry_size: int, count: int) -> list[Segment]:
        header = self._struct("IIQQQQQQ" if self.wide else "IIIIIIII")
        if count == 0:  # an object file or kernel module: nothing of it is mapped as it is
            return []
        if entry_size != header.size or count > _MAX_SEGMENTS:
            raise CgagentError("no program headers as linkers write them")
        table = self.pread(offset, count * entry_size)
        if len(table) < count * entry_size:
            raise CgagentError("the file ends before its program headers do")
        segments = []
        for fields in header.iter_unpack(table):
            if fields[0] != PT_LOAD:
                continue
            if self.wide:
                _, flags, start, address, _, filesz, memsz, _ = fields
            else:
                _, start, address, _, filesz, memsz, flags, _ = fields
            segments.append(Segment(address, start, filesz, memsz, flags))
        return segments

    def pread(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset` in the file; fewer, or none, where the file ends before."""
        if size <= 0 or offset + size > 1 << 63:
            return b""
        return os.pread(self._fd, size, offset)

    def read(self, address: int, size: int) -> bytes:
        """Up to `size` bytes that are mapped at `address`; fewer, or none, where segment or file end before."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.filesz:
                into = address - segment.address
                return self.pread(segment.offset + into, min(size, segment.filesz - into))
        return b""

    def sections(self) -> Iterator[Section]:
        """The sections that have a name; none where the table is absent (as after `sstrip`) or cut off."""
        header = self._section_struct()
        size = self._section_count * header.size
        table = self.pread(self._sections_at, size)
        if len(table) < size or self._names_index >= self._section_count:
            return
        _, _, _, _, names_at, names_size, *_ = header.unpack_from(table, self._names_index * header.size)
        names = self.pread(names_at, min(names_size, _MAX_NAMES))
        for name, _, _, address, _, length, *_ in header.iter_unpack(table):
            end = names.find(b"\0", name, name + _MAX_NAME)
            if end >= 0:
                yield Section(names[name:end], address, length)
