"""`run --host-cpus` and `--host-memory`: unmodified programs see another machine; all else is as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from launch.behaviour import CGAGENT, V1, Result, needs_root, needs_v1, run
from launch.leftovers import cgroups, places, processes, soon
from launch.onlookers import RELEASES, go_program, java_class
from launch.test_behaviour_rootless import as_user, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNTS = (1, 3, 64, 200)
GI = 1 << 30
REAL = len(os.sched_getaffinity(0))
PYTHON = "/usr/bin/python3"  # one that every user may run

needs_python = pytest.mark.skipif(not os.path.exists(PYTHON), reason=f"no {PYTHON}")


def as_root(options: str, *command: str) -> Result:
    return run(options.split(), *command)


def as_nobody(options: str, *command: str) -> Result:
    if refusal():
        pytest.skip(f"no user namespaces for an ordinary user: {refusal()}")
    done = as_user([CGAGENT, "run", *options.split(), "--", *command])
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(params=["root", "rootless"])
def runner(request: pytest.FixtureRequest) -> Callable[..., Result]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    return as_root if request.param == "root" else as_nobody


@pytest.fixture
def shared() -> Iterator[str]:
    """A directory that every user may read; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as place:
        os.chmod(place, 0o755)
        yield place


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-I", "-S", "-c", code)


@needs_python
@pytest.mark.parametrize("count", COUNTS)
class TestEveryRuntimeSeesTheCpus:
    def test_nproc(self, runner: Callable[..., Result], count: int) -> None:
        done = runner(f"--host-cpus {count}", "sh", "-c", "nproc; nproc --all; sh -c 'nproc'")
        assert (done.code, done.stdout) == (0, f"{count}\n" * 3), done.stderr

    def test_python_its_threads_and_its_forked_children(self, runner: Callable[..., Result], count: int) -> None:
        code = (
            "import os, sys, threading\n"
            "seen = lambda: print(os.cpu_count(), len(os.sched_getaffinity(0)), flush=True)\n"
            "seen()\n"
            "thread = threading.Thread(target=seen); thread.start(); thread.join()\n"
            "if not os.fork(): seen(); os._exit(0)\n"
            "os.wait()\n"
        )
        done = runner(f"--host-cpus {count}", *python(code))
        assert (done.code, done.stdout) == (0, f"{count} {count}\n" * 3), done.stderr

    @pytest.mark.parametrize("cgo", [False, True], ids=["static", "cgo"])
    @pytest.mark.parametrize("version", RELEASES)
    def test_go_and_its_children(
        self, runner: Callable[..., Result], version: str, cgo: bool, count: int, shared: str
    ) -> None:
        program = shutil.copy(go_program(version, cgo), shared)
        done = runner(f"--host-cpus {count}", program, "child")
        assert (done.code, done.stdout) == (0, f"{count} {count}\n" * 2), done.stderr

    def test_java(self, runner: Callable[..., Result], count: int, shared: str) -> None:
        shutil.copy(java_class(), shared)
        done = runner(f"--host-cpus {count}", "java", "-Xshare:auto", "-cp", shared, "Seen")
        assert (done.code, done.stdout) == (0, f"{count}\n"), done.stderr

    def test_files_of_proc_and_sys(self, runner: Callable[..., Result], count: int) -> None:
        script = (
            "grep -c '^processor' /proc/cpuinfo; grep -c '^cpu[0-9]' /proc/stat; cd /sys/devices/system/cpu; "
            "cat online possible present; ls -d cpu[0-9]* | wc -l; cat cpu0/topology/core_siblings_list"
        )
        every = f"0-{count - 1}" if count > 1 else "0"
        done = runner(f"--host-cpus {count}", "sh", "-c", script)
        assert done.stdout.split() == [str(count)] * 2 + [every] * 3 + [str(count), every], done

    def test_cgagent_itself(self, count: int) -> None:
        done = run(["--host-cpus", str(count)], CGAGENT, "explain", "-o", "json")
        assert f'"allowed_cpus": {count}' in done.stdout, done


