"""The sidecar's log: one line on stderr for each thing that happened, as logfmt or as JSON.

The logging module is not used: it costs 2 MiB, and what is wanted of it is the forty lines below.
"""

from __future__ import annotations

import os
import select
import time

from cgagent.errors import printable

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("logfmt", "json")
_STDERR = 2
# PIPE_BUF: a pipe that poll(2) calls writable takes as much at once, and whole.
_LONGEST = 4096
# Characters of each text, the first with which a line fits: it is a line of its format at any length. The last always
# fits: an escaped character is 12 bytes at most, and no line has twenty fields.
_TEXTS = (_LONGEST, 1024, 256, 64, 16)


class Log:
    """Writes lines; where stderr is gone or full they are lost, and nothing else is.

    Attributes:
        style: one of FORMATS.
        level: the least of LEVELS that is written.
    """

    def __init__(self, style: str = "logfmt", level: str = "info") -> None:
        self.style = style
        self.level = level

    def debug(self, message: str, **fields: object) -> None:
        """What helps to find a fault in cgagent or in its surroundings."""
        self._write("debug", message, fields)

    def info(self, message: str, **fields: object) -> None:
        """What happened as it should."""
        self._write("info", message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """What a person should look at; the agent goes on."""
        self._write("warning", message, fields)

    def error(self, message: str, **fields: object) -> None:
        """What the agent could not do."""
        self._write("error", message, fields)

    def _write(self, level: str, message: str, fields: dict[str, object]) -> None:
        if LEVELS.index(level) < LEVELS.index(self.level):
            return
        told = {"msg": message, **fields}
        for longest in _TEXTS:
            shown: dict[str, object] = {"time": _timestamp(time.time()), "level": level}
            shown |= {name: _shortened(value, longest) for name, value in told.items()}
            data = (_json(shown) if self.style == "json" else _logfmt(shown)).encode("utf-8", "backslashreplace")
            if len(data) < _LONGEST:
                _put(data + b"\n")
                return


def _put(data: bytes) -> None:
    """One write, so that lines of several threads don't mix; a reader that has stopped reading must not hold us."""
    try:
        poller = select.poll()
        poller.register(_STDERR, select.POLLOUT)
        if poller.poll(0):
            os.write(_STDERR, data)
    except OSError:
        pass  # there is nowhere left to say it


def _shortened(value: object, longest: int) -> object:
    if isinstance(value, int | float | None):
        return value
    text = str(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _timestamp(now: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def _logfmt(fields: dict[str, object]) -> str:
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in fields.items())


def _quoted(text: str) -> str:
    shown = printable(text)
    if shown and not any(char in ' ="\\' for char in shown):
        return shown
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _json(fields: dict[str, object]) -> str:
    import json  # 1.4 MiB, for those who ask for it

    return json.dumps(fields)
