"""The page of metrics: every name, unit and source; and nothing where nothing is known."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from cgagent import __version__
from cgagent.errors import CgagentError, MalformedError
from cgagent.host import ReadError
from cgagent.metrics.collectors import file_in, registry_of
from cgagent.metrics.exposition import encode_text
from support.sidecar import Source
from support.trees import build, machine, v2

GOLDEN = os.path.join(os.path.dirname(__file__), "golden")

PRESSURE = "some avg10=1.00 avg60=0.50 avg300=0.10 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={}\n"

# Every number is another, so that one in the wrong place shows.
V2 = {
    "/orders/cpu.max": "150000 100000\n",
    "/orders/cpu.stat": (
        "usage_usec 61500000\nuser_usec 40250000\nsystem_usec 21250000\n"
        "nr_periods 1200\nnr_throttled 300\nthrottled_usec 45750000\n"
    ),
    "/orders/cpuset.cpus.effective": "0-7\n",
    "/orders/memory.max": "268435456\n",
    "/orders/memory.high": "201326592\n",
    "/orders/memory.swap.max": "67108864\n",
    "/orders/memory.current": "150000000\n",
    "/orders/memory.peak": "170000000\n",
    "/orders/memory.stat": "anon 100000000\nfile 50000000\ninactive_file 30000000\n",
    "/orders/memory.events": "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
    "/orders/pids.current": "17\n",
    "/orders/pids.max": "512\n",
    "/orders/cpu.pressure": PRESSURE.format(2500000, 0),
    "/orders/memory.pressure": PRESSURE.format(3500000, 1250000),
    "/orders/io.pressure": PRESSURE.format(4500000, 2250000),
}

V1_MOUNTS = "".join(
    f"{number} 21 0:{number} / /sys/fs/cgroup/{name} rw,nosuid - cgroup cgroup rw,{name}\n"
    for number, name in enumerate(("cpu", "cpuacct", "cpuset", "memory", "pids"), 30)
)
V1_CGROUP = "".join(
    f"{number}:{name}:/orders\n" for number, name in enumerate(("pids", "memory", "cpuset", "cpuacct", "cpu"), 2)
)
V1_UNLIMITED = "9223372036854771712\n"
V1 = {
    "cpu/orders/cpu.cfs_quota_us": "250000\n",
    "cpu/orders/cpu.cfs_period_us": "100000\n",
    "cpu/orders/cpu.stat": "nr_periods 1300\nnr_throttled 130\nthrottled_time 7250000000\n",
    "cpuacct/orders/cpuacct.usage": "81500000000\n",
    "cpuacct/orders/cpuacct.stat": "user 6025\nsystem 2125\n",
    "cpuset/orders/cpuset.effective_cpus": "0-3\n",
    "memory/orders/memory.limit_in_bytes": "536870912\n",
    "memory/orders/memory.memsw.limit_in_bytes": "603979776\n",
    "memory/orders/memory.usage_in_bytes": "350000000\n",
    "memory/orders/memory.memsw.usage_in_bytes": "350000000\n",
    "memory/orders/memory.max_usage_in_bytes": "370000000\n",
    "memory/orders/memory.stat": (
        "inactive_file 1\nhierarchical_memory_limit 536870912\ntotal_rss 200000000\ntotal_cache 150000000\n"
        "total_inactive_file 40000000\n"
    ),
    "memory/orders/memory.failcnt": "33\n",
    "memory/orders/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "pids/orders/pids.current": "9\n",
    "pids/orders/pids.max": "max\n",
}


def _v1(files: dict[str, str]) -> dict[str, str]:
    tree = machine(V1_CGROUP, V1_MOUNTS)
    return tree | {f"/sys/fs/cgroup/{name}": text for name, text in files.items()}


def _page(source: Source) -> str:
    return encode_text(registry_of(source)).decode()


def _samples(page: str) -> dict[str, float]:
    lines = (line for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def _of(tmp_path: object, tree: dict[str, str]) -> dict[str, float]:
    return _samples(_page(Source(build(tmp_path, tree))))


def _busy(source: Source) -> Source:
    """An agent that has done all that it counts."""
    counted = source.counters
    counted.limit_changes = {"cpu": 3, "memory": 1}
    counted.env_file_writes, counted.env_file_write_failures, counted.env_file_last_write = 4, 2, 1790000000.5
    counted.hook_runs, counted.hook_failures = {"tell": 7, "reload": 8}, {"tell": 6}
    counted.config_last_reload_successful, counted.config_last_reload = False, 1780000000.0
    counted.read_errors = {"cpu.stat": 11}
    return source


def _golden(name: str) -> str:
    with open(os.path.join(GOLDEN, name), encoding="utf-8") as file:
        return file.read()


def _settled(page: str) -> str:
    """`page` with what differs between machines and runs left out."""
    for version in (__version__, sys.version.split(" ", 1)[0]):
        page = page.replace(f'version="{version}"', 'version="X"')
    return re.sub(r"(?m)^(cgagent_scrape_duration_seconds) .*$", r"\1 X", page)


@pytest.mark.parametrize(("name", "tree"), [("v2", v2(V2, "/orders")), ("v1", _v1(V1))])
def test_the_whole_page_of_a_limited_process(tmp_path: object, name: str, tree: dict[str, str]) -> None:
    page = _page(_busy(Source(build(tmp_path, tree))))
    assert _settled(page) == _golden(f"metrics-{name}.txt")


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("tree", [v2(V2, "/orders"), _v1(V1)], ids=["v2", "v1"])
def test_promtool_finds_nothing_to_say_about_names_and_help(tmp_path: object, tree: dict[str, str]) -> None:
    page = _page(_busy(Source(build(tmp_path, tree))))
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_units_of_v2_become_seconds_and_bytes(tmp_path: object) -> None:
    page = _of(tmp_path, v2(V2, "/orders"))
    assert page["cgagent_cpu_limit_cores"] == 1.5
    assert page["cgagent_cpu_usage_seconds_total"] == 61.5
    assert page["cgagent_cpu_user_seconds_total"] == 40.25
    assert page["cgagent_cpu_system_seconds_total"] == 21.25
    assert page["cgagent_cpu_cfs_throttled_seconds_total"] == 45.75
    assert page["cgagent_memory_working_set_bytes"] == 150000000 - 30000000
    assert page['cgagent_pressure_waiting_seconds_total{resource="memory"}'] == 3.5
    assert page['cgagent_pressure_stalled_seconds_total{resource="memory"}'] == 1.25


def test_units_of_v1_become_seconds_and_bytes(tmp_path: object) -> None:
    page = _of(tmp_path, _v1(V1))
    assert page["cgagent_cpu_limit_cores"] == 2.5
    assert page["cgagent_cpu_usage_seconds_total"] == 81.5  # nanoseconds
    assert page["cgagent_cpu_user_seconds_total"] == 60.25  # hundredths
    assert page["cgagent_cpu_cfs_throttled_seconds_total"] == 7.25  # nanoseconds
    assert page["cgagent_memory_working_set_bytes"] == 350000000 - 40000000
    assert page["cgagent_memory_swap_limit_bytes"] == 603979776 - 536870912
    assert page['cgagent_memory_events_total{event="max"}'] == 33
    assert page['cgagent_memory_events_total{event="oom_kill"}'] == 3


def test_of_a_hybrid_machine_limits_are_v1s_and_pressure_is_v2s(tmp_path: object) -> None:
    tree = _v1(V1)
    tree["/proc/self/cgroup"] += "0::/orders.service\n"
    tree["/proc/self/mountinfo"] += "50 21 0:50 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    tree["/sys/fs/cgroup/unified/orders.service/cpu.pressure"] = PRESSURE.format(9500000, 0)
    page = _of(tmp_path, tree)
    assert page['cgagent_cgroup_info{mode="hybrid"}'] == 1
    assert page["cgagent_cpu_limit_cores"] == 2.5
    assert page['cgagent_pressure_waiting_seconds_total{resource="cpu"}'] == 9.5
    assert 'cgagent_pressure_waiting_seconds_total{resource="memory"}' not in page


def test_the_recommendation_stands_beside_the_limits(tmp_path: object) -> None:
    page = _of(tmp_path, v2(V2, "/orders"))
    assert page["cgagent_gomaxprocs"] == 2  # ceil(1.5)
    assert page["cgagent_memory_limit_bytes"] == 201326592  # the smaller of max and high
    assert page["cgagent_gomemlimit_bytes"] == 201326592 * 9 // 10


@pytest.mark.parametrize(
    "tree",
    [
        v2(
            {
                "/a/cpu.max": "max 100000\n",
                "/a/memory.max": "max\n",
                "/a/memory.high": "max\n",
                "/a/memory.swap.max": "max\n",
                "/a/pids.max": "max\n",
                "/a/pids.current": "1\n",
            },
            "/a",
        ),
        _v1(
            {
                "cpu/orders/cpu.cfs_quota_us": "-1\n",
                "cpu/orders/cpu.cfs_period_us": "100000\n",
                "memory/orders/memory.limit_in_bytes": V1_UNLIMITED,
                "memory/orders/memory.memsw.limit_in_bytes": V1_UNLIMITED,
                "pids/orders/pids.max": "max\n",
                "pids/orders/pids.current": "1\n",
            }
        ),
    ],
    ids=["v2", "v1"],
)
def test_what_is_unlimited_has_no_sample(tmp_path: object, tree: dict[str, str]) -> None:
    page = _of(tmp_path, tree)
    limits = ("cpu_limit_cores", "memory_limit_bytes", "memory_high_bytes", "memory_swap_limit_bytes", "pids_limit")
    absent = [f"cgagent_{name}" for name in (*limits, "gomaxprocs", "gomemlimit_bytes")]
    assert [name for name in absent if name in page] == []
    assert {name: page[name] for name in page if "limit_defined" in name} == {
        f'cgagent_limit_defined{{resource="{resource}"}}': 0 for resource in ("cpu", "memory", "pids")
    }


def test_a_family_without_samples_is_not_announced_either(tmp_path: object) -> None:
    page = _page(Source(build(tmp_path, v2({"/a/cpu.max": "max 100000\n"}, "/a"))))
    assert "cgagent_cpu_limit_cores" not in page
    assert "cgagent_hook_runs" not in page


def test_a_limit_that_is_not_known_is_neither_defined_nor_undefined(tmp_path: object) -> None:
    page = _of(tmp_path, v2({"/a/cpu.max": "lots\n", "/a/memory.max": "268435456\n"}, "/a"))
    assert 'cgagent_limit_defined{resource="cpu"}' not in page
    assert "cgagent_cpu_limit_cores" not in page
    assert "cgagent_gomaxprocs" not in page
    assert page['cgagent_limit_defined{resource="memory"}'] == 1
    assert page['cgagent_read_errors_total{file="cpu.max"}'] == 1


def test_a_strangers_limits_are_not_exported(tmp_path: object) -> None:
    tree = machine("0::/b\n", "25 21 0:22 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    tree["/sys/fs/cgroup/cpu.max"] = "100000 100000\n"
    tree["/sys/fs/cgroup/memory.max"] = "268435456\n"
    page = _of(tmp_path, tree)
    assert "cgagent_cpu_limit_cores" not in page
    assert "cgagent_memory_limit_bytes" not in page
    assert [name for name in page if "limit_defined" in name] == []


def test_pressure_is_absent_where_the_kernel_keeps_none(tmp_path: object) -> None:
    files = {name: text for name, text in V2.items() if not name.endswith(".pressure")}
    assert [name for name in _of(tmp_path, v2(files, "/orders")) if "pressure" in name] == []


def test_no_series_is_made_of_creation_times_and_no_label_shadows_a_targets(tmp_path: object) -> None:
    page = _page(_busy(Source(build(tmp_path, v2(V2, "/orders")))))
    assert "_created" not in page
    labels = set(re.findall(r'[{,](\w+)="', page))
    assert labels.isdisjoint({"type", "container", "pod", "namespace", "job", "instance"})


def test_counts_of_an_earlier_life_go_on_where_the_kernel_began_anew(tmp_path: object) -> None:
    source = Source(build(tmp_path, v2(V2, "/orders")))
    source.counters.memory_events_before = {"oom_kill": 100, "gone_since": 9}
    page = _samples(_page(source))
    assert page['cgagent_memory_events_total{event="oom_kill"}'] == 105
    # Alone it would fall back to 9 from a number that is not known now.
    assert 'cgagent_memory_events_total{event="gone_since"}' not in page


def test_a_hook_that_never_failed_has_failed_zero_times(tmp_path: object) -> None:
    page = _samples(_page(_busy(Source(build(tmp_path, v2(V2, "/orders"))))))
    assert page['cgagent_hook_failures_total{hook="reload"}'] == 0
    assert page['cgagent_hook_failures_total{hook="tell"}'] == 6


def test_a_malformed_file_costs_its_own_samples_and_is_counted_at_each_scrape(tmp_path: object) -> None:
    source = Source(build(tmp_path, v2(V2 | {"/orders/pids.current": "several\n"}, "/orders")))
    registry = registry_of(source)
    encode_text(registry)
    page = _samples(encode_text(registry).decode())
    assert page['cgagent_read_errors_total{file="pids.current"}'] == 2
    assert "cgagent_pids_current" not in page
    assert page["cgagent_memory_usage_bytes"] == 150000000
    assert page["cgagent_cpu_usage_seconds_total"] == 61.5


def test_of_one_controllers_files_the_others_are_told(tmp_path: object) -> None:
    page = _of(tmp_path, v2(V2 | {"/orders/memory.peak": "the most\n"}, "/orders"))
    assert page['cgagent_read_errors_total{file="memory.peak"}'] == 1
    assert "cgagent_memory_peak_bytes" not in page
    assert page["cgagent_memory_working_set_bytes"] == 150000000 - 30000000
    assert page["cgagent_memory_swap_limit_bytes"] == 67108864


def test_a_file_that_several_numbers_come_from_is_counted_once_a_scrape(tmp_path: object) -> None:
    broken = "usage_usec many\nuser_usec 1\nsystem_usec 1\nnr_periods many\nnr_throttled 1\nthrottled_usec 1\n"
    page = _of(tmp_path, v2(V2 | {"/orders/cpu.stat": broken}, "/orders"))
    assert page['cgagent_read_errors_total{file="cpu.stat"}'] == 1
    assert "cgagent_cpu_usage_seconds_total" not in page
    assert page["cgagent_cpu_limit_cores"] == 1.5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_counted(tmp_path: object) -> None:
    root = build(tmp_path, v2(V2, "/orders"))
    os.chmod(f"{root}/sys/fs/cgroup/orders/memory.current", 0)
    page = _samples(_page(Source(root)))
    assert page['cgagent_read_errors_total{file="memory.current"}'] == 1
    assert page["cgagent_cpu_limit_cores"] == 1.5


def test_where_a_file_should_be_and_a_directory_is_the_rest_is_told(tmp_path: object) -> None:
    files = {name: text for name, text in V2.items() if name != "/orders/memory.current"}
    page = _of(tmp_path, v2(files | {"/orders/memory.current/x": ""}, "/orders"))
    assert page['cgagent_read_errors_total{file="memory.current"}'] == 1
    assert page["cgagent_cpu_usage_seconds_total"] == 61.5


def test_of_a_process_that_has_ended_the_agents_own_numbers_are_left() -> None:
    source = Source()
    source.broken = ReadError("/proc/4711/cgroup", "absent", "no such file or directory")
    page = _samples(_page(source))
    assert page['cgagent_read_errors_total{file="cgroup"}'] == 1
    assert page["cgagent_env_file_writes_total"] == 0
    assert "cgagent_scrape_duration_seconds" in page
    assert [name for name in page if "cpu" in name and "limit_changes" not in name] == []


def test_before_anything_was_seen_no_file_is_at_fault() -> None:
    source = Source()
    source.broken = CgagentError("nothing has been seen yet")
    assert [name for name in _samples(_page(source)) if "read_errors" in name] == []


@pytest.mark.parametrize(
    ("error", "file"),
    [
        (ReadError("/sys/fs/cgroup/a b/cpu.stat", "not permitted", "permission denied"), "cpu.stat"),
        (ReadError("/proc/1/mountinfo", "unsuitable", "more than 67108864 bytes"), "mountinfo"),
        (MalformedError("/sys/fs/cgroup/x: y/memory.max", "1: 2 is malformed: 3", "expected a number"), "memory.max"),
        (CgagentError("nothing that names a file"), "unknown"),
    ],
)
def test_errors_are_counted_by_the_files_name(error: CgagentError, file: str) -> None:
    assert file_in(error.message) == file


def test_each_scrape_makes_new_objects(tmp_path: object) -> None:
    root = build(tmp_path, v2(V2, "/orders"))
    registry = registry_of(Source(root))
    before = {family.name: family for family in registry.collect()}
    build(tmp_path, v2({"/orders/memory.current": "99\n"}, "/orders"))
    after = {family.name: family for family in registry.collect()}
    assert before["cgagent_memory_usage_bytes"].samples[0].value == 150000000
    assert after["cgagent_memory_usage_bytes"].samples[0].value == 99
    assert all(after[name] is not before[name] for name in after)
