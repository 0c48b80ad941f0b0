"""The container's side: PID 1 sets the stage, the command enters its cgroups and starts, PID 1 reaps the rest.

All is imported before the root changes. The command starts as the caller left things: signal mask, umask,
resource limits, niceness; what fails goes back through the report pipe and is told by the launcher.
"""

from __future__ import annotations

import os
import sys

from cgagent.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_RUN_FAILED, CgagentError, printable
from cgagent.launch import rootfs
from cgagent.launch.failure import failure, refused
from cgagent.launch.identity import User, confine
from cgagent.launch.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWTIME,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    bind,
    capset,
    clone_into_cgroup,
    mount,
    mount_setattr,
    prctl,
    sethostname,
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

_CAP_KILL = 1 << 5
_OPEN_MAX = 1 << 20


def contain(spec: Spec, user: User, channel: Channel, caller: Caller, name: str) -> NoReturn:
    """Be PID 1 of the container: does not return."""
    code = EXIT_RUN_FAILED
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        channel.wait_for_maps()
        _import_ahead(spec)
        _set_stage(spec, caller, name)
        code = _start(Command(spec, user, channel, caller), channel.receive())
    except CgagentError as error:
        channel.report(error)
    except OSError as error:
        channel.report(refused(error))
    except BaseException as error:  # noqa: BLE001 whatever it is, the launcher must hear of it
        channel.report(CgagentError(f"cannot set up the container: {printable(repr(error))}", "", EXIT_RUN_FAILED))
    os._exit(code)


def _import_ahead(spec: Spec) -> None:
    """Load what the command's last steps need, while the modules can be found."""
    if spec.tty:
        import cgagent.launch.tty  # noqa: F401
    if spec.ulimits:
        import resource  # noqa: F401


def _set_stage(spec: Spec, caller: Caller, name: str) -> None:
    """All of the container but its cgroups, which the launcher makes meanwhile."""
    if "uts" in spec.namespaces:
        sethostname(spec.hostname or f"cgagent-{name.split('-')[2]}")
    if spec.net != "host":
        _loopback_up()
    if spec.time_offset is not None:
        _shift_clocks(spec.time_offset)
    os.umask(0)
    if "mnt" in spec.namespaces:
        rootfs.enter(spec, caller.directory)
        rootfs.fill(spec)


def _loopback_up() -> None:
    """SIOCSIFFLAGS with IFF_UP; the kernel adds 127.0.0.1 and ::1 by itself."""
    import _socket
    import fcntl

    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(control.fileno(), 0x8914, b"lo".ljust(16, b"\0") + (1).to_bytes(2, sys.byteorder) + bytes(22))
    control.close()


def _shift_clocks(offset: float) -> None:
    unshare(CLONE_NEWTIME)
    seconds, nanoseconds = divmod(int(offset * 1e9), 10**9)
    _write(
        "/proc/self/timens_offsets", f"monotonic {seconds} {nanoseconds}\nboottime {seconds} {nanoseconds}\n".encode()
    )


def _start(command: Command, orders: Orders) -> int:
    """Start the command, as a child or in our place; return its exit code."""
    spec = command.spec
    if not spec.init:
        _enter_cgroups(orders, joined=False)
        command.start(orders)
    if "pid" not in spec.namespaces:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    child, joined = _fork(orders)
    if child == 0:
        if "pid" not in spec.namespaces:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _enter_cgroups(orders, joined)
        command.start(orders)
    end = command.channel.keep_last()
    _retire(end)
    code = _supervise(child)
    os.write(end, code.to_bytes(1, "little"))
    return code


def _fork(orders: Orders) -> tuple[int, bool]:
    """A child, and whether it starts inside the v2 cgroup: that spares the wait for all CPUs that a move costs."""
    unified = orders.unified()
    if unified is None:
        return os.fork(), False
    fd = os.open(unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return clone_into_cgroup(fd), True
    except OSError:
        return os.fork(), False
    finally:
        os.close(fd)


def _enter_cgroups(orders: Orders, joined: bool) -> None:
    """Move this process, of one thread, into its cgroups."""
    for cgroup in orders.cgroups:
        if not cgroup.directory or (cgroup.version == 2 and joined):
            continue
        # v1's `tasks` takes a thread and returns at once; cgroup.procs waits for an RCU grace period, 10 ms.
        names = ("tasks", "cgroup.procs") if cgroup.version == 1 else ("cgroup.procs",)
        for position, name in enumerate(names):
            try:
                _write(f"{cgroup.directory}/{name}", b"0")
                break
            except OSError:
                if position == len(names) - 1:
                    raise


def _write(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


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
        if "cgroup" not in spec.namespaces:
            _show_callers_cgroups()
        elif orders.cgroups:
            _mount_cgroups(orders, writable=spec.security.nested)
        if orders.resolver:
            _name_servers(orders.resolver)
        rootfs.pivot(spec)


def _limit(ulimit: Ulimit) -> None:
    import resource

    try:
        resource.setrlimit(ulimit.number, (ulimit.soft, ulimit.hard))
    except (ValueError, OSError):
        present = resource.getrlimit(ulimit.number)[1]
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
    refused: OSError | None = None
    for directory in directories:
        try:
            os.execve(f"{directory}/{program}" if directory else program, command, environ)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = refused or error
    if refused is not None:
        reason = (refused.strerror or str(refused)).lower()
        raise CgagentError(f"{program}: {reason}", "", EXIT_NOT_EXECUTABLE)
    raise CgagentError(f"{program}: not found", "check the name and PATH inside", EXIT_NOT_FOUND)


def _retire(kept: int) -> None:
    """Keep what reaping and forwarding need: of files `kept` alone, of capabilities CAP_KILL, nothing to read."""
    prctl(PR_SET_DUMPABLE, 0)
    capset(_CAP_KILL, _CAP_KILL, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    # The report pipe is the last thing to go: until then the launcher hears what fails here.
    os.closerange(3, kept)
    os.closerange(kept + 1, _OPEN_MAX)


def _supervise(child: int) -> int:
    """Reap whatever ends and hand every signal on, until the command ends; return its exit code."""
    every = signal.valid_signals()
    while True:
        number = signal.sigwaitinfo(every).si_signo
        if number != signal.SIGCHLD:
            try:
                os.kill(child, number)
            except OSError:
                pass
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                return exit_code(status)


def exit_code(status: int) -> int:
    """A wait status as a shell tells it: the code, or 128+N for signal N."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


assert sys.platform == "linux"  # noqa: S101 mypy need not look at the others
