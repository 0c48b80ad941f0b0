"""Capabilities by name (linux/capability.h) and which of them a command keeps."""

from __future__ import annotations

from cgagent.errors import UsageError

_BY_NUMBER = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
# Position is number: CAP_CHOWN is 0.
NAMES = tuple(_BY_NUMBER.split())
ALL = frozenset(NAMES)

# What `docker run` leaves (moby, oci/caps/defaults.go).
_DOCKER = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
)
DEFAULT = frozenset(_DOCKER.split())


def chosen(added: list[str], dropped: list[str]) -> frozenset[str]:
    """The capabilities that remain after `--cap-drop` and `--cap-add`, of which either may say ALL.

    Raises:
        UsageError: a name is no capability.
    """
    drop, add = _named(dropped, "--cap-drop"), _named(added, "--cap-add")
    # As docker: adding ALL and dropping some leaves the others; a name that is added wins over one dropped by ALL.
    if "ALL" in added or "CAP_ALL" in added:
        return ALL - drop
    return (DEFAULT - drop) | add


def _named(words: list[str], option: str) -> frozenset[str]:
    names: set[str] = set()
    for word in words:
        name = word.upper().removeprefix("CAP_")
        if name == "ALL":
            names |= ALL
        elif name in ALL:
            names.add(name)
        else:
            raise UsageError(f"{option}: '{word}' is not a capability", "see capabilities(7), as in NET_ADMIN, or ALL")
    return frozenset(names)


def mask(names: frozenset[str]) -> int:
    """The set as the kernel's bit mask."""
    return sum(1 << number for number, name in enumerate(NAMES) if name in names)
