"""Namespaces of its own for a test, and processes in others: the machine's network is not touched.

Nor does the test see the mounts that others make meanwhile.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import traceback
from typing import TYPE_CHECKING

import pytest

from cgagent.launch import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
needs_iproute = pytest.mark.skipif(not (shutil.which("ip") and shutil.which("tc")), reason="iproute2 is not installed")


def in_private_namespaces(test: Callable[..., None]) -> Callable[..., None]:
    """Run `test` in a child with a new network and mount namespace; its failure is ours."""

    @functools.wraps(test)
    def wrapped(*arguments: object, **named: object) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            failure = ""
            try:
                syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
                syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
                test(*arguments, **named)
            except BaseException:  # noqa: BLE001 reported by the parent, whatever it is
                failure = traceback.format_exc()
            os.write(writer, failure.encode()[-60000:])
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, errors="replace") as file:
            failure = file.read()
        os.waitpid(pid, 0)
        if "Skipped: " in failure:
            pytest.skip(failure.rpartition("Skipped: ")[2].strip())
        if failure:
            pytest.fail(failure, pytrace=False)

    return wrapped


class Container:
    """A process that sleeps in a network namespace of its own, and in a user namespace if asked."""

    def __init__(self, user: bool = False) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            syscalls.unshare(syscalls.CLONE_NEWNET | (syscalls.CLONE_NEWUSER if user else 0))
            os.write(writer, b"x")
            while True:
                signal.pause()
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.close(reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill it, once."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def command(self, *words: str) -> list[str]:
        """`words` as a command that runs in its network namespace."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *words]

    def run(self, *words: str) -> str:
        """The output of a command in its network namespace."""
        return output(*self.command(*words))


def output(*command: str) -> str:
    """What `command` prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
