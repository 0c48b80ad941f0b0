"""`cgagent top` on a terminal: drawn anew at each look, sorted by the column that is chosen."""

from __future__ import annotations

import curses
import time

from cgagent import __version__
from cgagent.commands.processes import Processes, Row
from cgagent.commands.top import COLUMNS, ordered, remark, table
from cgagent.errors import CgagentError

_QUIT = (ord("q"), ord("Q"), 27)


def show(processes: Processes, column: int, interval: float) -> int:
    """Show them until `q`; return the exit code.

    Raises:
        CgagentError: the terminal is none that can be drawn on.
    """
    try:
        curses.wrapper(_View(processes, column, interval).run)
    except curses.error as error:
        raise CgagentError(f"cannot draw on this terminal: {error}", "use --once") from None
    return 0


class _View:
    def __init__(self, processes: Processes, column: int, interval: float) -> None:
        self._processes = processes
        self._column = column
        self._interval = interval
        self._turned = False
        self._rows: list[Row] = []

    def run(self, window: curses.window) -> None:
        try:
            curses.curs_set(0)
        except curses.error:
            pass  # a terminal that always shows its cursor
        due = 0.0
        while True:
            if time.monotonic() >= due:
                self._rows = self._processes.look()
                due = time.monotonic() + self._interval
            self._draw(window)
            window.timeout(max(1, int((due - time.monotonic()) * 1000)))
            key = window.getch()
            if key in _QUIT:
                return
            if key == ord("r"):
                self._turned = not self._turned
            elif key in (curses.KEY_RIGHT, ord(">")):
                self._column = (self._column + 1) % len(COLUMNS)
            elif key in (curses.KEY_LEFT, ord("<")):
                self._column = (self._column - 1) % len(COLUMNS)

    def _draw(self, window: curses.window) -> None:
        height, width = window.getmaxyx()
        title = f"cgagent {__version__}: {len(self._rows)} Go processes, by {COLUMNS[self._column].title}"
        note = remark(self._processes) if self._processes.denied else ""
        lines = [title, note, *table(ordered(self._rows, self._column, turned=self._turned))]
        window.erase()
        for number, line in enumerate(lines[: height - 1]):
            style = curses.A_REVERSE if number == 2 else curses.A_BOLD if number == 0 else curses.A_NORMAL
            window.addnstr(number, 0, line.ljust(width - 1) if number == 2 else line, width - 1, style)
        window.refresh()
