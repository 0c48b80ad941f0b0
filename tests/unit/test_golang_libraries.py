"""automaxprocs and automemlimit in a program: what each version of them sees and sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cgagent.cgroup.reading import read_limits
from cgagent.golang.buildinfo import BuildInfo
from cgagent.golang.expected import RUNTIME
from cgagent.golang.libraries import AUTOMAXPROCS, AUTOMEMLIMIT
from cgagent.golang.modinfo import Dependency, Modules
from cgagent.golang.runtime import NO_MEMORY_LIMIT, Prediction, predict
from cgagent.host import Host
from support.trees import V2_MOUNT, build, machine, v2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cgagent.cgroup.limits import Limits

MIB = 1 << 20
V1_MOUNTS = (
    "30 21 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "31 21 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
UNIFIED = "32 21 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def with_library(
    name: str, version: str, limits: Limits, environment: Mapping[str, str] | None = None, go: str = "go1.27.3"
) -> Prediction:
    modules = Modules()
    modules.dependencies = [Dependency("example.com/other", "v1.0.0"), Dependency(name, version, "h1:x=")]
    return predict(BuildInfo(go, modules), limits, environment or {})


def limits_of(root: Path, files: Mapping[str, str]) -> Limits:
    return read_limits(Host(build(root, files)))


def on_v2(root: Path, files: Mapping[str, str], path: str = "/app") -> Limits:
    return limits_of(root, v2(files, path, cpus="0-7"))


def on_v1(root: Path, files: Mapping[str, str], more_mounts: str = "", more_lines: str = "") -> Limits:
    tree = machine(f"4:memory:/app\n3:cpu,cpuacct:/app\n{more_lines}", V1_MOUNTS + more_mounts, cpus="0-7")
    tree.update({f"/sys/fs/cgroup{name}": text for name, text in files.items()})
    return limits_of(root, tree)


def quota_v1(micros: int) -> dict[str, str]:
    return {"/cpu/app/cpu.cfs_quota_us": f"{micros}\n", "/cpu/app/cpu.cfs_period_us": "100000\n"}


class TestAutomaxprocs:
    @pytest.mark.parametrize(("micros", "value"), [(50000, 1), (100000, 1), (250000, 2), (399999, 3), (1600000, 16)])
    def test_sets_the_floor_of_the_quota_and_follows_nothing(self, tmp_path: Path, micros: int, value: int) -> None:
        limits = on_v2(tmp_path, {"/app/cpu.max": f"{micros} 100000\n"})
        expected = with_library(AUTOMAXPROCS, "v1.6.0", limits).gomaxprocs
        # Not bounded by the machine's CPUs: runtime.GOMAXPROCS(n) takes any n.
        assert (expected.value, expected.setter, expected.follows) == (value, AUTOMAXPROCS, False)
        assert f"{AUTOMAXPROCS} v1.6.0" in expected.reason

    def test_leaves_the_runtimes_where_there_is_no_quota(self, tmp_path: Path) -> None:
        limits = on_v2(tmp_path, {"/app/cpu.max": "max 100000\n", "/cpu.max": "200000 100000\n"})
        expected = with_library(AUTOMAXPROCS, "v1.6.0", limits).gomaxprocs
        assert (expected.value, expected.setter, expected.follows) == (8, RUNTIME, True)

    @pytest.mark.parametrize("text", ["", "0", "5"])
    def test_does_nothing_where_the_variable_is_there_at_all(self, tmp_path: Path, text: str) -> None:
        limits = on_v2(tmp_path, {"/app/cpu.max": "350000 100000\n"})
        expected = with_library(AUTOMAXPROCS, "v1.6.0", limits, {"GOMAXPROCS": text}).gomaxprocs
        assert expected.setter != AUTOMAXPROCS

    @pytest.mark.parametrize(("version", "value"), [("v1.3.0", 3), ("v1.4.0", 3), ("v1.5.1", 3), ("v1.6.0", 3)])
    def test_reads_v1_in_every_version(self, tmp_path: Path, version: str, value: int) -> None:
        expected = with_library(AUTOMAXPROCS, version, on_v1(tmp_path, quota_v1(350000))).gomaxprocs
        assert (expected.value, expected.setter) == (value, AUTOMAXPROCS)

    @pytest.mark.parametrize(
        ("version", "value", "setter"),
        [
            ("v1.4.0", 4, RUNTIME),  # knows no v2: Go's own ceil of 3.5
            ("v1.5.1", 6, AUTOMAXPROCS),  # reads the quota of the mount's root
            ("v1.5.2", 3, AUTOMAXPROCS),
            ("v0.0.0-20240101000000-abcdefabcdef", 3, AUTOMAXPROCS),  # an untagged commit: as the newest
        ],
    )
    def test_learned_v2_version_by_version(self, tmp_path: Path, version: str, value: int, setter: str) -> None:
        limits = on_v2(tmp_path, {"/app/cpu.max": "350000 100000\n", "/cpu.max": "600000 100000\n"})
        expected = with_library(AUTOMAXPROCS, version, limits).gomaxprocs
        assert (expected.value, expected.setter) == (value, setter)

    def test_does_not_find_v2_mounted_beside_v1(self, tmp_path: Path) -> None:
        tree = machine("0::/app\n", UNIFIED, cpus="0-7")
        tree["/sys/fs/cgroup/unified/app/cpu.max"] = "350000 100000\n"
        expected = with_library(AUTOMAXPROCS, "v1.6.0", limits_of(tmp_path, tree)).gomaxprocs
        assert (expected.value, expected.setter) == (4, RUNTIME)

    def test_takes_v2_at_sys_fs_cgroup_for_all_there_is(self, tmp_path: Path) -> None:
        limits = on_v1(tmp_path, {**quota_v1(350000), "/app/cgroup.procs": ""}, V2_MOUNT, "0::/app\n")
        assert with_library(AUTOMAXPROCS, "v1.6.0", limits).gomaxprocs.setter == RUNTIME

    def test_is_named_with_its_version_and_what_it_does_not_do(self, tmp_path: Path) -> None:
        limits = on_v2(tmp_path, {"/app/cpu.max": "350000 100000\n"})
        (library,) = with_library(AUTOMAXPROCS, "v1.5.1", limits).libraries
        assert str(library) == "go.uber.org/automaxprocs v1.5.1"
        assert library.sets == "GOMAXPROCS"
        assert any("no ancestor's" in note for note in library.notes)
        assert any("1.5.2" in note for note in library.notes)

    def test_a_fork_in_its_place_counts_by_the_forks_version(self, tmp_path: Path) -> None:
        modules = Modules()
        fork = Dependency("example.com/fork", "v1.5.0", "h1:y=")
        modules.dependencies = [Dependency(AUTOMAXPROCS, "v1.6.0", "", fork)]
        limits = on_v2(tmp_path, {"/app/cpu.max": "350000 100000\n"})
        (library,) = predict(BuildInfo("go1.27.3", modules), limits, {}).libraries
        assert library.version == "v1.5.0"

    def test_a_module_whose_name_only_starts_alike_is_another(self, tmp_path: Path) -> None:
        limits = on_v2(tmp_path, {"/app/cpu.max": "350000 100000\n"})
        assert with_library(AUTOMAXPROCS + "x", "v1.6.0", limits).libraries == ()


V2_MEMORY = {
    "/app/memory.max": f"{400 * MIB}\n",
    "/app/memory.high": f"{100 * MIB}\n",
    "/memory.max": f"{200 * MIB}\n",
}
# 400 MiB of its own, below an ancestor of 200 MiB that hierarchical_memory_limit tells of.
V1_MEMORY = {
    "/memory/app/memory.limit_in_bytes": f"{400 * MIB}\n",
    "/memory/app/memory.stat": f"cache 0\nhierarchical_memory_limit {200 * MIB}\n",
    "/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "/memory/memory.stat": "cache 0\nhierarchical_memory_limit 9223372036854771712\n",
}


class TestAutomemlimit:
    @pytest.mark.parametrize(
        ("version", "mib"),
        [("v0.6.1", 400), ("v0.7.4", 400), ("v0.7.5", 200), ("v1.0.0", 200), ("v1.0.1", 200)],
    )
    def test_takes_nine_tenths_and_since_0_7_5_heeds_ancestors_on_v2(
        self, tmp_path: Path, version: str, mib: int
    ) -> None:
        expected = with_library(AUTOMEMLIMIT, version, on_v2(tmp_path, V2_MEMORY)).gomemlimit
        assert (expected.value, expected.setter, expected.follows) == (mib * MIB * 9 // 10, AUTOMEMLIMIT, False)

    @pytest.mark.parametrize(
        ("version", "mib"),
        [
            ("v0.7.0", 400),  # looks for memory.stats, and so misses the ancestor's
            ("v0.7.3", 400),
            ("v0.7.4", 200),
            ("v1.0.0", 200),
        ],
    )
    def test_heeds_ancestors_on_v1_but_for_a_typing_error(self, tmp_path: Path, version: str, mib: int) -> None:
        expected = with_library(AUTOMEMLIMIT, version, on_v1(tmp_path, V1_MEMORY)).gomemlimit
        assert expected.value == mib * MIB * 9 // 10

    def test_before_0_7_reads_what_is_mounted_on_v1(self, tmp_path: Path) -> None:
        assert with_library(AUTOMEMLIMIT, "v0.6.1", on_v1(tmp_path, V1_MEMORY)).gomemlimit.value == NO_MEMORY_LIMIT

    def test_before_0_5_takes_v1s_unlimited_for_a_limit(self, tmp_path: Path) -> None:
        # uint64(float64(9223372036854771712) * 0.9), as v0.2.6 set it on a machine without limits
        expected = with_library(AUTOMEMLIMIT, "v0.4.0", on_v1(tmp_path, V1_MEMORY)).gomemlimit
        assert expected.value == 8301034833169294336

    @pytest.mark.parametrize(("version", "mib"), [("v0.2.5", None), ("v0.2.6", 300), ("v0.7.4", 200)])
    def test_knows_v1_and_v2_together_since_0_2_6(self, tmp_path: Path, version: str, mib: int | None) -> None:
        files = dict(V1_MEMORY)
        files["/memory/memory.stat"] = f"cache 0\nhierarchical_memory_limit {300 * MIB}\n"
        files["/unified/app/cgroup.procs"] = ""
        limits = on_v1(tmp_path, files, UNIFIED, "0::/app\n")
        expected = with_library(AUTOMEMLIMIT, version, limits).gomemlimit
        assert expected.value == (NO_MEMORY_LIMIT if mib is None else mib * MIB * 9 // 10)

    @pytest.mark.parametrize(
        ("ratio", "value"),
        [
            ("0.5", 100 * MIB),
            ("1", 200 * MIB),
            ("1.0", 200 * MIB),
            ("off", None),
            ("0", None),
            ("1.1", None),
            ("-0.5", None),
            ("nan", None),
            ("90%", None),
            ("", None),
        ],
    )
    def test_takes_its_share_from_the_environment(self, tmp_path: Path, ratio: str, value: int | None) -> None:
        limits = on_v2(tmp_path, V2_MEMORY)
        expected = with_library(AUTOMEMLIMIT, "v0.7.5", limits, {"AUTOMEMLIMIT": ratio}).gomemlimit
        assert expected.value == (NO_MEMORY_LIMIT if value is None else value)

    def test_computes_the_share_in_floating_point_as_go_does(self, tmp_path: Path) -> None:
        # float64(1000000001) * 0.9 is 900000000.9000001, and 2^53+1 is rounded before the product.
        for limit, value in ((1_000_000_001, 900_000_000), (2**53 + 1, int(float(2**53) * 0.9))):
            limits = on_v2(tmp_path, {"/app/memory.max": f"{limit}\n"})
            assert with_library(AUTOMEMLIMIT, "v0.7.5", limits).gomemlimit.value == value

    @pytest.mark.parametrize("text", ["", "1GiB"])
    def test_does_nothing_where_the_variable_is_there_at_all(self, tmp_path: Path, text: str) -> None:
        limits = on_v2(tmp_path, V2_MEMORY)
        assert with_library(AUTOMEMLIMIT, "v1.0.0", limits, {"GOMEMLIMIT": text}).gomemlimit.setter != AUTOMEMLIMIT

    def test_takes_a_limit_above_the_machines_memory_at_its_word(self, tmp_path: Path) -> None:
        limits = on_v2(tmp_path, {"/app/memory.max": f"{1 << 40}\n"})
        assert limits.memory.bytes is None
        assert with_library(AUTOMEMLIMIT, "v1.0.0", limits).gomemlimit.value == (1 << 40) * 9 // 10

    @pytest.mark.parametrize(
        ("version", "words", "silent"),
        [
            ("v0.2.5", ["0.2.6", "0.7.5"], ["0.7.4", "1.0.0"]),
            ("v0.7.3", ["0.7.4", "0.7.5"], ["0.2.6", "1.0.0"]),
            ("v0.7.5", [], ["0.2.6", "0.7.4", "0.7.5", "1.0.0"]),
            ("v1.0.1", ["1.0.0"], ["0.2.6", "0.7.4", "0.7.5"]),
        ],
    )
    def test_notes_name_the_version_that_mended_it(
        self, tmp_path: Path, version: str, words: list[str], silent: list[str]
    ) -> None:
        (library,) = with_library(AUTOMEMLIMIT, version, on_v2(tmp_path, V2_MEMORY)).libraries
        text = " ".join(library.notes)
        assert [word for word in words + silent if word in text] == words


def test_both_libraries_are_found_in_one_program(tmp_path: Path) -> None:
    modules = Modules()
    modules.dependencies = [Dependency(AUTOMEMLIMIT, "v0.7.4"), Dependency(AUTOMAXPROCS, "v1.6.0")]
    found = predict(BuildInfo("go1.27.3", modules), on_v2(tmp_path, V2_MEMORY), {}).libraries
    assert [library.sets for library in found] == ["GOMAXPROCS", "GOMEMLIMIT"]
