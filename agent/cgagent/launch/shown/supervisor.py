"""The supervisor: a process outside the container that answers its calls about CPUs and memory.

It is in nobody's way: not in the container's PID namespace, whose processes can neither see nor signal it, and not
under its limits. It ends when the last process with the filter has. Should it die before, the kernel fails the calls
that wait for it, and the launcher, which hears of it by a pidfd, ends the command.
"""

from __future__ import annotations

import errno
import os
import select

from cgagent.launch.failure import failure, reason
from cgagent.launch.keeper import let_go
from cgagent.launch.shown import answers, notify, stage
from cgagent.launch.shown.filesystems import FileSystems
from cgagent.launch.shown.laying import PROCESS_CALLS, Laying
from cgagent.launch.shown.task import GoneError, Memory, RefusedError, Threads, namespace_depth
from cgagent.launch.syscalls import SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, seccomp_listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import signal
    from collections.abc import Callable
    from typing import NoReturn

    from cgagent.launch.shown.notify import Listener, Notification
    from cgagent.launch.shown.scene import Scene

    Answer = Callable[[Notification, Memory], int | None]  # None: the kernel's own
else:
    import _signal as signal
    import _socket

_MOST_FILES = 8
_READY, _LONGEST_REASON = b"\0", 256


class Supervisor:
    """What the launcher holds of it, and what the command does to come under it.

    Attributes:
        scene: what it shows.
        ended: a pidfd, ready to read when it has ended; -1 before its start.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._pid = 0
        self.ended = -1
        self._files: list[int] = []
        calls = (
            *(notify.CPU_CALLS if scene.cpus else ()),
            *(notify.MEMORY_CALLS if scene.memory else ()),
            *((*PROCESS_CALLS, *notify.FILE_SYSTEM_CALLS) if scene.capture is not None else ()),
        )
        self._program = notify.notify_filter(calls)
        self._ours, self._theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    # The launcher's side.

    def start(self, init: int) -> None:
        """Fork it, for the container whose PID 1 is our `init`."""
        self._pid = os.fork()
        if self._pid == 0:
            _supervise(self._ours, self.scene, init)
        self.ended = os.pidfd_open(self._pid)
        self._ours.close()
        self._theirs.close()

    def death(self) -> str:
        """How it ended, of which `ended` told; empty where it had nothing left to do."""
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return ""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        return (
            f"the supervisor that answers for {self.scene.option} {how}: "
            "the command is ended, as it would see this machine from here on"
        )

    def end(self) -> None:
        """The container is gone: so is the supervisor."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    # The container's side.

    def lay(self) -> None:
        """In PID 1, while the new root is made: lay the files over it."""
        self._ours.close()  # or the command would not hear of the supervisor's end
        stage.lay(self.scene)
        if self.scene.capture is not None:
            self._files = stage.lay_layout(self.scene.capture)

    @property
    def shows_cgroups(self) -> bool:
        """Whether other cgroups than the container's are mounted already."""
        return self.scene.capture is not None

    def lay_cgroups(self) -> None:
        """In the process that is to become the command, when its cgroups are mounted."""
        if self.scene.cpus and not self.shows_cgroups:
            stage.lay_cpusets(self.scene)

    def watch(self, own_users: bool) -> None:
        """In the process that is to become the command, in its new root: let its calls wait, and hand them over.

        `own_users` is whether the container has a user namespace.
        """
        if self.scene.cpus:
            _keep_to(self.scene.cpus)
        files = [self._listen(), os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        if self._files:
            names = ("mnt", "user") if own_users else ("mnt",)
            files += self._files
            files += [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]
        _hand_over(self._theirs, files)
        for fd in files:
            os.close(fd)
        self._theirs.close()

    def _listen(self) -> int:
        for flags in (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0):
            try:
                return seccomp_listener(self._program, flags)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    hint = "start it outside of the other one"
                    raise failure(f"{self.scene.option} inside a supervised container is refused", hint) from None
                if error.errno != errno.EINVAL or not flags:  # else a kernel that does not know the flag
                    raise
        raise AssertionError


def _keep_to(cpus: int) -> None:
    """Where fewer CPUs are shown than there are, run on no more: the vDSO's getcpu tells of the others too."""
    real = sorted(os.sched_getaffinity(0))
    if cpus >= len(real) and real[-1] < cpus:
        return
    try:
        os.sched_setaffinity(0, [number for number in real if number < cpus] or real[:cpus])
    except OSError as error:
        raise OSError(error.errno, error.strerror, "sched_setaffinity") from None


def _hand_over(socket: _socket.socket, files: list[int]) -> None:
    """Send the files, and wait until the supervisor works: a call that waits for it would fail."""
    numbers = b"".join(fd.to_bytes(4, "little") for fd in files)
    try:
        socket.sendmsg([b"l"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
        said = socket.recv(_LONGEST_REASON)
    except OSError as error:
        said = reason(error).encode()
    if said != _READY:
        why = said.decode("utf-8", "replace") or "it has ended"
        raise failure(f"the supervisor cannot start: {why}")


def _receive(socket: _socket.socket) -> list[int]:
    """The files that the command sends; none where it has failed before."""
    _, extra, _, _ = socket.recvmsg(1, _socket.CMSG_SPACE(4 * _MOST_FILES), _socket.MSG_CMSG_CLOEXEC)
    return [int.from_bytes(data[at : at + 4], "little") for _, _, data in extra for at in range(0, len(data), 4)]


def _supervise(socket: _socket.socket, scene: Scene, init: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        let_go((socket.fileno(),))
        processes = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        files = _receive(socket)
        if files:
            threads = Threads(processes, files[1], namespace_depth(init))
            laying = None
            try:
                if scene.capture is not None:
                    laying = Laying(threads, files[2:4], files[4:])
                    laying.cover(init)
                listener = notify.Listener(files[0])
            except OSError as error:
                socket.send(reason(error).encode())
                raise
            socket.send(_READY)
            _serve(listener, _answers(scene, threads), processes, laying)
        code = 0
    finally:
        os._exit(code)


def _answers(scene: Scene, threads: Threads) -> dict[str, Answer]:
    known: dict[str, Answer] = {}
    if scene.cpus:
        masks = answers.Masks(scene.cpus, scene.allowed, threads)
        known |= {"sched_getaffinity": masks.get, "sched_setaffinity": masks.set, "getcpu": masks.cpu}
    if scene.memory:
        known["sysinfo"] = answers.MachineMemory(scene.meminfo, scene.time_offset, threads.processes).sysinfo
    if scene.capture is not None:
        shown = FileSystems(scene.capture, threads.processes)
        known |= {"statfs": shown.statfs, "fstatfs": shown.fstatfs}
    return known


def _serve(listener: Listener, known: dict[str, Answer], processes: int, laying: Laying | None) -> None:
    """Answer, until no process is left that could ask."""
    poll = select.poll()
    poll.register(listener.fd, select.POLLIN)
    while True:
        _, events = poll.poll()[0]
        if not events & select.POLLIN:
            return  # POLLHUP: the last one has ended
        call = listener.receive()
        if call is None:
            continue
        if call.call in known:
            _answer(listener, call, known, processes)
            continue
        if laying is not None:
            laying.cover(call.pid)
        listener.pass_on(call)


def _answer(listener: Listener, call: Notification, known: dict[str, Answer], processes: int) -> None:
    try:
        memory = Memory(processes, listener, call)
    except GoneError:
        return
    except PermissionError:
        # A program that not even its own user may read, started by an ordinary user: it sees this machine.
        listener.pass_on(call)
        return
    try:
        value = known[call.call](call, memory)
        if value is None:
            listener.pass_on(call)
        else:
            listener.answer(call, value)
    except GoneError:
        listener.answer(call, -errno.ESRCH)  # the thread that is asked about has ended, or the caller itself
    except RefusedError as refused:
        listener.answer(call, -refused.number)
    finally:
        memory.close()
