"""Which of the kernel's conditions keeps us from another process's files or memory.

/proc/PID/root and its like ask what a debugger that only reads is asked, /proc/PID/mem what attaching one asks, to read
as well as to write (kernel/ptrace.c, __ptrace_may_access with PTRACE_MODE_READ_FSCREDS or PTRACE_MODE_ATTACH_FSCREDS;
security/commoncap.c): the same user and group, a dumpable process, none of its capabilities that we lack. Attaching
needs Yama's consent too (security/yama/yama_lsm.c). CAP_SYS_PTRACE stands in for all of them but Yama's scope 3.
"""

from __future__ import annotations

import os

from cgagent.host import Host, ReadError

_CAP_SYS_PTRACE = 1 << 19
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_YAMA_CHILDREN, _YAMA_NOBODY = 1, 3


def refusal(host: Host, pid: str, *, attaching: bool) -> str:
    """The first condition that fails, in words and with what to do; where none is seen to, who else may refuse."""
    try:
        ours, theirs = _status(host, "self"), _status(host, pid)
        # The /proc files of a process that is not dumpable belong to root (proc(5)).
        owner = os.stat(host.locate(f"/proc/{pid}/status")).st_uid
        return why(ours, theirs, owner, _yama_scope(host) if attaching else 0)
    except (OSError, ReadError, KeyError, IndexError, ValueError):
        return "it can't be told why"


def why(ours: dict[str, list[str]], theirs: dict[str, list[str]], owner: int, scope: int) -> str:
    """The first condition that fails, by both sides' /proc/PID/status, the owner of theirs, and Yama's scope. Pure."""
    mighty = int(ours["CapEff"][0], 16) & _CAP_SYS_PTRACE
    if scope >= _YAMA_NOBODY:
        return f"{_YAMA} is {scope}, which forbids it to everybody until the next boot"
    if not mighty:
        for kind, field, setting in (("user", "Uid", "runAsUser"), ("group", "Gid", "runAsGroup")):
            # Real, effective, saved, file system: their first three have to be our last.
            needed = "/".join(dict.fromkeys(theirs[field][:3]))
            if needed != ours[field][3]:
                same = f"run with the same {kind} (in Kubernetes {setting}), or with CAP_SYS_PTRACE"
                return f"it runs as {kind} {needed}, cgagent as {ours[field][3]}: {same}"
        if owner != int(theirs["Uid"][1]):
            return "it is not dumpable: its program is setuid, has file capabilities, or asked for that by prctl(2)"
        lacking = int(theirs["CapPrm"][0], 16) & ~int(ours["CapEff"][0], 16)
        if lacking:
            return f"it has capabilities that cgagent lacks ({lacking:#x}): drop them there (capabilities: drop: [ALL])"
        if scope >= _YAMA_CHILDREN:
            return f"{_YAMA} is {scope}, and cgagent is not its parent: give cgagent CAP_SYS_PTRACE, or set it to 0"
    return "a security module (AppArmor, SELinux) or a user namespace forbids it"


def _status(host: Host, pid: str) -> dict[str, list[str]]:
    """The lines of /proc/PID/status, which everybody may read."""
    lines = (line.partition(":") for line in host.read(f"/proc/{pid}/status").split("\n"))
    return {name: rest.split() for name, _, rest in lines}


def _yama_scope(host: Host) -> int:
    text = (host.read_if_there(_YAMA) or "").strip()
    return int(text) if text.isdigit() else 0
