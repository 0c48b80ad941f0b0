"""What every unit test starts from: an environment that decides nothing by itself."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import HealthCheck, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# A busy machine is no failure, and a checkout may be read-only.
settings.register_profile("unit", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CGAGENT_") or name in ("GOMAXPROCS", "GOMEMLIMIT"):
            monkeypatch.delenv(name)


@pytest.fixture
def public() -> Iterator[str]:
    """A directory that other users reach, which those of pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as path:
        os.chmod(path, 0o755)
        yield path
