"""Whatever a file or a process holds: it is read to an end, or refused; never anything else."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgagent.golang.live import LiveError
from cgagent.golang.live.image import FileImage
from cgagent.golang.live.locate import Addresses, locate
from support import go_program

WHOLE = go_program.image(go_program.Made())
# Headers, code, tables, moduledata: where one bit means most.
PARTS = [(0, 0x100), (0x1000, 0x1200), (0x3000, 0x3600), (0x9000, 0x9100)]


def look(data: bytes) -> Addresses | None:
    """What is found in a file of `data`; None where it is refused."""
    fd = os.memfd_create("program")
    try:
        os.write(fd, data)
        return locate(FileImage(fd))
    except LiveError:
        return None
    finally:
        os.close(fd)


def test_the_program_is_found_as_it_was_made() -> None:
    found = look(WHOLE)
    assert found is not None
    assert (found.controller, found.gomaxprocs) == (go_program.CONTROLLER, go_program.GOMAXPROCS)
    assert (found.cpu_stats, found.cycles) == (go_program.CPU_STATS, go_program.CYCLES)


@given(st.data())
def test_a_damaged_program_is_read_to_an_end_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = data.draw(st.sampled_from(PARTS))
        at = data.draw(st.integers(start, end - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    look(bytes(damaged))


@given(st.integers(0, len(WHOLE)))
def test_a_program_that_is_cut_off_is_read_to_an_end_or_refused(size: int) -> None:
    look(WHOLE[:size])


@given(st.integers(0, 31), st.integers(0, (1 << 64) - 1))
@example(2, (1 << 64) - 1)
@example(17, 1 << 63)
def test_a_word_of_moduledata_that_is_off_is_found_right_or_refused(word: int, value: int) -> None:
    damaged = bytearray(WHOLE)
    at = 0x5000 + go_program.MODULE - go_program.DATA + word * 8
    struct.pack_into("<Q", damaged, at, value)
    found = look(bytes(damaged))
    assert found is None or found.controller == go_program.CONTROLLER


@pytest.mark.parametrize("word", range(1, 9))
@pytest.mark.parametrize("value", [0, 1, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_word_of_the_tables_header_that_is_off_is_found_right_or_refused(word: int, value: int) -> None:
    damaged = bytearray(WHOLE)
    struct.pack_into("<Q", damaged, 0x3000 + word * 8, value)
    found = look(bytes(damaged))
    assert found is None or found.controller == go_program.CONTROLLER


def test_a_program_full_of_made_up_tables_is_done_with_soon() -> None:
    """64 headers are looked at, whatever follows; each has to be held against all data."""
    header = WHOLE[0x3000:0x3048]
    head = bytearray(WHOLE[:0x5000])
    data = header * 20_000
    # The third program header is the data's: file and memory size.
    struct.pack_into("<QQ", head, 64 + 2 * 56 + 32, len(data), len(data))
    head[0x3000:0x3006] = bytes(6)
    assert look(bytes(head) + data) is None
