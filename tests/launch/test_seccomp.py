"""The seccomp filter: what it refuses, by real system calls on this machine and by a BPF interpreter on the other."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cgagent.errors import CgagentError
from cgagent.launch import seccomp
from cgagent.launch.seccomp import default_filter, opened_by

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = os.uname().machine
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HEADERS = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000

# Names from docker's documentation ("Significant syscalls blocked by the default profile"), and the newer mount API.
_SIGNIFICANT = (
    "acct add_key bpf clock_settime delete_module finit_module init_module io_uring_enter io_uring_register "
    "io_uring_setup kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount move_pages nfsservctl "
    "open_by_handle_at perf_event_open pivot_root quotactl reboot request_key set_mempolicy setns settimeofday "
    "swapon swapoff umount2 unshare userfaultfd fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr"
)
SIGNIFICANT = _SIGNIFICANT.split()
# Only x86 ever had them.
SIGNIFICANT_X86 = "create_module get_kernel_syms ioperm iopl query_module sysfs _sysctl uselib ustat".split()  # noqa: SIM905

# Runs CODE after the filter is on: `call(number, *arguments)` returns 0 or the errno.
PRELUDE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) for a in arguments] + [ctypes.c_long(0)] * (6 - len(arguments))
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *words) == -1 else 0
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
text = bytes.fromhex(sys.argv[1])
buffer = ctypes.create_string_buffer(text)
program = Program(len(text) // 8, ctypes.addressof(buffer))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit("the filter was refused: " + os.strerror(ctypes.get_errno()))
"""


def filtered(code: str, allow: frozenset[str] = frozenset(), *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter that has put the filter on itself."""
    command = [sys.executable, "-I", "-S", "-c", PRELUDE + code, default_filter(allow).hex(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def errno_of(call: str, allow: frozenset[str] = frozenset()) -> int:
    """What `call` (an expression) gives under the filter."""
    done = filtered(f"print({call})", allow)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def numbers(machine: str) -> dict[str, int]:
    """System call numbers as the kernel's own header has them."""
    if not os.path.exists(HEADERS[machine]):
        pytest.skip(f"no {HEADERS[machine]}: install linux-libc-dev")
    with open(HEADERS[machine], encoding="ascii") as header:
        found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read())
    return {name: int(number) for name, number in found}


