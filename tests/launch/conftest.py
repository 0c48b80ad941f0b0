"""What every test of the launcher starts from."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A program starts with what it inherits, and so would ours: nohup hands on an ignored SIGHUP, a script that starts
    # us in the background an ignored SIGINT and SIGQUIT.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
