"""What every unit test starts from: an environment that decides nothing by itself."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CGAGENT_") or name in ("GOMAXPROCS", "GOMEMLIMIT"):
            monkeypatch.delenv(name)
