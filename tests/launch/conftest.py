"""What every test of the launcher starts from."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A runner that nohup started hands on an ignored SIGHUP; a program starts with what it inherits, and so would ours.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
