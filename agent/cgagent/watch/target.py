"""The process that the sidecar works for: found, kept hold of, and why it can't be read where it can't.

In a pod with a shared process namespace /proc shows every container's processes. The application is what is neither
the pause container nor in our own cgroup. Its limits are read through /proc/PID/root/sys/fs/cgroup, for which the
kernel asks what it asks of a debugger that only reads (kernel/ptrace.c, PTRACE_MODE_READ_FSCREDS).
"""

from __future__ import annotations

import os
import signal
import threading

from cgagent import ptrace
from cgagent.errors import CgagentError
from cgagent.host import Host, ReadError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_EXITING = 0x00000004  # PF_EXITING, include/linux/sched.h: set before the process leaves its cgroup for the root
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_PAUSE = "pause"
_COMM_LENGTH = 15  # TASK_COMM_LEN less its NUL
_SHOWN = 5


class NoTargetError(CgagentError):
    """There is no process that could be meant; one may come."""


class EndedError(CgagentError):
    """The only process that was meant has ended."""


class Process(Record):
    """A process as /proc tells it to everybody: PID, name, start time in clock ticks, text of its cgroup file."""

    __slots__ = ("cgroup", "name", "pid", "start")

    def __init__(self, pid: str, name: str, start: int, cgroup: str) -> None:
        self.pid = pid
        self.name = name
        self.start = start
        self.cgroup = cgroup


class Target:
    """A process that we keep hold of by a pidfd, so that its PID's next owner is never taken for it.

    Attributes:
        pid: its number.
        name: its name (comm).
        pidfd: ready to read when it has ended; None where the kernel gives none.
    """

    def __init__(self, process: Process, host: Host) -> None:
        self.pid = process.pid
        self._host = host
        self.name = process.name
        self.pidfd: int | None = None
        self._start = process.start
        self._lock = threading.Lock()
        try:
            self.pidfd = os.pidfd_open(int(self.pid))
        except OSError as error:
            if isinstance(error, ProcessLookupError):
                raise NoTargetError(f"process {self.pid} has just ended") from None
        if not self.is_same():
            self.release()
            raise NoTargetError(f"process {self.pid} has just ended")

    def is_same(self) -> bool:
        """Whether the process of that PID is still the one that was found."""
        process = read_process(self._host, self.pid)
        return process is not None and process.start == self._start

    def send(self, number: int) -> None:
        """Send a signal to it.

        Raises:
            OSError: it has ended, or we may not.
        """
        with self._lock:  # `release` must not give the number of the pidfd to another file meanwhile
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            elif self.is_same():
                os.kill(int(self.pid), number)
            else:
                raise ProcessLookupError(3, "No such process")

    def release(self) -> None:
        """Let go of it."""
        with self._lock:
            if self.pidfd is not None:
                os.close(self.pidfd)
            self.pidfd, self._start = None, -1


def read_process(host: Host, pid: str) -> Process | None:
    """What /proc tells of `pid`; None for a kernel thread, a zombie, and a process that ends or has ended."""
    try:
        # /proc/PID/stat (proc(5)): the name in parentheses may hold blanks and parentheses itself.
        before, _, after = host.read(f"/proc/{pid}/stat").rpartition(")")
        cgroup = host.read(f"/proc/{pid}/cgroup")
    except ReadError:
        return None
    fields = after.split()
    if fields[0] in ("Z", "X") or int(fields[6]) & (_KERNEL_THREAD | _EXITING):
        return None
    return Process(pid, before.partition("(")[2], int(fields[19]), cgroup)


def find_pid(host: Host, pid: str) -> Process:
    """The process of a given PID.

    Raises:
        CgagentError: it is not there.
    """
    process = read_process(host, pid)
    if process is None:
        raise CgagentError(f"there is no process {pid}", "give the PID of a running process")
    return process


def demand_own_numbers(host: Host) -> None:
    """Refuse to take a process by its PID where `host` numbers processes otherwise than we do.

    In the /proc of another PID namespace (--path.procfs) they have PIDs that mean others here, or nobody: what we
    signal, and whose memory we read, would be strangers'.

    Raises:
        CgagentError: it does.
    """
    try:
        if os.readlink(host.locate("/proc") + "/self") == str(os.getpid()):
            return
    except OSError:
        pass  # that namespace does not know of us at all
    what = f"{host.shown('/proc')} is of another PID namespace, in which PIDs mean other processes"
    raise CgagentError(what, "run in that namespace (hostPID: true, docker run --pid host)")


def find_application(host: Host, name: str | None, exe: str | None) -> Process:
    """The application's process in a shared process namespace: the first of its container that is still there.

    Raises:
        NoTargetError: there is none that could be meant.
        CgagentError: there are several, of several containers.
    """
    own = host.read("/proc/self/cgroup")
    pids = sorted((name for name in os.listdir(host.locate("/proc")) if name.isdigit()), key=int)
    everything = [one for pid in pids if (one := read_process(host, pid))]
    strangers = [one for one in everything if one.cgroup != own and (one.name != _PAUSE or name == _PAUSE)]
    found = [one for one in strangers if _is_named(host, one, name, exe)]
    if not found:
        raise _none_of(strangers, name, exe)
    first: dict[str, Process] = {}
    for process in sorted(found, key=lambda one: one.start):
        first.setdefault(process.cgroup, process)
    if len(first) > 1:
        hint = f"{_shown(first.values())}: choose with --target-name or --target-exe"
        raise CgagentError("several containers' processes could be meant", hint)
    return next(iter(first.values()))


def _is_named(host: Host, process: Process, name: str | None, exe: str | None) -> bool:
    if name is not None and process.name != name[:_COMM_LENGTH]:
        return False
    if exe is None:
        return True
    try:
        path = os.readlink(host.locate(f"/proc/{process.pid}") + "/exe")
    except OSError:
        return False
    return exe in (path, path.rpartition("/")[2])


def _none_of(strangers: list[Process], name: str | None, exe: str | None) -> NoTargetError:
    if not strangers:
        hint = "the application starts later, or the pod lacks shareProcessNamespace: true"
        return NoTargetError("no process of another container is to be seen", hint)
    wanted = " and ".join(
        f"{what} {text}" for what, text in (("the name", name), ("the executable", exe)) if text is not None
    )
    return NoTargetError(f"no process has {wanted}", f"those of other containers are {_shown(strangers)}")


def _shown(processes: Iterable[Process]) -> str:
    every = [f"{one.pid} ({one.name})" for one in processes]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def refusal(host: Host, pid: str) -> str | None:
    """Which condition of the kernel's keeps us from reading the files of process `pid`; None if none does."""
    try:
        os.listdir(host.locate(f"/proc/{pid}/root") + "/")
    except PermissionError:
        return ptrace.refusal(host, pid, attaching=False)
    except OSError:
        pass  # it has ended: not a question of permission
    return None
