"""Archives byte by byte: what tar programs refuse to write can be tried on who has to refuse to read it."""

from __future__ import annotations

import gzip

FILE, HARD_LINK, LINK, CHARACTER, BLOCK, DIRECTORY, FIFO, SPARSE = b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"S"
GLOBAL, PAX, LONG_NAME = b"g", b"x", b"L"
META = b'{"schema": "cgagent.capture/1"}'
END = bytes(1024)


def member(name: bytes, content: bytes = b"", kind: bytes = FILE, size: bytes | None = None) -> bytes:
    """One member (POSIX.1-1988 ustar): header, content, padding. `size` is what the header claims instead."""
    claimed = b"%011o\0" % len(content) if size is None else size
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + claimed + b"%011o\0" % 0
    tail = kind + b"/etc/passwd".ljust(100, b"\0") + b"ustar\x0000" + bytes(247)
    checked = b"%06o\0 " % (sum(head) + sum(tail) + 8 * ord(" "))
    return head + checked + tail + content + bytes(-len(content) % 512)


def pax(key: bytes, value: bytes) -> bytes:
    """A pax header with one record."""
    rest = b" " + key + b"=" + value + b"\n"
    length = next(n for n in range(len(rest), len(rest) + 9) if n == len(rest) + len(str(n)))
    return member(b"pax", str(length).encode() + rest, PAX)


def archive(*members: bytes, meta: bytes | None = META) -> bytes:
    """A FILE.tar.gz of `members`, the meta document before them."""
    first = b"" if meta is None else member(b"cgagent-capture.json", meta)
    return gzip.compress(b"".join([first, *members, END]), 1)
