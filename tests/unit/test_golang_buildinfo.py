"""Build info of ELF files assembled by hand: every format, and files that mean us harm."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgagent.errors import CgagentError
from cgagent.golang.buildinfo import BuildInfo, read
from cgagent.golang.modinfo import Dependency, Modules
from support.go_elf import MAGIC, Order, data_address, framed, inline_blob, pointer_blob, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = (
    "path\texample.com/orders/cmd/ordersd\n"
    "mod\texample.com/orders\tv1.2.3\th1:main=\n"
    "dep\tgo.uber.org/automaxprocs\tv1.6.0\th1:sum=\n"
    "build\tGOARCH=amd64\n"
    'build\t-ldflags="-s -w"\n'
)
ORDERS: tuple[Order, ...] = ("little", "big")


@contextmanager
def file_of(content: bytes) -> Iterator[str]:
    """A file that holds `content`, gone with the block."""
    fd = os.memfd_create("cgagent-test")
    try:
        os.write(fd, content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def read_bytes(content: bytes) -> BuildInfo | None:
    with file_of(content) as path:
        return read(path)


def is_the_program(info: BuildInfo | None, version: str) -> bool:
    return info is not None and info._values() == (
        (Dependency("go.uber.org/automaxprocs", "v1.6.0", "h1:sum="),),
        version,
        "example.com/orders",
        "v1.2.3",
        "example.com/orders/cmd/ordersd",
        {"GOARCH": "amd64", "-ldflags": "-s -w"},
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("wide", [True, False], ids=["64 bit", "32 bit"])
@pytest.mark.parametrize("named", [True, False], ids=["section headers", "no section headers"])
class TestFormats:
    def test_reads_inline_strings(self, wide: bool, order: Order, named: bool) -> None:
        content = program(inline_blob("go1.27.3", TEXT), wide, order, named=named)
        assert is_the_program(read_bytes(content), "go1.27.3")

    def test_reads_strings_by_pointer(self, wide: bool, order: Order, named: bool) -> None:
        blob = pointer_blob("go1.17.13", TEXT, data_address(), 8 if wide else 4, order)
        content = program(blob, wide, order, named=named)
        assert is_the_program(read_bytes(content), "go1.17.13")

    def test_reads_the_second_writable_segment(self, wide: bool, order: Order, named: bool) -> None:
        content = program(inline_blob("go1.27.3", TEXT), wide, order, named=named, relro=bytes(4096))
        assert is_the_program(read_bytes(content), "go1.27.3")


class TestWhere:
    def test_finds_the_blob_behind_megabytes_of_other_data(self) -> None:
        content = program(inline_blob("go1.27.3", TEXT), named=False, before=bytes(3 << 20))
        assert is_the_program(read_bytes(content), "go1.27.3")

    def test_passes_over_the_magic_where_16_does_not_divide_its_address(self) -> None:
        decoy = (b"\0" * 8 + MAGIC).ljust(32, b"\0") * 50
        content = program(inline_blob("go1.27.3", TEXT), named=False, before=decoy)
        assert is_the_program(read_bytes(content), "go1.27.3")

    def test_looks_at_addresses_that_16_divides_wherever_the_section_starts(self) -> None:
        content = program(bytes(8) + inline_blob("go1.27.3", TEXT), before=bytes(8))
        assert is_the_program(read_bytes(content), "go1.27.3")

    def test_prefers_the_section_to_what_looks_alike_before_it(self) -> None:
        content = program(inline_blob("go1.27.3", TEXT), before=inline_blob("go1.1", "").ljust(128, b"\0"))
        assert is_the_program(read_bytes(content), "go1.27.3")

    def test_reads_a_running_program_that_was_deleted(self) -> None:
        # As /proc/PID/exe does, the descriptor leads to a file that has no name.
        with file_of(program(inline_blob("go1.27.3", TEXT))) as path:
            assert not os.path.exists(os.readlink(path))
            assert is_the_program(read(path), "go1.27.3")


class TestLessInfo:
    def test_without_modules_leaves_them_none(self) -> None:
        blob = MAGIC + bytes([8, 2]) + bytes(16) + b"\x08go1.27.3" + b"\0"
        info = read_bytes(program(blob))
        assert info == BuildInfo("go1.27.3", Modules())
        assert (info.path, info.module, info.module_version, info.settings) == (None, None, None, {})

    def test_text_without_its_frame_is_no_text(self) -> None:
        blob = MAGIC + bytes([8, 2]) + bytes(16) + b"\x08go1.27.3" + bytes([len(b"path\tx\n")]) + b"path\tx\n"
        assert read_bytes(program(blob)) == BuildInfo("go1.27.3", Modules())

    def test_keeps_bytes_that_are_no_utf8(self) -> None:
        info = read_bytes(program(inline_blob("go1.27.3", "path\ta\udcffb\n")))
        assert info is not None
        assert info.path == "a\udcffb"


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("go1.27.3", (1, 27)),
        ("go1.21", (1, 21)),
        ("go1.28rc1", (1, 28)),
        ("go1.27.3 X:nodwarf5,boringcrypto", (1, 27)),
        ("go1.25.1-custom", (1, 25)),
        ("devel go1.28-a1b2c3d4 Mon Nov 2 10:00:00 2026 +0000", (1, 28)),
        ("devel +a1b2c3d4 Mon Nov 2 2020", None),
        ("go1.", None),
        ("go1." + "9" * 5000, None),
    ],
)
def test_knows_the_release_of_a_version(version: str, release: tuple[int, int] | None) -> None:
    assert BuildInfo(version, Modules()).release == release


class TestOtherFiles:
    @pytest.mark.parametrize(
        "content",
        [b"", b"\x7f", b"#!/bin/sh\necho\n", b"MZ" + bytes(200), MAGIC * 100, b"\xcf\xfa\xed\xfe" + bytes(200)],
        ids=["empty", "one byte", "script", "Windows", "magic alone", "macOS"],
    )
    def test_a_file_that_is_no_elf_file_is_no_go_program(self, content: bytes) -> None:
        assert read_bytes(content) is None

    def test_an_elf_file_without_build_info_is_no_go_program(self) -> None:
        assert read_bytes(program(bytes(64), named=False)) is None

    def test_an_object_file_is_no_go_program(self) -> None:
        # Object files and kernel modules have no program headers.
        assert read_bytes(_with(GOOD, 54, "HH", 0, 0)) is None

    def test_the_interpreter_is_no_go_program(self) -> None:
        assert read("/proc/self/exe") is None

    def test_says_that_upx_packed_it(self) -> None:
        # UPX puts l_info behind its program headers: a checksum, "UPX!", sizes (UPX: src/stub/src/include/linux.h).
        l_info = struct.pack("<I4sHBB", 0x1234, b"UPX!", 700, 14, 22)
        content = program(bytes(64), named=False, behind_headers=l_info)
        with file_of(content) as path, pytest.raises(CgagentError) as caught:
            read(path)
        assert caught.value.message == f"cannot read {path}: packed by UPX"
        assert "upx -d" in caught.value.hint

    def test_names_what_is_not_there(self) -> None:
        with pytest.raises(CgagentError, match=r"^cannot read /nonexistent/app: no such file or directory$"):
            read("/nonexistent/app")

    def test_refuses_what_is_no_regular_file(self, tmp_path: Path) -> None:
        fifo = str(tmp_path / "fifo")
        os.mkfifo(fifo)
        for path in (str(tmp_path), fifo, "/dev/null"):
            with pytest.raises(CgagentError, match=f"^cannot read {path}: not a regular file$"):
                read(path)


def _with(content: bytes, offset: int, layout: str, *values: int) -> bytes:
    packed = struct.pack("<" + layout, *values)
    return content[:offset] + packed + content[offset + len(packed) :]


GOOD = program(inline_blob("go1.27.3", TEXT))
_BLOB_AT = GOOD.index(MAGIC)


class TestDamagedFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (GOOD[:12], "no ELF header"),
            (GOOD[:40], "the file ends in its ELF header"),
            (GOOD[:90], "the file ends before its program headers do"),
            (_with(GOOD, 56, "H", 1025), "no program headers as linkers write them"),
            (_with(GOOD, 54, "H", 55), "no program headers as linkers write them"),
            (GOOD[: _BLOB_AT + 40], "its Go build info points outside of its data"),
            (GOOD[: _BLOB_AT + 20], "its Go build info is cut off"),
            (_with(GOOD, _BLOB_AT + 32, "B", 0), "its Go build info names no version"),
            (_with(GOOD, _BLOB_AT + 32, "10B", *[255] * 10), "a string of its Go build info is"),
            (_with(GOOD, _BLOB_AT + 14, "BB", 3, 0), "its Go build info has no pointer size"),
        ],
    )
    def test_says_what_is_wrong_in_one_line(self, content: bytes, message: str) -> None:
        # Cut files lose their section headers; the blob is then looked for in the writable segment.
        with file_of(content) as path, pytest.raises(CgagentError) as caught:
            read(path)
        assert caught.value.line().startswith(f"cannot read the build of {path}: {message}")
        assert "\n" not in caught.value.line()

    def test_names_a_line_that_go_would_not_write(self) -> None:
        with file_of(program(inline_blob("go1.27.3", "mod\tonly-a-path\n"))) as path:
            with pytest.raises(CgagentError) as caught:
                read(path)
            assert caught.value.line() == (
                f"Go build info of {path} is malformed: expected path, version and sum, got 'mod\\tonly-a-path'"
            )


# A read of the file in pieces this large, at most; and no more than this in all.
_LARGEST_READ = 4 << 20
_ALL_READS = 80 << 20


@contextmanager
def watched_reads() -> Iterator[list[int]]:
    """The sizes that are asked for of the file, as the block asks for them."""
    sizes: list[int] = []
    pread = os.pread

    def watching(fd: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return pread(fd, size, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", watching)
        yield sizes


def survives(content: bytes) -> None:
    """Reading `content` gives an answer or the project's own error, and stays within its bounds."""
    with watched_reads() as sizes:
        try:
            info = read_bytes(content)
        except CgagentError as error:
            info, told = None, error.line()
        else:
            told = ""
    assert info is None or info.go_version
    assert "\n" not in told
    assert max(sizes) <= _LARGEST_READ
    assert sum(sizes) <= _ALL_READS


