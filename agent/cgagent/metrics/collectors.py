"""The custom collector: one fresh look, one fresh set of metric objects, for every scrape."""

from __future__ import annotations

import threading
import time

from cgagent.errors import CgagentError, MalformedError
from cgagent.host import ReadError
from cgagent.metrics.catalogue import SECTIONS, about, agent, gauge
from cgagent.metrics.client import CollectorRegistry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from cgagent.metrics.client import Metric
    from cgagent.metrics.counters import Counters
    from cgagent.report.picture import Picture

    class Source(Protocol):
        """The agent, as the server sees it.

        Attributes:
            counters: what the agent counts.
        """

        counters: Counters

        def picture(self) -> Picture:
            """Usage as it is now, with the limits and the decision in force.

            Raises:
                CgagentError: there is nothing to read: the process has ended, say.
            """

        def ready(self) -> bool:
            """Whether the first decision is made and the env file is written."""


# Files of /proc and /sys, whichever limit or usage was to be read there.
_UNREAD_PROBLEMS = ("malformed-file", "unreadable")


class Collector:
    """What prometheus_client's registry asks at each scrape."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._counting = threading.Lock()

    def collect(self) -> list[Metric]:
        """Every family of the catalogue that has a sample."""
        start = time.perf_counter()
        families = [*about(), *self._of_process(), *agent(self._source.counters)]
        took = time.perf_counter() - start
        families.append(gauge("scrape_duration_seconds", "How long this scrape took to read.", took))
        return [family for family in families if family.samples]

    def _of_process(self) -> list[Metric]:
        counters = self._source.counters
        try:
            picture = self._source.picture()
        except CgagentError as error:
            # That nothing has been seen yet is no file's fault.
            self._count([error.message] if isinstance(error, (ReadError, MalformedError)) else [])
            return []
        problems = picture.limits.problems
        self._count(picture.usage.errors + [one.message for one in problems if one.id in _UNREAD_PROBLEMS])
        return [family for section in SECTIONS for family in section(picture, counters)]

    def _count(self, messages: list[str]) -> None:
        """Count each file that `messages` tell of, once for this scrape."""
        errors = self._source.counters.read_errors
        with self._counting:
            for file in dict.fromkeys(map(file_in, messages)):
                errors[file] = errors.get(file, 0) + 1


def file_in(message: str) -> str:
    """The name of the file, without its directory, in the message of a ReadError or a MalformedError.

    The directory would make a new series of every container; the name alone says what is missing from the page.
    """
    path, malformed, _ = message.partition(" is malformed: ")
    if not malformed:
        path = message.removeprefix("cannot read ").rpartition(": ")[0]
    return path.rpartition("/")[2] or "unknown"


def registry_of(source: Source) -> CollectorRegistry:
    """A registry of our own with nothing but the collector in it."""
    # auto_describe would scrape once for nothing, to learn the names.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(source))
    return registry
