"""A running program that looks like Go's is read and proven; whatever is not understood is refused in one line.

The program is made by hand (support.go_program): no Go is needed. tests/live has real ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

from cgagent.golang.live import FOREIGN, GONE, LiveError, Program, Running
from cgagent.golang.live.errors import UNKNOWN
from cgagent.golang.live.image import FileImage
from cgagent.golang.live.locate import locate
from cgagent.golang.live.module import find_module
from support import go_program
from support.go_state import MIB, NO_LIMIT, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., str]

root = pytest.mark.skipif(os.geteuid() != 0, reason="another user's process takes root")


@pytest.fixture
def start(public: str) -> Iterator[Start]:
    """Make a program and start it; returns its PID."""
    with go_program.starter(public) as start:
        yield start


def running(pid: str) -> Running:
    with Program(pid) as program:
        return program.running()


def refused(pid: str) -> LiveError:
    with pytest.raises(LiveError) as caught:
        Program(pid).close()
    assert "\n" not in caught.value.line()
    return caught.value


def located(public: str, **changes: object) -> None:
    path = go_program.build(f"{public}/file", **changes)
    fd = os.open(path, os.O_RDONLY)
    try:
        locate(FileImage(fd))
    finally:
        os.close(fd)


def test_reads_what_the_runtime_holds(start: Start) -> None:
    found = running(start(controller=state(gc_percent=77, heap_minimum=4 * MIB * 77 // 100, memory_limit=90 * MIB)))
    assert (found.go_version, found.gomaxprocs, found.memory_limit, found.gogc) == ("go1.27.3", 7, 90 * MIB, 77)
    assert (found.heap_live, found.managed, found.outside_heap) == (20 * MIB, 30 * MIB, 4 * MIB)
    assert (found.gc_cycles, found.gc_cpu_seconds, found.cpu_seconds) == (5, 10e-9, 1000e-9)


def test_what_is_off_is_none(start: Start) -> None:
    off = state(gc_percent=-1, heap_minimum=4 * MIB * (2**64 - 1) % 2**64 // 100, percent_goal=2**64 - 1)
    found = running(start(controller=off))
    assert (found.memory_limit, found.gogc) == (None, None)


def test_values_are_read_anew_each_time(start: Start) -> None:
    pid = start(gomaxprocs=3)
    with Program(pid, write=True) as program:
        assert program.running().gomaxprocs == 3
        program.image.write_byte(go_program.GOMAXPROCS, 4)
        assert program.running().gomaxprocs == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gc_percent", 101),  # heapMinimum follows from it
        ("gc_percent", -2),
        ("memory_limit", NO_LIMIT + 1),
        ("heap_minimum", 4 * MIB + 1),
        ("percent_goal", 4 * MIB - 1),
        ("globals_scan", 0),
        ("globals_scan", 1 << 20),
        ("total_free", 100 * MIB + 1),
        ("total_alloc", 4096 * MIB),
        ("free", 4096 * MIB),
        ("mapped_ready", 1 << 60),
        ("heap_marked", 1 << 60),
        ("test", 1),
    ],
)
def test_a_state_that_breaks_an_invariant_is_refused(start: Start, field: str, value: int) -> None:
    error = refused(start(controller=state(**{field: value})))
    assert "contradicts itself" in error.message


def test_cpu_time_whose_sums_do_not_agree_is_left_out(start: Start) -> None:
    found = running(start(cpu_stats=(1, 2, 3, 4, 11, 5, 6, 11, 100, 879, 1000)))
    assert (found.gc_cycles, found.gc_cpu_seconds, found.cpu_seconds) == (None, None, None)
    assert found.gomaxprocs == 7


@pytest.mark.parametrize("procs", [0, -1, 1 << 30])
def test_a_gomaxprocs_that_can_be_none_is_left_out(start: Start, procs: int) -> None:
    assert running(start(gomaxprocs=procs)).gomaxprocs is None


def test_too_few_calls_name_the_state(public: str) -> None:
    located(public, votes=10)
    with pytest.raises(LiveError, match="9 calls name 1 places"):
        located(public, votes=9)


def test_one_call_that_names_another_place_is_enough_to_refuse(public: str) -> None:
    located(public, votes=11, dissent=go_program.CONTROLLER)
    with pytest.raises(LiveError, match="12 calls name 2 places"):
        located(public, votes=11, dissent=go_program.CONTROLLER + 0x70)


def test_two_programs_in_one_are_refused(public: str) -> None:
    with pytest.raises(LiveError, match="2 Go programs"):
        located(public, modules=2)


def test_a_function_table_without_its_moduledata_is_refused(start: Start) -> None:
    error = refused(start(modules=0))
    assert error.kind != FOREIGN
    assert "moduledata" in error.message


@pytest.mark.parametrize("magic", [0xFFFFFFF0, 0xFFFFFFFB, 0x12345678])
def test_a_function_table_of_another_kind_is_refused(start: Start, magic: int) -> None:
    """Go before 1.20, and garble, which makes up a magic of its own."""
    assert "no function table" in refused(start(magic=magic)).message


@pytest.mark.parametrize("version", ["go1.20.14", "go1.28.0", "go1.99rc1", "devel +abc", "go2.1"])
def test_a_version_that_was_not_tried_is_refused(start: Start, version: str) -> None:
    error = refused(start(version=version))
    assert error.kind == UNKNOWN
    assert error.message == f"built by {version}: Go 1.21 to 1.27 are understood"


@pytest.mark.parametrize("version", ["go1.21.0", "go1.24.11", "go1.27rc2", "go1.25.1 X:nodwarf5"])
def test_every_version_in_between_is_read(start: Start, version: str) -> None:
    assert running(start(version=version)).go_version == version


@pytest.mark.parametrize("compiler", ["gccgo", "tinygo"])
def test_another_compilers_program_is_refused(start: Start, compiler: str) -> None:
    error = refused(start(text=f"path\tmain\nbuild\t-compiler={compiler}\n"))
    assert error.message == f"built by {compiler}: only programs of Go's own compiler are understood"


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [(4, 1, "32-bit"), (5, 2, "big-endian"), (18, 243, "machine 243"), (0, 0, "no program")],
)
def test_another_machines_program_is_refused(public: str, at: int, value: int, why: str) -> None:
    image = bytearray(go_program.image(go_program.Made()))
    image[at] = value
    if at == 4:  # a 32-bit header that is sound: no program headers at all
        image[42:48] = bytes(6)
    if at == 5:
        image[18:20], image[54:58], image[32:40] = b"\0\x16", b"\0\x38\0\0", bytes(8)
    path = f"{public}/other"
    with open(path, "wb") as file:
        file.write(image)
    with open(path, "rb") as file, pytest.raises(LiveError, match=why):
        FileImage(file.fileno())


def test_programs_that_are_not_gos_are_no_go_programs() -> None:
    for command in (["sleep", "60"], ["sh", "-c", "sleep 60; true"], ["python3", "-c", "input()"]):
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            assert refused(str(process.pid)).kind == FOREIGN
        finally:
            process.kill()
            process.communicate()


def test_files_that_are_not_gos_hold_no_go_program() -> None:
    for name in ("sh", "ls", "python3", "gcc"):
        path = shutil.which(name)
        if path is not None:
            with open(path, "rb") as file, pytest.raises(LiveError) as caught:
                find_module(FileImage(file.fileno()))
            assert caught.value.kind == FOREIGN


def test_there_is_no_such_process() -> None:
    error = refused("4194304")
    assert (error.kind, error.message) == (GONE, "there is no process 4194304")


def test_after_the_process_has_ended_nothing_is_read_or_written(start: Start, public: str) -> None:
    process = go_program.start(go_program.build(f"{public}/short"))
    program = Program(str(process.pid), write=True)
    try:
        process.kill()
        process.wait()
        with pytest.raises(LiveError) as caught:
            program.running()
        assert caught.value.kind == GONE
        with pytest.raises(LiveError) as caught:
            program.image.write_byte(go_program.GOMAXPROCS, 1)
        assert caught.value.kind == GONE
    finally:
        program.close()
    start()


def test_another_program_of_that_pid_is_neither_read_nor_written(public: str) -> None:
    """execve(2) keeps the PID: the first program's memory is gone, and the second one's is never touched."""
    first, second = (go_program.build(f"{public}/{name}", gomaxprocs=n) for name, n in (("first", 1), ("second", 2)))
    # A shell that waits becomes the second program; before, it is no Go program at all.
    process = subprocess.Popen(["sh", "-c", f"read line; exec {second}"], stdin=subprocess.PIPE)
    try:
        assert refused(str(process.pid)).kind == FOREIGN
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while os.readlink(f"/proc/{process.pid}/exe") != second:
            assert time.monotonic() < deadline
        assert running(str(process.pid)).gomaxprocs == 2
    finally:
        process.kill()
        process.communicate()
    assert os.path.exists(first)


@root
def test_another_users_process_is_refused_with_the_reason(start: Start) -> None:
    line = _as_user(65534, start())
    assert "may not be looked into: it runs as user 0, cgagent as 65534: run with the same user" in line


@root
def test_the_same_user_may_look_without_any_capability(public: str) -> None:
    path = go_program.build(f"{public}/nobodys")
    process = subprocess.Popen([path], user=65534, group=65534, extra_groups=[])
    try:
        assert _as_user(65534, str(process.pid)) == "7"
    finally:
        process.kill()
        process.wait()


@root
def test_a_process_that_is_not_dumpable_is_refused_with_the_reason() -> None:
    script = "import ctypes; ctypes.CDLL(None).prctl(4, 0); print(flush=True); input()"
    words = ["python3", "-c", script]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, user=65534, group=65534, extra_groups=[], stdin=pipe, stdout=pipe)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert "it is not dumpable" in _as_user(65534, str(process.pid))
    finally:
        process.kill()
        process.communicate()


def _as_user(uid: int, pid: str) -> str:
    """What a look at `pid` says to a user who has no capability: GOMAXPROCS, or the error's line."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                text = str(running(pid).gomaxprocs)
            except LiveError as error:
                text = error.line()
            os.write(writer, text.encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text