SEEDS = [
    program(blob, wide, order, named=named, relro=relro)
    for wide in (True, False)
    for order in ORDERS
    for named in (True, False)
    for relro in (b"", bytes(64))
    for blob in (
        inline_blob("go1.27.3", TEXT),
        pointer_blob("go1.17.13", TEXT, data_address(), 8 if wide else 4, order),
    )
]
FUZZ = settings(max_examples=400, deadline=None)


class TestHostileFiles:
    @pytest.mark.parametrize("seed", SEEDS[:4])
    def test_survives_every_truncation(self, seed: bytes) -> None:
        for length in range(len(seed)):
            survives(seed[:length])

    @given(seed=st.sampled_from(SEEDS), data=st.data())
    @FUZZ
    def test_survives_flipped_bits(self, seed: bytes, data: st.DataObject) -> None:
        content = bytearray(seed)
        for bit in data.draw(st.lists(st.integers(0, len(seed) * 8 - 1), min_size=1, max_size=12)):
            content[bit // 8] ^= 1 << bit % 8
        survives(bytes(content))

    @given(seed=st.sampled_from(SEEDS), data=st.data())
    @FUZZ
    def test_survives_extreme_numbers_in_the_headers(self, seed: bytes, data: st.DataObject) -> None:
        content = bytearray(seed)
        for _ in range(data.draw(st.integers(1, 4))):
            width = data.draw(st.sampled_from([2, 4, 8]))
            at = data.draw(st.integers(16, len(seed) - width))
            value = data.draw(st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, 1 << 63]))
            content[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        survives(bytes(content))

    @given(tail=st.binary(max_size=2000), kind=st.sampled_from([1, 2]), order=st.sampled_from([1, 2]))
    @FUZZ
    def test_survives_noise_behind_an_elf_magic(self, tail: bytes, kind: int, order: int) -> None:
        survives(b"\x7fELF" + bytes([kind, order]) + tail)

    @given(text=st.text(st.sampled_from('\t\n="\\`x0uU mod dep path build =>'), max_size=200))
    @FUZZ
    def test_survives_any_text(self, text: str) -> None:
        survives(program(inline_blob("go1.27.3", text)))

    def test_reads_a_bounded_part_of_a_file_of_a_tebibyte(self, tmp_path: Path) -> None:
        # The writable segment claims all of a sparse file.
        content = _with(program(bytes(64), named=False), 64 + 56 + 32, "QQ", 1 << 40, 1 << 40)
        sparse = tmp_path / "sparse"
        sparse.write_bytes(content)
        os.truncate(sparse, 1 << 40)
        with watched_reads() as sizes:
            assert read(str(sparse)) is None
        assert sum(sizes) <= _ALL_READS

    def test_gives_up_on_a_file_full_of_false_magic(self) -> None:
        decoy = (b"\0" * 8 + MAGIC).ljust(32, b"\0") * 20_000
        assert read_bytes(program(inline_blob("go1.27.3", TEXT), named=False, before=decoy)) is None

    def test_survives_thousands_of_sections_without_an_end_to_their_names(self) -> None:
        names, count = b"x" * (1 << 20), 16384
        head = program(inline_blob("go1.27.3", TEXT), named=False)
        at = len(head)
        header = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, at, len(names), 0, 0, 1, 0)
        content = head + names + header * count
        content = _with(content, 40, "Q", at + len(names))
        content = _with(content, 58, "HHH", 64, count, 0)
        with watched_reads() as sizes:
            assert is_the_program(read_bytes(content), "go1.27.3")
        assert max(sizes) <= _LARGEST_READ


def test_frames_are_those_of_the_go_command() -> None:
    # Go: cmd/go/internal/modload/build.go, infoStart and infoEnd.
    assert framed("")[:16].hex() == "3077af0c9274080241e1c107e6d618e6"
    assert framed("")[16:].hex() == "f932433186182072008242104116d8f2"
