"""What statfs(2) says of the cgroup hierarchies that are shown, which are files of a tmpfs.

.NET, Java 25, and what of runc and containerd other programs use, tell v1 from v2 by it. Sources: fs/statfs.c,
simple_statfs() in fs/libfs.c, linux/magic.h.
"""

from __future__ import annotations

import os
from struct import pack

from cgagent.cgroup.mounts import parse_mountinfo
from cgagent.errors import MalformedError
from cgagent.launch.shown.scene import CGROUPS
from cgagent.launch.syscalls import CGROUP2_SUPER_MAGIC, CGROUP_SUPER_MAGIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.capture import Capture
    from cgagent.launch.shown.notify import Notification
    from cgagent.launch.shown.task import Memory

_BLOCK, _LONGEST_NAME = 4096, 255
_FLAGS = 0x20 | os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC  # ST_VALID, and as `stage` seals them


class FileSystems:
    """The hierarchies of one layout.

    For a process that stands in the container's mount namespace; `processes` is a directory of /proc in which the
    callers' numbers are those of the notifications.
    """

    def __init__(self, capture: Capture, processes: int) -> None:
        self._processes = processes
        try:
            mounts = parse_mountinfo(capture.text("/proc/self/mountinfo") or "")
        except MalformedError:
            mounts = []  # the command is to see just that
        self._magic = {mount.point: (CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC)[mount.version - 1] for mount in mounts}

    def statfs(self, call: Notification, memory: Memory) -> int | None:
        """statfs(2); None where the kernel is to answer: of all that is no cgroup hierarchy."""
        path = os.path.normpath(os.fsdecode(memory.string(call.arguments[0])))
        return self._answer(path, call, memory)

    def fstatfs(self, call: Notification, memory: Memory) -> int | None:
        """fstatfs(2), likewise."""
        try:
            path = os.readlink(f"{call.pid}/fd/{call.arguments[0] % (1 << 32)}", dir_fd=self._processes)
        except OSError:
            return None
        return self._answer(path, call, memory)

    def _answer(self, path: str, call: Notification, memory: Memory) -> int | None:
        # A 32-bit program has other structures, and no runtime that asks. No other path is looked up here.
        if call.narrow or not f"{path}/".startswith(f"{CGROUPS}/"):
            return None
        try:
            found = os.path.realpath(path, strict=True)
        except OSError:
            return None
        while found not in self._magic:
            if found == "/":
                return None
            found = os.path.dirname(found)
        numbers = (self._magic[found], _BLOCK, 0, 0, 0, 0, 0, 0, _LONGEST_NAME, _BLOCK, _FLAGS)
        memory.write(call.arguments[1], pack("=11q32x", *numbers))
        return 0
