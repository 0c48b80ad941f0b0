"""Who the command is: user and group maps, users by name, and the privileges it loses before it starts."""

from __future__ import annotations

import errno
import os

from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.host import ABSENT, Host, ReadError
from cgagent.launch.capabilities import NAMES, mask
from cgagent.launch.syscalls import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    capget_permitted,
    capset,
    prctl,
    seccomp_filter,
)
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.spec import Security


class User(Record):
    """A user inside: IDs, supplementary groups, and home directory (None where no passwd file says it)."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] = (), home: str | None = None) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def find_user(text: str | None, root: str) -> User:
    """The user that `--user` names, looked up in the passwd and group files below `root`.

    Raises:
        CgagentError: a name that is not there.
    """
    if text is None:
        return User(0, 0)
    name, _, group_name = text.partition(":")
    host = Host(root)
    users = [line.split(":") for line in _lines(host, "/etc/passwd")]
    entry = next((one for one in users if len(one) > 5 and name in (one[0], one[2])), None)
    if entry is None and not name.isdigit():
        raise _no_such("user", name, "/etc/passwd")
    uid = int(name) if entry is None else int(entry[2])
    gid = 0 if entry is None else int(entry[3])
    home = None if entry is None else entry[5]
    groups = [line.split(":") for line in _lines(host, "/etc/group")] if group_name or entry else []
    if group_name:
        found = next((one for one in groups if len(one) > 2 and group_name in (one[0], one[2])), None)
        if found is None and not group_name.isdigit():
            raise _no_such("group", group_name, "/etc/group")
        return User(uid, int(group_name) if found is None else int(found[2]), (), home)
    member_of = (one for one in groups if entry is not None and len(one) > 3 and entry[0] in one[3].split(","))
    return User(uid, gid, tuple(int(one[2]) for one in member_of), home)


def _lines(host: Host, path: str) -> list[str]:
    try:
        return host.read(path).split("\n")
    except ReadError as error:
        if error.kind == ABSENT:
            return []
        raise CgagentError(error.message, "", EXIT_RUN_FAILED) from None


def _no_such(kind: str, name: str, file: str) -> CgagentError:
    return CgagentError(f"--user: there is no {kind} '{name}' in {file}", "give a number", EXIT_RUN_FAILED)


def map_ids(pid: int, user: User) -> None:
    """Fill the user and group maps of the new user namespace of `pid`.

    A privileged caller's IDs stay what they are. An ordinary user becomes root inside (or `user`), with the
    subordinate IDs of /etc/subuid and /etc/subgid behind where newuidmap can be run.

    Raises:
        CgagentError: the map is refused.
    """
    if os.geteuid() == 0:
        for kind in ("uid", "gid"):
            rows = (line.split() for line in _lines(Host(), f"/proc/self/{kind}_map"))
            _write(pid, f"{kind}_map", "".join(f"{row[0]} {row[0]} {row[2]}\n" for row in rows if row))
        return
    if _map_subordinate(pid):
        return
    # A process that may not set groups could otherwise lay down one that denies it access.
    _write(pid, "setgroups", "deny")
    _write(pid, "uid_map", f"{user.uid} {os.geteuid()} 1\n")
    _write(pid, "gid_map", f"{user.gid} {os.getegid()} 1\n")


def _map_subordinate(pid: int) -> bool:
    """Map root to the caller and 1, 2, ... to its subordinate IDs; False where there are none to be had."""
    from cgagent.launch.programs import find, run

    tools = [find("newuidmap"), find("newgidmap")]
    starts = [_subordinate("/etc/subuid"), _subordinate("/etc/subgid")]
    if None in tools or None in starts:
        return False
    for tool, start, own in zip(tools, starts, (os.geteuid(), os.getegid()), strict=True):
        if tool is None or start is None:
            return False
        words = [tool, str(pid), "0", str(own), "1", "1", str(start[0]), str(start[1])]
        code, text = run(words)
        if code:
            raise CgagentError(f"{tool} failed: {text.strip()}", "check /etc/subuid and /etc/subgid", EXIT_RUN_FAILED)
    return True


def _subordinate(file: str) -> tuple[int, int] | None:
    """First ID and count that `file` gives the caller, by name or number."""
    uid = str(os.getuid())
    names = {uid}
    for line in _lines(Host(), "/etc/passwd"):
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == uid:
            names.add(fields[0])
    for line in _lines(Host(), file):
        fields = line.split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
            return int(fields[1]), int(fields[2])
    return None


def _write(pid: int, file: str, text: str) -> None:
    path = f"/proc/{pid}/{file}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        reason = (error.strerror or "").lower()
        message = f"cannot write {file} of the user namespace: {reason}"
        raise CgagentError(message, "leave it out with --share user", EXIT_RUN_FAILED) from None


def confine(security: Security, user: User, program: bytes) -> None:
    """Become `user` with the capabilities that remain, judged by the seccomp filter `program` if there is one.

    Raises:
        OSError: a step is refused.
    """
    if security.no_new_privileges:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    if program:
        # Before the capabilities go: without no_new_privs, CAP_SYS_ADMIN is needed for it.
        seccomp_filter(program)
    keep = mask(security.capabilities)
    for number in range(len(NAMES)):
        if not keep >> number & 1:
            _drop_bounding(number)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    permitted = keep & capget_permitted()
    _become(user)
    if user.uid == 0:
        capset(permitted, permitted, 0)
        return
    # A program of an ordinary user has no capabilities but ambient ones: those that were asked for by name.
    ambient = permitted & mask(security.ambient)
    capset(ambient, ambient, ambient)
    for number in range(len(NAMES)):
        if ambient >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def _drop_bounding(number: int) -> None:
    try:
        prctl(PR_CAPBSET_DROP, number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a capability that this kernel does not know
            raise


def _become(user: User) -> None:
    try:
        os.setgroups(user.groups)
    except PermissionError:
        # Denied for good in the namespace of an ordinary user, whose own groups then stay.
        if _may_set_groups():
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), "setgroups") from None
    prctl(PR_SET_KEEPCAPS, 1)
    for change, number, what in ((os.setresgid, user.gid, "group"), (os.setresuid, user.uid, "user")):
        try:
            change(number, number, number)
        except OSError as error:
            reason = (error.strerror or "").lower()
            hint = ""
            if error.errno == errno.EINVAL:
                reason, hint = (
                    "not mapped in the user namespace",
                    "give yourself subordinate IDs in /etc/subuid and subgid",
                )
            raise CgagentError(f"cannot become {what} {number}: {reason}", hint, EXIT_RUN_FAILED) from None
    prctl(PR_SET_KEEPCAPS, 0)


def _may_set_groups() -> bool:
    return "deny" not in "".join(_lines(Host(), "/proc/self/setgroups"))
