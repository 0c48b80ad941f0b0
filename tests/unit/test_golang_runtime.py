"""What a Go program does by itself, by Go's own rules (runtime/proc.go, runtime/cgroup_linux.go)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cgagent.cgroup.reading import read_limits
from cgagent.given import Amount, GivenLimits, apply_given
from cgagent.golang.buildinfo import BuildInfo
from cgagent.golang.expected import ENVIRONMENT, RUNTIME
from cgagent.golang.modinfo import Modules
from cgagent.golang.runtime import NO_MEMORY_LIMIT, predict
from cgagent.host import Host
from support.trees import build, machine, v2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cgagent.cgroup.limits import Limits
    from cgagent.golang.expected import Expected

# What cmd/go writes for a main module whose go.mod says less than 1.25.
OLD_GO_LINE = "asynctimerchan=1,containermaxprocs=0,updatemaxprocs=0,x509sha256skid=0"
V1_DOCKER = "30 21 0:25 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_HOST = "30 21 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"


def program(version: str, **settings: str) -> BuildInfo:
    modules = Modules()
    modules.settings = {key.replace("_", "-"): value for key, value in settings.items()}
    return BuildInfo(version, modules)


def procs(info: BuildInfo, limits: Limits, environment: Mapping[str, str] | None = None) -> Expected:
    return predict(info, limits, environment or {}).gomaxprocs


def on_v2(root: Path, cpu_max: str, cpus: str = "0-7", above: str = "max 100000\n") -> Limits:
    """A process in /app of a v2 machine with `cpu_max` in its own cgroup and `above` in its parent."""
    tree = v2({"/app/cpu.max": cpu_max, "/cpu.max": above}, "/app", cpus=cpus)
    tree["/sys/devices/system/cpu/online"] = "0-7\n"
    return read_limits(Host(build(root, tree)))


def on_v1(root: Path, mounts: str, directory: str, path: str, quota: int) -> Limits:
    """A process in `path` of a v1 cpu hierarchy; its files are in `directory`."""
    files = machine(f"3:cpu,cpuacct:{path}\n", mounts, cpus="0-7")
    files[f"{directory}/cpu.cfs_quota_us"] = f"{quota}\n"
    files[f"{directory}/cpu.cfs_period_us"] = "100000\n"
    return read_limits(Host(build(root, files)))


class TestQuota:
    @pytest.mark.parametrize(
        ("cpu_max", "cpus", "value"),
        [
            ("50000 100000\n", "0-7", 2),  # 0.5
            ("100000 100000\n", "0-7", 2),  # 1
            ("150000 100000\n", "0-7", 2),  # 1.5
            ("250000 100000\n", "0-7", 3),  # 2.5
            ("300000 100000\n", "0-7", 3),  # 3
            ("300001 100000\n", "0-7", 4),
            ("1600000 100000\n", "0-7", 8),  # more than there are CPUs
            ("50000 100000\n", "0", 1),  # one CPU: the least of 2 does not raise it
            ("max 100000\n", "0-7", 8),
        ],
    )
    def test_since_1_25_is_rounded_up_to_at_least_2_and_at_most_the_cpus(
        self, tmp_path: Path, cpu_max: str, cpus: str, value: int
    ) -> None:
        expected = procs(program("go1.25.0"), on_v2(tmp_path, cpu_max, cpus))
        assert (expected.value, expected.setter, expected.follows) == (value, RUNTIME, True)

    def test_before_1_25_is_not_read(self, tmp_path: Path) -> None:
        expected = procs(program("go1.24.11"), on_v2(tmp_path, "100000 100000\n"))
        assert (expected.value, expected.follows) == (8, False)

    def test_of_an_ancestor_is_not_read(self, tmp_path: Path) -> None:
        limits = on_v2(tmp_path, "max 100000\n", above="300000 100000\n")
        assert limits.cpu.cores == 3
        assert procs(program("go1.27.3"), limits).value == 8

    def test_that_its_own_cgroup_has_no_file_for_is_never_followed(self, tmp_path: Path) -> None:
        tree = v2({"/app/cgroup.procs": "", "/cpu.max": "300000 100000\n"}, "/app", cpus="0-7")
        expected = procs(program("go1.27.3"), read_limits(Host(build(tmp_path, tree))))
        assert (expected.value, expected.follows) == (8, False)

    def test_without_any_mount_is_not_read(self, tmp_path: Path) -> None:
        limits = read_limits(Host(build(tmp_path, machine("3:cpu:/app\n", "", cpus="0-7"))))
        expected = procs(program("go1.27.3"), limits)
        assert (expected.value, expected.follows) == (8, False)

    def test_that_is_malformed_is_not_guessed(self, tmp_path: Path) -> None:
        expected = procs(program("go1.27.3"), on_v2(tmp_path, "many\n"))
        assert expected.value is None
        assert "malformed" in expected.reason

    def test_given_from_outside_is_that_of_the_containers_own_cgroup(self, tmp_path: Path) -> None:
        limits = on_v2(tmp_path, "max 100000\n")
        apply_given(limits, GivenLimits(Amount(2500, "2500m", "--cpu-limit"), None, "auto", trust=False))
        assert procs(program("go1.27.3"), limits).value == 3


class TestMountRoot:
    """Docker and Kubernetes on v1: the mount's root is the container's cgroup (golang/go#76390)."""

    def docker(self, root: Path) -> Limits:
        return on_v1(root, V1_DOCKER, "/sys/fs/cgroup/cpu", "/docker/abc", 300000)

    def test_go_1_25_misses_the_quota(self, tmp_path: Path) -> None:
        expected = procs(program("go1.25.5"), self.docker(tmp_path))
        assert (expected.value, expected.follows) == (8, False)
        assert "Go 1.26" in expected.reason

    def test_go_1_26_sees_it(self, tmp_path: Path) -> None:
        expected = procs(program("go1.26.0"), self.docker(tmp_path))
        assert (expected.value, expected.follows) == (3, True)

    def test_go_1_25_sees_it_where_the_whole_hierarchy_is_mounted(self, tmp_path: Path) -> None:
        limits = on_v1(tmp_path, V1_HOST, "/sys/fs/cgroup/cpu/docker/abc", "/docker/abc", 300000)
        assert procs(program("go1.25.5"), limits).value == 3

    def test_go_1_25_sees_it_in_a_cgroup_namespace(self, tmp_path: Path) -> None:
        limits = on_v1(tmp_path, V1_HOST, "/sys/fs/cgroup/cpu", "/", 300000)
        assert procs(program("go1.25.5"), limits).value == 3


class TestNamespaceThatIsMounted:
    """Go since 1.26 takes mountinfo for malformed at a root that is no path (parseCPUMount), 1.25 does not look."""

    MOUNTED = "29 21 0:4 net:[4026532177] /run/netns/a rw - nsfs nsfs rw\n"

    @pytest.mark.parametrize(("version", "value"), [("go1.25.5", 2), ("go1.26.0", 8), ("go1.27.3", 8)])
    def test_before_the_cgroup_hides_the_quota(self, tmp_path: Path, version: str, value: int) -> None:
        limits = on_v1(tmp_path, self.MOUNTED + V1_HOST, "/sys/fs/cgroup/cpu/docker/abc", "/docker/abc", 100000)
        expected = procs(program(version), limits)
        assert (expected.value, expected.follows) == (value, value == 2)

    def test_is_named(self, tmp_path: Path) -> None:
        limits = on_v1(tmp_path, self.MOUNTED + V1_HOST, "/sys/fs/cgroup/cpu/docker/abc", "/docker/abc", 100000)
        assert "net:[4026532177]" in procs(program("go1.27.3"), limits).reason

    def test_behind_the_cgroup_does_no_harm(self, tmp_path: Path) -> None:
        limits = on_v1(tmp_path, V1_HOST + self.MOUNTED, "/sys/fs/cgroup/cpu/docker/abc", "/docker/abc", 100000)
        assert procs(program("go1.27.3"), limits).value == 2


class TestGodebug:
    @pytest.mark.parametrize(
        ("default", "environment", "value", "follows"),
        [
            ("", "", 3, True),
            (OLD_GO_LINE, "", 8, False),
            (OLD_GO_LINE, "containermaxprocs=1", 3, False),
            (OLD_GO_LINE, "containermaxprocs=1,updatemaxprocs=1", 3, True),
            ("", "containermaxprocs=0", 8, False),
            ("", "updatemaxprocs=0", 3, False),
            ("", "containermaxprocs=0,containermaxprocs=1", 3, True),  # the last one counts
            ("", "containermaxprocs=-1", 8, False),  # the runtime asks for more than 0
            ("", "updatemaxprocs=-1", 3, True),  # and here for anything but 0
            ("", "containermaxprocs=off,containermaxprocs,=0,,http2debug=0", 3, True),
        ],
    )
    def test_gates_reading_and_following(
        self, tmp_path: Path, default: str, environment: str, value: int, follows: bool
    ) -> None:
        info = program("go1.25.0", DefaultGODEBUG=default) if default else program("go1.25.0")
        expected = procs(info, on_v2(tmp_path, "300000 100000\n"), {"GODEBUG": environment} if environment else {})
        assert (expected.value, expected.follows) == (value, follows)

    def test_reason_names_where_it_is_set(self, tmp_path: Path) -> None:
        limits = on_v2(tmp_path, "300000 100000\n")
        by_build = procs(program("go1.25.0", DefaultGODEBUG=OLD_GO_LINE), limits)
        assert by_build.reason.endswith("containermaxprocs=0 in DefaultGODEBUG of its build")
        by_environment = procs(program("go1.25.0"), limits, {"GODEBUG": "updatemaxprocs=0"})
        assert by_environment.reason.endswith("updatemaxprocs=0 in GODEBUG of its environment")


class TestEnvironment:
    @pytest.mark.parametrize("text", ["1", "7", "64", "007"])
    def test_gomaxprocs_is_taken_and_nothing_is_followed(self, tmp_path: Path, text: str) -> None:
        expected = procs(program("go1.27.3"), on_v2(tmp_path, "300000 100000\n"), {"GOMAXPROCS": text})
        assert (expected.value, expected.setter, expected.follows) == (int(text), ENVIRONMENT, False)

    @pytest.mark.parametrize("text", ["", "0", "-1", "four", "4.0", " 4", "2147483648", "9" * 5000])
    def test_gomaxprocs_that_go_takes_for_unset_changes_nothing(self, tmp_path: Path, text: str) -> None:
        expected = procs(program("go1.27.3"), on_v2(tmp_path, "300000 100000\n"), {"GOMAXPROCS": text})
        assert (expected.value, expected.setter, expected.follows) == (3, RUNTIME, True)


class TestUnknownRuntimes:
    def test_another_compiler_is_not_known(self, tmp_path: Path) -> None:
        limits = on_v2(tmp_path, "300000 100000\n")
        assert procs(program("go1.18 gccgo (GCC) 13.2", _compiler="gccgo"), limits).value is None

    def test_a_version_without_a_number_is_not_known(self, tmp_path: Path) -> None:
        assert procs(program("devel +abcdef"), on_v2(tmp_path, "300000 100000\n")).value is None

    def test_cpus_that_are_not_known_make_no_number(self, tmp_path: Path) -> None:
        files = v2({"/app/cpu.max": "300000 100000\n"}, "/app")
        del files["/proc/self/status"]
        assert procs(program("go1.27.3"), read_limits(Host(build(tmp_path, files)))).value is None


class TestMemoryLimit:
    def memory(self, root: Path, environment: Mapping[str, str], version: str = "go1.27.3") -> Expected:
        files = v2({"/app/memory.max": "104857600\n"}, "/app")
        return predict(program(version), read_limits(Host(build(root, files))), environment).gomemlimit

    def test_is_never_set_by_go_itself(self, tmp_path: Path) -> None:
        expected = self.memory(tmp_path, {})
        assert (expected.value, expected.setter, expected.follows) == (NO_MEMORY_LIMIT, RUNTIME, False)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("94371840", 94371840),
            ("0", 0),
            ("1B", 1),
            ("1KiB", 1024),
            ("90MiB", 90 << 20),
            ("2GiB", 2 << 30),
            ("1TiB", 1 << 40),
            ("off", NO_MEMORY_LIMIT),
            ("9223372036854775807", NO_MEMORY_LIMIT),
        ],
    )
    def test_of_the_environment_is_read_in_gos_syntax(self, tmp_path: Path, text: str, value: int) -> None:
        expected = self.memory(tmp_path, {"GOMEMLIMIT": text})
        assert (expected.value, expected.setter) == (value, ENVIRONMENT)

    @pytest.mark.parametrize(
        "text", ["-1", "1M", "90Mi", "90 MiB", "1.5GiB", "1PiB", "iB", "B", "Off", "9223372036854775808", "8388608TiB"]
    )
    def test_that_go_refuses_ends_the_program(self, tmp_path: Path, text: str) -> None:
        expected = self.memory(tmp_path, {"GOMEMLIMIT": text})
        assert expected.value is None
        assert expected.reason == f"GOMEMLIMIT '{text}' is malformed: the program ends at its start"

    def test_empty_is_unset(self, tmp_path: Path) -> None:
        assert self.memory(tmp_path, {"GOMEMLIMIT": ""}).setter == RUNTIME

    def test_is_not_there_before_1_19(self, tmp_path: Path) -> None:
        assert self.memory(tmp_path, {"GOMEMLIMIT": "1GiB"}, "go1.18.10").value is None
