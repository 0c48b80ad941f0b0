"""The two formats, held to the library's own encoders and parsers, and what clients ask for."""

from __future__ import annotations

import subprocess
import sys

import prometheus_client.exposition as library
import pytest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cgagent.metrics.client import CounterMetricFamily, GaugeMetricFamily, Metric
from cgagent.metrics.collectors import registry_of
from cgagent.metrics.exposition import OPENMETRICS, TEXT, accepts_gzip, choose, encode_openmetrics, encode_text
from support.sidecar import Source
from support.trees import build, v2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What Prometheus 2.42, 2.55 and 3.x, VictoriaMetrics, Grafana Alloy, curl and browsers send.
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6," + PROMETHEUS_3
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class _Fixed:
    """A registry of given families."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> tuple[Metric, ...]:
        return self._families


def _tricky() -> Any:
    gauge = GaugeMetricFamily("a_bytes", 'one \\ and a\nnew line and "quotes"', labels=["name", "also"])
    for number, value in enumerate((0, -1, 0.1, 1e6, 123456789, 1e21, 2**63 - 1, 5e-324, float("inf"), float("nan"))):
        gauge.add_metric([f'{number}\\"\n{{}}', "ü"], value)
    counter = CounterMetricFamily("b_seconds_total", "A counter.")
    counter.add_metric([], 1.25)
    return _Fixed(gauge, counter)


def _values(families: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name != "cgagent_scrape_duration_seconds"
    }


def test_our_formats_are_the_librarys_to_the_byte(tmp_path: object) -> None:
    registry = registry_of(Source(build(tmp_path, v2({"/cpu.max": "150000 100000\n"}))))
    library_openmetrics: Any = openmetrics.generate_latest
    pages: list[Any] = [_tricky(), _Fixed(*registry.collect())]
    for page in pages:
        assert encode_text(page) == library.generate_latest(page)
        assert encode_openmetrics(page) == library_openmetrics(page)


def test_both_formats_say_the_same_to_a_parser(tmp_path: object) -> None:
    files = {"/cpu.max": "150000 100000\n", "/cpu.stat": "usage_usec 1500000\n", "/pids.current": "3\n"}
    registry = registry_of(Source(build(tmp_path, v2(files))))
    text = _values(parse_text(encode_text(registry).decode()))
    parse: Any = parse_openmetrics
    assert text == _values(parse(encode_openmetrics(registry).decode()))
    assert text["cgagent_cpu_usage_seconds_total", frozenset()] == 1.5
    assert text["cgagent_limit_defined", frozenset({("resource", "cpu")})] == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (PROMETHEUS_2_42, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_PROTOBUF, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", OPENMETRICS),
        (BROWSER, TEXT),
        ("*/*", TEXT),
        ("", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("text/plain, application/openmetrics-text;version=1.0.0;q=0.1", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=nonsense", TEXT),
        ("application/openmetrics-text;version=7.0.0", TEXT),
        (";;,=,;q=,", TEXT),
    ],
)
def test_openmetrics_goes_to_those_who_ask_for_it(accept: str, content_type: str) -> None:
    assert choose(accept)[1] == content_type


@pytest.mark.parametrize("accept", [PROMETHEUS_2_42, PROMETHEUS_3, PROMETHEUS_PROTOBUF, BROWSER, "*/*", ""])
def test_of_what_is_really_sent_the_library_chooses_the_same(accept: str) -> None:
    assert choose(accept)[1].partition(";")[0] == library.choose_encoder(accept)[1].partition(";")[0]


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("identity", False),
        ("xgzip", False),
        ("", False),
    ],
)
def test_gzip_only_where_it_is_asked_for(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


def test_serving_imports_none_of_the_librarys_servers_nor_what_is_not_configured() -> None:
    code = """if True:
        import sys
        from support.sidecar import Source, serving
        with serving(Source()):
            pass
        heavy = "prometheus_client ssl http http.server urllib urllib.request wsgiref bcrypt yaml watchdog hashlib \\
            email logging dataclasses asyncio".split()
        print([name for name in heavy if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": "tests"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
