"""What the webhook counts, in Prometheus' text format."""

from __future__ import annotations

import threading

from cgagent import __version__

# In seconds. The API server gives a webhook 10 by default, our manifest 5.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_REQUESTS = "cgagent_webhook_requests_total"
_DURATION = "cgagent_webhook_request_duration_seconds"
_RELOADS = "cgagent_webhook_certificate_reloads_total"
_FAILURES = "cgagent_webhook_certificate_reload_failures_total"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Tally:
    """Counts of reviews by result, and of the seconds that they took. May be used by any thread."""

    def __init__(self, results: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._requests = dict.fromkeys(results, 0)
        self._buckets = [0] * len(_BUCKETS)
        self._seconds = 0.0

    def count(self, result: str, seconds: float) -> None:
        """One review with its result."""
        with self._lock:
            self._requests[result] += 1
            self._seconds += seconds
            for at, bound in enumerate(_BUCKETS):
                self._buckets[at] += seconds <= bound

    def text(self, reloads: int, failures: int) -> str:
        """All of it, with the certificate's counts."""
        with self._lock:
            requests, buckets, seconds = dict(self._requests), list(self._buckets), self._seconds
        total = sum(requests.values())
        lines = [
            "# HELP cgagent_build_info The version that runs.",
            "# TYPE cgagent_build_info gauge",
            f'cgagent_build_info{{version="{__version__}"}} 1',
            f"# HELP {_REQUESTS} Admission reviews by their result.",
            f"# TYPE {_REQUESTS} counter",
            *(f'{_REQUESTS}{{result="{result}"}} {count}' for result, count in requests.items()),
            f"# HELP {_DURATION} From the first byte of a request's body to the answer.",
            f"# TYPE {_DURATION} histogram",
            *(f'{_DURATION}_bucket{{le="{bound}"}} {count}' for bound, count in zip(_BUCKETS, buckets, strict=True)),
            f'{_DURATION}_bucket{{le="+Inf"}} {total}',
            f"{_DURATION}_sum {seconds}",
            f"{_DURATION}_count {total}",
            f"# HELP {_RELOADS} How often the certificate was loaded again.",
            f"# TYPE {_RELOADS} counter",
            f"{_RELOADS} {reloads}",
            f"# HELP {_FAILURES} How often a new certificate could not be used.",
            f"# TYPE {_FAILURES} counter",
            f"{_FAILURES} {failures}",
        ]
        return "\n".join([*lines, ""])
