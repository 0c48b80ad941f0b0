"""The system calls that a contained command may not make, as a classic BPF program for seccomp(2).

The list is what docker's default profile (moby/profiles, seccomp/default.json of May 2026) refuses to a process
with docker's fourteen capabilities, so nothing that docker refuses is open here. Tighter than docker's:
32-bit and x32 calls are refused, the high halves of `int` arguments cannot smuggle a family past the check, and
the two ioctls that type into the caller's terminal are closed, as the command may inherit that terminal.

Assembled by hand, for the budget: libseccomp and its binding cost more than the whole launch. It imports `os` and
`_struct` and builds in well under a millisecond. Layout and return values: linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import os
from _struct import pack  # `struct` itself is one more file to load, for 0.1 ms

from cgagent.errors import EXIT_RUN_FAILED, CgagentError

# linux/bpf_common.h: class | size | mode, class | operation | source.
BPF_LD_W_ABS = 0x20
BPF_JEQ_K = 0x15
BPF_JGE_K = 0x35
BPF_JSET_K = 0x45
BPF_RET_K = 0x06

SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000
EPERM = SECCOMP_RET_ERRNO | 1
ENOSYS = SECCOMP_RET_ERRNO | 38

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]. Both machines are little-endian,
# so the low half of an argument comes first.
_NR, _ARCH, _FIRST_ARGUMENT = 0, 4, 16

# linux/audit.h. Any other architecture on the same machine (i386, arm) ends the process with SIGSYS.
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# The first number that Linux 6.18 does not know. What comes later is refused as a kernel without it would
# (ENOSYS), so that programs fall back. x32 calls, from 0x40000000 on, end here too.
_FIRST_UNKNOWN = 470

# Refused with EPERM: name -> numbers on x86_64 and aarch64 (None: not there). uprobe(2) is missing because the
# kernel asks no filter about it.
_DENIED = {
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "unshare": (272, 97),
    "setns": (308, 268),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    # files past the path lookup, quotas, accounting
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "file_getattr": (468, 468),
    "file_setattr": (469, 469),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "lookup_dcookie": (212, 18),
    "acct": (163, 89),
    # the kernel itself: code, log, clock, power, swap, ports
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "query_module": (178, None),
    "get_kernel_syms": (177, None),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "iopl": (172, None),
    "ioperm": (173, None),
    "vhangup": (153, 58),
    "lsm_get_self_attr": (459, 459),
    "lsm_set_self_attr": (460, 460),
    "lsm_list_modules": (461, 461),
    # large attack surface
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # keyrings are not namespaced
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # other processes, and where memory lies
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "get_mempolicy": (239, 236),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # dead or never born
    "_sysctl": (156, None),
    "afs_syscall": (183, None),
    "getpmsg": (181, None),
    "putpmsg": (182, None),
    "nfsservctl": (180, 42),
    "security": (185, None),
    "sysfs": (139, None),
    "tuxcall": (184, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "vserver": (236, None),
}

# Refused with ENOSYS: its flags lie in memory that a filter cannot read; C libraries fall back to clone.
_UNREADABLE = {"clone3": (435, 435)}

# Decided by the low half of one argument: name -> (numbers, which argument).
_BY_ARGUMENT = {
    "clone": ((56, 220), 0),
    "socket": ((41, 198), 0),
    "personality": ((135, 92), 0),
    "ioctl": ((16, 29), 1),
}

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. (NEWTIME shares a bit with the exit signal and
# works with clone3 and unshare only.)
_NAMESPACE_FLAGS = 0x7E020000
# AF_ALG: the kernel's crypto parsers; AF_VSOCK: past the network namespace, to the hypervisor.
_DENIED_FAMILIES = (38, 40)
# PER_LINUX, PER_LINUX32, UNAME26 with each, and the query.
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
# TIOCSTI, TIOCLINUX
_DENIED_IOCTLS = (0x5412, 0x541C)

# What a capability opens, as in docker's profile (CAP_ names without the prefix).
_OPENED = {
    "BPF": "bpf",
    "DAC_READ_SEARCH": "open_by_handle_at",
    "PERFMON": "perf_event_open",
    "SYSLOG": "syslog",
    "SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
    "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd "
    "setdomainname sethostname setns syslog umount2 unshare",
    "SYS_BOOT": "reboot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime settimeofday",
    "SYS_TTY_CONFIG": "vhangup",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def default_filter(allow: frozenset[str] = frozenset(), machine: str = "") -> bytes:
    """The deny list as an array of `struct sock_filter` (8 bytes each), for prctl(PR_SET_SECCOMP) or seccomp(2).

    Args:
        allow: names of system calls to leave out, such as what `opened_by` gives.
        machine: as uname(2) says it; by default this machine's.

    Raises:
        CgagentError: there is no list for the machine.
    """
    machine = machine or os.uname().machine
    arch = _AUDIT_ARCH.get(machine)
    if arch is None:
        known = " and ".join(_AUDIT_ARCH)
        raise CgagentError(f"no seccomp filter for {machine}", f"there is one for {known}", EXIT_RUN_FAILED)
    column = 0 if machine == "x86_64" else 1
    program = [(BPF_LD_W_ABS, 0, 0, _ARCH), (BPF_JEQ_K, 1, 0, arch), _return(SECCOMP_RET_KILL_PROCESS)]
    program += [(BPF_LD_W_ABS, 0, 0, _NR)]
    for name, (numbers, argument) in _BY_ARGUMENT.items():
        if name not in allow:
            program += _argument_check(name, numbers[column], argument)
    program += _search(_ranges(allow, column))
    return pack("=" + "HBBI" * len(program), *(number for instruction in program for number in instruction))


def opened_by(capabilities: Iterable[str]) -> frozenset[str]:
    """The calls that docker's profile opens to a holder of `capabilities` (`SYS_ADMIN` or `CAP_SYS_ADMIN`)."""
    names = (_OPENED.get(capability.removeprefix("CAP_"), "") for capability in capabilities)
    return frozenset(" ".join(names).split())


