"""The kubelet's reader of env files (`fileKeyRef`), 1.35 and newer, as its parser behaves.

Source: k8s.io/kubernetes pkg/kubelet/util/env/env_util.go, the version with single quotes. Where that is not
known to the letter, this reader is the stricter: what it accepts, the kubelet accepts.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_LIMIT = 64 * 1024  # bufio.MaxScanTokenSize
_BLANKS = b" \t"


class KubeletError(Exception):
    """The kubelet refuses the file: its container waits with CreateContainerConfigError."""


def lookup(data: bytes, key: str) -> str:
    """The value of `key` in the env file `data`: the first match; "" where there is none.

    Raises:
        KubeletError: a line before the match, or the match itself, is no assignment in single quotes.
    """
    lines = _lines(data)
    for line in lines:
        text = line.lstrip(_BLANKS)
        if not text or text.startswith(b"#"):
            continue
        name, equals, value = text.partition(b"=")
        if not equals or not name or name[-1:] in (b" ", b"\t"):
            raise KubeletError(f"no NAME= in {line!r}")
        content = _value(value, lines)
        if name == key.encode():
            return content.decode("utf-8", "surrogateescape")
    return ""


def _lines(data: bytes) -> Iterator[bytes]:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        if len(line) >= LINE_LIMIT:
            raise KubeletError("a line is too long")
        yield line.removesuffix(b"\r")


def _value(text: bytes, more: Iterator[bytes]) -> bytes:
    """The value that starts with `text`, the rest of its line; it may go on over `more` lines."""
    if not text or text[:1] in (b" ", b"\t"):
        return b""  # as in a shell, where `NAME= word` sets NAME to nothing
    if not text.startswith(b"'"):
        raise KubeletError(f"no single quote before {text!r}")
    content, quote, rest = text[1:].partition(b"'")
    while not quote:
        line = next(more, None)
        if line is None:
            raise KubeletError("a single quote is never closed")
        piece, quote, rest = line.partition(b"'")
        content += b"\n" + piece
    after = rest.lstrip(_BLANKS)
    if after and not (after.startswith(b"#") and after != rest):
        raise KubeletError(f"{after!r} follows the closing quote")
    return content
