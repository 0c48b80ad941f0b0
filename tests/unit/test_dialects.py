"""The files of v1 and v2 cgroups, read into one vocabulary."""

from __future__ import annotations

import pytest

from cgagent.cgroup import v1, v2
from cgagent.cgroup.dialect import UNLIMITED, Bound, Quota
from cgagent.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.dialect import Get


def _files(**texts: str) -> Get:
    """The files of a cgroup; `__` in a name stands for its dot."""
    return {name.replace("__", "."): text for name, text in texts.items()}.get


def _v1_quota(quota: str, period: str | None = "100000\n") -> Quota | None:
    files = {"cpu.cfs_quota_us": quota}
    if period is not None:
        files["cpu.cfs_period_us"] = period
    return v1.cpu_quota(files.get)


# --- v2 cpu


@pytest.mark.parametrize(
    ("text", "quota_us", "period_us", "cores"),
    [
        ("150000 100000\n", 150000, 100000, 1.5),
        ("max 100000\n", None, 100000, None),
        ("max 50000\n", None, 50000, None),
        ("500000\n", 500000, 100000, 5.0),
        ("max\n", None, 100000, None),
        ("1000 1000000\n", 1000, 1000000, 0.001),
        ("9223372036854775807 9223372036854775807\n", 2**63 - 1, 2**63 - 1, 1.0),
        ("250000 100000", 250000, 100000, 2.5),
    ],
)
def test_v2_cpu_max_is_quota_and_period(text: str, quota_us: int | None, period_us: int, cores: float | None) -> None:
    found = v2.cpu_quota(_files(cpu__max=text))
    assert found == Quota("cpu.max", text.removesuffix("\n"), quota_us, period_us)
    assert found.cores == cores


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "asdf 100000\n",
        "500000 njn\n",
        "250000 0\n",
        "0 100000\n",
        "max 0\n",
        "1 2 3\n",
        "-1 100000\n",
        "1 \n",
    ],
)
def test_v2_cpu_max_with_rubbish_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match=r"^cpu\.max is malformed"):
        v2.cpu_quota(_files(cpu__max=text))


def test_the_v2_root_has_no_quota_file() -> None:
    assert v2.cpu_quota(_files()) is None


# --- v1 cpu


def test_v1_quota_and_period_stand_in_two_files() -> None:
    found = _v1_quota("600000\n")
    assert found == Quota("cpu.cfs_quota_us", "600000 100000", 600000, 100000)
    assert found.cores == 6.0


def test_v1_minus_one_is_no_quota_whatever_the_period() -> None:
    for period in ("100000\n", "0\n", "rubbish", None):
        found = _v1_quota("-1\n", period)
        assert found is not None
        assert found.cores is None


@pytest.mark.parametrize(
    ("quota", "period", "file"),
    [
        ("", "100000\n", "cpu.cfs_quota_us"),
        ("1000 5000\n", "100000\n", "cpu.cfs_quota_us"),
        ("123max\n", "100000\n", "cpu.cfs_quota_us"),
        ("-2\n", "100000\n", "cpu.cfs_quota_us"),
        ("0\n", "100000\n", "cpu.cfs_quota_us"),
        ("9223372036854775808\n", "100000\n", "cpu.cfs_quota_us"),
        ("100000\n", "0\n", "cpu.cfs_period_us"),
        ("100000\n", "", "cpu.cfs_period_us"),
        ("100000\n", None, "cpu.cfs_period_us"),
    ],
)
def test_v1_cpu_files_with_rubbish_are_malformed(quota: str, period: str | None, file: str) -> None:
    with pytest.raises(MalformedError) as caught:
        _v1_quota(quota, period)
    assert caught.value.file == file


# --- memory


def test_v2_memory_is_bound_by_max_and_high() -> None:
    files = _files(memory__max="536870912\n", memory__high="max\n")
    assert v2.memory_bounds(files) == [Bound("memory.max", "536870912", 536870912), Bound("memory.high", "max", None)]
    assert v2.memory_bounds(_files()) == []


def test_v2_memory_beyond_all_addresses_is_no_limit() -> None:
    assert v2.memory_bounds(_files(memory__max=f"{2**64 - 1}\n"))[0].bytes is None


@pytest.mark.parametrize("text", ["", "-1\n", "lots\n", "256Mi\n", "1 2\n", "1\r\n"])
def test_v2_memory_with_rubbish_is_malformed(text: str) -> None:
    for name in ("memory.max", "memory.high"):
        with pytest.raises(MalformedError) as caught:
            v2.memory_bounds({name: text}.get)
        assert caught.value.file == name


def test_v1_memory_is_bound_by_its_own_and_the_hierarchical_limit() -> None:
    stat = "cache 0\nhierarchical_memory_limit 268435456\ntotal_cache 0\n"
    assert v1.memory_bounds(_files(memory__limit_in_bytes="134217728\n", memory__stat=stat)) == [
        Bound("memory.limit_in_bytes", "134217728", 134217728),
        Bound("memory.stat", "268435456", 268435456),
    ]


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_v1_unlimited_is_the_largest_page_of_any_architecture(page: int) -> None:
    text = str((2**63 - 1) // page * page)
    assert v1.memory_bounds(_files(memory__limit_in_bytes=text))[0].bytes is None
    assert v1.memory_bounds(_files(memory__limit_in_bytes=str(UNLIMITED - 1)))[0].bytes == UNLIMITED - 1


@pytest.mark.parametrize("text", ["", "-1\n", "max\n", "1\r\n"])
def test_v1_memory_with_rubbish_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match=r"^memory\.limit_in_bytes"):
        v1.memory_bounds(_files(memory__limit_in_bytes=text))
    with pytest.raises(MalformedError, match=r"^memory\.stat"):
        v1.memory_bounds(_files(memory__stat="hierarchical_memory_limit " + text))


