"""Write an env file and die by SIGKILL at one chosen system call: `killed_writer.py CALL WHEN PATH`.

The text is read from standard input. WHEN is `before` the call number CALL (from 1), `after` it, or `amid`:
a write of which half is done. A CALL beyond the last lets the writer end in peace.
"""

from __future__ import annotations

import os
import signal
import sys

from cgagent import envfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = ("open", "write", "fchmod", "fsync", "close", "rename", "unlink", "lstat", "listdir", "read", "fstat")


class Killer:
    """Counts system calls and kills this process at the chosen one."""

    def __init__(self, call: int, when: str) -> None:
        self.left = call
        self.when = when

    def __call__(self, name: str) -> None:
        """Have os.NAME counted."""
        real: Callable[..., object] = getattr(os, name)

        def counted(*args: object, **kwargs: object) -> object:
            self.left -= 1
            if self.left == 0 and self.when == "before":
                _die()
            if self.left == 0 and self.when == "amid" and name == "write":
                fd, data = args
                assert isinstance(data, bytes)
                real(fd, data[: len(data) // 2])
                _die()
            last = self.left == 0
            try:
                return real(*args, **kwargs)
            finally:
                if last:
                    _die()

        setattr(os, name, counted)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Patch and write."""
    call, when, path = sys.argv[1:]
    text = sys.stdin.read()
    killer = Killer(int(call), when)
    for name in CALLS:
        killer(name)
    envfile.write(path, text)


if __name__ == "__main__":
    main()
