r"""The text that the Go linker puts into a program: packages, modules and settings it was built from.

Lines of tab-separated fields, as `go version -m` shows them (Go: runtime/debug/mod.go, ParseBuildInfo):

    path	example.com/orders/cmd/ordersd
    mod	example.com/orders	v1.2.3	h1:...
    dep	go.uber.org/automaxprocs	v1.6.0	h1:...
    =>	example.com/fork	v0.0.1	h1:...
    build	-ldflags="-s -w"
"""

from __future__ import annotations

from cgagent.errors import MalformedError
from cgagent.record import Record

_FILE = "Go build info"
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}
_MAX_DIGITS = 9
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


class Dependency(Record):
    """A module that packages of the program come from.

    Attributes:
        path: its module path.
        version: as `v1.6.0`; may be empty.
        sum: its checksum as in go.sum; empty where it was replaced.
        replace: the module that took its place (a `replace` line of go.mod), or None.
    """

    __slots__ = ("path", "replace", "sum", "version")

    def __init__(self, path: str, version: str, sum: str = "", replace: Dependency | None = None) -> None:  # noqa: A002 as in go.sum
        self.path = path
        self.version = version
        self.sum = sum
        self.replace = replace

    @property
    def release(self) -> tuple[int, ...] | None:
        """The numbers of the version whose code is linked in, such as (1, 5, 3); None where it has none."""
        parts = (self.replace or self).version.removeprefix("v").split(".")[:3]
        numbers = [leading_number(part) for part in parts]
        release = tuple(number for number in numbers if number is not None)
        # A pseudo-version of an untagged commit (v0.0.0-2024...) says nothing.
        return release if len(release) == 3 and any(release) else None


class Modules(Record):
    """What the text says: the main package's path, its module, the dependencies, the build settings."""

    __slots__ = ("dependencies", "main", "path", "settings")

    def __init__(self) -> None:
        self.path: str | None = None
        self.main: Dependency | None = None
        self.dependencies: list[Dependency] = []
        self.settings: dict[str, str] = {}


def parse_modinfo(text: str) -> Modules:
    """The modules and settings in `text`; lines of kinds that we don't know are skipped, as Go does.

    Raises:
        MalformedError: a line of a known kind is not as Go writes it.
    """
    modules = Modules()
    last: Dependency | None = None
    for line in text.split("\n")[:-1]:
        kind, _, rest = line.partition("\t")
        if kind == "path":
            modules.path = rest
        elif kind == "mod":
            last = modules.main = _module(line, rest)
        elif kind == "dep":
            last = _module(line, rest)
            modules.dependencies.append(last)
        elif kind == "=>":
            if last is None or rest.count("\t") != 2:
                raise MalformedError(_FILE, line, "expected a module before and three fields")
            last.replace = _module(line, rest)
            last = None
        elif kind == "build" and "\t" in line:
            key, value = _setting(line, rest)
            modules.settings[key] = value
    return modules


def leading_number(text: str) -> int | None:
    """The number that `text` starts with, or None."""
    rest = text.lstrip("0123456789")
    digits = text[: len(text) - len(rest)]
    return int(digits) if digits and len(digits) <= _MAX_DIGITS else None


def _module(line: str, rest: str) -> Dependency:
    fields = rest.split("\t")
    if len(fields) not in (2, 3):
        raise MalformedError(_FILE, line, "expected path, version and sum")
    return Dependency(fields[0], fields[1], fields[2] if len(fields) == 3 else "")


def _setting(line: str, rest: str) -> tuple[str, str]:
    if rest[:1] in ('"', "`"):
        end = _closing_quote(rest)
        key, sign, value = unquote(rest[:end]), rest[end : end + 1], rest[end + 1 :]
    else:
        key, sign, value = rest.partition("=")
        if not key or _needs_quotes(key, '= \t\r\n"`'):
            raise MalformedError(_FILE, line, "expected a key")
    text = unquote(value) if value[:1] in ('"', "`") else value
    if key is None or sign != "=" or text is None or (text is value and _needs_quotes(value, ' \t\r\n"`')):
        raise MalformedError(_FILE, line, "expected KEY=VALUE")
    return key, text


def _needs_quotes(text: str, characters: str) -> bool:
    return any(c in text for c in characters)


def _closing_quote(text: str) -> int:
    """The index behind the Go string literal that `text` starts with; 0 where it does not end."""
    quote, at = text[0], 1
    while (end := text.find(quote, at)) >= 0:
        escape = text.find("\\", at, end) if quote == '"' else -1
        if escape < 0:
            return end + 1
        at = escape + 2
    return 0


def unquote(text: str) -> str | None:
    """What the Go string literal `text`, double- or backquoted, stands for; None where it is none."""
    if len(text) < 2 or _closing_quote(text) != len(text):
        return None
    body = text[1:-1]
    if text[0] == "`":
        return body.replace("\r", "")
    return body if "\\" not in body else _unescape(body)


def _unescape(body: str) -> str | None:
    # \x and octals are bytes, of which several may make one character.
    out = bytearray()
    at = 0
    while (slash := body.find("\\", at)) >= 0:
        out += body[at:slash].encode("utf-8", "surrogateescape")
        kind = body[slash + 1]
        if kind in _ESCAPES:
            out.append(_ESCAPES[kind])
            at = slash + 2
            continue
        start = slash + 2 if kind in _HEX_DIGITS else slash + 1
        at = start + _HEX_DIGITS.get(kind, 3)
        value = _digits(body[start:at], at - start, 16 if kind in _HEX_DIGITS else 8)
        if value is None or (kind not in ("u", "U") and value > 255):
            return None
        if kind not in ("u", "U"):
            out.append(value)
        elif value > 0x10FFFF or 0xD800 <= value < 0xE000:
            return None
        else:
            out += chr(value).encode()
    out += body[at:].encode("utf-8", "surrogateescape")
    return out.decode("utf-8", "surrogateescape")


def _digits(text: str, count: int, base: int) -> int | None:
    allowed = "0123456789abcdefABCDEF" if base == 16 else "01234567"
    if len(text) != count or any(c not in allowed for c in text):
        return None
    return int(text, base)