# --- cpuset


def test_v2_cpuset_is_the_effective_one() -> None:
    assert v2.cpuset(_files(cpuset__cpus__effective="0-1\n")) == ("cpuset.cpus.effective", frozenset({0, 1}))
    assert v2.cpuset(_files(cpuset__cpus="0\n")) is None


def test_v1_cpuset_is_the_effective_one_or_the_configured_where_that_is_absent_or_empty() -> None:
    both = _files(cpuset__effective_cpus="0-1\n", cpuset__cpus="0-3\n")
    assert v1.cpuset(both) == ("cpuset.effective_cpus", frozenset({0, 1}))
    assert v1.cpuset(_files(cpuset__cpus="2\n")) == ("cpuset.cpus", frozenset({2}))
    assert v1.cpuset(_files(cpuset__effective_cpus="\n", cpuset__cpus="\n")) is None


# --- usage


def test_v2_cpu_usage_is_microseconds_and_throttling_too() -> None:
    stat = "usage_usec 2500000\nuser_usec 1500000\nsystem_usec 1000000\n"
    stat += "nr_periods 10\nnr_throttled 4\nthrottled_usec 300000\n"
    assert v2.cpu_usage(_files(cpu__stat=stat)) == {"usage_seconds": 2.5, "user_seconds": 1.5, "system_seconds": 1.0}
    assert v2.cpu_throttling(_files(cpu__stat=stat)) == {
        "periods": 10,
        "throttled_periods": 4,
        "throttled_seconds": 0.3,
    }


def test_v1_cpu_usage_is_nanoseconds_and_ticks() -> None:
    files = _files(cpuacct__usage="2500000000\n", cpuacct__stat="user 150\nsystem 100\n")
    assert v1.cpu_usage(files) == {"usage_seconds": 2.5, "user_seconds": 1.5, "system_seconds": 1.0}
    stat = "nr_periods 10\nnr_throttled 4\nthrottled_time 300000000\n"
    assert v1.cpu_throttling(_files(cpu__stat=stat)) == {
        "periods": 10,
        "throttled_periods": 4,
        "throttled_seconds": 0.3,
    }


def test_what_this_kernel_does_not_count_is_not_known_rather_than_zero() -> None:
    for dialect in (v1, v2):
        assert set(dialect.cpu_throttling(_files()).values()) == {None}
        assert set(dialect.cpu_usage(_files()).values()) == {None}
        assert set(dialect.memory_usage(_files()).values()) == {None}
        assert dialect.memory_events(_files()) == {}


# What both tests' files say, each in its dialect.
MEMORY_USAGE = {
    "usage_bytes": 1000,
    "working_set_bytes": 900,
    "peak_bytes": 2000,
    "anon_bytes": 600,
    "file_bytes": 300,
    "high_bytes": None,
    "swap_usage_bytes": 30,
    "swap_limit_bytes": 40,
}


def test_v2_memory_usage() -> None:
    files = _files(
        memory__current="1000\n",
        memory__peak="2000\n",
        memory__high="max\n",
        memory__swap__current="30\n",
        memory__swap__max="40\n",
        memory__stat="anon 600\nfile 300\ninactive_file 100\n",
    )
    assert v2.memory_usage(files) == MEMORY_USAGE


def test_v1_counts_swap_together_with_memory() -> None:
    files = _files(
        memory__usage_in_bytes="1000\n",
        memory__max_usage_in_bytes="2000\n",
        memory__limit_in_bytes="5000\n",
        memory__memsw__usage_in_bytes="1030\n",
        memory__memsw__limit_in_bytes="5040\n",
        memory__stat="total_rss 600\ntotal_cache 300\ntotal_inactive_file 100\n",
    )
    assert v1.memory_usage(files) == MEMORY_USAGE


def test_the_working_set_is_never_negative() -> None:
    files = _files(memory__current="100\n", memory__stat="inactive_file 300\n")
    assert v2.memory_usage(files)["working_set_bytes"] == 0


def test_memory_events_count_limits_hit_and_kills() -> None:
    text = "low 0\nhigh 3\nmax 5\noom 1\noom_kill 2\noom_group_kill 0\n"
    assert v2.memory_events(_files(memory__events=text))["oom_kill"] == 2
    v1_files = _files(memory__failcnt="5\n", memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert v1.memory_events(v1_files) == {"max": 5, "oom_kill": 2}


def test_weights_shares_and_burst_are_told() -> None:
    assert v2.cpu_settings(_files(cpu__weight="100\n", cpu__max__burst="0\n")) == {"weight": 100, "burst_us": 0}
    assert v1.cpu_settings(_files(cpu__shares="1024\n")) == {"shares": 1024, "burst_us": None}
