"""The Go linker's own tables in a program: runtime.moduledata and pclntab, which the runtime itself lives on.

They are in every Go program, stripped or not. Go: runtime/symtab.go (pcHeader, moduledata, functab), runtime2.go
(_func); all offsets used here are the same in Go 1.20 to 1.27 on 64 bits.

    pcHeader:   magic fffffff1, 0, 0, minimal instruction size, pointer size; nfunc, nfiles, textStart (unused since
                1.26), then where funcnametab, cutab, filetab, pctab and pclntab are, counted from here
    moduledata: pcHeader, five slices (funcnametab, cutab, filetab, pctab, pclntable), ftab (a slice), findfunctab,
                minpc, maxpc, text, etext, noptrdata, enoptrdata, data, edata, bss, ebss, noptrbss, enoptrbss...
    ftab:       per function where its code starts (from text) and where its _func is (in pclntable)
    _func:      where the code starts (from text), where the name is (in funcnametab)...
"""

from __future__ import annotations

from struct import Struct, pack

from cgagent.golang.elf import PF_W
from cgagent.golang.live.errors import FOREIGN, UNKNOWN, UNSETTLED, LiveError
from cgagent.golang.live.image import AMD64, CHUNK, Image
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MAGIC = b"\xf1\xff\xff\xff\0\0"
_HEADER = Struct("<8s8Q")
_WORDS = Struct("<32Q")
_SLICE_WORDS = (4, 7, 10, 13)  # cutab, filetab, pctab, pclntable: each is checked against the header
# A process may hold anything, put there to keep us busy. The largest programs of Go have some 200 MiB.
_MAX_FUNCTIONS = 1 << 22
_MAX_SEARCHED = 1 << 30
_MAX_NAMES = 128 << 20
_MAX_TABLE = 512 << 20
_MAX_CANDIDATES = 64
_MAX_FOUND = 4096
# Package runtime has some 3,000 functions, which the linker puts one after the other.
_FAR = 16384


class Function(Record):
    """The code of one function: `name` and the addresses where it starts and where the next one does."""

    __slots__ = ("end", "entry", "name")

    def __init__(self, name: str, entry: int, end: int) -> None:
        self.name = name
        self.entry = entry
        self.end = end


class Module(Record):
    """What moduledata says: addresses of code and data, each a pair of start and end; and the function table.

    Attributes:
        text, data, bss, noptrbss: address ranges.
        names: address and size of funcnametab.
        functions: address of ftab, and the number of functions.
        table: address and size of pclntable.
    """

    __slots__ = ("bss", "data", "functions", "names", "noptrbss", "table", "text")

    def __init__(self, words: Sequence[int]) -> None:
        self.names = (words[1], words[2])
        self.table = (words[13], words[14])
        self.functions = (words[16], words[17] - 1)
        self.text = (words[22], words[23])
        self.data = (words[26], words[27])
        self.bss = (words[28], words[29])
        self.noptrbss = (words[30], words[31])

    def variables(self, addresses: Iterable[int]) -> set[int]:
        """Those of `addresses` that lie where variables are which start as 0; others are no addresses of any."""
        ranges = (self.bss, self.noptrbss)
        return {one for one in addresses if any(start <= one < end for start, end in ranges)}


def find_module(image: Image) -> Module:
    """The moduledata of the program, proven by what it and pcHeader say of each other.

    Raises:
        LiveError: there is none, or not just one.
    """
    seen = False
    for headers in (_hinted(image), _scanned(image)):
        found: dict[int, Module] = {}
        for address, header in headers:
            seen = True
            found |= _modules_of(image, address, header)
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise LiveError(f"{len(found)} Go programs in one: not understood", UNKNOWN)
    if not seen:
        raise LiveError("no Go program: no function table (pclntab) as Go 1.20 and newer writes it", FOREIGN)
    # In a position independent program the dynamic linker has to put the addresses in first.
    raise LiveError("its function table (pclntab) has no runtime.moduledata: garbled, or starting", UNSETTLED)


def _hinted(image: Image) -> Iterator[tuple[int, tuple[int, ...]]]:
    start, _ = image.tables.get(b".gopclntab", (0, 0))
    header = _header(image, image.read(start, _HEADER.size)) if start % 8 == 0 else None
    if header:
        yield start, header


