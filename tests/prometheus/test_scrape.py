"""What a real Prometheus has of a real service after its limits were changed, it was throttled and OOM-killed."""

from __future__ import annotations

import subprocess

import pytest

from kernel.cgroups import MIB, read
from prometheus.shop import Shop, fetch


def _over_time(shop: Shop, metric: str) -> list[float]:
    """The values that `metric` had, one after the other."""
    values = shop.query(f"{metric}[10m]")[0]["values"]
    seen: list[float] = []
    for _, text in values:
        if not seen or seen[-1] != float(text):
            seen.append(float(text))
    return seen


def test_both_targets_are_up_and_nothing_was_dropped(shop: Shop) -> None:
    assert len(shop.query("up == 1")) == 2
    assert shop.query("scrape_samples_scraped != scrape_samples_post_metric_relabeling") == []


def test_every_limit_that_was_set_can_be_read_back_in_order(shop: Shop) -> None:
    assert _over_time(shop, "cgagent_cpu_limit_cores") == [1.0, 0.1, 2.0]
    assert _over_time(shop, "cgagent_memory_limit_bytes") == [256 * MIB, 384 * MIB]


def test_the_recommendation_follows_the_limits(shop: Shop) -> None:
    assert _over_time(shop, "cgagent_gomaxprocs") == [1.0, 2.0]
    assert _over_time(shop, "cgagent_gomemlimit_bytes") == [256 * MIB * 9 // 10, 384 * MIB * 9 // 10]


def test_changes_are_counted_by_resource(shop: Shop) -> None:
    assert shop.value('cgagent_limit_changes_total{resource="cpu"}') == 2
    assert shop.value('cgagent_limit_changes_total{resource="memory"}') == 1


def test_throttling_is_the_kernels_own_count(shop: Shop) -> None:
    stat = dict(line.split() for line in read(f"{shop.group.directories['cpu']}/cpu.stat").splitlines())
    periods, throttled = (
        shop.value("cgagent_cpu_cfs_periods_total"),
        shop.value("cgagent_cpu_cfs_throttled_periods_total"),
    )
    assert periods is not None
    assert throttled is not None
    assert 50 < throttled <= int(stat["nr_throttled"])
    assert throttled <= periods <= int(stat["nr_periods"])
    assert 0.0 < (shop.value("cgagent_cpu_cfs_throttled_seconds_total") or 0) < periods * 0.1 * 4


def test_oom_kills_are_counted_while_the_service_lives_on(shop: Shop) -> None:
    assert shop.value('cgagent_memory_events_total{event="oom_kill"}') == 2
    assert "go_sched_gomaxprocs_threads" in shop.ask("/metrics")


def test_recommended_and_running_can_be_compared(shop: Shop) -> None:
    # The service was started when one CPU was allowed; now it is two.
    joined = "go_sched_gomaxprocs_threads != on(namespace, pod) cgagent_gomaxprocs"
    assert [one["value"][1] for one in shop.query(joined)] == ["1"]


def test_cpu_time_is_what_four_busy_threads_on_one_cpu_take(shop: Shop) -> None:
    fastest = shop.value("max_over_time(rate(cgagent_cpu_usage_seconds_total[5s])[10m:1s])")
    assert fastest is not None
    assert 0.05 < fastest < 2.5  # cores; the quota was never above two


def test_prometheus_negotiates_openmetrics_and_knows_types_and_help(shop: Shop) -> None:
    found = shop._api("metadata", metric="cgagent_cpu_cfs_throttled_periods_total")
    found = found or shop._api("metadata", metric="cgagent_cpu_cfs_throttled_periods")
    (entries,) = found.values()
    assert entries[0]["type"] == "counter"
    assert "cpu.stat nr_throttled" in entries[0]["help"]


def test_promtool_finds_nothing_to_say_about_the_page_of_a_go_service(shop: Shop) -> None:
    page = fetch(f"http://127.0.0.1:{shop.agent}/metrics")
    assert "\ncgagent_go_gomaxprocs " in page
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/explain", "/"])
def test_the_sidecar_answers_beside_its_metrics(shop: Shop, path: str) -> None:
    assert fetch(f"http://127.0.0.1:{shop.agent}{path}")
