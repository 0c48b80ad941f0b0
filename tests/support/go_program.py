"""A program for amd64 that looks like one of Go's to whoever reads it, and only waits: no Go is needed to make it.

It has what Go's linker writes (build info, moduledata, pclntab) and, of package runtime's code, the instructions that
name variables. Written after Go's sources (runtime/symtab.go, runtime2.go, mgcpacer.go, mstats.go) and the Intel SDM,
not after what reads it; the real thing is tests/live's.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import time

from support import go_elf
from support.go_state import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Findings that only a running program tells, and no captured tree can.
FINDINGS = {
    "running-unknown",
    "gomemlimit-below-live",
    "gomemlimit-tight",
    "memory-outside-go",
    "gomaxprocs-in-force",
}

TEXT, TABLES, DATA = 0x401000, 0x500000, 0x600000
BLOB, MODULE, ZEROED = DATA, DATA + 0x4000, DATA + 0x5000
CONTROLLER = ZEROED + 0x100
GOMAXPROCS = ZEROED + 0x80
CPU_STATS = DATA + 0x4800
CYCLES = CPU_STATS - 80
CUSTOM, IDLE, CGROUP_OK = DATA + 0x4900, DATA + 0x4901, DATA + 0x4902
END = DATA + 0x6000

# pause(2) without end
_WAIT = b"\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7"
_LEA_RAX, _CALL, _RET = b"\x48\x8d\x05", b"\xe8", b"\xc3"

# In the order of its code; each is preceded by an INT3 as Go fills up with.
_METHODS = [
    f"runtime.(*gcControllerState).{name}" for name in ("startCycle", "revise", "endCycle", "update", "trigger")
]
_ACCUMULATE = "runtime.(*cpuStats).accumulate"


class Made:
    """What the program is to be.

    Attributes:
        version: the Go release that it says it was built by.
        text: its modules and settings.
        controller: the bytes of runtime.gcController.
        votes: how many calls name it.
        dissent: where one more call says that it is; 0: none.
        gomaxprocs, cycles, cpu_stats, custom, idle, cgroup_ok: the variables' values.
        modules: how many moduledata it has.
        magic: how pclntab starts.
    """

    def __init__(self, **changes: object) -> None:
        self.version = "go1.27.3"
        self.text = "path\texample.com/orders\nmod\texample.com/orders\t(devel)\t\nbuild\t-compiler=gc\n"
        self.controller = state()
        self.votes = 12
        self.dissent = 0
        self.gomaxprocs = 7
        self.cycles = 5
        # assist, dedicated, idle, pause, their sum, scavenger's two, their sum, idle, user, all
        self.cpu_stats = (1, 2, 3, 4, 10, 5, 6, 11, 100, 879, 1000)
        self.custom = self.idle = self.cgroup_ok = 1
        self.modules = 1
        self.magic = 0xFFFFFFF1
        for name, value in changes.items():
            assert hasattr(self, name), name
            setattr(self, name, value)

    def functions(self) -> list[tuple[str, bytes, list[tuple[int, int | str, int]]]]:
        """Name, code, and its references: where a rel32 is, what it means, and how many bytes follow it."""
        calls = b"".join(_LEA_RAX + bytes(4) + _CALL + bytes(4) for _ in range(self.votes))
        references: list[tuple[int, int | str, int]] = []
        for vote in range(self.votes):
            references.append((vote * 12 + 3, CONTROLLER, 0))
            references.append((vote * 12 + 8, _METHODS[vote % len(_METHODS)], 0))
        if self.dissent:
            calls += _LEA_RAX + bytes(4) + b"\x0f\x1f\x00" + _CALL + bytes(4)
            references += [(len(calls) - 12, self.dissent, 0), (len(calls) - 4, _METHODS[0], 0)]
        move_ecx = b"\xb9\x01\x00\x00\x00"
        counting = _LEA_RAX + bytes(4) + move_ecx + _CALL + bytes(4) + _RET
        return [
            ("main.main", _RET, []),
            *((name, _RET, []) for name in _METHODS),
            (_ACCUMULATE, _RET, []),
            ("runtime.gcStart", calls + _RET, references),
            ("runtime.gcMarkTermination", counting, [(3, CPU_STATS, 0), (13, _ACCUMULATE, 0)]),
            ("runtime.(*scavengerState).init.func1", b"\x8b\x05" + bytes(4) + _RET, [(2, GOMAXPROCS, 0)]),
            ("runtime.(*scavengerState).init.func2", b"\x31\xc0" + _RET, []),
            ("runtime.gcTrigger.test", b"\x8b\x0d" + bytes(4) + _RET, [(2, CYCLES, 0)]),
            (
                "runtime.sysmonUpdateGOMAXPROCS",
                b"\x0f\xb6\x0d" + bytes(4) + b"\x8a\x15" + bytes(4) + _RET,
                [(3, CUSTOM, 0), (9, IDLE, 0)],
            ),
            (
                "runtime.updateMaxProcsGoroutine",
                b"\x8a\x0d" + bytes(4) + b"\xc6\x05" + bytes(5) + _RET,
                [(2, IDLE, 0), (8, CUSTOM, 1)],
            ),
            ("runtime.defaultGOMAXPROCS", b"\x80\x3d" + bytes(5) + _RET, [(2, CGROUP_OK, 1)]),
        ]


def _code(functions: list[tuple[str, bytes, list[tuple[int, int | str, int]]]]) -> tuple[bytes, dict[str, int]]:
    """The text with its references filled in, and where each function starts in it."""
    text = bytearray(_WAIT)
    starts = {}
    for name, code, _ in functions:
        text += b"\xcc" * (-len(text) % 16)
        starts[name] = len(text)
        text += code
    for name, _, references in functions:
        for at, target, behind in references:
            address = TEXT + starts[target] if isinstance(target, str) else target
            place = starts[name] + at
            struct.pack_into("<i", text, place, address - (TEXT + place + 4 + behind))
    return bytes(text) + b"\xcc" * 16, starts


def _tables(made: Made, starts: dict[str, int], size: int) -> tuple[bytes, tuple[int, ...]]:
    """The pclntab, and where its parts are from its start: names, cutab, filetab, pctab, pclntable, and its end."""
    names, records, offsets = b"\0", b"", []
    count = len(starts)
    for name, start in starts.items():
        offsets.append((start, (count + 1) * 8 + len(records)))
        records += struct.pack("<IIiIIIIIIiBBBB", start, len(names), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        names += name.encode() + b"\0"
    names += bytes(-len(names) % 8)
    table = b"".join(struct.pack("<II", *one) for one in offsets) + struct.pack("<II", size, 0) + records
    at = 72 + len(names)
    parts = (72, at, at + 8, at + 16, at + 24, at + 24 + len(table))
    header = struct.pack("<IBBBB8Q", made.magic, 0, 0, 1, 8, count, 1, 0, *parts[:5])
    return header + names + bytes(24) + table, parts


def _moduledata(parts: tuple[int, ...], count: int, size: int) -> bytes:
    def piece(index: int) -> tuple[int, int, int]:
        length = parts[index + 1] - parts[index]
        return TABLES + parts[index], length, length

    functions = (TABLES + parts[4], count + 1, count + 1)
    code = (0, TEXT + 16, TEXT + size, TEXT, TEXT + size)
    data = (DATA, DATA + 0x4400, DATA + 0x4400, DATA + 0x4400, DATA + 0x4400, ZEROED, ZEROED, END)
    words = (TABLES, *piece(0), *piece(1), *piece(2), *piece(3), *piece(4), *functions, *code, *data)
    return struct.pack("<32Q", *words)


def image(made: Made) -> bytes:
    """The program's file."""
    text, starts = _code(made.functions())
    tables, parts = _tables(made, starts, len(text))
    data = bytearray(END - DATA)

    def put(address: int, piece: bytes) -> None:
        data[address - DATA : address - DATA + len(piece)] = piece

    put(BLOB, go_elf.inline_blob(made.version, made.text))
    for number in range(made.modules):
        put(MODULE + number * 0x200, _moduledata(parts, len(starts), len(text)))
    put(CONTROLLER, made.controller)
    put(GOMAXPROCS, struct.pack("<i", made.gomaxprocs))
    put(CPU_STATS, struct.pack("<11q", *made.cpu_stats))
    put(CYCLES, struct.pack("<I", made.cycles))
    put(CUSTOM, bytes([made.custom, made.idle, made.cgroup_ok]))
    # type, flags, offset, address twice, size twice, alignment (elf(5))
    pieces = [(5, 0, 0x400000, 0x1000 + len(text)), (4, 0x3000, TABLES, len(tables)), (6, 0x5000, DATA, len(data))]
    headers = b"".join(struct.pack("<IIQQQQQQ", 1, f, at, a, a, n, n, 0x1000) for f, at, a, n in pieces)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, TEXT, 64, 0, 0, 64, 56, len(pieces), 64, 0, 0)
    file = bytearray(head + headers)
    for piece, at in ((text, 0x1000), (tables, 0x3000), (bytes(data), 0x5000)):
        file += bytes(at - len(file)) + piece
    return bytes(file)