def _return(action: int) -> Instruction:
    return (BPF_RET_K, 0, 0, action)


def _argument_check(name: str, number: int, argument: int) -> list[Instruction]:
    """If the call is `number`, decide by its argument; else go on with the number still loaded."""
    body: list[Instruction] = [(BPF_LD_W_ABS, 0, 0, _FIRST_ARGUMENT + 8 * argument)]
    if name == "clone":
        body += [(BPF_JSET_K, 0, 1, _NAMESPACE_FLAGS), _return(EPERM), _return(SECCOMP_RET_ALLOW)]
    elif name == "personality":
        body += _among(_PERSONALITIES, SECCOMP_RET_ALLOW, EPERM)
    else:
        body += _among(_DENIED_FAMILIES if name == "socket" else _DENIED_IOCTLS, EPERM, SECCOMP_RET_ALLOW)
    return [(BPF_JEQ_K, 0, len(body), number), *body]


def _among(values: tuple[int, ...], action: int, otherwise: int) -> list[Instruction]:
    """`action` where the loaded word is one of `values`."""
    last = len(values)
    tests = [(BPF_JEQ_K, last - position, 0, value) for position, value in enumerate(values)]
    return [*tests, _return(otherwise), _return(action)]


def _ranges(allow: frozenset[str], column: int) -> list[tuple[int, int]]:
    """Where the action changes as the call number grows: (first number, action), ascending from 0."""
    actions = {_FIRST_UNKNOWN: ENOSYS}
    for calls, action in ((_DENIED, EPERM), (_UNREADABLE, ENOSYS)):
        for name, numbers in calls.items():
            number = numbers[column]
            if number is not None and name not in allow:
                actions[number] = action
    points = [(0, SECCOMP_RET_ALLOW)]
    for number in range(_FIRST_UNKNOWN + 1):
        action = actions.get(number, SECCOMP_RET_ALLOW)
        if action != points[-1][1]:
            points.append((number, action))
    return points


def _search(points: list[tuple[int, int]]) -> list[Instruction]:
    """A binary search over `points`: 6 comparisons a call where a list would take 60."""
    if len(points) == 1:
        return [_return(points[0][1])]
    middle = len(points) // 2
    below, above = _search(points[:middle]), _search(points[middle:])
    return [(BPF_JGE_K, len(below), 0, points[middle][0]), *below, *above]
