"""Manifests from files, folders and standard input; put together again for standard output."""

from __future__ import annotations

import os
import sys

from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STDIN = "-"
_SUFFIXES = (".yaml", ".yml", ".json")
# The API server takes objects of 3 MiB at the most (etcd: 1.5); a file may hold many.
_LIMIT = 64 << 20
_SEPARATOR = "---"


def read_all(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The texts of files, of the manifests in folders and below them, and of standard input (`-`), with their names.

    Raises:
        CgagentError: one can't be read, or is no text.
    """
    for name in names:
        if name == STDIN:
            yield "standard input", _decoded(_read_stdin(), "standard input")
        elif os.path.isdir(name):
            found = list(_in_folder(name))
            if not found:
                raise CgagentError(f"{name} has no manifests in it", f"they end with {', '.join(_SUFFIXES)}")
            yield from ((path, _decoded(_read(path), path)) for path in found)
        else:
            yield name, _decoded(_read(name), name)


def _in_folder(name: str) -> Iterator[str]:
    for directory, folders, files in os.walk(name, onerror=_raise):
        folders.sort()
        yield from (os.path.join(directory, file) for file in sorted(files) if file.endswith(_SUFFIXES))


def _raise(error: OSError) -> None:
    raise _failure(str(error.filename), error) from None


def _read_stdin() -> bytes:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise CgagentError("standard input is closed", "name a file")
    data: bytes = stream.read(_LIMIT + 1)
    return data


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT + 1)
    except OSError as error:
        raise _failure(path, error) from None


def _failure(path: str, error: OSError) -> CgagentError:
    return CgagentError(f"cannot read {path}: {(error.strerror or str(error)).lower()}", "name a file or folder")


def _decoded(data: bytes, name: str) -> str:
    if len(data) > _LIMIT:
        raise CgagentError(f"{name} has more than {_LIMIT >> 20} MiB", "split it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CgagentError(f"{name} is not UTF-8: byte {error.start}", "is it a manifest?") from None


def joined(texts: Iterable[str]) -> str:
    """The texts as one stream of documents, each as it is."""
    stream = ""
    for text in filter(str.strip, texts):
        if stream and not stream.endswith("\n"):
            stream += "\n"
        if stream and not text.startswith(_SEPARATOR) and not stream.endswith(f"\n{_SEPARATOR}\n"):
            stream += f"{_SEPARATOR}\n"
        stream += text
    return stream
