"""Which calls wait for the supervisor: by a BPF interpreter for both machines, by real 32-bit calls on this one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from cgagent.errors import CgagentError
from cgagent.launch.shown.laying import PROCESS_CALLS
from cgagent.launch.shown.notify import CPU_CALLS, MEMORY_CALLS, SECCOMP_RET_USER_NOTIF, notify_filter
from launch.behaviour import run
from launch.test_seccomp import ALLOW, ARCH, MACHINE, numbers, refused, verdict

if TYPE_CHECKING:
    from pathlib import Path

CALLS = (*CPU_CALLS, *MEMORY_CALLS, *PROCESS_CALLS)
I386, ARM = 0x40000003, 0x40000028
I386_HEADER = "/usr/include/x86_64-linux-gnu/asm/unistd_32.h"
X32 = 0x40000000

# Calls by `int $0x80`, as a 32-bit program makes them: what they point at lies below 4 GiB.
_NARROW = """\
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static long call(long number, long b, long c, long d) {
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(b), "c"(c), "d"(d)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}

int main(void) {
    unsigned *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    long size = call(242, 0, 4096, (long)low);
    int count = 0;
    for (long i = 0; i < size; i++) count += __builtin_popcount(((unsigned char *)low)[i]);
    printf("%d CPUs in %ld bytes, of 2 bytes %ld\\n", count, size, call(242, 0, 2, (long)low));
    memset(low, 0, 128);
    call(116, (long)low, 0, 0);
    printf("%llu GiB\\n", (unsigned long long)low[4] * low[13] >> 30);
    return 0;
}
"""


@pytest.mark.parametrize("machine", sorted(ARCH))
class TestTheFilter:
    def test_lets_exactly_the_named_calls_wait(self, machine: str) -> None:
        known = numbers(machine)
        program = notify_filter(CALLS, machine)
        waiting = {n for n in range(600) if verdict(program, ARCH[machine], n) == SECCOMP_RET_USER_NOTIF}
        assert waiting == {known[name] for name in CALLS}
        assert all(verdict(program, ARCH[machine], n) == ALLOW for n in range(600) if n not in waiting)

    def test_the_calls_for_cpus_alone(self, machine: str) -> None:
        known = numbers(machine)
        program = notify_filter(CPU_CALLS, machine)
        waiting = {n for n in range(600) if verdict(program, ARCH[machine], n) == SECCOMP_RET_USER_NOTIF}
        assert waiting == {known[name] for name in ("sched_getaffinity", "sched_setaffinity", "getcpu")}

    def test_a_third_architecture_is_left_alone(self, machine: str) -> None:
        assert verdict(notify_filter(CALLS, machine), 0xC0000015, 204) == ALLOW


def test_32_bit_numbers_are_the_kernels() -> None:
    if not os.path.exists(I386_HEADER):
        pytest.skip(f"no {I386_HEADER}: install linux-libc-dev")
    with open(I386_HEADER, encoding="ascii") as header:
        known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read())}
    program = notify_filter(CALLS, "x86_64")
    waiting = {n for n in range(600) if verdict(program, I386, n) == SECCOMP_RET_USER_NOTIF}
    assert waiting == {known[name] for name in CALLS}


def test_32_bit_numbers_of_arm() -> None:
    """arch/arm/tools/syscall.tbl: the header is not on other machines."""
    program = notify_filter(CALLS, "aarch64")
    waiting = {n for n in range(600) if verdict(program, ARM, n) == SECCOMP_RET_USER_NOTIF}
    assert waiting == {241, 242, 345, 116, 11, 387, 338, 256}


def test_x32_calls_do_not_exist() -> None:
    assert verdict(notify_filter(CALLS, "x86_64"), ARCH["x86_64"], X32 | 204) == refused(38)


def test_a_machine_without_a_list_is_named() -> None:
    with pytest.raises(CgagentError, match="no supervisor for riscv64"):
        notify_filter(CALLS, "riscv64")


@pytest.mark.skipif(MACHINE != "x86_64", reason="i386 calls are x86's")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_32_bit_call_is_answered_as_the_kernel_answers_it(tmp_path: Path) -> None:
    source, program = tmp_path / "narrow.c", tmp_path / "narrow"
    source.write_text(_NARROW)
    subprocess.run(["gcc", "-O1", "-o", str(program), str(source)], check=True)
    if subprocess.run([str(program)], capture_output=True, check=False).returncode:
        pytest.skip("this kernel has no i386 calls")
    # Docker's filter ends a process for them.
    options = ["--security-opt", "seccomp=unconfined", "--host-cpus", "100", "--host-memory", "12Gi"]
    done = run(options, str(program))
    assert done.stdout == "100 CPUs in 16 bytes, of 2 bytes -22\n12 GiB\n", done
