"""A captured tree as a `Host`: what the process's files said, and why where there is none."""

from __future__ import annotations

from cgagent.capture.layout import Capture
from cgagent.cgroup.numbers import cpu_list
from cgagent.host import ABSENT, FILE_LIMIT, UNSUITABLE, Host, ReadError


class CapturedHost(Host):
    """The files of a capture in memory; `name`, the archive's, stands for the root in what people see."""

    holds_one = True

    def __init__(self, capture: Capture, name: str) -> None:
        super().__init__(name)
        self.about = capture.meta.document()
        self._capture = capture

    @property
    def live(self) -> bool:
        """Never this machine, whatever it is called."""
        return False

    def read(self, path: str, limit: int = FILE_LIMIT) -> str:
        """As `Host.read`; what could not be had when the capture was taken fails as it did then."""
        text = self._capture.text(_plain(path))
        if text is None:
            kind, why = self._capture.meta.missing.get(_plain(path), (ABSENT, "no such file or directory"))
            raise ReadError(path, kind, why)
        if len(text) > limit:
            raise ReadError(path, UNSUITABLE, f"more than {limit} bytes")
        return text

    def is_directory(self, path: str) -> bool:
        """Whether the capture holds the directory."""
        return _plain(path) in self._capture.directories

    def affinity(self, pid: str) -> frozenset[int] | None:
        """What sched_getaffinity(2) said of the process, where that is known."""
        told = self._capture.meta.affinity
        return None if told is None or pid != "self" else cpu_list(told, "affinity")


def _plain(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
