"""A tree in memory, and archives of it that are the same, bit for bit, whenever they are made."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NONE: Mapping[str, int] = {}
PROGRAM = 0o755
FILE = 0o644


def epoch() -> int:
    """The time that files get, in seconds: SOURCE_DATE_EPOCH (reproducible-builds.org), else 0."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def tar(tree: Mapping[str, tuple[bytes, int]], prefix: str = "", owned: Mapping[str, int] = _NONE) -> bytes:
    """A ustar archive of `tree` (path -> content, mode) below the directory `prefix`, all owned by root.

    `owned` names more directories, at their whole path, and the user and group that each belongs to.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        paths = {f"{prefix}/{path}".lstrip("/"): entry for path, entry in tree.items()}
        for directory in sorted({parent for path in (*paths, *owned) for parent in _parents(path)} | {*owned}):
            info = _info(directory, PROGRAM)
            info.type = tarfile.DIRTYPE
            info.uid = info.gid = owned.get(directory, 0)
            archive.addfile(info)
        for path in sorted(paths):
            content, mode = paths[path]
            info = _info(path, mode)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _info(path: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode, info.mtime = mode, epoch()
    return info


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def put(path: str, content: bytes) -> None:
    """Write a file by its whole content or not at all."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(content)
    os.rename(temporary, path)