def verdict(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Interpret the classic BPF `program` over a `struct seccomp_data`."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = word = 0
    while True:
        code, if_true, if_false, constant = instructions[at]
        at += 1
        if code == 0x20:
            (word,) = struct.unpack_from("<I", data, constant)
        elif code == 0x06:
            return int(constant)
        else:
            taken = {0x15: word == constant, 0x35: word >= constant, 0x45: bool(word & constant)}[code]
            at += if_true if taken else if_false


def refused(error: int) -> int:
    return 0x00050000 | error


@pytest.mark.skipif(MACHINE not in ARCH, reason=f"no filter for {MACHINE}")
class TestOnThisMachine:
    def test_every_denied_call_gives_eperm(self) -> None:
        column = 0 if MACHINE == "x86_64" else 1
        denied = {name: pair[column] for name, pair in seccomp._DENIED.items() if pair[column] is not None}
        done = filtered(f"for name, number in {denied!r}.items(): print(name, call(number))")
        assert done.returncode == 0, done.stderr
        results = dict(line.split() for line in done.stdout.splitlines())
        assert results == {name: str(errno.EPERM) for name in denied}

    def test_significant_calls_of_dockers_list_are_refused(self) -> None:
        known = numbers(MACHINE)
        names = SIGNIFICANT + (SIGNIFICANT_X86 if MACHINE == "x86_64" else [])
        done = filtered(f"for number in {[known[name] for name in names]!r}: print(call(number))")
        assert done.stdout.split() == [str(errno.EPERM)] * len(names), done.stderr

    def test_clone3_does_not_exist_so_that_c_libraries_fall_back(self) -> None:
        assert errno_of("call(435)") == errno.ENOSYS

    def test_calls_newer_than_the_list_do_not_exist(self) -> None:
        assert errno_of("call(470)") == errno.ENOSYS
        assert errno_of("call(100000)") == errno.ENOSYS

    @pytest.mark.parametrize("flag", [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000])
    def test_clone_into_a_new_namespace_is_refused(self, flag: int) -> None:
        clone = numbers(MACHINE)["clone"]
        assert errno_of(f"call({clone}, {flag | signal.SIGCHLD})") == errno.EPERM

    @pytest.mark.parametrize("family", [38, 40], ids=["AF_ALG", "AF_VSOCK"])
    def test_socket_families_out_of_the_namespace_are_refused(self, family: int) -> None:
        socket = numbers(MACHINE)["socket"]
        assert errno_of(f"call({socket}, {family}, 1, 0)") == errno.EPERM
        # The kernel looks at 32 bits of the family: a high half must not hide it.
        assert errno_of(f"call({socket}, {family} | 1 << 32, 1, 0)") == errno.EPERM

    @pytest.mark.parametrize("family", [1, 2, 10, 16], ids=["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"])
    def test_ordinary_sockets_open(self, family: int) -> None:
        socket = numbers(MACHINE)["socket"]
        kind = 3 if family == 16 else 1
        assert errno_of(f"call({socket}, {family}, {kind}, 0)") == 0

    def test_only_the_personalities_that_change_names_alone(self) -> None:
        personality = numbers(MACHINE)["personality"]
        assert errno_of(f"call({personality}, 0xffffffff)") == 0
        assert errno_of(f"call({personality}, 0)") == 0
        # ADDR_NO_RANDOMIZE
        assert errno_of(f"call({personality}, 0x0040000)") == errno.EPERM

    @pytest.mark.parametrize("request_", [0x5412, 0x541C], ids=["TIOCSTI", "TIOCLINUX"])
    def test_nothing_types_into_the_callers_terminal(self, request_: int) -> None:
        code = (
            "import fcntl\nmaster, slave = os.openpty()\n"
            f"try: fcntl.ioctl(slave, {request_}, b'x')\nexcept OSError as error: print(error.errno)"
        )
        assert filtered(code).stdout.strip() == str(errno.EPERM)

    def test_the_window_size_of_a_terminal_is_still_told(self) -> None:
        done = filtered("master, slave = os.openpty()\nprint(os.get_terminal_size(slave).columns)")
        assert done.stdout.strip() == "0", done.stderr

    @pytest.mark.skipif(MACHINE != "x86_64", reason="x32 is x86_64's")
    def test_x32_calls_do_not_exist(self) -> None:
        getpid = numbers(MACHINE)["getpid"]
        assert errno_of(f"call(0x40000000 | {getpid})") == errno.ENOSYS

    @pytest.mark.skipif(MACHINE != "x86_64", reason="int 0x80 is x86's")
    def test_an_i386_call_ends_the_process(self) -> None:
        # mov eax, 20 (getpid); int 0x80; ret
        call = (
            "import mmap\npage = mmap.mmap(-1, 4096, prot=7)\npage.write(bytes.fromhex('b814000000cd80c3'))\n"
            "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
            "print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())\n"
        )
        bare = subprocess.run([sys.executable, "-c", "import ctypes\n" + call], capture_output=True, check=False)
        if bare.returncode != 0:
            pytest.skip("this kernel has no 32-bit calls")
        assert filtered(call).returncode == -signal.SIGSYS

    def test_sys_admin_opens_namespaces_and_mounts(self) -> None:
        known, opened = numbers(MACHINE), opened_by(["SYS_ADMIN"])
        # unshare(0) does nothing and succeeds; mount(NULL…) gets past the filter and fails on its arguments.
        assert errno_of(f"call({known['unshare']}, 0)", opened) == 0
        assert errno_of(f"call({known['mount']}, 0, 0, 0, 0, 0)", opened) == errno.EFAULT
        assert errno_of("call(435)", opened) == errno.EINVAL
        assert errno_of(f"call({known['keyctl']})", opened) == errno.EPERM


@pytest.mark.skipif(MACHINE not in ARCH, reason=f"no filter for {MACHINE}")
class TestProgramsRunUnderIt:
    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return filtered("os.execvp(sys.argv[2], sys.argv[2:])", frozenset(), *command)

    def test_bash_with_pipes_and_subshells(self) -> None:
        done = self.run("bash", "-c", "seq 1000 | sort -n | (tail -1; cat /etc/hostname >/dev/null) & wait")
        assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr

    def test_python_with_threads_processes_and_sockets(self) -> None:
        code = (
            "import asyncio, subprocess, threading, socket\n"
            "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
            "print(subprocess.run(['echo', 'child'], capture_output=True, text=True).stdout.strip())\n"
            "socket.socketpair(); socket.create_server(('127.0.0.1', 0))\n"
            "asyncio.run(asyncio.sleep(0))\n"
        )
        done = self.run(sys.executable, "-c", code)
        assert (done.returncode, done.stdout.split()) == (0, ["thread", "child"]), done.stderr

    def test_a_go_program(self, tmp_path: Path) -> None:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            pytest.skip("no go toolchain")
        source = tmp_path / "main.go"
        source.write_text(
            'package main\nimport ("fmt"; "os/exec"; "runtime")\nfunc main() {\n'
            'out, err := exec.Command("echo", "hello").Output(); done := make(chan bool)\n'
            "go func() { runtime.GC(); done <- true }(); <-done\nfmt.Print(string(out), err) }\n"
        )
        environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        environment["GOCACHE"] = str(tmp_path / "cache")
        program = tmp_path / "program"
        subprocess.run([go, "build", "-o", str(program), str(source)], env=environment, check=True, timeout=300)
        done = self.run(str(program))
        assert (done.returncode, done.stdout) == (0, "hello\n<nil>"), done.stderr


@pytest.mark.parametrize("machine", ARCH)
class TestTheProgramItself:
    def test_agrees_with_the_kernels_numbers(self, machine: str) -> None:
        known, program = numbers(machine), default_filter(machine=machine)
        names = SIGNIFICANT + (SIGNIFICANT_X86 if machine == "x86_64" else [])
        wrong = [name for name in names if verdict(program, ARCH[machine], known[name]) != refused(errno.EPERM)]
        assert wrong == []

    def test_lets_ordinary_calls_through(self, machine: str) -> None:
        known, program = numbers(machine), default_filter(machine=machine)
        ordinary = ("read", "write", "close", "openat", "mmap", "futex", "execve", "wait4", "chroot", "ptrace")
        wrong = [name for name in ordinary if verdict(program, ARCH[machine], known[name]) != ALLOW]
        assert wrong == []

    def test_refuses_no_call_that_its_table_does_not_name(self, machine: str) -> None:
        column = list(ARCH).index(machine)
        named = {pair[column] for pair in seccomp._DENIED.values()} | {435}
        program = default_filter(machine=machine)
        off = {n for n in range(470) if verdict(program, ARCH[machine], n, *[0] * 6) != ALLOW}
        assert off == {number for number in named if number is not None}

    def test_clone_with_threads_flags_passes_and_with_a_namespace_does_not(self, machine: str) -> None:
        clone, program = numbers(machine)["clone"], default_filter(machine=machine)
        # CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM|SETTLS|PARENT_SETTID|CHILD_CLEARTID, as a C library starts threads
        assert verdict(program, ARCH[machine], clone, 0x003D0F00) == ALLOW
        assert verdict(program, ARCH[machine], clone, 0x003D0F00 | 0x10000000) == refused(errno.EPERM)
        assert verdict(program, ARCH[machine], clone, 0x7E020000 | 17) == refused(errno.EPERM)

    def test_another_architectures_calls_end_the_process(self, machine: str) -> None:
        program = default_filter(machine=machine)
        others = [0x40000003, 0x40000028, *(arch for name, arch in ARCH.items() if name != machine)]
        assert {verdict(program, arch, 1) for arch in others} == {KILL_PROCESS}

    def test_x32_and_unknown_calls_do_not_exist(self, machine: str) -> None:
        program = default_filter(machine=machine)
        for number in (470, 1000, 0x40000000, 0x40000027, 0xFFFFFFFF):
            assert verdict(program, ARCH[machine], number) == refused(errno.ENOSYS)

    def test_allow_opens_exactly_what_it_names(self, machine: str) -> None:
        column = list(ARCH).index(machine)
        tight, loose = default_filter(machine=machine), default_filter(frozenset({"mount", "bpf"}), machine)
        opened = {n for n in range(500) if verdict(tight, ARCH[machine], n) != verdict(loose, ARCH[machine], n)}
        assert opened == {seccomp._DENIED["mount"][column], seccomp._DENIED["bpf"][column]}

    def test_allow_opens_calls_that_are_judged_by_argument(self, machine: str) -> None:
        known = numbers(machine)
        program = default_filter(frozenset({"clone", "socket", "personality"}), machine)
        assert verdict(program, ARCH[machine], known["clone"], 0x10000000) == ALLOW
        assert verdict(program, ARCH[machine], known["socket"], 40) == ALLOW
        assert verdict(program, ARCH[machine], known["personality"], 0x0040000) == ALLOW


def test_a_capability_opens_its_calls_as_docker_does() -> None:
    assert opened_by(["CAP_SYS_TIME", "SYS_BOOT"]) == {"clock_settime", "settimeofday", "reboot"}
    assert opened_by(["NET_BIND_SERVICE", "CHOWN"]) == frozenset()
    assert {"mount", "unshare", "setns", "clone3"} <= opened_by(["SYS_ADMIN"])


def test_a_machine_without_a_list_is_named() -> None:
    with pytest.raises(CgagentError, match="riscv64") as caught:
        default_filter(machine="riscv64")
    assert caught.value.exit_code == 125
