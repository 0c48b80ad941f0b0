"""The command's last steps: from its cgroups and the new root to exec.

It starts as the caller left things: signal mask, umask, resource limits, niceness. All modules are loaded by now,
as the files they come from may be out of sight.
"""

from __future__ import annotations

import os

from cgagent.errors import not_started
from cgagent.launch import rootfs
from cgagent.launch.failure import failure
from cgagent.launch.identity import User, confine
from cgagent.launch.syscalls import (
    CLONE_NEWCGROUP,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    PR_SET_PDEATHSIG,
    bind,
    mount,
    mount_setattr,
    prctl,
    prlimit,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from cgagent.launch.bounds import Ulimit
    from cgagent.launch.channel import Caller, Channel, Orders
    from cgagent.launch.spec import Spec
else:
    import _signal as signal  # `signal` itself loads enum, for three milliseconds


class Command:
    """The command to become, and what it needs for that."""

    def __init__(self, spec: Spec, user: User, channel: Channel, caller: Caller) -> None:
        self.spec = spec
        self._user = user
        self.channel = channel
        self._caller = caller
        self._environ = dict(spec.environ)

    def start(self, orders: Orders) -> NoReturn:
        """Take the last steps inside the container and exec; does not return."""
        spec, caller = self.spec, self._caller
        self._settle(orders)
        if spec.tty:
            from cgagent.launch.tty import take_terminal

            take_terminal(self.channel, self._user)
            self._environ.setdefault("TERM", "xterm")
        for ulimit in spec.ulimits:
            _limit(ulimit)
        _go_to(spec.workdir or ("/" if spec.rootfs else caller.directory), create=spec.workdir is not None)
        os.umask(caller.umask)
        if not spec.tty and caller.alone:
            os.setpgid(0, 0)
        if orders.supervisor is not None:
            # Before capabilities go, of which this needs CAP_SYS_ADMIN where new privileges are not forbidden.
            orders.supervisor.watch("user" in spec.namespaces)
        confine(spec.security, self._user, orders.program)
        if not spec.init:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user has cleared it
        _restore_signals(caller.mask)
        self.channel.close_others(3 + spec.preserve_fds)
        _exec(spec.command, self._environ)

    def _settle(self, orders: Orders) -> None:
        """What depends on the cgroups, up to the new root."""
        spec = self.spec
        self._environ.update(orders.environ)
        if self._user.home is not None and "HOME" in self._environ:
            self._environ["HOME"] = self._user.home
        if "cgroup" in spec.namespaces:
            unshare(CLONE_NEWCGROUP)
        if "mnt" not in spec.namespaces:
            return
        if orders.supervisor is not None and orders.supervisor.shows_cgroups:
            pass  # a layout that is not the container's
        elif "cgroup" not in spec.namespaces:
            _show_callers_cgroups()
        elif orders.cgroups:
            _mount_cgroups(orders, writable=spec.security.nested)
        if orders.supervisor is not None and not spec.security.nested:  # a launcher inside copies its cpuset
            orders.supervisor.lay_cgroups()
        if orders.resolver:
            _name_servers(orders.resolver)
        rootfs.list_namespaces_last(spec, orders.namespaces)
        rootfs.pivot(spec)


def _limit(ulimit: Ulimit) -> None:
    try:
        prlimit(0, ulimit.number, (ulimit.soft, ulimit.hard))
    except OSError:
        present = prlimit(0, ulimit.number)[1]
        hint = "give no more, or start with CAP_SYS_RESOURCE"
        raise failure(f"--ulimit {ulimit.name}: {ulimit.hard} is above the hard limit of {present}", hint) from None


def _show_callers_cgroups() -> None:
    base = "sys/fs/cgroup"
    bind("/sys/fs/cgroup", base, recursive=True)
    mount_setattr(base, MOUNT_ATTR_RDONLY, recursive=True)


def _mount_cgroups(orders: Orders, writable: bool) -> None:
    """Show the container's cgroups below sys/fs/cgroup, at the names that the host has for them."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (0 if writable else MS_RDONLY)
    base = "sys/fs/cgroup"
    if orders.cgroups[0].name == "":
        mount("cgroup2", base, "cgroup2", flags)
        return
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=1024k")
    for cgroup in orders.cgroups:
        point = f"{base}/{cgroup.name}"
        os.makedirs(point, 0o755, exist_ok=True)
        if cgroup.version == 2:
            mount("cgroup2", point, "cgroup2", flags)
        else:
            mount("cgroup", point, "cgroup", flags, cgroup.options)
    for name, target in orders.aliases:
        os.symlink(target, f"{base}/{name}")
    if not writable:
        mount_setattr(base, MOUNT_ATTR_RDONLY)


def _name_servers(text: str) -> None:
    """Lay a resolv.conf over the root's: kept in /dev's tmpfs, and without a name from then on."""
    path = "dev/.resolv.conf"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    bind(path, rootfs.inside("/etc/resolv.conf", directory=False, option="--dns"))
    os.unlink(path)


def _go_to(directory: str, create: bool) -> None:
    try:
        if create:
            os.makedirs(directory, 0o755, exist_ok=True)
        os.chdir(directory)
    except OSError as error:
        reason = (error.strerror or "").lower()
        hint = "give another one with --workdir"
        raise failure(f"cannot start in {directory}: {reason}", hint) from None


def _restore_signals(mask: frozenset[int]) -> None:
    # Python ignores two signals and handles a third; a program expects none of that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _exec(command: list[str], environ: dict[str, str]) -> NoReturn:
    """Exec the command, found in the container's PATH.

    Raises:
        CgagentError: with exit code 127 or 126.
    """
    program = command[0]
    directories = [""] if "/" in program else environ.get("PATH", os.defpath).split(":")
    places = [f"{directory}/{program}" if directory else program for directory in directories]
    there = [place for place in places if os.access(place, os.F_OK)]
    failed: OSError | None = None
    # First where there is something, as each attempt converts the whole environment; then all, for the reason.
    for place in (*there, *places):
        try:
            os.execve(place, command, environ)  # noqa: S606
        except OSError as error:
            # A refusal says more than that there is nothing in some other directory.
            if failed is None or isinstance(failed, (FileNotFoundError, NotADirectoryError)):
                failed = error
    assert failed is not None  # noqa: S101 there is at least one place, and exec returns by failing alone
    raise not_started(program, failed, found=bool(there), where="PATH inside")
