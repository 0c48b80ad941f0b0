"""The kernel's side of a supervisor: which system calls wait for it, and how it hears of them and answers.

Sources: seccomp_unotify(2), linux/seccomp.h, the asm/unistd.h of each architecture. Only the calls that are named
here wait; the kernel passes all others without running the filter (seccomp_cache_check_allow, Linux 5.11).
"""

from __future__ import annotations

import os
from fcntl import ioctl
from struct import Struct, pack

from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.launch.seccomp import (
    BPF_JEQ_K,
    BPF_JSET_K,
    BPF_LD_W_ABS,
    BPF_RET_K,
    ENOSYS,
    SECCOMP_RET_ALLOW,
)

SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x40082104
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1  # Linux 6.6: the answer wakes the caller on the same CPU
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_X32 = 0x40000000
_NR, _ARCH = 0, 4

# struct seccomp_notif: id, pid, flags, then struct seccomp_data: nr, arch, instruction_pointer, args[6].
_NOTIFICATION = Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, val, error, flags.
_RESPONSE = Struct("=QqiI")

# linux/audit.h: machine -> (architecture, its 32-bit companion)
_ARCHITECTURES = {"x86_64": (0xC000003E, 0x40000003), "aarch64": (0xC00000B7, 0x40000028)}
# name -> numbers on x86_64, i386, aarch64, arm; of statfs there the 64-bit kind, which C libraries use
_NUMBERS = {
    "sched_getaffinity": (204, 242, 123, 242),
    "sched_setaffinity": (203, 241, 122, 241),
    "getcpu": (309, 318, 168, 345),
    "sysinfo": (99, 116, 179, 116),
    "statfs": (137, 268, 43, 266),
    "fstatfs": (138, 269, 44, 267),
    "execve": (59, 11, 221, 11),
    "execveat": (322, 358, 281, 387),
    "set_robust_list": (273, 311, 99, 338),
    "set_tid_address": (218, 258, 96, 256),
}
CPU_CALLS = ("sched_getaffinity", "sched_setaffinity", "getcpu")
MEMORY_CALLS = ("sysinfo",)
FILE_SYSTEM_CALLS = ("statfs", "fstatfs")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgagent.launch.seccomp import Instruction


class Notification:
    """A system call that waits for its answer.

    Attributes:
        id: the kernel's name for it.
        pid: the thread that makes it, as our own /proc numbers it.
        call: the system call's name.
        narrow: whether the caller is a 32-bit program.
        arguments: six unsigned numbers.
    """

    __slots__ = ("arguments", "call", "id", "narrow", "pid")

    def __init__(self, identity: int, pid: int, call: str, narrow: bool, arguments: tuple[int, ...]) -> None:
        self.id = identity
        self.pid = pid
        self.call = call
        self.narrow = narrow
        self.arguments = arguments


class Listener:
    """The file that tells of waiting calls and takes the answers."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        columns = _columns(os.uname().machine)
        self._names = {
            (arch, numbers[column]): name for name, numbers in _NUMBERS.items() for column, arch in columns.items()
        }
        self._narrow = next(arch for column, arch in columns.items() if column % 2)
        try:
            ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
        except OSError:
            pass  # an older kernel: it is only slower

    def receive(self) -> Notification | None:
        """The next call; None where its caller was killed before we came to it."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            ioctl(self.fd, SECCOMP_IOCTL_NOTIF_RECV, buffer, True)
        except (FileNotFoundError, InterruptedError):
            return None
        identity, pid, _, number, arch, _, *arguments = _NOTIFICATION.unpack(buffer)
        return Notification(identity, pid, self._names.get((arch, number), ""), arch == self._narrow, tuple(arguments))

    def is_valid(self, call: Notification) -> bool:
        """Whether the caller still waits: if so, its PID was not another's when it was looked up."""
        try:
            ioctl(self.fd, SECCOMP_IOCTL_NOTIF_ID_VALID, call.id.to_bytes(8, "little"))
        except FileNotFoundError:
            return False
        return True

    def answer(self, call: Notification, value: int) -> None:
        """Let the call return `value`, or fail with error number -`value`."""
        self._send(_RESPONSE.pack(call.id, max(value, 0), min(value, 0), 0))

    def pass_on(self, call: Notification) -> None:
        """Let the kernel carry the call out."""
        self._send(_RESPONSE.pack(call.id, 0, 0, _CONTINUE))

    def _send(self, response: bytes) -> None:
        try:
            ioctl(self.fd, SECCOMP_IOCTL_NOTIF_SEND, response)
        except FileNotFoundError:
            pass  # its caller was killed


def notify_filter(calls: Iterable[str], machine: str = "") -> bytes:
    """An array of `struct sock_filter` that lets `calls` wait for a supervisor and all others through.

    32-bit programs' calls are known by their own numbers; x32's are refused as by a kernel without it.

    Raises:
        CgagentError: there is no list for the machine.
    """
    machine = machine or os.uname().machine
    program: list[Instruction] = []
    for column, arch in _columns(machine).items():
        body: list[Instruction] = [(BPF_LD_W_ABS, 0, 0, _NR)]
        if machine == "x86_64" and column == 0:
            body += [(BPF_JSET_K, 0, 1, _X32), (BPF_RET_K, 0, 0, ENOSYS)]
        numbers = sorted(_NUMBERS[name][column] for name in calls)
        body += [(BPF_JEQ_K, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
        body += [(BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW), (BPF_RET_K, 0, 0, SECCOMP_RET_USER_NOTIF)]
        program += [(BPF_LD_W_ABS, 0, 0, _ARCH), (BPF_JEQ_K, 0, len(body), arch), *body]
    program.append((BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW))
    return b"".join(pack("=HBBI", *instruction) for instruction in program)


def _columns(machine: str) -> dict[int, int]:
    """Where `_NUMBERS` holds the machine's two architectures: column -> architecture."""
    if machine not in _ARCHITECTURES:
        known = " and ".join(_ARCHITECTURES)
        raise CgagentError(f"no supervisor for {machine}", f"there is one for {known}", EXIT_RUN_FAILED)
    first = 2 * list(_ARCHITECTURES).index(machine)
    return dict(enumerate(_ARCHITECTURES[machine], first))
