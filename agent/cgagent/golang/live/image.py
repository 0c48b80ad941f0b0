"""A program's image: its segments, in a running process's memory or in its file, read at the program's addresses.

Where a process has its program is told by the kernel: AT_PHDR in /proc/PID/auxv is the address of the program
headers (getauxval(3)). That holds whatever a mount shows of the file, as on overlayfs.
"""

from __future__ import annotations

import errno
import os
from struct import Struct, iter_unpack

from cgagent.errors import CgagentError
from cgagent.golang import buildinfo
from cgagent.golang.elf import MAGIC, Elf, Segment
from cgagent.golang.live.errors import DENIED, FOREIGN, GONE, UNKNOWN, UNSETTLED, LiveError
from cgagent.host import Host
from cgagent.ptrace import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgagent.golang.buildinfo import BuildInfo

AMD64 = 62  # EM_X86_64, elf(5)
ARM64 = 183  # EM_AARCH64

_AT_PHDR, _AT_PHENT, _AT_PHNUM = 3, 4, 5
_EHDR = Struct("<16sHHIQQQIHHH")
_EHDR_SIZE = 64
_PHDR_SIZE = 56
_MAX_SEGMENTS = 64
_MAX_AUXV = 4096
_HINTS = (b".gopclntab", b".go.module")
CHUNK = 1 << 20


class Image:
    """What of a program is looked at.

    Attributes:
        machine: AMD64 or ARM64.
        segments: the loadable program headers, with the addresses that the program really has.
        tables: where its file says that sections are, by name; hints, which nothing relies on.
    """

    __slots__ = ("machine", "segments", "tables")

    def __init__(self, machine: int, segments: list[Segment], tables: dict[bytes, tuple[int, int]]) -> None:
        self.machine = machine
        self.segments = segments
        self.tables = tables

    def read(self, address: int, size: int) -> bytes:
        """The `size` bytes at `address`; fewer where the segment ends before."""
        raise NotImplementedError

    def read_all(self, address: int, size: int) -> bytes:
        """As `read`.

        Raises:
            LiveError: they are not all inside one segment.
        """
        data = self.read(address, size)
        if len(data) != size:
            raise LiveError(f"nothing is mapped at {address:#x} where the Go runtime should be", UNKNOWN)
        return data

    def room(self, address: int) -> int:
        """How many bytes there are from `address` to the end of its segment; 0 outside of all."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.memsz:
                return segment.address + segment.memsz - address
        return 0

    def chunks(self, start: int, size: int, overlap: int = 0, step: int = CHUNK) -> Iterator[tuple[int, bytes]]:
        """`size` bytes from `start` in pieces, each with its address and `overlap` bytes of the next one."""
        end = start + size
        while start < end:
            yield start, self.read(start, min(step + overlap, end - start))
            start += step


class FileImage(Image):
    """The image in a file behind an open descriptor, at the addresses it was linked for."""

    __slots__ = ("_elf",)

    def __init__(self, fd: int) -> None:
        """Read the headers.

        Raises:
            LiveError: it is no program of 64 bits and little endian for amd64 or arm64.
        """
        try:
            self._elf = Elf(fd)
        except CgagentError as error:
            raise LiveError(f"its file is no program: {error.message}", FOREIGN) from None
        machine = _machine(self._elf)
        tables = {one.name: (one.address, one.size) for one in self._elf.sections() if one.name in _HINTS}
        super().__init__(machine, self._elf.segments, tables)

    def read(self, address: int, size: int) -> bytes:
        """As in the file: what is only mapped with zeros is not there."""
        return self._elf.read(address, size)


def _machine(elf: Elf) -> int:
    (machine,) = Struct(f"{elf.order}H").unpack(elf.pread(18, 2))
    if not elf.wide:
        raise LiveError("a 32-bit program: only 64-bit ones are understood", UNKNOWN)
    if elf.order != "<":
        raise LiveError("a big-endian program: only little-endian ones are understood", UNKNOWN)
    if machine not in (AMD64, ARM64):
        raise LiveError(f"a program for machine {machine} (ELF): amd64 and arm64 are understood", UNKNOWN)
    return int(machine)


class ProcessImage(Image):
    """The image in a process's memory.

    The descriptor of /proc/PID/mem holds on to one address space: once the process has ended, or runs another
    program, it reads and writes nothing, so that neither can ever meet another process of that PID.
    """

    __slots__ = ("_fd", "build", "pid")

    def __init__(self, pid: str, *, write: bool = False) -> None:
        """Open the memory and find the program in it; `build` is what its file says that it was built from.

        Raises:
            LiveError: it may not be read, has ended, or holds no program of the kinds that are understood.
        """
        self.pid = pid
        self._fd = _open(f"/proc/{pid}/mem", (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC, pid)
        try:
            # After the memory was opened, and before the file's headers are held against it: whatever the process
            # does meanwhile, this is the build of the program in that memory.
            self.build = _build(self.pid)
            file = self._file()
            headers, bias = self._headers()
            if [(one.address + bias, one.memsz) for one in file.segments] != [(h.address, h.memsz) for h in headers]:
                raise LiveError("it is about to run another program", UNSETTLED, "try again")
            tables = {name: (address + bias, size) for name, (address, size) in file.tables.items()}
            super().__init__(file.machine, headers, tables)
        except BaseException:
            os.close(self._fd)
            raise

    def _file(self) -> FileImage:
        fd = _open(f"/proc/{self.pid}/exe", os.O_RDONLY | os.O_CLOEXEC, self.pid)
        try:
            image = FileImage(fd)
        finally:
            os.close(fd)
        return image

    def _headers(self) -> tuple[list[Segment], int]:
        """The loadable segments where they are in memory, and by how much that is not where they were linked for."""
        auxv = _read_file(f"/proc/{self.pid}/auxv", self.pid)
        values = dict(iter_unpack("<QQ", auxv[: len(auxv) // 16 * 16]))
        start, count = values.get(_AT_PHDR, 0), values.get(_AT_PHNUM, 0)
        if not auxv:
            raise LiveError("it has no program: a kernel thread, or it has ended", FOREIGN)
        if not start:
            # execve(2) closes the caller's files before it fills this in.
            raise LiveError("it is about to run another program", UNSETTLED, "try again")
        if values.get(_AT_PHENT) != _PHDR_SIZE or not 0 < count <= _MAX_SEGMENTS:
            raise LiveError("no program of 64 bits", UNKNOWN)
        # Linkers put the program headers right behind the ELF header.
        head = self._pread(start - _EHDR_SIZE, _EHDR_SIZE + count * _PHDR_SIZE)
        ident, _, _, _, _, phoff, *_ = _EHDR.unpack_from(head)
        if ident[:4] != MAGIC or phoff != _EHDR_SIZE:
            raise LiveError("its program does not start with its headers", UNKNOWN)
        loads = [row for row in iter_unpack("<IIQQQQQQ", head[_EHDR_SIZE:]) if row[0] == 1]
        first = next((row for row in loads if row[2] == 0), None)
        if first is None:
            raise LiveError("its program does not start with its headers", UNKNOWN)
        bias = start - _EHDR_SIZE - first[3]
        segments = [Segment(row[3] + bias, row[2], row[5], row[6], row[1]) for row in loads]
        return segments, bias

    def _pread(self, address: int, size: int) -> bytes:
        if not 0 <= address < 1 << 63:
            return b""
        try:
            data = os.pread(self._fd, size, address)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise _failed(self.pid, error) from None
        if not data and size:
            raise LiveError("it has ended, or runs another program now", GONE)
        return data

    def read(self, address: int, size: int) -> bytes:
        """The `size` bytes at `address`; fewer where the segment ends before.

        Raises:
            LiveError: the process has ended or runs another program now.
        """
        return self._pread(address, min(size, self.room(address)))

    def write_byte(self, address: int, value: int) -> None:
        """Write one byte, which can't be seen half written.

        Raises:
            LiveError: the process has ended or runs another program now, or the kernel refuses.
        """
        if not self.room(address):
            raise LiveError(f"{address:#x} is outside of the program", UNKNOWN)
        try:
            written = os.pwrite(self._fd, bytes([value]), address)
        except OSError as error:
            raise _failed(self.pid, error) from None
        if written != 1:
            raise LiveError("it has ended, or runs another program now", GONE)

    def close(self) -> None:
        """Let go of the process's memory."""
        os.close(self._fd)


