"""Laying a layout over each process's own files: /proc/PID/cgroup and /proc/PID/mountinfo, as processes appear.

A process is seen at its exec, and one that is only forked at the first call that every C library makes in a child
(set_robust_list in glibc, set_tid_address in musl): before it can have read anything. The kernel takes the mounts away
with the process.
"""

from __future__ import annotations

import os

from cgagent.launch.shown.task import GoneError
from cgagent.launch.syscalls import CLONE_NEWNS, CLONE_NEWUSER, bind_file, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.shown.task import Threads

PROCESS_CALLS = ("execve", "execveat", "set_robust_list", "set_tid_address")
PROCESS_FILES = ("cgroup", "mountinfo")


class Laying:
    """In the supervisor: the texts, ready to be mounted in the container's mount namespace."""

    def __init__(self, threads: Threads, files: list[int], namespaces: list[int]) -> None:
        """`files` are those of PROCESS_FILES, attached in the container; `namespaces` its mount and user namespace.

        From here on this process stands in them.
        """
        mount_namespace, *users = namespaces
        for fd in users:
            setns(fd, CLONE_NEWUSER)
        setns(mount_namespace, CLONE_NEWNS)
        self._threads = threads
        self._files = dict(zip(PROCESS_FILES, files, strict=True))
        self._device = os.fstat(files[0]).st_dev

    def cover(self, pid: int) -> None:
        """The process of our thread `pid`, if it is not covered yet."""
        try:
            self.lay(self._threads.inner(pid)[1])
        except (GoneError, OSError):
            pass  # it has ended, or its namespaces are not the container's

    def lay(self, process: int) -> None:
        """Process `process`, as the container numbers it."""
        for name, fd in self._files.items():
            path = f"/proc/{process}/{name}"
            if os.stat(path).st_dev != self._device:
                bind_file("", path, fd)
