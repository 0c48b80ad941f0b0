"""The env file as the sidecar's output: written when its content changes, tried again when that fails."""

from __future__ import annotations

import os
import time

import cgagent.wholefile  # noqa: F401 envfile's, loaded while there is a descriptor to load it by
from cgagent import envfile
from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgagent.cgroup.limits import Limits
    from cgagent.metrics.counters import Counters
    from cgagent.watch.log import Log
    from cgagent.watch.settings import Settings
    from cgagent.watch.troubles import Troubles

_FIRST_PAUSE = 1.0


class Output:
    """Writes, and remembers what was told last.

    Attributes:
        complete: whether the file has been written, or held the right content, at least once.
    """

    def __init__(self, counters: Counters, log: Log, troubles: Troubles) -> None:
        self.complete = False
        self._counters = counters
        self._log = log
        self._troubles = troubles
        self._told: dict[str, str] | None = None
        self._pause = _FIRST_PAUSE
        self._mark: tuple[int, int] | None = None

    def write(self, settings: Settings, env: dict[str, str], limits: Limits) -> dict[str, str] | None:
        """Make the file hold `env`; return the variables that were told before, None where it could not be written.

        At the first time those are what the file of an earlier life says: a change between the two lives is one.
        """
        before = self._before(settings)
        if settings.env_file is not None and not self._write(settings.env_file, settings, env, limits):
            return None
        self._told = env
        return env if before is None else before

    def known(self, settings: Settings, names: Iterable[str]) -> dict[str, str]:
        """Those of the variables `names` that were told last, or are in the file of an earlier life."""
        before = self._before(settings) or {}
        return {name: before[name] for name in names if name in before}

    def _before(self, settings: Settings) -> dict[str, str] | None:
        return _left_behind(settings) if self._told is None else self._told

    def _write(self, path: str, settings: Settings, env: dict[str, str], limits: Limits) -> bool:
        text = envfile.render(env, envfile.header(limits), settings.format)
        try:
            if settings.merge:
                text = envfile.merge(text, envfile.read(path) or "", settings.format)
            written = envfile.write(path, text, settings.mode)
        except CgagentError as error:
            self._counters.env_file_write_failures += 1
            self._troubles.tell("env file", error.line())
            return False
        self._troubles.tell("env file", "")
        self._pause = _FIRST_PAUSE
        self.complete = True
        self._mark = _mark(path)
        if written:
            self._counters.env_file_writes += 1
            self._counters.env_file_last_write = time.time()
            self._log.info("env file written", path=path, **env)
        return True

    def is_spoiled(self, settings: Settings) -> bool:
        """Whether the file was written, replaced or removed since it was last found right or written."""
        return settings.env_file is not None and self._mark is not None and _mark(settings.env_file) != self._mark

    def pause(self, most: float) -> float:
        """Seconds until the next try after a failure: longer each time, up to `most`."""
        pause, self._pause = min(self._pause, most), self._pause * 2
        return pause


def _mark(path: str) -> tuple[int, int]:
    """What tells a file as it is now from what it was before, and from another of that name."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0, 0
    return status.st_ino, status.st_ctime_ns


def _left_behind(settings: Settings) -> dict[str, str] | None:
    """The variables in the file of an earlier life; None where there is none, or none that can be understood."""
    if settings.env_file is None or settings.format == "json":
        return None
    try:
        text = envfile.read(settings.env_file)
        return None if text is None else envfile.parse(text, settings.env_file)
    except CgagentError:
        return None
