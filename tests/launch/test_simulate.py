"""`run --simulate`: unmodified programs, their threads and children stand in another cgroup layout; nothing binds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from launch.behaviour import CGAGENT, needs_root, needs_v1, run
from launch.leftovers import places, processes, soon
from launch.onlookers import RELEASES, go_program, java_class
from launch.test_host_cpus import needs_python, python, runner, shared, supervisor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from launch.behaviour import Result

__all__ = ["runner", "shared"]

LAYOUTS = ("docker", "kubernetes-cgroupfs", "kubernetes-systemd", "systemd-service", "nested")
MODES = ("v1", "v2", "hybrid")
MIB = 1 << 20


def bound_directory(mode: str, layout: str, namespace: str) -> bool:
    """Whether the container's own directory is what v1 mounts, so that the mount root is not `/` (facts: #76390)."""
    return mode != "v2" and layout != "systemd-service" and namespace == "host"


def parent_is_visible(mode: str, layout: str, namespace: str) -> bool:
    """A cgroup namespace hides what is above, and so does a bound directory."""
    return namespace == "host" and not bound_directory(mode, layout, namespace)


@pytest.mark.parametrize("namespace", ["private", "host"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
class TestEveryLayout:
    def test_explain_finds_its_limits(self, mode: str, layout: str, namespace: str) -> None:
        options = f"--simulate {mode} --layout {layout} --cgroupns {namespace} --host-cpus 64 --host-memory 256Gi"
        limits = "--cpus 3.5 --memory 512Mi --parent-cpus 1.2 --parent-memory 300Mi"
        done = run([*options.split(), *limits.split()], CGAGENT, "explain", "-o", "json")
        assert done.code == 0, done.stderr
        document = json.loads(done.stdout)
        visible = parent_is_visible(mode, layout, namespace)
        assert document["cgroup"]["mode"] == mode
        assert document["limits"]["cpu"]["cores"] == (1.2 if visible else 3.5)
        assert document["limits"]["cpu"]["allowed_cpus"] == 64
        # On v1 memory.stat tells of the parent's limit even where the parent is out of sight.
        assert document["limits"]["memory"]["bytes"] == (300 if visible or mode != "v2" else 512) * MIB
        assert [one for one in document["findings"] if one["level"] == "critical"] == []

    @pytest.mark.parametrize("version", RELEASES)
    def test_go_decides_as_its_source_says(self, mode: str, layout: str, namespace: str, version: str) -> None:
        """Go < 1.25: affinity alone. Later: min(CPUs, max(2, ceil(own quota))); 1.25 misses a bound directory."""
        expected = 4
        if version.startswith("1.24") or (version.startswith("1.25") and bound_directory(mode, layout, namespace)):
            expected = 64
        options = f"--simulate {mode} --layout {layout} --cgroupns {namespace} --host-cpus 64 --cpus 3.5"
        done = run([*options.split(), "--parent-cpus", "1"], go_program(version, False), "child")
        assert done.stdout == f"64 {expected}\n" * 2, done


@needs_python
class TestOnThisMachine:
    """Without --host-cpus: two or more CPUs, so that Go's minimum of 2 is what it says under half a CPU."""

    @pytest.mark.parametrize("cgo", [False, True], ids=["static", "cgo"])
    @pytest.mark.parametrize("version", ["1.26.6", "1.27.3"])
    def test_go_takes_two_under_half_a_cpu(
        self, runner: Callable[..., Result], version: str, cgo: bool, shared: str
    ) -> None:
        real = len(os.sched_getaffinity(0))
        program = shutil.copy(go_program(version, cgo), shared)
        done = runner("--simulate v2 --cpus 0.5", program, "child")
        assert done.stdout == f"{real} {min(real, 2)}\n" * 2, done

    def test_java_takes_the_quota(self, runner: Callable[..., Result], shared: str) -> None:
        shutil.copy(java_class(), shared)
        for mode in ("v1", "v2"):
            done = runner(f"--simulate {mode} --host-cpus 64 --cpus 7", "java", "-cp", shared, "Seen")
            assert done.stdout == "7\n", (mode, done)

    def test_the_cpus_are_real_and_the_supervisor_answers_nothing_about_them(
        self, runner: Callable[..., Result]
    ) -> None:
        assert runner("--simulate v2", "nproc").stdout == f"{len(os.sched_getaffinity(0))}\n"


OWN = "0::/\n"


@needs_python
class TestEveryProcess:
    """/proc/self, /proc/PID and /proc/thread-self, for whoever looks."""

    def test_children_and_grandchildren(self, runner: Callable[..., Result]) -> None:
        inner = "cat /proc/self/cgroup; cat /proc/thread-self/cgroup; true"
        script = f"cat /proc/self/cgroup; sh -c '{inner}'; cat /proc/$$/cgroup"
        assert runner("--simulate v2", "sh", "-c", script).stdout == OWN * 4

    def test_a_subshell_that_is_forked_and_never_execs(self, runner: Callable[..., Result]) -> None:
        script = "(read line < /proc/self/cgroup; echo $line); (read line < /proc/thread-self/cgroup; echo $line)"
        assert runner("--simulate v2", "sh", "-c", script).stdout == OWN * 2

    def test_threads_and_forks_of_python(self, runner: Callable[..., Result]) -> None:
        code = (
            "import os, threading\n"
            "def show():\n"
            "    for name in ('thread-self', 'self'):\n"
            "        print(open(f'/proc/{name}/cgroup').read(), end='', flush=True)\n"
            "thread = threading.Thread(target=show); thread.start(); thread.join()\n"
            "for _ in range(20):\n"
            "    if not os.fork(): show(); os._exit(0)\n"
            "    os.wait()\n"
        )
        assert runner("--simulate v2", *python(code)).stdout == OWN * 42

    def test_a_parent_reads_its_childs(self, runner: Callable[..., Result]) -> None:
        code = (
            "import subprocess\n"
            "child = subprocess.Popen(['sleep', '9.87'])\n"
            "print(open(f'/proc/{child.pid}/cgroup').read() + open(f'/proc/{child.pid}/mountinfo').read()[:10])\n"
            "child.kill()"
        )
        assert runner("--simulate v2", *python(code)).stdout == f"{OWN}500 400 0:\n"

    def test_pid_1(self, runner: Callable[..., Result]) -> None:
        assert runner("--simulate v2", "cat", "/proc/1/cgroup").stdout == OWN

    def test_mountinfo_shows_the_layouts_mounts_alone(self, runner: Callable[..., Result]) -> None:
        done = runner("--simulate v2", "sh", "-c", "cat /proc/self/mountinfo; cat /proc/self/mountinfo | wc -l")
        lines = done.stdout.splitlines()
        assert [line.split()[4] for line in lines[:-1]] == ["/", "/proc", "/dev", "/sys", "/sys/fs/cgroup"]
        assert lines[-1] == "5"

    def test_other_files_of_a_process_are_its_own(self, runner: Callable[..., Result]) -> None:
        code = "import os; print(os.readlink('/proc/self') == str(os.getpid()), os.readlink('/proc/self/exe') != '')"
        assert runner("--simulate v2", *python(code)).stdout == "True True\n"

    def test_process_numbers_are_used_again(self, runner: Callable[..., Result]) -> None:
        """A mount over a process's file goes with the process: none is left for a later one of the same number."""
        code = (
            "import subprocess\n"
            "seen = {subprocess.run(['cat', '/proc/self/cgroup'], capture_output=True).stdout for _ in range(50)}\n"
            "print(seen)"
        )
        assert runner("--simulate v2", *python(code)).stdout == "{b'0::/\\n'}\n"


STATFS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
buffer = (ctypes.c_ulong * 15)()
def told(call, *words):
    return hex(buffer[0]) if call(*words, buffer) == 0 else os.strerror(ctypes.get_errno())
"""
TMPFS, CGROUP, CGROUP2, PROC, SYSFS = 0x1021994, 0x27E0EB, 0x63677270, 0x9FA0, 0x62656572


@needs_python
class TestStatfs:
    """How .NET, Java, runc and containerd tell v2 from v1: of a path or an open file."""

    @pytest.mark.parametrize(
        ("mode", "types"),
        [
            (
                "v1",
                {
                    "/sys/fs/cgroup": TMPFS,
                    "/sys/fs/cgroup/cpu": CGROUP,
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes": CGROUP,
                },
            ),
            (
                "v2",
                {
                    "/sys/fs/cgroup": CGROUP2,
                    "/sys/fs/../fs/cgroup//cpu.max": CGROUP2,
                    "/proc": PROC,
                    "/sys": SYSFS,
                },
            ),
            ("hybrid", {"/sys/fs/cgroup/unified": CGROUP2, "/sys/fs/cgroup/pids": CGROUP}),
        ],
        ids=MODES,
    )
    def test_the_type_is_the_hierarchys(self, runner: Callable[..., Result], mode: str, types: dict[str, int]) -> None:
        code = (
            f"{STATFS}\n"
            f"for path in {list(types)}:\n"
            "    print(told(libc.statfs, path.encode()), told(libc.fstatfs, os.open(path, os.O_PATH)))"
        )
        done = runner(f"--simulate {mode}", *python(code))
        assert done.stdout.splitlines() == [f"{magic:#x} {magic:#x}" for magic in types.values()], done

    def test_errors_are_the_kernels(self, runner: Callable[..., Result]) -> None:
        outcomes = {
            "told(libc.statfs, b'/sys/fs/cgroup/none')": "No such file or directory",
            "told(libc.statfs, b'/sys/fs/cgroup/cpu.max/x')": "Not a directory",
            "told(libc.statfs, b'/' * 5000)": "File name too long",
            "told(libc.statfs, b'')": "No such file or directory",
            "told(libc.statfs, None)": "Bad address",
            "told(libc.fstatfs, 999)": "Bad file descriptor",
            "libc.statfs(b'/sys/fs/cgroup', None) and os.strerror(ctypes.get_errno())": "Bad address",
        }
        done = runner("--simulate v2", *python(f"{STATFS}\nprint({', '.join(outcomes)}, sep='\\n')"))
        assert done.stdout.splitlines() == list(outcomes.values()), done


class TestTexts:
    def cgroup(self, *options: str) -> dict[str, str]:
        lines = run(list(options), "cat", "/proc/self/cgroup").stdout.splitlines()
        return {line.split(":")[1]: line.split(":", 2)[2] for line in lines}

    def test_docker_on_v1_is_seen_from_the_host(self) -> None:
        found = self.cgroup("--simulate", "v1")
        assert set(found) >= {"cpu,cpuacct", "memory", "cpuset", "pids", "name=systemd"}
        assert all(path.startswith("/docker/") and len(path) == len("/docker/") + 64 for path in found.values())

    def test_docker_on_v2_has_a_namespace(self) -> None:
        assert self.cgroup("--simulate", "v2") == {"": "/"}

    @pytest.mark.parametrize(
        ("qos", "above"),
        [
            ("guaranteed", "/kubepods/pod"),
            ("burstable", "/kubepods/burstable/pod"),
            ("besteffort", "/kubepods/besteffort/pod"),
        ],
    )
    def test_the_cgroupfs_driver_has_a_directory_for_each_class_but_guaranteed(self, qos: str, above: str) -> None:
        found = self.cgroup("--simulate", "v1", "--layout", "kubernetes-cgroupfs", "--qos", qos)
        assert found["memory"].startswith(above)

    def test_the_systemd_driver_names_slices_after_their_parents(self) -> None:
        path = self.cgroup("--simulate", "v2", "--layout", "kubernetes-systemd", "--cgroupns", "host")[""]
        first, second, third, scope = path.split("/")[1:]
        assert (first, second) == ("kubepods.slice", "kubepods-burstable.slice")
        assert third.startswith("kubepods-burstable-pod")
        assert "-" not in third.removeprefix("kubepods-burstable-pod")
        assert scope.startswith("cri-containerd-")
        assert scope.endswith(".scope")

    def test_a_service_is_where_systemd_puts_it(self) -> None:
        assert self.cgroup("--simulate", "v2", "--layout", "systemd-service") == {"": "/system.slice/app.service"}

    def test_the_files_of_a_level_are_as_the_kernel_writes_them(self) -> None:
        script = "cd /sys/fs/cgroup; cat cpu.max memory.max memory.high pids.max cpuset.cpus.effective"
        options = (
            "--simulate v2 --host-cpus 8 --cpus 0.25 --memory 64Mi --memory-high 48Mi --pids 100 --cpuset-cpus 2-3"
        )
        done = run(options.split(), "sh", "-c", f"{script}; nproc")
        assert done.stdout == f"25000 100000\n{64 * MIB}\n{48 * MIB}\n100\n2-3\n2\n"

    def test_a_link_leads_to_v1s_joint_hierarchies(self) -> None:
        done = run(["--simulate", "v1", "--cpus", "2"], "cat", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        assert done.stdout == "200000\n"

    def test_proc_cgroups_tells_the_version(self) -> None:
        for mode, expected in (("v1", False), ("v2", True)):
            text = run(["--simulate", mode], "cat", "/proc/cgroups").stdout
            assert {line.split()[1] == "0" for line in text.splitlines()[1:]} == {expected}


class TestWhatBinds:
    def test_nothing_is_enforced(self) -> None:
        """Memory that the simulated limit would not allow is had."""
        code = "print(len(bytearray(200 << 20)) >> 20)"
        assert run(["--simulate", "v2", "--memory", "32Mi"], *python(code)).stdout == "200\n"

    @needs_root
    @needs_v1
    def test_enforce_makes_the_same_limits_bind(self) -> None:
        code = "print(len(bytearray(200 << 20)) >> 20)"
        done = run(["--simulate", "v2", "--memory", "32Mi", "--enforce"], *python(code))
        assert done.code == 137
        assert "OOM-killed" in done.stderr

    @needs_root
    @needs_v1
    @pytest.mark.parametrize(
        ("options", "quota", "memory"),
        [
            ("--parent-cpus 0.2 --parent-memory 64Mi", "0.2 CPUs", "64Mi"),
            ("--cpus 1.5 --memory 128Mi --parent-cpus 0.2 --parent-memory 64Mi", "0.2 CPUs", "64Mi"),
            ("--cpus 0.3 --memory 32Mi --parent-cpus 2 --parent-memory 64Mi", "0.3 CPUs", "32Mi"),
        ],
    )
    def test_enforce_makes_those_of_the_cgroup_above_bind_too(self, options: str, quota: str, memory: str) -> None:
        busy = ("timeout", "0.5", "sh", "-c", "while :; do :; done")  # or no period has passed
        done = run(["--simulate", "v2", "--enforce", "--stats", *options.split()], *busy)
        assert f"(quota {quota})" in done.stderr
        assert f" of {memory}\n" in done.stderr

    def test_go_env_decides_by_what_is_shown(self) -> None:
        options = "--simulate v2 --host-cpus 64 --cpus 5 --memory 100Mi --go-env"
        done = run(options.split(), "sh", "-c", "echo $GOMAXPROCS $GOMEMLIMIT")
        assert done.stdout == f"5 {100 * MIB * 9 // 10}\n"

    def test_nothing_can_be_written_there(self) -> None:
        script = "echo 1 > /sys/fs/cgroup/cpu.max || echo 1 > /proc/self/cgroup || umount /sys/fs/cgroup || echo no"
        assert run(["--simulate", "v2"], "sh", "-c", script).stdout == "no\n"

    def test_the_supervisors_death_ends_the_command_with_a_message(self) -> None:
        words = [CGAGENT, "run", "--simulate", "v2", "--", "sh", "-c", "echo up; kill -STOP $$ # 2345.6"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
            assert launcher.stdout is not None
            assert launcher.stdout.readline() == "up\n"
            os.kill(supervisor_of(launcher.pid), signal.SIGKILL)
            _, err = launcher.communicate(timeout=30)
        assert launcher.returncode == 128 + signal.SIGKILL
        assert err == (
            "cgagent run: the supervisor that answers for --simulate was killed by signal 9: "
            "the command is ended, as it would see this machine from here on\n"
        )
        assert not soon(lambda: processes("2345.6"))

    def test_nothing_is_left_behind(self, runner: Callable[..., Result]) -> None:
        before = places()
        assert runner("--simulate v1", "sh", "-c", ": left-7731").code == 0
        assert not soon(lambda: places() - before)
        assert not soon(lambda: processes("left-7731"))

    @pytest.mark.parametrize(
        "options", ["--no-init", "--share pid", "--share cgroup", "--net host", "--user 1000", "--tty"]
    )
    @needs_root
    def test_goes_with_other_options(self, options: str) -> None:
        done = run(["--simulate", "v2", *options.split()], "sh", "-c", "cat /proc/self/cgroup; true")
        assert (done.code, done.stdout.replace("\r", "")) == (0, OWN), done
