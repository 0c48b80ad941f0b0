"""The one home of prometheus_client: its metric families and its registry, without its servers.

`import prometheus_client` also imports http.server, wsgiref, urllib.request and ssl: 8 MiB that the sidecar has no
use for. A package's `__path__` says where its submodules are looked up: with the library's own directory as ours,
its modules (which import each other by relative names) load as submodules of this one and its `__init__` never runs.
"""

from __future__ import annotations

from importlib.machinery import PathFinder

from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector, CollectorRegistry

    def floatToGoString(d: float) -> str: ...  # noqa: N802 the library's own name; it has no annotations
else:
    _found = PathFinder.find_spec("prometheus_client")
    if _found is None:
        raise CgagentError("prometheus_client is not installed", "install prometheus-client, or serve no metrics")
    __path__ = _found.submodule_search_locations

    from cgagent.metrics.client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from cgagent.metrics.client.registry import Collector, CollectorRegistry
    from cgagent.metrics.client.utils import floatToGoString

__all__ = [
    "Collector",
    "CollectorRegistry",
    "CounterMetricFamily",
    "GaugeMetricFamily",
    "Metric",
    "floatToGoString",
]
