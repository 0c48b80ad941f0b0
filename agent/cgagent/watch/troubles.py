"""What is wrong at present, each thing told once however often it is met."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.watch.log import Log


class Troubles:
    """The last kind of trouble of each topic."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last: dict[str, str] = {}

    def tell(self, topic: str, problem: str, *, kind: str = "", waiting: bool = False) -> None:
        """`problem` is what is wrong with `topic` now; empty: nothing. `waiting`: it may well be in order so.

        Where details of it may differ from look to look, such as PIDs, `kind` is what stays the same.
        """
        kind = kind or problem
        if kind == self._last.get(topic, ""):
            return
        self._last[topic] = kind
        if problem:
            (self._log.info if waiting else self._log.error)(problem, about=topic)
        else:
            self._log.info("in order again", about=topic)
