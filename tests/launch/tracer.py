"""Make one system call of a launch fail: a tracer by ptrace(2), which tells processes and their calls apart.

strace counts the calls of a kind in every process by itself, and the interpreter's own with them: its `when=9` is nine
calls at once. Here a call is one of one process: `launcher.1 mount 9` is the ninth mount of the launcher's first child.
The launch is a fork of this process that has all its modules, so that there are none of the interpreter's calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import traceback
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

HEADER = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"

_PTRACE_GETREGS, _PTRACE_SETREGS = 12, 13
_PTRACE_DETACH, _PTRACE_SYSCALL = 17, 24
_PTRACE_SEIZE, _PTRACE_LISTEN, _PTRACE_GET_SYSCALL_INFO = 0x4206, 0x4208, 0x420E
_PTRACE_GETEVENTMSG = 0x4201
# TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, EXITKILL
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000
_EVENT_NEW = (1, 2, 3)  # fork, vfork, clone
_EVENT_EXEC, _EVENT_STOP = 4, 128
_WALL = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENTRY = 1
# struct user_regs_struct of x86-64, in words
_RAX, _ORIG_RAX = 10, 15

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


class Call(NamedTuple):
    """The `nth` call `name` of a process: `launcher`, `launcher.1` for its first child, `launcher.1.2`, and so on."""

    process: str
    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.process} {self.name} {self.nth}"


class Ended(NamedTuple):
    """A traced launch.

    Attributes:
        pid: the launcher's.
        code: its exit code, as a shell tells it; None where it hung and was killed.
        calls: all that were made up to an exec, in the order in which they were seen.
        injected: whether the call that was to fail was made.
        left: processes that outlived the launcher by seconds, and were killed.
    """

    pid: int
    code: int | None
    calls: list[Call]
    injected: bool
    left: list[str]


class _HungError(Exception):
    pass


class _Process:
    def __init__(self, label: str) -> None:
        self.label = label
        self.children = 0
        self.counts: dict[int, int] = {}
        self.failing = False


def names() -> dict[int, str]:
    """The names of this machine's system calls."""
    with open(HEADER, encoding="ascii") as file:
        found = re.findall(r"#define __NR_(\w+) (\d+)", file.read())
    return {int(number): name for name, number in found}


class Tracer:
    """Runs launches under its eyes, one after the other."""

    def __init__(self, limit: float = 20) -> None:
        """A launch that takes more than `limit` seconds hangs."""
        self._names = names()
        self._limit = limit
        self._info = ctypes.create_string_buffer(88)
        self._registers = (ctypes.c_ulonglong * 27)()

    def launch(self, child: Callable[[], int], fail: Call | None = None, error: int = errno.EPERM) -> Ended:
        """Run `child` in a fork, which is the launcher; the call `fail` of it or its descendants fails with `error`.

        What comes before `child` calls sched_yield(2) does not count.
        """
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(writer)
                os.read(reader, 1)
                os.close(reader)
                code = child()
            except BaseException:  # noqa: BLE001 as an interpreter would
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(reader)
        self._begin(pid, fail, error)
        self._ask(_PTRACE_SEIZE, pid, 0, _OPTIONS)
        self._ask(0x4207, pid)  # PTRACE_INTERRUPT
        os.write(writer, b"g")
        os.close(writer)
        try:
            self._follow()
        finally:
            self._kill()
        return Ended(pid, self._code, self._calls, self._injected, self._left)

    def _begin(self, pid: int, fail: Call | None, error: int) -> None:
        self._launcher = pid
        self._fail = fail
        self._error = error
        self._started = self._injected = False
        self._code: int | None = None
        self._calls: list[Call] = []
        self._left: list[str] = []
        self._processes = {pid: _Process("launcher")}
        self._early: set[int] = set()  # stopped before its parent's event was seen

    def _follow(self) -> None:
        """Until all have ended; those that hang are ended."""

        def ring(_: int, __: FrameType | None) -> None:
            raise _HungError

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, self._limit)
        try:
            while self._processes or self._early:
                pid, status = os.waitpid(-1, _WALL)
                self._on(pid, status)
                if pid == self._launcher and self._code is not None:
                    signal.setitimer(signal.ITIMER_REAL, 5)
        except (_HungError, ChildProcessError):
            self._left = [one.label for pid, one in self._processes.items() if pid != self._launcher]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _kill(self) -> None:
        for pid in (*self._processes, *self._early):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        while True:
            try:
                os.waitpid(-1, _WALL)
            except ChildProcessError:
                return

    def _on(self, pid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._processes.pop(pid, None)
            self._early.discard(pid)
            if pid == self._launcher:
                self._code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            return
        process = self._processes.get(pid)
        if process is None:
            self._early.add(pid)
            return
        number, event = os.WSTOPSIG(status), status >> 16
        if number == _SYSCALL_STOP:
            self._on_call(pid, process)
            self._go(pid)
        elif event in _EVENT_NEW:
            new = ctypes.c_ulong()
            self._ask(_PTRACE_GETEVENTMSG, pid, 0, ctypes.addressof(new))
            process.children += 1
            self._processes[new.value] = _Process(f"{process.label}.{process.children}")
            if new.value in self._early:
                self._early.discard(new.value)
                self._go(new.value)
            self._go(pid)
        elif event == _EVENT_EXEC:
            # Another program: its calls are none of ours.
            if pid != self._launcher:
                del self._processes[pid]
                self._ask(_PTRACE_DETACH, pid)
        elif event == _EVENT_STOP and number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            self._ask(_PTRACE_LISTEN, pid)
        else:
            self._go(pid, 0 if event else number)

    def _on_call(self, pid: int, process: _Process) -> None:
        if process.failing:
            process.failing = False
            self._set(pid, _RAX, (1 << 64) - self._error)
            return
        self._ask(_PTRACE_GET_SYSCALL_INFO, pid, 88, ctypes.addressof(self._info))
        raw = self._info.raw
        if raw[0] != _ENTRY:
            return
        number = int.from_bytes(raw[24:32], "little")
        name = self._names.get(number, str(number))
        if not self._started:
            self._started = name == "sched_yield"
            return
        nth = process.counts[number] = process.counts.get(number, 0) + 1
        call = Call(process.label, name, nth)
        self._calls.append(call)
        if call == self._fail:
            # The kernel finds no such call and does nothing; its answer is then made ours.
            self._set(pid, _ORIG_RAX, (1 << 64) - 1)
            process.failing = self._injected = True

    def _set(self, pid: int, register: int, value: int) -> None:
        self._ask(_PTRACE_GETREGS, pid, 0, ctypes.addressof(self._registers))
        self._registers[register] = value
        self._ask(_PTRACE_SETREGS, pid, 0, ctypes.addressof(self._registers))

    def _go(self, pid: int, number: int = 0) -> None:
        self._ask(_PTRACE_SYSCALL, pid, 0, number)

    def _ask(self, request: int, pid: int, address: int = 0, data: int = 0) -> None:
        if _ptrace(request, pid, address, data) == -1 and ctypes.get_errno() != errno.ESRCH:
            number = ctypes.get_errno()
            raise OSError(number, f"ptrace {request:#x}: {os.strerror(number)}")
