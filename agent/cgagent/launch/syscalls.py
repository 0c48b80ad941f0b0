"""System calls that Python 3.11's `os` lacks, as thin wrappers that raise OSError.

Import budget: `_ctypes` (0.4 ms), `os` and `sys` alone. `ctypes` itself costs another millisecond of a start
that has eight, and nothing here needs it. Constants are named as in the kernel's headers.

It is one list, however long: who asks which calls the launcher makes finds them here, and each module more is a file
more to open at every start.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4

# linux/fcntl.h
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000

# linux/prctl.h, linux/securebits.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19: no signal makes a call that is answered start anew
_PRCTL_NAMES = {
    PR_SET_PDEATHSIG: "PR_SET_PDEATHSIG",
    PR_SET_DUMPABLE: "PR_SET_DUMPABLE",
    PR_SET_KEEPCAPS: "PR_SET_KEEPCAPS",
    PR_CAPBSET_DROP: "PR_CAPBSET_DROP",
    PR_SET_CHILD_SUBREAPER: "PR_SET_CHILD_SUBREAPER",
    PR_SET_NO_NEW_PRIVS: "PR_SET_NO_NEW_PRIVS",
    PR_CAP_AMBIENT: "PR_CAP_AMBIENT",
}

_LINUX_CAPABILITY_VERSION_3 = 0x20080522

# linux/magic.h
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270

_UNLIMITED = (1 << 64) - 1  # linux/resource.h: RLIM64_INFINITY

SIGCHLD = 17

# asm-generic/siginfo.h: sent by the kernel, as by a terminal
SI_KERNEL = 0x80

# linux/socket.h, linux/net.h, linux/sockios.h, linux/if.h
AF_INET = 2
SOCK_DGRAM = 2
SOCK_CLOEXEC = 0o2000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

# linux/signalfd.h
SFD_CLOEXEC = 0o2000000
SIGINFO_SIZE = 128

# asm/unistd.h: x86_64 and aarch64; numbers from 424 on are the same everywhere.
_CALLS = {
    "x86_64": {"clone": 56, "capget": 125, "capset": 126, "pivot_root": 155, "seccomp": 317},
    "aarch64": {"clone": 220, "capget": 90, "capset": 91, "pivot_root": 41, "seccomp": 277},
}
_SYS_clone3 = 435
_SYS_mount_setattr = 442
_SYS_open_tree = 428
_SYS_move_mount = 429
MACHINES = tuple(_CALLS)
_SYS = _CALLS.get(os.uname().machine, {})


if not TYPE_CHECKING and "_calls" in sys.builtin_module_names:
    # The bundle is static and can load no library: it has these in C, deploy/assembly/calls.c.
    from _calls import address as _address
    from _calls import function as _function
    from _calls import get_errno

    _with_interpreter, _Long, _buffer = _function, int, bytearray
else:
    from _ctypes import CFuncPtr, _SimpleCData, dlopen, dlsym, get_errno

    # FUNCFLAG_* of CPython's Modules/_ctypes/ctypes.h
    _CDECL, _PYTHONAPI, _USE_ERRNO = 0x1, 0x4, 0x8

    # _SimpleCData is generic in its stub alone.
    class _Long(_SimpleCData):  # type: ignore[type-arg]
        _type_ = "l"

    class _Pointer(_SimpleCData):  # type: ignore[type-arg]
        _type_ = "z"

    class _Byte(_SimpleCData):  # type: ignore[type-arg]
        _type_ = "b"

    class _Function(CFuncPtr):
        _flags_ = _CDECL | _USE_ERRNO
        _restype_ = _Long

    class _WithInterpreter(CFuncPtr):
        """A call that keeps the GIL: cloning, and what the interpreter wants to hear around it."""

        _flags_ = _CDECL | _PYTHONAPI | _USE_ERRNO
        _restype_ = _Long

    _LIBC = dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]

    def _function(name: str) -> Callable[..., int]:
        return _Function(dlsym(_LIBC, name))

    def _with_interpreter(name: str) -> Callable[..., int]:
        return _WithInterpreter(dlsym(_LIBC, name))

    def _buffer(size: int) -> Any:
        return (_Byte * size)()

    def _address(data: bytes) -> bytes:
        """Where the content of `data` lies, as a pointer in memory."""
        return memoryview(_Pointer(data)).tobytes()


_syscall = _function("syscall")
_mount = _function("mount")
_umount2 = _function("umount2")
_prctl = _function("prctl")
_signalfd = _function("signalfd")
_unshare = _function("unshare")
_setns = _function("setns")
_sethostname = _function("sethostname")
_statfs = _function("statfs")
_prlimit = _function("prlimit")
_socket = _function("socket")
_ioctl = _function("ioctl")
_clone_call = _with_interpreter("syscall")
_before_fork = _with_interpreter("PyOS_BeforeFork")
_after_fork_child = _with_interpreter("PyOS_AfterFork_Child")
_after_fork_parent = _with_interpreter("PyOS_AfterFork_Parent")


def _check(result: int, what: str) -> int:
    """`result`, or an OSError whose file name is `what` was tried."""
    # glibc returns an int: its -1 is a long only after the sign is brought along.
    if result & 0xFFFFFFFF == 0xFFFFFFFF:
        number = get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _path(text: str) -> bytes:
    return os.fsencode(text)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    done = _mount(_path(source), _path(target), kind and kind.encode(), _Long(flags), data and _path(data))
    _check(done, f"mount {kind or source} on {target}")


def bind(source: str, target: str, recursive: bool = False) -> None:
    """A bind mount of `source` on `target`."""
    done = _mount(_path(source), _path(target), None, _Long(MS_BIND | (MS_REC if recursive else 0)), None)
    _check(done, f"bind {source} on {target}")


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_umount2(_path(target), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(_syscall(_SYS["pivot_root"], _path(new_root), _path(put_old)), "pivot_root")


def mount_setattr(path: str, set_flags: int, recursive: bool = False, clear_flags: int = 0) -> None:
    """mount_setattr(2): change MOUNT_ATTR_* flags of the mount at `path`, or of all mounts below it (Linux 5.12)."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attributes = set_flags.to_bytes(8, sys.byteorder) + clear_flags.to_bytes(8, sys.byteorder) + bytes(16)
    flags = AT_RECURSIVE if recursive else 0
    done = _syscall(_SYS_mount_setattr, AT_FDCWD, _path(path), flags, attributes, _Long(len(attributes)))
    _check(done, f"mount_setattr {path}")