@needs_root
@needs_v1
class TestWithRealLimits:
    def test_go_1_24_starts_on_all_cpus_under_a_real_quota(self) -> None:
        script = f"{go_program('1.24.11', False)}; cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
        done = run(["--host-cpus", "64", "--cpus", "1.5"], "sh", "-c", script)
        assert done.stdout == "64 64\n150000\n", done

    @pytest.mark.parametrize(("cpus", "procs"), [("1.5", 2), ("5", 5), ("100", 64)])
    def test_go_env_decides_for_the_machine_that_is_shown(self, cpus: str, procs: int) -> None:
        done = run(["--host-cpus", "64", "--cpus", cpus, "--go-env"], go_program("1.24.11", False))
        assert done.stdout == f"64 {procs}\n", done

    def test_a_cpuset_is_what_remains_of_the_cpus_shown(self) -> None:
        script = "nproc; nproc --all; cat /sys/fs/cgroup/cpuset/cpuset.cpus"
        done = run(["--host-cpus", "64", "--cpuset-cpus", "0"], "sh", "-c", script)
        assert done.stdout == "1\n64\n0\n", done

    def test_the_cpuset_of_the_shown_machine_is_whole(self) -> None:
        done = run(["--host-cpus", "64"], "cat", "/sys/fs/cgroup/cpuset/cpuset.cpus")
        assert done.stdout == "0-63\n", done


@needs_python
class TestAffinity:
    """sched_setaffinity(2) and getcpu(2) as a kernel of that machine would answer them."""

    def test_a_narrower_mask_is_kept_over_exec_and_given_to_children(self, runner: Callable[..., Result]) -> None:
        done = runner("--host-cpus 200", "taskset", "-c", "3-7,150", "sh", "-c", "nproc; taskset -cp $$")
        assert done.stdout.split("\n")[0] == "6", done
        assert done.stdout.rstrip().endswith("3-7,150"), done

    def test_a_thread_has_a_mask_of_its_own(self, runner: Callable[..., Result]) -> None:
        code = (
            "import os, threading\n"
            "def pin():\n"
            "    os.sched_setaffinity(0, {9}); print(os.sched_getaffinity(0))\n"
            "thread = threading.Thread(target=pin); thread.start(); thread.join()\n"
            "print(len(os.sched_getaffinity(0)), len(os.sched_getaffinity(os.getpid())))"
        )
        assert runner("--host-cpus 64", *python(code)).stdout == "{9}\n64 64\n"

    @needs_root
    def test_a_process_in_a_pid_namespace_made_inside_knows_its_own_threads(self) -> None:
        code = (
            "import os, threading\n"
            "def pin(): os.sched_setaffinity(threading.get_native_id(), {9})\n"
            "thread = threading.Thread(target=pin); thread.start(); thread.join()\n"
            "os.sched_setaffinity(os.getpid(), {7, 8})\n"
            "print(os.getpid(), os.sched_getaffinity(0), os.sched_getaffinity(os.getpid()))"
        )
        done = run(["--privileged", "--host-cpus", "64"], "unshare", "--pid", "--fork", *python(code))
        assert done.stdout == "1 {8, 7} {8, 7}\n", done

    @pytest.mark.parametrize(
        ("call", "outcome"),
        [
            ("os.sched_setaffinity(0, {64})", "EINVAL"),
            ("os.sched_setaffinity(0, {63, 64})", "{63}"),
            ("os.sched_setaffinity(999999, {1})", "ESRCH"),
            ("os.sched_getaffinity(999999)", "ESRCH"),
            ("libc.sched_getaffinity(0, 4, buffer) and fail()", "EINVAL"),
            ("libc.sched_getaffinity(0, 12, buffer) and fail()", "EINVAL"),
            ("libc.sched_getaffinity(0, 128, None) and fail()", "EFAULT"),
            ("libc.sched_setaffinity(0, 128, 1) and fail()", "EFAULT"),
        ],
    )
    def test_errors_are_the_kernels(self, runner: Callable[..., Result], call: str, outcome: str) -> None:
        code = (
            "import ctypes, errno, os\n"
            "libc = ctypes.CDLL(None, use_errno=True); buffer = ctypes.create_string_buffer(128)\n"
            "def fail(): raise OSError(ctypes.get_errno(), '')\n"
            f"try: {call}\n"
            "except OSError as error: print(errno.errorcode[error.errno])\n"
            "else: print(os.sched_getaffinity(0))"
        )
        assert runner("--host-cpus 64", *python(code)).stdout == f"{outcome}\n"

    @pytest.mark.skipif(os.uname().machine != "x86_64", reason="the call's number is x86_64's")
    def test_getcpu_names_a_cpu_of_the_callers_mask(self, runner: Callable[..., Result]) -> None:
        code = (
            "import ctypes, os\n"
            "libc = ctypes.CDLL(None); cpu = ctypes.c_uint(7777); node = ctypes.c_uint(7777)\n"
            "os.sched_setaffinity(0, {40, 41})\n"
            "print(libc.syscall(309, ctypes.byref(cpu), ctypes.byref(node), None), cpu.value, node.value)"
        )
        assert runner("--host-cpus 64", *python(code)).stdout == "0 40 0\n"

    @pytest.mark.skipif(REAL < 2, reason="one CPU here")
    def test_fewer_cpus_than_there_are_hold_for_what_the_vdso_tells_too(self) -> None:
        code = (
            "import ctypes, time\n"
            "libc = ctypes.CDLL(None); end = time.time() + 0.3; seen = set()\n"
            "while time.time() < end: seen.add(libc.sched_getcpu())\n"
            "print(seen)"
        )
        assert run(["--host-cpus", "1"], *python(code)).stdout == "{0}\n"


