"""`run --replay`: a capture is shown to unmodified programs, and gives them what it gave where it was taken."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cgagent.capture import Capture, Meta
from cgagent.capture.archive import pack
from cgagent.capture.captured import CapturedHost
from cgagent.cgroup.reading import read_limits
from cgagent.golang import buildinfo
from cgagent.golang.runtime import predict
from gallery.entries import ENTRIES
from launch.behaviour import CGAGENT, needs_root, needs_v1, run
from launch.onlookers import RELEASES, go_program
from launch.test_host_cpus import runner, shared
from launch.test_run_leftovers import directories

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from launch.behaviour import Result

__all__ = ["runner", "shared"]


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[str], str]:
    """A capture of the gallery as a file."""

    def write(name: str, directory: str = "") -> str:
        path = os.path.join(directory or str(tmp_path), f"{name}.tar.gz")
        with open(path, "wb") as file:
            file.write(pack(ENTRIES[name].capture))
        os.chmod(path, 0o644)
        return path

    return write


@pytest.mark.parametrize("name", ENTRIES)
class TestTheGallery:
    def test_explain_says_there_what_it_says_of_the_capture(self, archive: Callable[[str], str], name: str) -> None:
        path = archive(name)
        inside = run(["--replay", path], CGAGENT, "explain", "-o", "json")
        assert inside.code in (0, 3), inside.stderr
        told = subprocess.run(
            [CGAGENT, "explain", "--root", path, "-o", "json"], capture_output=True, text=True, check=True
        )
        original, seen = json.loads(told.stdout.replace(f"{path}:", "").replace(path, "/")), json.loads(inside.stdout)
        original.pop("capture", None)  # when and where it was taken
        if original["limits"]["cpu"]["affinity"] is None:
            del original["limits"]["cpu"]["affinity"], seen["limits"]["cpu"]["affinity"]  # inside there always is one
        assert seen == original

    @pytest.mark.parametrize("version", RELEASES)
    def test_go_takes_what_its_source_makes_of_the_layout(
        self, archive: Callable[[str], str], name: str, version: str
    ) -> None:
        path, program = archive(name), go_program(version, False)
        info = buildinfo.read(program)
        assert info is not None
        expected = predict(info, read_limits(CapturedHost(ENTRIES[name].capture, path)), {})
        done = run(["--replay", path], program, "child")
        assert done.code == 0, done.stderr
        for line in done.stdout.splitlines():
            assert int(line.split()[1]) == expected.gomaxprocs.value, (line, expected.gomaxprocs)
        assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("name", ["docker-v1-node-of-64", "kubernetes-cgroupfs-v2"])
@pytest.mark.parametrize("version", RELEASES)
def test_go_with_cgo_takes_the_same(archive: Callable[[str], str], name: str, version: str) -> None:
    path = archive(name)
    static, dynamic = (run(["--replay", path], go_program(version, cgo), "child") for cgo in (False, True))
    assert dynamic == static
    assert static.code == 0, static.stderr


class TestTheFilesOfTheCapture:
    def test_a_link_leads_to_v1s_joint_hierarchies(self, archive: Callable[[str], str]) -> None:
        """systemd and runc make them, and older programs know no other path."""
        script = "cat cpu/cpu.cfs_quota_us cpu,cpuacct/cpu.cfs_quota_us cpuacct/cpuacct.usage"
        done = run(["--replay", archive("docker-v1-node-of-64")], "sh", "-c", f"cd /sys/fs/cgroup; {script}")
        assert done.stdout == "250000\n250000\n95310000000\n", done

    @pytest.mark.parametrize(
        ("name", "places"),
        [
            ("docker-v2", {"/sys/fs/cgroup": "cgroup2fs", "/sys/fs/cgroup/cpu.max": "cgroup2fs"}),
            ("docker-v1", {"/sys/fs/cgroup": "tmpfs", "/sys/fs/cgroup/cpu": "cgroupfs"}),
            ("hybrid-node-of-64", {"/sys/fs/cgroup/unified": "cgroup2fs", "/sys/fs/cgroup/memory": "cgroupfs"}),
            ("gvisor", {"/sys/fs/cgroup": "tmpfs"}),
        ],
    )
    def test_statfs_tells_the_version(
        self, runner: Callable[..., Result], archive: Callable[..., str], shared: str, name: str, places: dict[str, str]
    ) -> None:
        done = runner(f"--replay {archive(name, shared)}", "stat", "-f", "-c", "%T", *places)
        assert done.stdout.split() == list(places.values()), done


class TestTheMachineOfTheCapture:
    def test_its_cpus_and_memory_are_shown(
        self, runner: Callable[..., Result], archive: Callable[..., str], shared: str
    ) -> None:
        path = archive("docker-v1-node-of-64", shared)
        total = ENTRIES["docker-v1-node-of-64"].capture.meta.memory_total
        done = runner(
            f"--replay {path}",
            "sh",
            "-c",
            "nproc; grep MemTotal /proc/meminfo; sh -c 'cat /proc/self/cgroup' | tail -1",
        )
        lines = done.stdout.splitlines()
        assert lines[0] == "64"
        assert int(lines[1].split()[1]) * 1024 == total
        assert "/docker/" in lines[2]

    def test_options_come_before_it(self, archive: Callable[..., str]) -> None:
        path = archive("docker-v1-node-of-64")
        code = "nproc; cat /sys/devices/system/cpu/online /sys/devices/system/cpu/possible; head -1 /proc/meminfo"
        done = run(["--replay", path, "--host-cpus", "5", "--host-memory", "7Gi"], "sh", "-c", code)
        assert done.stdout.split()[:5] == ["5", "0-4", "0-4", "MemTotal:", str(7 << 20)]

    def test_a_static_cpu_managers_mask(self, archive: Callable[..., str]) -> None:
        entry = ENTRIES["kubernetes-static-cpus"]
        assert run(["--replay", archive("kubernetes-static-cpus")], "nproc").stdout == f"{entry.allowed}\n"

    def test_an_unpacked_capture_serves_as_well(self, archive: Callable[..., str], tmp_path: Path) -> None:
        path = archive("docker-v2")
        place = tmp_path / "unpacked"
        place.mkdir()
        subprocess.run(["tar", "xzf", path, "-C", str(place)], check=True)
        script = ["sh", "-c", "cat /sys/fs/cgroup/cpu.max; nproc"]
        assert run(["--replay", str(place)], *script) == run(["--replay", path], *script)


@needs_root
@needs_v1
class TestEnforce:
    def test_its_limits_are_real_ones(self, archive: Callable[..., str]) -> None:
        path, entry = archive("kubernetes-pod-level"), ENTRIES["kubernetes-pod-level"]
        words = [CGAGENT, "run", "--replay", path, "--enforce", "--", "sh", "-c", "echo up; sleep 31.7"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as launcher:
            assert launcher.stdout is not None
            assert launcher.stdout.readline() == "up\n"
            found = directories(launcher.pid)
            quota = _number(found, "cpu.cfs_quota_us") / _number(found, "cpu.cfs_period_us")
            memory = _number(found, "memory.limit_in_bytes")
            launcher.terminate()
        assert (quota, memory) == (entry.cores, entry.memory)

    def test_a_limit_that_cannot_be_known_is_refused(self, tmp_path: Path) -> None:
        files = dict(ENTRIES["docker-v2"].capture.files)
        for name, says in (
            ("cpu.max", "expected a whole number, got 'many'"),
            ("memory.max", "expected a whole number, got 'many'"),
            ("pids.max", "expected a whole number, got 'many'"),
        ):
            capture = Capture(Meta(), files | {f"/sys/fs/cgroup/{name}": b"many\n"})
            path = tmp_path / f"{name}.tar.gz"
            path.write_bytes(pack(capture))
            done = run(["--replay", str(path), "--enforce"], "true")
            assert (done.code, done.stdout) == (125, "")
            assert done.stderr.startswith("cgagent run: ")
            assert f"{name} is malformed: {says}" in done.stderr
            assert done.stderr.count("\n") == 1

    def test_without_it_there_are_none(self, archive: Callable[..., str]) -> None:
        words = [CGAGENT, "run", "--replay", archive("kubernetes-pod-level"), "--", "sh", "-c", "echo up; sleep 31.7"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as launcher:
            assert launcher.stdout is not None
            assert launcher.stdout.readline() == "up\n"
            assert _number(directories(launcher.pid), "cpu.cfs_quota_us") == -1
            launcher.terminate()


def _number(places: list[str], name: str) -> int:
    """The number in the one file `name` of a container's cgroups."""
    for place in places:
        path = os.path.join(place, name)
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                return int(file.read())
    raise AssertionError(f"no {name} in {places}")