def bind_file(source: str, target: str, directory: int = AT_FDCWD) -> None:
    """A bind mount of one file, links taken as files of their own: `source`, or if empty the file `directory`.

    open_tree(2) and move_mount(2), Linux 5.2.
    """
    what = f"bind {source or 'a file'} on {target}"
    tree = _copied(directory, source, AT_SYMLINK_NOFOLLOW | (0 if source else AT_EMPTY_PATH), what)
    try:
        _attach(tree, target, what)
    finally:
        os.close(tree)


def remount(point: str) -> None:
    """Take away all that is mounted at `point`, and mount the topmost there anew, with what is mounted below it."""
    what = f"mount {point} anew"
    tree = _copied(AT_FDCWD, point, AT_RECURSIVE, what)
    try:
        umount2(point, MNT_DETACH)
        while _umount2(_path(point), MNT_DETACH) == 0:
            pass  # what that has covered
        _attach(tree, point, what)
    finally:
        os.close(tree)


def _copied(directory: int, path: str, flags: int, what: str) -> int:
    """A file that holds a copy of a mount, attached nowhere."""
    flags |= _OPEN_TREE_CLONE | os.O_CLOEXEC
    return _check(_syscall(_SYS_open_tree, directory, _path(path), _Long(flags)), what)


def _attach(tree: int, target: str, what: str) -> None:
    done = _syscall(_SYS_move_mount, tree, b"", AT_FDCWD, _path(target), _Long(_MOVE_MOUNT_F_EMPTY_PATH))
    _check(done, what)


def statfs_type(path: str) -> int:
    """The magic number of the file system that holds `path`: statfs(2), f_type."""
    buffer = _buffer(256)
    _check(_statfs(_path(path), buffer), f"statfs {path}")
    return int.from_bytes(memoryview(buffer).cast("B")[:8], sys.byteorder)


def prlimit(pid: int, number: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
    """prlimit(2): set the soft and hard limit `number` of a process (0: ours), -1 for none; what they were.

    Here, as the module `resource` is a library to load, and the bundle has none.
    """
    before = _buffer(16)
    after = limits and b"".join((one & _UNLIMITED).to_bytes(8, sys.byteorder) for one in limits)
    _check(_prlimit(pid, number, after, before), f"prlimit {number}")
    words = memoryview(before).cast("B").cast("q")
    return words[0], words[1]


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_unshare(flags), "unshare")


