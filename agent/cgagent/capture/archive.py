"""FILE.tar.gz to `Capture` and back, in memory: nothing of a stranger's archive reaches a file system.

A reader of its own, of ustar (POSIX.1-1988) with the two ways to write a long name, for what it refuses: links,
devices, sparse files, base-256 sizes, and any size that is not bounded before it is read. tarfile takes all of them
in, and 15 ms to import.
"""

from __future__ import annotations

import json
import zlib

from cgagent.capture.layout import (
    FILE_BYTES,
    FILES,
    META,
    PATH_BYTES,
    TOTAL_BYTES,
    TREE,
    Capture,
    CaptureError,
    Meta,
    check_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512
_GZIP = 31  # zlib's window bits for the gzip format
# Each file takes a header and up to a block of padding, a long name two blocks and itself.
_TAR_BYTES = TOTAL_BYTES + FILES * 4 * _BLOCK
ARCHIVE_BYTES = TOTAL_BYTES  # compressed, it is never larger than what it holds
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file",
    b"g": "a global pax header",
    b"K": "a long link name",
}
_ANEW = "take the capture anew with cgagent capture"


def unpack(data: bytes) -> Capture:
    """The capture in the bytes of a FILE.tar.gz, of which there are ARCHIVE_BYTES at the most.

    Raises:
        CaptureError: it is no archive, damaged, over a bound, or holds what no capture does.
    """
    meta: bytes | None = None
    files: dict[str, bytes] = {}
    directories: set[str] = set()
    for name, content in _members(_inflate(data)):
        plain = name.removeprefix("./").rstrip("/")
        if plain == META and content is not None and meta is None:
            meta = content
            continue
        if plain in ("", ".", TREE) and content is None:
            continue
        if not plain.startswith(f"{TREE}/"):
            check_path(f"/{plain}")
            raise CaptureError(f"the member '{name[:80]}' belongs to no capture", _ANEW)
        path = plain[len(TREE) :]
        check_path(path)
        if path in files or (content is not None and path in directories):
            raise CaptureError(f"the member '{name[:80]}' is there twice", _ANEW)
        if content is None:
            directories.add(path)
        else:
            files[path] = content
        if len(files) + len(directories) > FILES:
            raise CaptureError(f"it holds more than {FILES} files and directories", _ANEW)
    if meta is None:
        raise CaptureError(f"it holds no {META}", "name a file that cgagent capture wrote")
    return assemble(meta, files, directories)


def assemble(meta: bytes, files: dict[str, bytes], directories: set[str]) -> Capture:
    """A capture of its parts, wherever they were read.

    Raises:
        CaptureError: the meta document is off, or a file is a directory too.
    """
    try:
        document = json.loads(meta.decode("utf-8"))
    except (ValueError, RecursionError):
        raise CaptureError(f"{META} is no JSON in UTF-8", _ANEW) from None
    capture = Capture(Meta.of(document), files, directories)
    for path in files:
        if path in capture.directories:
            raise CaptureError(f"'{path[:80]}' is a file and a directory", _ANEW)
    return capture


def pack(capture: Capture) -> bytes:
    """The bytes of a FILE.tar.gz; the same capture gives the same bytes.

    Raises:
        CaptureError: it is over a bound.
    """
    if len(capture.files) + len(capture.directories) > FILES or sum(map(len, capture.files.values())) > TOTAL_BYTES:
        raise CaptureError(f"the layout is over {FILES} files or {TOTAL_BYTES >> 20} MiB", "see --blank-paths")
    meta = json.dumps(capture.meta.document(), indent=2).encode() + b"\n"
    pieces = [_packed(META, meta)]
    for path in sorted({*capture.files, *capture.directories} - {"/"}):
        content = capture.files.get(path)
        pieces.append(_packed(f"{TREE}{path}", content))
    pieces.append(bytes(2 * _BLOCK))
    deflate = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    return deflate.compress(b"".join(pieces)) + deflate.flush()