def build(path: str, **changes: object) -> str:
    """Write the program to `path`, where it can be run."""
    with open(path, "wb") as file:
        file.write(image(Made(**changes)))
    os.chmod(path, 0o755)
    return path


def start(path: str, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Run it; whoever does so ends it. It runs, not just the interpreter's fork, when this returns."""
    process = subprocess.Popen([path], env=environ or {}, close_fds=True)
    end = time.monotonic() + 60
    # execve closes what Popen waits for before the new program's arguments and environment are in place.
    while process.poll() is None and _start_stack(process.pid) == 0 and time.monotonic() < end:
        time.sleep(0.001)
    return process


@contextlib.contextmanager
def starter(directory: str) -> Iterator[Callable[..., str]]:
    """A function that makes a program of given `changes` in `directory`, starts it with an environment, and gives its
    PID; what it has started ends with the context.
    """
    processes: list[subprocess.Popen[bytes]] = []

    def run(environ: dict[str, str] | None = None, **changes: object) -> str:
        processes.append(start(build(f"{directory}/program{len(processes)}", **changes), environ))
        return str(processes[-1].pid)

    yield run
    for process in processes:
        process.kill()
        process.wait()


def _start_stack(pid: int) -> int:
    """Where its stack begins (field 28 of /proc/PID/stat), the last that execve sets; 0 before."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[25])
