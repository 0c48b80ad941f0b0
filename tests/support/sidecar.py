"""A sidecar without its watching: what the metrics server asks of the agent, answered from a tree or this machine."""

from __future__ import annotations

import contextlib

from cgagent.cgroup.reading import read_limits
from cgagent.cgroup.usage import read_usage
from cgagent.errors import CgagentError
from cgagent.host import Host
from cgagent.metrics.counters import Counters
from cgagent.metrics.server import serve
from cgagent.metrics.settings import Settings
from cgagent.policy import Policy, decide
from cgagent.report.picture import Picture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Source:
    """Reads everything anew whenever it is asked.

    Attributes:
        broken: what `picture` fails with.
        is_ready: what `ready` says.
        looked: how often `picture` was asked for.
    """

    def __init__(self, root: str = "/", pid: str = "self") -> None:
        self.host = Host(root)
        self.pid = pid
        self.counters = Counters()
        self.broken: CgagentError | None = None
        self.is_ready = True
        self.looked = 0

    def picture(self) -> Picture:
        self.looked += 1
        if self.broken is not None:
            raise self.broken
        limits = read_limits(self.host, self.pid)
        decision = decide(limits, Policy(), {})
        return Picture(self.pid, self.host.root, limits, read_usage(limits), decision, {}, None)

    def ready(self) -> bool:
        return self.is_ready


@contextlib.contextmanager
def serving(source: Source, **settings: Any) -> Iterator[int]:
    """Serve `source` on a free port of the loopback interface, which is what one gets."""
    server = serve(source, Settings(("127.0.0.1:0",), **settings))
    try:
        yield int(server.addresses[0].rpartition(":")[2])
    finally:
        server.close()
