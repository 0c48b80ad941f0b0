"""The few programs that the launcher needs on rare paths: newuidmap, busctl. `subprocess` costs more than they do."""

from __future__ import annotations

import os


def find(name: str) -> str | None:
    """The path of a program in the system's directories; PATH is the caller's, and these may be setuid."""
    for directory in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    return None


def run(words: list[str]) -> tuple[int, str]:
    """Run a program to its end: exit code and what it printed, at most 4 KiB."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
    pid = os.posix_spawn(words[0], words, {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, file_actions=actions)
    os.close(writer)
    os.close(null)
    text = b""
    while piece := os.read(reader, 4096):
        text = (text + piece)[:4096]
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.decode("utf-8", "replace")