@needs_python
class TestHostMemory:
    def test_meminfo_sysconf_and_sysinfo_agree(self, runner: Callable[..., Result]) -> None:
        code = (
            "import os\n"
            "print(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))\n"
            "print(int(open('/proc/meminfo').readline().split()[1]) * 1024)\n"
        )
        assert runner("--host-memory 512Gi", *python(code)).stdout == f"{512 * GI}\n" * 2

    def test_less_memory_than_here_leaves_a_meminfo_that_adds_up(self) -> None:
        done = run(["--host-memory", "1Gi"], "cat", "/proc/meminfo")
        numbers = {line.split(":")[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
        assert numbers["MemTotal"] == 1 << 20
        parts = ("MemFree", "MemAvailable", "Buffers", "Cached", "Active", "Inactive", "Slab")
        assert all(0 <= numbers[name] <= numbers["MemTotal"] for name in parts)

    def test_free_shows_it_and_the_load_stays_real(self) -> None:
        done = run(["--host-memory", "300Gi"], "sh", "-c", "free -g | grep Mem; uptime")
        assert done.stdout.split()[1] == "300", done
        assert "load average" in done.stdout

    def test_cpus_are_left_alone(self) -> None:
        assert run(["--host-memory", "300Gi"], "nproc").stdout == f"{REAL}\n"


class TestTheSupervisor:
    @pytest.fixture
    def started(self) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """A launcher whose command waits, with no exec on its way to that, and its supervisor's PID."""
        words = [CGAGENT, "run", "--host-cpus", "64", "--", "sh", "-c", "nproc; kill -STOP $$; nproc # 1234.5"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
            assert launcher.stdout is not None
            assert launcher.stdout.readline() == "64\n"
            yield launcher, supervisor_of(launcher.pid)
            launcher.kill()

    def test_its_death_ends_the_command_with_a_message(self, started: tuple[subprocess.Popen[str], int]) -> None:
        launcher, supervisor = started
        os.kill(supervisor, signal.SIGKILL)
        out, err = launcher.communicate(timeout=30)
        assert launcher.returncode == 128 + signal.SIGKILL
        assert out == ""
        assert err == (
            "cgagent run: the supervisor that answers for --host-cpus was killed by signal 9: "
            "the command is ended, as it would see this machine from here on\n"
        )

    def test_is_not_ended_by_signals_that_end_others(self, started: tuple[subprocess.Popen[str], int]) -> None:
        launcher, supervisor = started
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(supervisor, number)
        time.sleep(0.2)
        assert launcher.poll() is None

    def test_ends_with_a_launcher_that_is_killed(self, started: tuple[subprocess.Popen[str], int]) -> None:
        launcher, supervisor = started
        launcher.kill()
        launcher.wait()
        assert not soon(lambda: os.path.exists(f"/proc/{supervisor}"))
        assert not soon(lambda: processes("1234.5"))

    @pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
    @pytest.mark.parametrize("options", ["--host-cpus 1", "--simulate v2 --host-cpus 1"])
    @pytest.mark.parametrize(
        ("call", "line"),
        [
            ("seccomp", "cannot set up the container: seccomp listener: operation not permitted"),
            ("open_tree", "cannot set up the container: bind dev/shm/0 on proc/cpuinfo: operation not permitted"),
            ("move_mount", "cannot set up the container: bind dev/shm/0 on proc/cpuinfo: operation not permitted"),
            ("sched_setaffinity", "cannot set up the container: sched_setaffinity: operation not permitted"),
            ("sendmsg", "the supervisor cannot start: operation not permitted"),
            ("recvmsg", "the supervisor cannot start: broken pipe"),
            ("sendto", "the supervisor cannot start: it has ended"),
            ("recvfrom", "the supervisor cannot start: operation not permitted"),
        ],
    )
    def test_a_call_of_its_set_up_that_fails_is_one_line_and_never_a_wait(
        self, options: str, call: str, line: str
    ) -> None:
        if call == "sched_setaffinity" and REAL < 2:
            pytest.skip("one CPU here")
        words = ["strace", "-f", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:error=EPERM"]
        done = subprocess.run(
            [*words, CGAGENT, "run", *options.split(), "--", "nproc"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # A supervisor that ended at once closes the socket before or after the command has written to it.
        told = done.stderr.replace("it has ended", "broken pipe") if call == "recvmsg" else done.stderr
        assert (done.returncode, done.stdout, told) == (125, "", f"cgagent run: {line}\n")

    def test_callers_that_are_killed_while_they_wait_do_not_end_it(self) -> None:
        code = (
            "import os, time\n"
            "def ask():\n"
            "    pid = os.fork()\n"
            "    while pid == 0: os.sched_getaffinity(0)\n"
            "    return pid\n"
            "for turn in range(200):\n"
            "    pids = [ask() for _ in range(4)]\n"
            "    time.sleep(turn % 10 / 1000)\n"
            "    for pid in pids: os.kill(pid, 9)\n"
            "    for pid in pids: os.waitpid(pid, 0)\n"
            "print('all killed')"
        )
        done = run(["--host-cpus", "64"], *python(code))
        assert (done.code, done.stdout, done.stderr) == (0, "all killed\n", "")

    def test_a_thread_that_ends_while_it_is_asked_about_is_not_there(self) -> None:
        code = (
            "import os, signal, time\n"
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
            "end, gone = time.time() + 2, 0\n"
            "while time.time() < end:\n"
            "    pid = os.fork()\n"
            "    if pid == 0: os._exit(0)\n"
            "    try:\n"
            "        while True: os.sched_setaffinity(pid, {1})\n"
            "    except ProcessLookupError: gone += 1\n"
            "print(gone > 0)"
        )
        assert run(["--host-cpus", "64"], *python(code)).stdout == "True\n"

    def test_the_command_cannot_see_it(self) -> None:
        done = run(["--host-cpus", "64"], "sh", "-c", "echo /proc/[0-9]*")
        assert done.stdout == "/proc/1 /proc/2\n", "PID 1 and the shell"

    def test_the_command_has_no_file_of_it(self) -> None:
        done = run(["--host-cpus", "64", "--preserve-fds", "40"], "ls", "-l", "/proc/self/fd")
        assert "seccomp" not in done.stdout

    def test_nothing_is_left_behind(self) -> None:
        before = places()
        words = [CGAGENT, "run", "--host-cpus", "64", "--host-memory", "1Ti", "--", "sh", "-c", "nproc; exit 3"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as launcher:
            assert launcher.wait() == 3
        assert not soon(lambda: places() - before)
        assert not V1 or not cgroups({launcher.pid})
        assert not soon(lambda: processes("--host-memory\0" + "1Ti"))

    def test_no_new_privileges_and_dockers_filter_stay(self, runner: Callable[..., Result]) -> None:
        done = runner("--host-cpus 4", "grep", "-E", "^(NoNewPrivs|Seccomp|Seccomp_filters):", "/proc/self/status")
        assert done.stdout.split() == ["NoNewPrivs:", "1", "Seccomp:", "2", "Seccomp_filters:", "2"]

    @pytest.mark.parametrize(
        "options",
        [
            "--no-init",
            "--share pid",
            "--share user",
            "--share cgroup",
            "--privileged",
            "--user 1000",
            "--security-opt no-new-privileges=false --user 1000",
            "--read-only",
            "--net host",
            "--tty",
        ],
    )
    @needs_root
    def test_goes_with_other_options(self, options: str) -> None:
        done = run(["--host-cpus", "77", *options.split()], "nproc")
        assert (done.code, done.stdout.strip()) == (0, "77"), done

    @needs_root
    def test_one_inside_another_is_refused(self) -> None:
        inner = ["run", "--share", "pid", "--net", "host", "--host-cpus", "3", "--", "nproc"]
        done = run(["--host-cpus", "64", "--privileged"], CGAGENT, *inner)
        assert (done.code, done.stdout) == (125, "")
        assert done.stderr == (
            "cgagent run: --host-cpus inside a supervised container is refused: start it outside of the other one\n"
        )

    def test_a_plain_run_loads_none_of_it(self) -> None:
        code = (
            "import os, sys; from cgagent.cli import main\n"
            "os._exit = lambda code: print([name for name in sys.modules if 'shown' in name])\n"
            "main(['run', '--', 'true'])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.endswith("[]\n"), done


def supervisor_of(launcher: int) -> int:
    """The child of the launcher that holds the listener."""
    with open(f"/proc/{launcher}/task/{launcher}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    for child in children:
        for name in os.listdir(f"/proc/{child}/fd"):
            try:
                if "seccomp notify" in os.readlink(f"/proc/{child}/fd/{name}"):
                    return child
            except OSError:
                continue
    raise AssertionError("no supervisor")


@pytest.fixture
def mounted_namespace() -> Iterator[str]:
    """A network namespace mounted on this machine, as Docker and `ip netns` leave theirs."""
    name = f"cgagent-test-{os.getpid()}"
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield f"/run/netns/{name}"
    subprocess.run(["ip", "netns", "del", name], check=True)


@needs_root
@pytest.mark.usefixtures("mounted_namespace")
class TestNamespaceThatIsMountedOnTheHost:
    """Go since 1.26 sees no quota where one stands before the cgroups in mountinfo; in a container none does."""

    @pytest.mark.parametrize("release", ["1.26.6", "1.27.3"])
    @pytest.mark.parametrize("options", ["", "--read-only", "--volume /tmp:/run/lock", "--tmpfs /run", "--no-init"])
    def test_does_not_hide_the_quota(self, release: str, options: str) -> None:
        done = as_root(f"--host-cpus 64 --cpus 3 {options}", go_program(release, cgo=False))
        assert (done.code, done.stdout.split()) == (0, ["64", "3"]), done.stderr

    def test_is_still_there(self, mounted_namespace: str) -> None:
        done = as_root("--cpus 3", "grep", "-c", f" {mounted_namespace} ", "/proc/self/mountinfo")
        assert (done.code, done.stdout) == (0, "1\n")

    def test_may_be_where_mountinfo_escapes_the_name(self) -> None:
        place = f"/tmp/cgagent-test-{os.getpid()} a\tb"
        count = 'grep -c " - nsfs " /proc/self/mountinfo'  # container engines have some mounted too
        script = f'touch "$0/ns" && mount --bind /proc/self/ns/uts "$0/ns" && {count} && exec "$@"'
        os.mkdir(place)
        try:
            words = ["unshare", "-m", "sh", "-c", script, place, CGAGENT, "run", "--", "cat", "/proc/self/mountinfo"]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        finally:
            shutil.rmtree(place)
        mounted, *lines = done.stdout.splitlines()
        kinds = [line.partition(" - ")[2].split(" ")[0] for line in lines]
        assert (done.returncode, done.stderr) == (0, "")
        assert kinds.count("nsfs") == int(mounted) >= 1
        assert kinds.index("nsfs") > max(at for at, kind in enumerate(kinds) if kind.startswith("cgroup"))

    @needs_v1
    @pytest.mark.parametrize("release", ["1.25.0", "1.26.6", "1.27.3"])
    def test_where_it_does_go_takes_what_explain_foretells(self, release: str) -> None:
        program = go_program(release, cgo=False)
        script = (
            "mount --bind /sys/fs/cgroup/cpu /mnt && umount /sys/fs/cgroup/cpu && "
            f"mount --bind /mnt /sys/fs/cgroup/cpu && umount /mnt && {program} && "
            f"{CGAGENT} explain --binary {program} -o json"
        )
        done = as_root("--host-cpus 64 --cpus 3 --privileged", "sh", "-c", script)
        seen, _, document = done.stdout.partition("\n")
        foretold = json.loads(document)["go"]["by_itself"]["GOMAXPROCS"]["value"]
        assert (done.code, int(seen.split()[1]), foretold) == (0, *((3, 3) if release == "1.25.0" else (64, 64)))
