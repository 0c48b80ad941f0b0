"""The env file: rendered so that every launcher accepts it, written whole or not at all.

`NAME='value'` in single quotes, one a line, is at once valid for a POSIX shell's `.`, systemd's
EnvironmentFile= and the kubelet's fileKeyRef (k8s.io/kubernetes pkg/kubelet/util/env, 1.35 and newer).
"""

from __future__ import annotations

import os
import stat

from cgagent import __version__
from cgagent.cgroup.limits import Limits
from cgagent.errors import CgagentError, UsageError, printable
from cgagent.policy import VARIABLES
from cgagent.units import format_cores, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ("dotenv", "docker", "shell", "json")
_MARK = "# written by cgagent"
_OLD_LIMIT = 1 << 20
_MODE = 0o644

_READ_HINTS = {"Permission denied": "let this user read the file"}


def header(limits: Limits) -> str:
    """The comment that says what wrote the file and from which limits; always one line."""
    cpu, memory = limits.cpu, limits.memory
    cores, size = ("not known" if limits.blocked(one) else "no limit" for one in ("cpu", "memory"))
    if cpu.cores is not None and cpu.counts:
        cores = f"{format_cores(cpu.cores)} cores ({cpu.source})"
    if memory.bytes is not None and memory.counts:
        size = f"{format_size(memory.bytes)} ({memory.source})"
    return printable(f"{_MARK} {__version__}: cpu {cores}, memory {size}")


def render(env: dict[str, str], comment: str, style: str) -> str:
    """The assignments `env` in one of FORMATS, with a final newline."""
    if style == "json":
        pairs = ", ".join(f'"{name}": "{value}"' for name, value in env.items())
        return f"{{{pairs}}}\n"
    # The values are our own decimal numbers: nothing in them needs quoting or escaping.
    line = {"dotenv": "{}='{}'", "docker": "{}={}", "shell": "export {}='{}'"}[style]
    return "\n".join([comment, *(line.format(name, value) for name, value in env.items()), ""])


def merge(ours: str, old: str, style: str = "dotenv") -> str:
    """`ours`, followed by what `old` holds beside our variables and our comment.

    Ours come first: the kubelet takes the first assignment of a name and fails on a bad line before it.
    """
    # Docker knows no quotes: there an apostrophe is a letter, and every line stands alone.
    statements = old.split("\n") if style == "docker" else _statements(old)
    kept = [statement for statement in statements if not _is_ours(statement)]
    rest = "\n".join(kept).strip("\n")
    return f"{ours}{rest}\n" if rest else ours


def _statements(text: str) -> Iterator[str]:
    """The assignments and comments of an env file; one that spans lines, as a shell reads it, stays in one piece."""
    pending: list[str] = []
    open_end = ""
    for line in text.split("\n"):
        pending.append(line)
        open_end = _open_end(line, open_end)
        if not open_end:
            yield "\n".join(pending)
            pending.clear()
    if pending:
        yield "\n".join(pending)


def _open_end(line: str, quote: str) -> str:
    """What a line that starts inside `quote` leaves open: a quote, a backslash at its end, or nothing."""
    quote = quote.removesuffix("\\")
    previous, skip = " ", False
    for char in line:
        if skip:
            skip = False
        elif char == "\\" and quote != "'":
            skip = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and previous in " \t":
            return ""
        previous = char
    return quote + "\\" if skip else quote


def _is_ours(statement: str) -> bool:
    if statement.startswith(_MARK):
        return True
    name = statement.strip().removeprefix("export ").lstrip().partition("=")[0]
    return name in VARIABLES


def parse(text: str, file: str) -> dict[str, str]:
    """Our variables as they stand in an env file of any of FORMATS but json.

    Raises:
        CgagentError: a value is quoted wrongly, or holds what neither variable can, or the file is JSON.
    """
    if text.lstrip().startswith("{"):
        raise CgagentError(f"{file} is JSON", "write it without --format json")
    env: dict[str, str] = {}
    for statement in _statements(text):
        if not _is_ours(statement) or statement.startswith("#"):
            continue
        name, _, value = statement.strip().removeprefix("export ").lstrip().partition("=")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        if not (value.isascii() and value.isalnum()) and value:
            raise CgagentError(f"{file}: {name} is '{value}'", "cgagent write makes this file anew")
        if value and name not in env:
            env[name] = value
    return env


def read(path: str) -> str | None:
    """The text of an existing env file, or None where there is none.

    Raises:
        CgagentError: it may not be read, is no regular file, or is larger than any env file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CgagentError(f"cannot read {path}: not a regular file", "remove it or name another")
        data = os.read(fd, _OLD_LIMIT + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(fd)
    if len(data) > _OLD_LIMIT:
        raise CgagentError(f"cannot read {path}: more than {_OLD_LIMIT} bytes", "name an env file")
    return data.decode("utf-8", "surrogateescape")


def _unreadable(path: str, error: OSError) -> CgagentError:
    from cgagent.wholefile import failure

    return failure("read", path, error, _READ_HINTS)


def write(path: str, text: str, mode: int | None = None) -> bool:
    """Make `path` hold `text`: True if it was written, False if it held it already, with `mode` if one is asked for.

    A reader sees the old file or the new one, whatever happens meanwhile (`wholefile.replace`).

    Raises:
        CgagentError: the file could not be written; the old one is as it was.
    """
    if _holds(path, text, mode):
        return False
    from cgagent.wholefile import replace  # mostly nothing has changed

    replace(path, text.encode("utf-8", "surrogateescape"), _MODE if mode is None else mode)
    return True


def _holds(path: str, text: str, mode: int | None) -> bool:
    try:
        found = os.lstat(path).st_mode
        if stat.S_ISLNK(found) or (mode is not None and stat.S_IMODE(found) != mode):
            return False
        return read(path) == text
    except (OSError, CgagentError):
        return False


def parse_mode(text: str, what: str) -> int:
    """`text` as permission bits in octal, such as `0644`.

    Raises:
        UsageError: it is none.
    """
    if text and len(text) <= 4 and not text.strip("01234567"):
        return int(text, 8)
    raise UsageError(f"{what}: '{text}' is not a file mode", "give octal permission bits, such as 0644")
