"""The dashboard and the alerts, held to a real Prometheus with the data of a real service."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess

import pytest

from kernel.cgroups import holder
from prometheus.shop import Shop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
DASHBOARDS = os.path.join(ROOT, "dashboards")
RULES = os.path.join(DASHBOARDS, "alerts.yaml")
TESTS = sorted(glob.glob(os.path.join(DASHBOARDS, "tests", "*.yaml")))

# What Grafana puts in its place; the pod's pattern is that of "All".
VARIABLES = {"$__rate_interval": "1m", "$__range": "15m", "$namespace": "shop", "$pod": ".+"}
# Exported by client_golang's default collector in the application, not by cgagent.
THEIRS = ("go_sched_gomaxprocs_threads", "go_gc_gomemlimit_bytes")
# A cgroup v1 memory controller has no such limit.
ONLY_V2 = ("cgagent_memory_high_bytes",)

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)"
)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_read(os.path.join(DASHBOARDS, "cgagent.json")))
    return content


def _queries() -> Iterator[tuple[str, str]]:
    """Each panel's and annotation's title, and its queries."""
    dashboard = _dashboard()
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


def _filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def _metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:cgagent|go)_\w+", expression))


def _catalogue() -> set[str]:
    pages = (_read(os.path.join(ROOT, "tests", "unit", "golden", f"metrics-{version}.txt")) for version in ("v1", "v2"))
    return {name for page in pages for name in re.findall(r"(?m)^# TYPE (\w+)", page)}


def _alerts() -> list[str]:
    return re.findall(r"(?m)^ +- alert: (\w+)$", _read(RULES))


@pytest.mark.parametrize(("title", "expression"), list(_queries()))
def test_every_panels_query_has_an_answer(shop: Shop, title: str, expression: str) -> None:
    memory = holder("memory")
    if _metrics(expression) & set(ONLY_V2) and memory is not None and memory.version == 1:
        pytest.skip(f"{title}: this machine's memory controller is v1, which has no memory.high")
    if title in ("Limit changed", "OOM kill"):  # events: the last minute need not have had one
        expression = f"max_over_time(({expression})[10m:1s])"
    assert shop.query(_filled(expression)) != []


@pytest.mark.parametrize("file", ["cgagent.json", "alerts.yaml"])
def test_every_metric_that_is_used_exists(shop: Shop, file: str) -> None:
    used = _metrics(_read(os.path.join(DASHBOARDS, file)))
    # What is read from a Go program is on no page of the golden ones, whose target is none.
    read = {name for name in shop.names() if name.startswith("cgagent_go_")}
    assert used - _catalogue() - read - set(THEIRS) == set()


def test_what_others_export_is_what_the_service_exports(shop: Shop) -> None:
    assert set(THEIRS) <= shop.names()


def test_the_variables_find_their_values(shop: Shop) -> None:
    queries = {one["name"]: one["query"] for one in _dashboard()["templating"]["list"]}
    assert queries["datasource"] == "prometheus"
    for name, value in (("namespace", "shop"), ("pod", "orders-1")):
        metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", queries[name]["query"]).groups()  # type: ignore[union-attr]
        assert label == name
        assert {one["metric"][label] for one in shop.query(_filled(metric))} == {value}


def test_all_pods_are_chosen_at_first() -> None:
    # Without that, Grafana chooses the first that it finds, though there is a choice "All".
    (pod,) = (one for one in _dashboard()["templating"]["list"] if one["name"] == "pod")
    assert pod["includeAll"]
    assert pod["current"]["value"] == ["$__all"]


def test_rates_leave_their_interval_to_grafana() -> None:
    for title, expression in _queries():
        for function in re.findall(r"\b(?:rate|increase)\((?:[^()]|\([^()]*\))*\)", expression):
            assert re.search(r"\[(\$__rate_interval|\$__range|1h)\]", function), f"{title}: {function}"


def test_every_query_is_bound_to_the_chosen_namespace_and_pod() -> None:
    for title, expression in _queries():
        selectors = re.findall(r"(?:cgagent|go)_\w+(\{[^}]*\})?", expression)
        assert all('namespace="$namespace", pod=~"$pod"' in selector for selector in selectors), title


def test_panels_do_not_overlap_and_fill_the_grid() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in _dashboard()["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken, f"{panel['title']} over {taken[x, y]}"
                taken[x, y] = panel["title"]


@needs_promtool
def test_the_rules_are_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("file", TESTS, ids=os.path.basename)
def test_alerts_fire_and_stay_silent_as_their_own_tests_say(file: str) -> None:
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", _alerts())
def test_each_alert_is_tested_firing_and_silent_and_says_what_to_do(alert: str) -> None:
    tests = "".join(_read(file) for file in TESTS)
    assert f'name: "{alert} fires' in tests
    assert f'name: "{alert} is silent' in tests
    rules, runbook = _read(RULES), _read(os.path.join(DASHBOARDS, "RUNBOOK.md"))
    rule = rules.partition(f" alert: {alert}\n")[2].partition(" alert: ")[0]
    assert re.search(r'\n +runbook: "[^"]+\."\n', rule), "what to do first"
    assert f"\n## {alert}\n" in runbook


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    assert re.findall(r"(?m)^## (\w+)$", _read(os.path.join(DASHBOARDS, "RUNBOOK.md"))) == _alerts()


def test_with_a_real_service_the_rules_find_what_happened_to_it(shop: Shop) -> None:
    expressions = re.findall(r"(?ms)^ +- alert: (\w+)\n +expr: (?:\|\n)?(.*?)\n +(?:for|labels):", _read(RULES))
    firing = {alert for alert, expression in expressions if shop.query(" ".join(expression.split()))}
    assert {"CgagentOOMKill", "CgagentGoMaxProcsStale"} <= firing
    assert firing.isdisjoint({"CgagentReadErrors", "CgagentEnvFileNotWritten", "CgagentGoMemLimitUnsafe"})
