"""What the kernel of another machine would answer: CPU masks, the CPU one is on, memory.

Sources: kernel/sched/syscalls.c (sched_getaffinity, sched_setaffinity), kernel/sys.c (getcpu, do_sysinfo). The
arguments are those of seccomp's notification: all unsigned, 64 bits wide.
"""

from __future__ import annotations

import errno
import os
import time
from struct import pack

from cgagent.launch.shown.task import GoneError, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.shown.notify import Notification
    from cgagent.launch.shown.task import Memory, Threads

_INT = 1 << 32
_KNOWN_MASKS = 4096
_SI_LOAD_SHIFT = 16


class Masks:
    """The CPUs that threads may run on: all that are shown, until a thread asks for fewer.

    A thread begins with the mask of the one that made it. That one is looked for when the mask is asked for: the
    first thread of the process, then its parents.
    """

    def __init__(self, cpus: int, allowed: frozenset[int], threads: Threads) -> None:
        self._cpus = cpus
        self._size = -(-cpus // 64) * 8  # cpumask_size()
        self._all = sum(1 << number for number in allowed)
        self._threads = threads
        self._asked: dict[tuple[int, int], int] = {}

    def get(self, call: Notification, memory: Memory) -> int:
        """sched_getaffinity(2): the number of bytes that were written."""
        length, unit = call.arguments[1] % _INT, 4 if call.narrow else 8
        if length * 8 < self._cpus or length % unit:
            raise RefusedError(errno.EINVAL)
        data = self._of(self._target(call)).to_bytes(self._size, "little")[:length]
        memory.write(call.arguments[2], data)
        return len(data)

    def set(self, call: Notification, memory: Memory) -> int:
        """sched_setaffinity(2)."""
        length = min(call.arguments[1] % _INT, self._size)
        wanted = int.from_bytes(memory.read(call.arguments[2], length), "little") if length else 0
        target = self._target(call)
        if not wanted & self._all:
            raise RefusedError(errno.EINVAL)
        if len(self._asked) >= _KNOWN_MASKS:
            self._forget()
        self._asked[target, self._threads.started(target)] = wanted & self._all
        return 0

    def cpu(self, call: Notification, memory: Memory) -> int:
        """getcpu(2): where the thread really is, if that CPU is one of its own, else the first of those."""
        number, _ = self._threads.inner(call.pid)
        mask, real = self._of(number), self._threads.processor(number)
        shown = real if mask >> real & 1 else (mask & -mask).bit_length() - 1
        for address, value in zip(call.arguments[:2], (shown, 0), strict=True):
            if address:
                memory.write(address, value.to_bytes(4, "little"))
        return 0

    def _target(self, call: Notification) -> int:
        """The thread that is asked about, as the container numbers it."""
        asked = call.arguments[0] % _INT
        if asked == 0:
            return self._threads.inner(call.pid)[0] if self._asked or call.call == "sched_setaffinity" else 0
        found = self._threads.find(call.pid, asked)
        if not found:
            raise RefusedError(errno.ESRCH)
        return found

    def _of(self, number: int) -> int:
        while self._asked and number:
            try:
                found = self._asked.get((number, self._threads.started(number)))
                if found is not None:
                    return found
                number = self._threads.above(number)
            except GoneError:
                break
        return self._all

    def _forget(self) -> None:
        """Drop the masks of threads that have ended."""
        for number, started in list(self._asked):
            try:
                alive = self._threads.started(number) == started
            except GoneError:
                alive = False
            if not alive:
                del self._asked[number, started]


class MachineMemory:
    """sysinfo(2) of a machine with other memory; load, number of processes and time are the real ones.

    `numbers` are those of /proc/meminfo in bytes, as they are shown; `time_offset` is the container's, in seconds.
    """

    def __init__(self, numbers: dict[str, int], time_offset: float, processes: int) -> None:
        names = ("MemTotal", "MemFree", "Shmem", "Buffers", "SwapTotal", "SwapFree")
        self._numbers = [numbers.get(name, 0) for name in names]
        self._offset = time_offset
        self._processes = processes

    def sysinfo(self, call: Notification, memory: Memory) -> int:
        """sysinfo(2)."""
        uptime = int(time.clock_gettime(time.CLOCK_BOOTTIME) + self._offset)
        loads, count = self._loads()
        if not call.narrow:
            data = pack("=q3Q6QHHIQQI4x", uptime, *loads, *self._numbers, count, 0, 0, 0, 0, 1)
        else:
            # As the kernel's compat twin: a unit, of a page at least, in which the numbers fit into 32 bits.
            shift = max(0, max(self._numbers).bit_length() - 32)
            shift = max(shift, 12) if shift else 0
            small = [number >> shift for number in self._numbers]
            data = pack("=i3I6IHHIII8x", uptime, *loads, *small, count, 0, 0, 0, 1 << shift)
        memory.write(call.arguments[0], data)
        return 0

    def _loads(self) -> tuple[list[int], int]:
        fd = os.open("loadavg", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._processes)
        try:
            words = os.read(fd, 256).split()
        finally:
            os.close(fd)
        count = int(words[3].partition(b"/")[2])
        return [int(float(word) * (1 << _SI_LOAD_SHIFT)) for word in words[:3]], min(count, 0xFFFF)
