"""Programs built by real Go toolchains, started in real cgroups."""

from __future__ import annotations

import pytest

from golang import toolchain
from kernel.conftest import start, top, writable

__all__ = ["go_program", "start", "top", "writable"]


@pytest.fixture(scope="session", params=toolchain.VERSIONS)
def go_program(request: pytest.FixtureRequest) -> str:
    """The path of the test program, for each toolchain; skips, with the reason, where it can't be built."""
    try:
        return toolchain.program(request.param)
    except (toolchain.UnavailableError, OSError) as error:
        pytest.skip(f"Go {request.param} can't be had here: {error}")
