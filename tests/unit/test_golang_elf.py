"""The ELF reader: headers, addresses, and what lies outside of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cgagent.errors import CgagentError
from cgagent.golang.elf import PF_W, Elf, Section
from support.go_elf import Order, data_address, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[[bytes], Elf]

BLOB = b"blob".ljust(32, b".")


@pytest.fixture
def elf_of() -> Iterator[Open]:
    opened: list[int] = []

    def elf(content: bytes) -> Elf:
        fd = os.memfd_create("cgagent-test")
        opened.append(fd)
        os.write(fd, content)
        return Elf(fd)

    yield elf
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("wide", [True, False], ids=["64 bit", "32 bit"])
class TestEveryKind:
    def test_tells_width_and_byte_order(self, elf_of: Open, wide: bool, order: Order) -> None:
        elf = elf_of(program(BLOB, wide, order))
        assert (elf.wide, elf.order) == (wide, ">" if order == "big" else "<")

    def test_reads_what_is_mapped_at_an_address(self, elf_of: Open, wide: bool, order: Order) -> None:
        elf = elf_of(program(BLOB, wide, order))
        assert elf.read(data_address(), 4) == b"blob"
        assert elf.read(data_address() + 3, 2) == b"b."

    def test_names_the_sections(self, elf_of: Open, wide: bool, order: Order) -> None:
        elf = elf_of(program(BLOB, wide, order))
        assert Section(b".go.buildinfo", data_address(), len(BLOB)) in list(elf.sections())

    def test_has_no_sections_without_their_headers(self, elf_of: Open, wide: bool, order: Order) -> None:
        assert list(elf_of(program(BLOB, wide, order, named=False)).sections()) == []

    def test_lists_the_loadable_segments(self, elf_of: Open, wide: bool, order: Order) -> None:
        code, data = elf_of(program(BLOB, wide, order)).segments
        assert not code.flags & PF_W
        assert data.flags & PF_W
        assert (data.address, data.filesz, data.memsz) == (data_address(), len(BLOB), len(BLOB))


class TestBounds:
    def test_looks_no_further_for_the_end_of_a_sections_name_than_names_are_long(self, elf_of: Open) -> None:
        # The code is taken for the table of names, in which no name ends within 128 bytes.
        content = program(BLOB, code=b"\x90" * 200 + b"\0")
        table = content.rindex(content.index(b"\0.go.buildinfo").to_bytes(8, "little"))
        names = content.index(b"\x90").to_bytes(8, "little") + (201).to_bytes(8, "little")
        assert list(elf_of(content[:table] + names + content[table + 16 :]).sections()) == []

    def test_reads_no_further_than_the_segment(self, elf_of: Open) -> None:
        elf = elf_of(program(BLOB))
        assert elf.read(data_address() + len(BLOB) - 2, 100) == b".."

    def test_reads_nothing_outside_of_segments(self, elf_of: Open) -> None:
        elf = elf_of(program(BLOB))
        assert elf.read(data_address() - 1, 4) == b""
        assert elf.read(data_address() + len(BLOB), 4) == b""
        assert elf.read(1 << 64, 4) == b""

    def test_reads_nothing_at_offsets_that_no_file_has(self, elf_of: Open) -> None:
        elf = elf_of(program(BLOB))
        assert elf.pread(1 << 63, 4) == b""
        assert elf.pread((1 << 63) - 2, 4) == b""
        assert elf.pread(0, -1) == b""

    def test_a_cut_section_table_is_none(self, elf_of: Open) -> None:
        assert list(elf_of(program(BLOB)[:-1]).sections()) == []


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x03\x01" + bytes(60), b"\x7fELF\x02\x03" + bytes(60)])
def test_refuses_what_has_no_elf_header(elf_of: Open, content: bytes) -> None:
    with pytest.raises(CgagentError, match=r"^no ELF header$"):
        elf_of(content)
