"""Real Go programs that tests start, tell what to do, and look into; a test skips where a toolchain can't be had."""

from __future__ import annotations

import pytest

from golang.toolchain import UnavailableError
from live.programs import Told, go_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., Told]


def built(version: str, mode: str, go_line: str = "1.21") -> str:
    """The program's path; skips where it can't be built."""
    try:
        return go_program(version, mode, go_line)
    except (UnavailableError, OSError) as error:
        pytest.skip(f"Go {version}, {mode}: {error}")


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a program; it is killed when the test ends."""
    started: list[Told] = []

    def start(path: str, environ: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Told:
        started.append(Told(path, environ, prefix))
        return started[-1]

    yield start
    for one in started:
        one.end()