def _build(pid: str) -> BuildInfo:
    try:
        found = buildinfo.read(f"/proc/{pid}/exe")
    except CgagentError as error:
        if not os.path.exists(f"/proc/{pid}/exe"):
            raise LiveError(f"there is no process {pid}", GONE) from None
        raise LiveError(error.message, UNKNOWN, error.hint) from None
    if found is None:
        raise LiveError("it is no Go program", FOREIGN)
    return found


def _open(path: str, flags: int, pid: str) -> int:
    try:
        return os.open(path, flags)
    except OSError as error:
        raise _failed(pid, error) from None


def _read_file(path: str, pid: str) -> bytes:
    fd = _open(path, os.O_RDONLY | os.O_CLOEXEC, pid)
    try:
        return os.read(fd, _MAX_AUXV)
    except OSError as error:
        raise _failed(pid, error) from None
    finally:
        os.close(fd)


def _failed(pid: str, error: OSError) -> LiveError:
    if error.errno in (errno.ENOENT, errno.ESRCH):
        if os.path.isdir(f"/proc/{pid}"):
            return LiveError("it has no program: a kernel thread, or it has ended", FOREIGN)
        return LiveError(f"there is no process {pid}", GONE)
    if error.errno in (errno.EACCES, errno.EPERM):
        return LiveError("it may not be looked into", DENIED, refusal(Host(), pid, attaching=True))
    return LiveError(f"it can't be looked into: {(error.strerror or str(error)).lower()}", UNKNOWN)
