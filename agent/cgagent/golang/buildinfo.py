r"""What a Go program was built from, as its linker wrote it into the file.

The blob starts with a header of 32 bytes at an address that 16 divides (Go: debug/buildinfo/buildinfo.go):

    \xff Go buildinf:   pointer size   flags
    (14 bytes)          (1 byte)       (1 byte: 1 = big endian, 2 = inline strings)

Since Go 1.18 two strings follow it, each with a varint length before it: the version, then the text of modules
and settings. Before, the header went on with the addresses of two Go strings (address and length).
"""

from __future__ import annotations

import os
import stat

from cgagent.errors import CgagentError, MalformedError
from cgagent.golang.elf import MAGIC, PF_W, PF_X, Elf
from cgagent.golang.modinfo import Dependency, Modules, leading_number, parse_modinfo
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Order = Literal["big", "little"]

_BLOB_MAGIC = b"\xff Go buildinf:"
_HEADER_SIZE = 32
_ALIGN = 16
_BIG_ENDIAN = 1
_INLINE = 2
# The text is framed by two sentinels of 16 bytes each (Go: cmd/go/internal/modload, infoStart and infoEnd).
_SENTINEL = 16

_CHUNK = 1 << 20
# Where there are no section headers: the linker puts the blob near the start of the data.
_MAX_SEARCH = 64 << 20
_MAX_FALSE_HITS = 1000
_MAX_VERSION = 4096
# The text of kubelet, with some 250 modules, is 25 KiB.
_MAX_TEXT = 1 << 19


class BuildInfo(Record):
    """How a Go program was built; what its build info leaves out is None or empty.

    Attributes:
        go_version: the toolchain's version, such as `go1.27.3`.
        path: the main package's import path; `command-line-arguments` where files were named.
        module: the main module's path.
        module_version: its version, `(devel)` where the build did not know it.
        dependencies: the modules that packages come from.
        settings: build settings by name: GOOS, GOARCH, CGO_ENABLED, -ldflags, DefaultGODEBUG...
    """

    __slots__ = ("dependencies", "go_version", "module", "module_version", "path", "settings")

    def __init__(self, go_version: str, modules: Modules) -> None:
        self.go_version = go_version
        self.path = modules.path
        self.module = modules.main.path if modules.main else None
        self.module_version = modules.main.version if modules.main else None
        self.dependencies: tuple[Dependency, ...] = tuple(modules.dependencies)
        self.settings: dict[str, str] = modules.settings

    @property
    def removed(self) -> bool:
        """Whether the build wiped out what it would say, as garble does; what is in it is then not known."""
        return self.release is None and not (self.path or self.module or self.settings)

    @property
    def release(self) -> tuple[int, int] | None:
        """The Go release that the toolchain is of, such as (1, 27); None where its version does not say.

        Versions look like `go1.27.3`, `go1.28rc1`, `go1.27.3 X:nodwarf5`, `devel go1.28-a1b2c3d Mon Nov...`.
        """
        for word in self.go_version.split():
            if word.startswith("go1."):
                minor = leading_number(word.removeprefix("go1."))
                return None if minor is None else (1, minor)
        return None


def read(path: str) -> BuildInfo | None:
    """The build info of the program at `path` (also `/proc/PID/exe`); None where it is no Go program for Linux.

    At most a few MiB are held and 64 MiB looked through, whatever the file says of itself.

    Raises:
        CgagentError: the file can't be read, is a damaged ELF file, or is packed by UPX.
    """
    try:
        # O_NONBLOCK: a FIFO must not hold us.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CgagentError(f"cannot read {path}: not a regular file")
        return _read(fd, path)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(fd)


def _unreadable(path: str, error: OSError) -> CgagentError:
    return CgagentError(f"cannot read {path}: {(error.strerror or str(error)).lower()}")


