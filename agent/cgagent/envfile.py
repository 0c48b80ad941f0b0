"""The env file: rendered so that every launcher accepts it, written whole or not at all.

`NAME='value'` in single quotes, one a line, is at once valid for a POSIX shell's `.`, systemd's
EnvironmentFile= and the kubelet's fileKeyRef (k8s.io/kubernetes pkg/kubelet/util/env, 1.35 and newer).
"""

from __future__ import annotations

import os
import stat
import time

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
_STALE_SECONDS = 60.0

_HINTS = {
    "No space left on device": "free some space there",
    "Read-only file system": "mount a writable volume there, such as an emptyDir",
    "Permission denied": "let this user write to the directory",
    "No such file or directory": "create the directory first",
    "Not a directory": "name a file in a directory",
    "Is a directory": "name a file",
    "File name too long": "give a shorter name",
}
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
        raise _failure("read", path, error) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CgagentError(f"cannot read {path}: not a regular file", "remove it or name another")
        data = os.read(fd, _OLD_LIMIT + 1)
    except OSError as error:
        raise _failure("read", path, error) from None
    finally:
        os.close(fd)
    if len(data) > _OLD_LIMIT:
        raise CgagentError(f"cannot read {path}: more than {_OLD_LIMIT} bytes", "name an env file")
    return data.decode("utf-8", "surrogateescape")


def write(path: str, text: str, mode: int | None = None) -> bool:
    """Make `path` hold `text`: True if it was written, False if it held it already, with `mode` if one is asked for.

    A temporary file in the same directory is written, flushed and renamed, so a reader sees the old file or
    the new one, whatever happens meanwhile. A symbolic link to a file, a FIFO or a stranger's file under that
    name is replaced, not followed; a device, or a link to what is no file, is refused.

    Raises:
        CgagentError: the file could not be written; the old one is as it was.
    """
    if _holds(path, text, mode):
        return False
    if _leads_to_no_file(path):
        raise CgagentError(f"cannot write {path}: it is no file to replace", "name a file, or - to print")
    directory, name = os.path.split(path)
    directory = directory or "."
    temporary = os.path.join(directory, f".{name}.cgagent-{os.urandom(6).hex()}")
    renamed = False
    try:
        _write_flushed(temporary, text.encode("utf-8", "surrogateescape"), _MODE if mode is None else mode)
        os.rename(temporary, path)
        renamed = True
        _flush_directory(directory)
    except OSError as error:
        raise _failure("write", path, error) from None
    finally:
        if not renamed:
            _remove(temporary)
    _remove_stale(directory, f".{name}.cgagent-")
    return True


def _holds(path: str, text: str, mode: int | None) -> bool:
    try:
        found = os.lstat(path).st_mode
        if stat.S_ISLNK(found) or (mode is not None and stat.S_IMODE(found) != mode):
            return False
        return read(path) == text
    except (OSError, CgagentError):
        return False


def _leads_to_no_file(path: str) -> bool:
    """Whether replacing `path` would break a device (/dev/null), or a name that stands for a stream (/dev/stdout)."""
    try:
        own, target = os.lstat(path).st_mode, os.stat(path).st_mode
        if stat.S_ISLNK(own):
            return not stat.S_ISREG(target) or os.readlink(path).startswith("/proc/")
    except OSError:
        return False
    return stat.S_ISCHR(own) or stat.S_ISBLK(own)


def _write_flushed(path: str, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was never made, or the file system is gone: the failure that led here is told


def _flush_directory(directory: str) -> None:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # a directory may be writable and not readable
    try:
        os.fsync(fd)
    except OSError:
        pass  # some file systems can't; the rename itself was atomic
    finally:
        os.close(fd)


def _remove_stale(directory: str, prefix: str) -> None:
    """Remove temporary files that a writer left when it was killed between creating and renaming one."""
    oldest = time.time() - _STALE_SECONDS
    try:
        names = [name for name in os.listdir(directory) if name.startswith(prefix)]
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        try:
            if os.lstat(path).st_mtime < oldest:
                os.unlink(path)
        except OSError:
            pass  # another writer was faster, or it is not ours to remove


def _failure(verb: str, path: str, error: OSError) -> CgagentError:
    reason = error.strerror or str(error)
    hints = _READ_HINTS if verb == "read" else _HINTS
    return CgagentError(f"cannot {verb} {path}: {reason.lower()}", hints.get(reason, "name another file"))


def parse_mode(text: str, what: str) -> int:
    """`text` as permission bits in octal, such as `0644`.

    Raises:
        UsageError: it is none.
    """
    if text and len(text) <= 4 and not text.strip("01234567"):
        return int(text, 8)
    raise UsageError(f"{what}: '{text}' is not a file mode", "give octal permission bits, such as 0644")
