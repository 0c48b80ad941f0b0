"""The container's side: PID 1 sets the stage, the command enters its cgroups and starts, PID 1 reaps the rest.

All is imported before the root changes. The command starts as the caller left things: signal mask, umask,
resource limits, niceness; what fails goes back through the report pipe and is told by the launcher.
"""

from __future__ import annotations

import errno
import os
import sys

from cgagent.errors import EXIT_RUN_FAILED, CgagentError, printable
from cgagent.launch import rootfs
from cgagent.launch.command import Command
from cgagent.launch.failure import failure, refused
from cgagent.launch.identity import User
from cgagent.launch.syscalls import (
    CLONE_NEWTIME,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    SI_KERNEL,
    capset,
    clone_into_cgroup,
    loopback_up,
    prctl,
    sethostname,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from cgagent.launch.channel import Caller, Channel, Orders
    from cgagent.launch.spec import Spec
else:
    import _signal as signal  # `signal` itself loads enum, for three milliseconds

_CAP_KILL = 1 << 5
_OPEN_MAX = 1 << 20


def contain(spec: Spec, user: User, channel: Channel, caller: Caller, name: str, orders: Orders) -> NoReturn:
    """Be PID 1 of the container: does not return."""
    code = EXIT_RUN_FAILED
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _import_ahead(spec)
        _set_up_alone(spec, name)
        channel.wait()
        _set_stage(spec, caller)
        if orders.supervisor is not None:
            orders.supervisor.lay()
        code = _start(Command(spec, user, channel, caller), orders)
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


def _set_up_alone(spec: Spec, name: str) -> None:
    """What needs no map of users: the launcher writes it at this moment."""
    if "uts" in spec.namespaces:
        sethostname(spec.hostname or f"cgagent-{name.split('-')[2]}")
    if spec.net != "host":
        loopback_up()


def _set_stage(spec: Spec, caller: Caller) -> None:
    """The rest of the container but its cgroups, which can be shown from inside them alone."""
    if spec.time_offset is not None:
        _shift_clocks(spec.time_offset)
    os.umask(0)
    if "mnt" in spec.namespaces:
        rootfs.enter(spec, caller.directory)
        rootfs.fill(spec)


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
    try:
        os.write(end, code.to_bytes(1, "little"))
    except OSError:
        pass  # our own end says it too
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
            except OSError as error:
                if position == len(names) - 1:
                    raise _explained(error) from None


def _explained(error: OSError) -> Exception:
    """Why a cgroup does not take this process, where "invalid argument" does not say it."""
    if error.errno != errno.EINVAL or os.sched_getscheduler(0) not in (os.SCHED_FIFO, os.SCHED_RR):
        return error
    # kernel/sched/core.c, cpu_cgroup_can_attach(): with CONFIG_RT_GROUP_SCHED a new cgroup has no time for them.
    message = f"{error.filename} takes no real-time task (SCHED_FIFO, SCHED_RR)"
    return failure(message, "start it as an ordinary one, without chrt or systemd's CPUSchedulingPolicy=")


def _write(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


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
    """Reap whatever ends and hand every signal on, until the command ends; return its exit code.

    Not those of a terminal that we share with the command: it has had them from there.
    """
    every = signal.valid_signals()
    while True:
        info = signal.sigwaitinfo(every)
        number = info.si_signo
        if number != signal.SIGCHLD:
            if info.si_code >= SI_KERNEL:
                continue
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