class TestACaptureThatCannotBeShown:
    def test_a_machine_of_more_cpus_than_a_mask_holds(self, tmp_path: Path) -> None:
        files = {"/proc/self/cgroup": b"0::/\n", "/sys/devices/system/cpu/online": b"0-2047\n"}
        capture = Capture(Meta(), files)
        capture.meta.learn(capture)
        path = tmp_path / "large.tar.gz"
        path.write_bytes(pack(capture))
        done = run(["--replay", str(path)], "true")
        assert (done.code, done.stdout) == (125, "")
        assert done.stderr == (
            f"cgagent run: --replay: {path} is of a machine of 2048 CPUs: give --host-cpus 1024 or fewer\n"
        )
        assert run(["--replay", str(path), "--host-cpus", "1024"], "nproc").stdout == "1024\n"

    def test_an_online_list_that_is_none_leaves_this_machines_cpus(self, tmp_path: Path) -> None:
        files = {"/proc/self/cgroup": b"0::/\n", "/sys/devices/system/cpu/online": b"many\n"}
        path = tmp_path / "odd.tar.gz"
        path.write_bytes(pack(Capture(Meta(), files)))
        assert run(["--replay", str(path)], "nproc").stdout == f"{len(os.sched_getaffinity(0))}\n"

    def test_a_mask_that_has_none_of_its_cpus(self, tmp_path: Path) -> None:
        files = {"/proc/self/status": b"Cpus_allowed_list:\t900\n", "/sys/devices/system/cpu/online": b"0-3\n"}
        capture = Capture(Meta(), {**files, "/proc/self/cgroup": b"0::/\n"})
        capture.meta.learn(capture)
        path = tmp_path / "strange.tar.gz"
        path.write_bytes(pack(capture))
        assert run(["--replay", str(path)], "nproc").stdout == "4\n"