def signalfd(signals: frozenset[int]) -> int:
    """signalfd(2): a file from which the blocked `signals` are read, each as a struct of SIGINFO_SIZE bytes."""
    mask = sum(1 << (number - 1) for number in signals).to_bytes(128, sys.byteorder)
    return _check(_signalfd(-1, mask, SFD_CLOEXEC), "signalfd")


def setns(fd: int, kind: int) -> None:
    """setns(2): enter the namespace open as `fd`."""
    _check(_setns(fd, kind), "setns")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    _check(_sethostname(raw, _Long(len(raw))), f"sethostname {name}")


def loopback_up() -> None:
    """Set the loopback device of this network namespace up; the kernel adds 127.0.0.1 and ::1 by itself.

    Here, as the module `_socket` takes 0.5 ms to load.
    """
    control = _check(_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket")
    # struct ifreq: the name, padded to 16, then a union of 24 bytes with the flags first.
    request = b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(2, sys.byteorder) + bytes(22)
    try:
        _check(_ioctl(control, _Long(SIOCSIFFLAGS), request), "loopback device: SIOCSIFFLAGS")
    finally:
        os.close(control)


def prctl(option: int, argument: int = 0, second: int = 0) -> None:
    """prctl(2) with numbers; the arguments that an option does not use must be 0."""
    done = _prctl(option, _Long(argument), _Long(second), _Long(0), _Long(0))
    _check(done, f"prctl {_PRCTL_NAMES.get(option, option)}")


def seccomp_filter(program: bytes) -> None:
    """Install `program`, an array of struct sock_filter: from here on it judges every call of this process."""
    _check(_prctl(PR_SET_SECCOMP, _Long(SECCOMP_MODE_FILTER), _fprog(program), _Long(0), _Long(0)), "seccomp filter")


def seccomp_listener(program: bytes, flags: int) -> int:
    """Install `program` as a filter whose SECCOMP_RET_USER_NOTIF calls wait for the file that this gives."""
    flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER
    done = _syscall(_SYS["seccomp"], SECCOMP_SET_MODE_FILTER, _Long(flags), _fprog(program))
    return _check(done, "seccomp listener")


def _fprog(program: bytes) -> bytes:
    """A struct sock_fprog: unsigned short len, padding to a pointer, the pointer to `program`, which must live on."""
    return (len(program) // 8).to_bytes(8, sys.byteorder) + _address(program)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread: bit N of each set is capability N."""
    header = _LINUX_CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)
    halves = ((effective, permitted, inheritable), (effective >> 32, permitted >> 32, inheritable >> 32))
    data = b"".join((word & 0xFFFFFFFF).to_bytes(4, sys.byteorder) for half in halves for word in half)
    _check(_syscall(_SYS["capset"], header, data), "capset")


def capget_permitted() -> int:
    """The permitted capabilities of the calling thread, as a mask: capget(2)."""
    header = _LINUX_CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)
    data = _buffer(24)
    _check(_syscall(_SYS["capget"], header, data), "capget")
    words = memoryview(data).cast("B")
    return int.from_bytes(words[4:8], sys.byteorder) | int.from_bytes(words[16:20], sys.byteorder) << 32


def clone(flags: int) -> int:
    """fork(2) into new namespaces: the child's PID, 0 in the child. Only for a process of one thread.

    By clone(2): where a seccomp filter is above us, it reads these flags, and refuses clone3 unread.
    """
    return _clone("clone", _SYS["clone"], _Long(flags | SIGCHLD), None, None, None, None)


def clone_into_cgroup(cgroup: int) -> int:
    """fork(2) whose child starts in the cgroup v2 directory open as `cgroup`; clone3(2), Linux 5.7."""
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size, cgroup
    fields = (CLONE_INTO_CGROUP, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    arguments = b"".join(field.to_bytes(8, sys.byteorder) for field in fields)
    return _clone("clone3 into the cgroup", _SYS_clone3, arguments, _Long(len(arguments)))


def _clone(what: str, *arguments: object) -> int:
    _before_fork()
    pid = int(_clone_call(*arguments))
    if pid == 0:
        _after_fork_child()
        return 0
    number = get_errno()
    _after_fork_parent()
    if pid < 0 or pid & 0xFFFFFFFF == 0xFFFFFFFF:
        raise OSError(number, os.strerror(number), what)
    return pid
