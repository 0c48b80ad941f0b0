"""Captures as text that a reviewer can read: Go's txtar format, `-- PATH --` before each file's lines.

The text before the first file is a comment. A capture's directories without a file are lines `-- PATH/ --`.
"""

from __future__ import annotations

import json

from cgagent.capture.layout import META, TREE, Capture, Meta


def dump(capture: Capture, comment: str) -> str:
    """A capture as text; every file of it ends with a newline, or is empty, as the kernel writes them."""
    pieces = [f"{comment.strip()}\n", f"-- {META} --\n{json.dumps(capture.meta.document(), indent=2)}\n"]
    above = {path.rpartition("/")[0] for path in (*capture.files, *capture.directories)}
    for path in sorted({*capture.files, *(capture.directories - above - {"/"})}):
        content = capture.text(path)
        assert content is None or not content or content.endswith("\n"), path
        pieces.append(f"-- {TREE}{path}{'/' if content is None else ''} --\n{content or ''}")
    return "".join(pieces)


def load(text: str) -> tuple[Capture, str]:
    """The capture that `text` holds, and its comment."""
    comment, *pieces = f"\n{text}".split("\n-- ")
    files = dict(piece.split(" --\n", 1) for piece in (f"{piece}\n" for piece in pieces))
    meta = Meta.of(json.loads(files.pop(META)))
    trees = {path.removeprefix(TREE): content for path, content in files.items()}
    contents = {path: _whole(content).encode() for path, content in trees.items() if not path.endswith("/")}
    return Capture(meta, contents, [path.rstrip("/") for path in trees if path.endswith("/")]), comment.strip()


def _whole(content: str) -> str:
    # Splitting took the newline before the next file, adding one put it back; an empty file has none.
    return content.rstrip("\n") + "\n" if content.strip("\n") else ""