def _scanned(image: Image) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Every pcHeader in what the program has in its file."""
    magic = _magic(image)
    count = 0
    left = _MAX_SEARCHED
    for segment in image.segments:
        size = min(segment.filesz, left)
        left -= size
        for start, chunk in image.chunks(segment.address, size, _HEADER.size):
            at = chunk.find(magic)
            while 0 <= at < CHUNK:
                header = _header(image, chunk[at : at + _HEADER.size]) if (start + at) % 8 == 0 else None
                if header:
                    count += 1
                    if count > _MAX_CANDIDATES:
                        return
                    yield start + at, header
                at = chunk.find(magic, at + 1)


def _magic(image: Image) -> bytes:
    """How a pcHeader starts: instructions of amd64 have one byte at least, those of arm64 four; pointers have eight."""
    return _MAGIC + (b"\x01\x08" if image.machine == AMD64 else b"\x04\x08")


def _header(image: Image, data: bytes) -> tuple[int, ...] | None:
    """The numbers behind the magic of a pcHeader; None where it can be none."""
    if len(data) != _HEADER.size or data[:8] != _magic(image):
        return None
    numbers: tuple[int, ...] = _HEADER.unpack(data)[1:]
    offsets = numbers[3:]
    ascending = list(offsets) == sorted(offsets)
    return numbers if 0 < numbers[0] < _MAX_FUNCTIONS and ascending and _HEADER.size <= offsets[0] else None


def _modules_of(image: Image, address: int, header: tuple[int, ...]) -> dict[int, Module]:
    """The moduledata, by address, that belong to the pcHeader at `address`."""
    found: dict[int, Module] = {}
    needle = pack("<QQ", address, (address + header[3]) % (1 << 64))
    left, hits = _MAX_SEARCHED, 0
    for segment in image.segments:
        if not segment.flags & PF_W:
            continue
        size = min(segment.filesz, left)
        left -= size
        for start, chunk in image.chunks(segment.address, size, len(needle)):
            at = chunk.find(needle)
            while 0 <= at < CHUNK and hits < _MAX_CANDIDATES:
                hits += 1
                words = _proven(image, address, header, start + at)
                if words:
                    found[start + at] = Module(words)
                at = chunk.find(needle, at + 1)
    return found


def _proven(image: Image, address: int, header: tuple[int, ...], at: int) -> tuple[int, ...] | None:
    """The words of the moduledata at `at`; None where they contradict the header or one another."""
    data = image.read(at, _WORDS.size) if at % 8 == 0 else b""
    if len(data) != _WORDS.size:
        return None
    words: tuple[int, ...] = _WORDS.unpack(data)
    tables = all(words[word] == address + offset for word, offset in zip(_SLICE_WORDS, header[4:], strict=True))
    # pclntable and ftab start at one place; ftab has one entry more, for the end.
    functions = words[16] == words[13] and words[17] == header[0] + 1
    code = words[22] <= words[20] < words[21] <= words[23]
    ranges = all(words[i] <= words[i + 1] for i in (24, 26, 28, 30))
    names = 0 < words[2] <= min(image.room(words[1]), _MAX_NAMES)
    names = names and 0 < words[14] <= min(image.room(words[13]), _MAX_TABLE)
    inside = words[23] - words[22] <= image.room(words[22])
    return words if tables and functions and code and ranges and names and inside else None


def find_functions(image: Image, module: Module, starts: Sequence[bytes]) -> list[Function]:
    """The functions whose names start with one of `starts`, all of package runtime, in the order of their code."""
    names = _find_names(image, module, starts)
    found = []
    last = None
    for index, entry, end, name in _table(image, module):
        if name in names:
            found.append(Function(names[name], module.text[0] + entry, module.text[0] + end))
            last = index
            if len(found) > _MAX_FOUND:
                raise LiveError("its function table (pclntab) is damaged", UNKNOWN)
        elif last is not None and index - last > _FAR:
            break
    return found


def _find_names(image: Image, module: Module, starts: Sequence[bytes]) -> dict[int, str]:
    """Where in funcnametab the names are that start so."""
    found: dict[int, str] = {}
    start, size = module.names
    for address, chunk in image.chunks(start, size, 256):
        for prefix in starts:
            # Names follow one another, each ended by a NUL; the table starts with the empty name.
            at = chunk.find(b"\0" + prefix)
            while 0 <= at < CHUNK and len(found) < _MAX_FOUND:
                end = chunk.find(b"\0", at + 1)
                if end > 0:
                    found[address - start + at + 1] = chunk[at + 1 : end].decode("utf-8", "replace")
                at = chunk.find(b"\0" + prefix, at + 1)
    return found


def _table(image: Image, module: Module) -> Iterator[tuple[int, int, int, int]]:
    """Index, start, end (from the text's start) and name (in funcnametab) of each function."""
    at, count = module.functions
    base, size = module.table
    index = 0
    window = memoryview(b"").cast("I")
    window_at = window_end = 0
    for _, chunk in image.chunks(at, (count + 1) * 8, 8, step=1 << 16):
        entries = memoryview(chunk[: len(chunk) // 8 * 8]).cast("I")
        for i in range(min((1 << 13), count - index, len(entries) // 2 - 1)):
            offset = entries[2 * i + 1]
            if not window_at <= offset <= window_end - 8:
                if offset % 4 or offset + 8 > size:
                    raise LiveError("its function table (pclntab) is damaged", UNKNOWN)
                window_at = offset
                data = image.read_all(base + offset, min(1 << 18, size - offset) // 4 * 4)
                window, window_end = memoryview(data).cast("I"), offset + len(data)
            yield index, entries[2 * i], entries[2 * i + 2], window[(offset - window_at) // 4 + 1]
            index += 1
