"""What the words of `cgagent run` come to: limits as cgroup files on v1 and v2, capabilities, volumes, variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cgagent.cli import parser_of
from cgagent.launch.bounds import Ulimit
from cgagent.launch.capabilities import ALL, DEFAULT, chosen, mask
from cgagent.launch.resources import Resources, v1_files, v2_files
from cgagent.launch.spec import Spec

if TYPE_CHECKING:
    from pathlib import Path


def spec(words: str = "", environ: dict[str, str] | None = None) -> Spec:
    arguments = parser_of("run").parse([*words.split(), "--", "true"])
    assert arguments is not None
    return Spec(arguments, environ or {})


def v1(words: str, controller: str) -> dict[str, str]:
    return dict(v1_files(spec(words).resources, controller))


def v2(words: str, controller: str) -> dict[str, str]:
    return dict(v2_files(spec(words).resources, controller))


class TestCpu:
    def test_cpus_are_a_quota_in_the_usual_period(self) -> None:
        assert v1("--cpus 1.5", "cpu") == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}
        assert v2("--cpus 1500m", "cpu") == {"cpu.max": "150000 100000"}

    def test_the_least_quota_of_one_millisecond_stays_in_the_usual_period(self) -> None:
        assert v2("--cpus 0.01", "cpu") == {"cpu.max": "1000 100000"}

    def test_less_than_a_hundredth_of_a_cpu_takes_the_longest_period(self) -> None:
        assert v2("--cpus 0.005", "cpu") == {"cpu.max": "5000 1000000"}

    def test_quota_and_period_are_taken_as_they_are(self) -> None:
        assert v2("--cpu-quota 20000 --cpu-period 50000", "cpu") == {"cpu.max": "20000 50000"}

    def test_a_period_alone_is_no_quota(self) -> None:
        assert v2("--cpu-period 50000", "cpu") == {"cpu.max": "max 50000"}
        assert v1("--cpu-period 50000", "cpu") == {"cpu.cfs_period_us": "50000"}

    def test_a_quota_of_minus_one_is_none_as_in_docker(self) -> None:
        assert v2("--cpu-quota -1", "cpu") == {}

    @pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000)])
    def test_shares_are_runcs_weight_on_v2(self, shares: int, weight: int) -> None:
        assert v1(f"--cpu-shares {shares}", "cpu") == {"cpu.shares": str(shares)}
        assert v2(f"--cpu-shares {shares}", "cpu") == {"cpu.weight": str(weight)}

    @pytest.mark.parametrize(("weight", "shares"), [(1, 10), (100, 1024), (10000, 102400)])
    def test_a_weight_stands_to_its_default_as_shares_to_theirs(self, weight: int, shares: int) -> None:
        assert v2(f"--cpu-weight {weight}", "cpu") == {"cpu.weight": str(weight)}
        assert v1(f"--cpu-weight {weight}", "cpu") == {"cpu.shares": str(shares)}

    def test_cpusets_are_lists_on_both(self) -> None:
        words = "--cpuset-cpus 0-2,5 --cpuset-mems 0"
        assert v1(words, "cpuset") == v2(words, "cpuset") == {"cpuset.cpus": "0-2,5", "cpuset.mems": "0"}


class TestMemory:
    def test_without_a_word_about_swap_there_is_none(self) -> None:
        size = str(256 << 20)
        assert v1("--memory 256Mi", "memory") == {"memory.limit_in_bytes": size, "memory.memsw.limit_in_bytes": size}
        assert v2("--memory 256Mi", "memory") == {"memory.max": size, "memory.swap.max": "0"}

    def test_memory_swap_is_the_sum_of_both_as_in_docker(self) -> None:
        words = "--memory 1Gi --memory-swap 3Gi"
        assert v1(words, "memory")["memory.memsw.limit_in_bytes"] == str(3 << 30)
        assert v2(words, "memory")["memory.swap.max"] == str(2 << 30)

    def test_memory_swap_of_minus_one_is_unlimited(self) -> None:
        words = "--memory 1Gi --memory-swap -1"
        assert v1(words, "memory")["memory.memsw.limit_in_bytes"] == "-1"
        assert v2(words, "memory")["memory.swap.max"] == "max"

    def test_v1_writes_memory_before_the_sum_which_may_not_be_below_it(self) -> None:
        names = [name for name, _ in v1_files(spec("--memory 1Gi").resources, "memory")]
        assert names == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]

    def test_high_and_reservation_have_files_of_their_own(self) -> None:
        assert v2("--memory-high 100Mi --memory-reservation 50Mi", "memory") == {
            "memory.high": str(100 << 20),
            "memory.low": str(50 << 20),
        }
        assert v1("--memory-reservation 50Mi", "memory") == {"memory.soft_limit_in_bytes": str(50 << 20)}


class TestPidsAndIo:
    @pytest.mark.parametrize("unlimited", ["0", "-1"])
    def test_pids_of_0_or_minus_one_are_unlimited_as_in_docker(self, unlimited: str) -> None:
        assert v2(f"--pids-limit {unlimited}", "pids") == {}

    def test_pids_are_a_number_on_both(self) -> None:
        assert v1("--pids 64", "pids") == v2("--pids-limit 64", "pids") == {"pids.max": "64"}

    def test_rates_name_the_device_by_its_numbers(self) -> None:
        assert v1("--io-read-bps 8:0=1Mi", "blkio") == {"blkio.throttle.read_bps_device": "8:0 1048576"}
        assert v2("--device-write-iops 8:0=30", "blkio") == {"io.max": "8:0 wiops=30"}

    def test_dockers_colon_between_device_and_rate_is_read_too(self) -> None:
        assert [one.device for one in spec("--device-read-bps /dev/sda:1mb").resources.io] == ["/dev/sda"]
        assert v2("--device-read-bps 8:16:1mb", "blkio") == {"io.max": "8:16 rbps=1048576"}

    def test_only_the_controllers_of_given_limits_are_needed(self) -> None:
        assert Resources().controllers() == {}
        assert spec("--cpu-weight 5 --pids 3").resources.controllers() == {
            "cpu": "--cpu-shares",
            "pids": "--pids-limit",
        }


class TestCapabilities:
    def test_the_default_is_dockers_mask(self) -> None:
        # CapEff of `docker run` (also Kubernetes' documentation): 00000000a80425fb.
        assert mask(DEFAULT) == 0xA80425FB

    def test_added_and_dropped_names_may_bear_the_prefix(self) -> None:
        assert chosen(["CAP_net_admin"], ["mknod"]) == (DEFAULT - {"MKNOD"}) | {"NET_ADMIN"}

    def test_what_is_added_outlives_dropping_all(self) -> None:
        assert chosen(["KILL"], ["ALL"]) == {"KILL"}

    def test_dropping_one_of_all_leaves_the_others(self) -> None:
        assert chosen(["ALL"], ["SYS_ADMIN"]) == ALL - {"SYS_ADMIN"}

    def test_privileged_has_all_and_neither_filter_nor_masks(self) -> None:
        security = spec("--privileged").security
        assert security.capabilities == ALL
        assert (security.seccomp, security.masked, security.no_new_privileges) == (False, False, False)

    def test_only_names_that_were_asked_for_are_ambient(self) -> None:
        assert spec().security.ambient == frozenset()
        assert spec("--cap-add NET_BIND_SERVICE").security.ambient == {"NET_BIND_SERVICE"}
        assert spec("--privileged").security.ambient == frozenset()


class TestNamespaces:
    def test_all_seven_are_new(self) -> None:
        assert spec().namespaces == {"pid", "net", "mnt", "uts", "ipc", "user", "cgroup"}

    def test_each_can_be_left_out(self) -> None:
        assert spec("--share uts --share mount").namespaces == {"pid", "net", "ipc", "user", "cgroup"}

    def test_the_hosts_network_is_a_shared_namespace(self) -> None:
        assert spec("--net host").namespaces == spec("--share net").namespaces
        assert spec("--share net").net == "host"


class TestEnvironment:
    def test_is_the_callers_with_what_is_given_over_it(self) -> None:
        assert spec("--env B=2 -e C=3", {"A": "1", "B": "1"}).environ == {"A": "1", "B": "2", "C": "3"}

    def test_a_bare_name_leaves_the_callers_value(self) -> None:
        assert spec("--env A --env B", {"A": "1"}).environ == {"A": "1"}

    def test_a_file_is_read_as_cgagent_write_makes_it_and_options_win(self, tmp_path: Path) -> None:
        file = tmp_path / "go.env"
        file.write_text("# a comment\nGOMAXPROCS='2'\n\nexport GOMEMLIMIT=5\nA=x y\n")
        assert spec(f"--env-file {file} --env A=z").environ == {"GOMAXPROCS": "2", "GOMEMLIMIT": "5", "A": "z"}


class TestFiles:
    def test_a_volume_is_writable_unless_it_says_ro(self) -> None:
        one, two = spec("--volume /a:/b -v /c:/d/../e:ro").volumes
        assert (one.source, one.target, one.read_only) == ("/a", "/b", False)
        assert (two.source, two.target, two.read_only) == ("/c", "/e", True)

    def test_a_tmpfs_is_tight_unless_it_says_otherwise(self) -> None:
        plain, loose = spec("--tmpfs /a --tmpfs /b:exec,ro,size=64m,mode=1777").tmpfs
        assert (set(plain.flags), plain.data) == ({"noexec", "nosuid", "nodev"}, "")
        assert (set(loose.flags), loose.data) == ({"exec", "nosuid", "nodev", "ro"}, "size=64m,mode=1777")

    @pytest.mark.parametrize(
        ("text", "soft", "hard"), [("nofile=5", 5, 5), ("nofile=5:9", 5, 9), ("core=0:unlimited", 0, -1)]
    )
    def test_a_ulimit_has_a_soft_and_a_hard_value(self, text: str, soft: int, hard: int) -> None:
        name = text.partition("=")[0]
        assert spec(f"--ulimit {text}").ulimits == [Ulimit(name, soft, hard)]