def _read(fd: int, path: str) -> BuildInfo | None:
    head = os.pread(fd, 1024, 0)
    if head[:4] != MAGIC:
        return None
    try:
        elf = Elf(fd)
        address = _find_blob(elf)
        if address is not None:
            return _parse_blob(elf, address)
    except MalformedError as error:
        raise error.at(f"Go build info of {path}") from None
    except CgagentError as error:
        raise CgagentError(f"cannot read the build of {path}: {error.message}") from None
    # UPX's l_info stands behind the program headers it leaves: checksum, then this.
    if b"UPX!" in head:
        raise CgagentError(f"cannot read {path}: packed by UPX", "unpack a copy with `upx -d`, or name the original")
    return None


def _find_blob(elf: Elf) -> int | None:
    """The address of the blob: in its own section, else in a writable segment; None where there is none."""
    for section in elf.sections():
        if section.name == b".go.buildinfo":
            return _search(elf, section.address, min(section.size, _MAX_SEARCH))
    left = _MAX_SEARCH
    # In a PIE two segments are writable, and the blob is in the second; `go version` tries the first alone.
    for segment in elf.segments:
        if segment.flags & (PF_W | PF_X) == PF_W:
            address = _search(elf, segment.address, min(segment.filesz, left))
            if address is not None:
                return address
            left -= min(segment.filesz, left)
    return None


def _search(elf: Elf, start: int, size: int) -> int | None:
    end = start + size
    start += -start % _ALIGN
    false_hits = 0
    # The blob's magic can't straddle two chunks: both start where 16 divides the address.
    while start < end:
        chunk = elf.read(start, min(_CHUNK, end - start))
        at = chunk.find(_BLOB_MAGIC)
        while at >= 0:
            if at % _ALIGN == 0:
                return start + at
            false_hits += 1
            if false_hits > _MAX_FALSE_HITS:
                return None
            at = chunk.find(_BLOB_MAGIC, at + 1)
        if len(chunk) < _CHUNK:
            return None
        start += _CHUNK
    return None


def _parse_blob(elf: Elf, address: int) -> BuildInfo:
    header = elf.read(address, _HEADER_SIZE)
    if len(header) < _HEADER_SIZE:
        raise CgagentError("its Go build info is cut off")
    flags = header[15]
    if flags & _INLINE:
        version, behind = _inline_string(elf, address + _HEADER_SIZE, _MAX_VERSION)
        text, _ = _inline_string(elf, behind, _MAX_TEXT)
    else:
        order: Order = "big" if flags & _BIG_ENDIAN else "little"
        version, text = _pointed_strings(elf, header, order)
    if not version:
        raise CgagentError("its Go build info names no version")
    framed = len(text) > 2 * _SENTINEL and text[-_SENTINEL - 1 : -_SENTINEL] == b"\n"
    modules = parse_modinfo(_decode(text[_SENTINEL:-_SENTINEL]) if framed else "")
    return BuildInfo(_decode(version), modules)


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _inline_string(elf: Elf, address: int, longest: int) -> tuple[bytes, int]:
    """The string at `address` with its varint length before it, and the address behind it."""
    length = shift = count = 0
    for byte in elf.read(address, 10):
        count += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    start = address + count
    return _string(elf, start, length, longest), start + length


def _pointed_strings(elf: Elf, header: bytes, order: Order) -> tuple[bytes, bytes]:
    """Version and text of the format before Go 1.18: the header holds the addresses of two string headers."""
    size = header[14]
    if size not in (4, 8):
        raise CgagentError("its Go build info has no pointer size")

    def string(at: int, longest: int) -> bytes:
        where = elf.read(int.from_bytes(header[at : at + size], order), 2 * size)
        address, length = int.from_bytes(where[:size], order), int.from_bytes(where[size:], order)
        return _string(elf, address, length, longest)

    return string(16, _MAX_VERSION), string(16 + size, _MAX_TEXT)


def _string(elf: Elf, address: int, length: int, longest: int) -> bytes:
    if length > longest:
        raise CgagentError(f"a string of its Go build info is {length} bytes long")
    text = elf.read(address, length)
    if len(text) < length:
        raise CgagentError("its Go build info points outside of its data")
    return text