def _inflate(data: bytes) -> bytes:
    """The tar archive in gzip'd `data`, whose size is bounded whatever it claims."""
    pieces: list[bytes] = []
    size = 0
    while data:
        inflate = zlib.decompressobj(_GZIP)
        try:
            # No piece is longer than this, and a bomb is seen after one too many.
            while data and not inflate.eof:
                pieces.append(inflate.decompress(data, _BLOCK * 2048))
                data = inflate.unconsumed_tail
                size += len(pieces[-1])
                if size > _TAR_BYTES:
                    raise CaptureError(f"unpacked it is larger than {_TAR_BYTES >> 20} MiB", _ANEW)
        except zlib.error:
            raise CaptureError(
                "it is no gzip file, or a damaged one", "name a file that cgagent capture wrote"
            ) from None
        if not inflate.eof:
            raise CaptureError("its end is missing", "copy it anew")
        data = inflate.unused_data.lstrip(b"\0")
    return b"".join(pieces)


def _members(tar: bytes) -> Iterator[tuple[str, bytes | None]]:
    """Each member's name and content, None for a directory."""
    at, total, long_name = 0, 0, None
    while True:
        header = tar[at : at + _BLOCK]
        if len(header) < _BLOCK:
            raise CaptureError("its end is missing", "copy it anew")
        if not header.strip(b"\0"):
            return
        _check_header(header)
        size = _octal(header[124:136])
        kind = header[156:157]
        at += _BLOCK
        if size > (PATH_BYTES + _BLOCK if kind in (b"x", b"L") else FILE_BYTES):
            raise CaptureError(f"a member has {size} bytes", f"{FILE_BYTES >> 20} MiB are the limit")
        content = tar[at : at + size]
        if len(content) < size:
            raise CaptureError("its end is missing", "copy it anew")
        at += -(-size // _BLOCK) * _BLOCK
        if kind in (b"x", b"L"):
            long_name = _pax_path(content) if kind == b"x" else content.rstrip(b"\0")
            continue
        name, long_name = _decoded(long_name or _short_name(header)), None
        total += size
        if total > TOTAL_BYTES:
            raise CaptureError(f"its files have more than {TOTAL_BYTES >> 20} MiB", _ANEW)
        if kind == b"5":
            yield name, None
        elif kind in (b"0", b"\0"):
            yield name, content
        else:
            what = _KINDS.get(kind, "of a kind that no capture holds")
            raise CaptureError(f"the member '{name[:80]}' is {what}", "captures hold plain files and directories alone")


def _check_header(header: bytes) -> None:
    """Refuse a block that is no tar header: its sum takes the sum itself as blanks."""
    if _octal(header[148:156]) != sum(header[:148]) + sum(header[156:]) + 8 * 32:
        raise CaptureError("it is no tar archive, or a damaged one", "name a file that cgagent capture wrote")


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if digits.translate(None, b"01234567"):
        raise CaptureError("it is no tar archive, or a damaged one", "name a file that cgagent capture wrote")
    return int(digits or b"0", 8)


def _short_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # GNU's own format keeps times where ustar has the prefix.
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax_path(content: bytes) -> bytes | None:
    """The path in a pax header, records of `LENGTH KEY=VALUE\\n`; times and owners in it are of no interest."""
    path = None
    while content:
        digits, _, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        record, content = content[:length], content[length:]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n") or key == b"size" or key.startswith(b"GNU.sparse"):
            raise CaptureError("a pax header in it is damaged, or changes a member's size", _ANEW)
        if key == b"path":
            path = value[:-1]
    return path


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _packed(name: str, content: bytes | None) -> bytes:
    """One member: header, content, padding; before it a pax header where the name is long."""
    raw = name.encode("utf-8", "surrogateescape")
    size = 0 if content is None else len(content)
    kind = b"5" if content is None else b"0"
    before = b""
    if len(raw) > 100:
        before = _with_padding(_header(b"pax", b"x", len(_pax(raw))), _pax(raw))
    return before + _with_padding(_header(raw[:100], kind, size), content or b"")


def _pax(path: bytes) -> bytes:
    rest = b" path=" + path + b"\n"
    length = len(rest)
    # The length counts its own digits.
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _header(name: bytes, kind: bytes, size: int) -> bytes:
    mode = b"0000755\0" if kind == b"5" else b"0000644\0"
    owner = b"0000000\0"
    head = name.ljust(100, b"\0") + mode + owner + owner + b"%011o\0" % size + b"%011o\0" % 0
    tail = kind + bytes(100) + b"ustar\x0000" + bytes(_BLOCK - 265)
    return head + b"%06o\0 " % (sum(head) + sum(tail) + 8 * 32) + tail


def _with_padding(header: bytes, content: bytes) -> bytes:
    return header + content + bytes(-len(content) % _BLOCK)
