"""Fixtures for tests with real peers: Prometheus, Chromium, a Go service in a real cgroup."""

from __future__ import annotations

import os
import shutil

import pytest

from golang.toolchain import UnavailableError
from kernel.cgroups import MIB, PREFIX, Group
from kernel.conftest import sleeper, start, top, writable
from prometheus.chromium import Chromium
from prometheus.shop import Shop, missing, play

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["sleeper", "start", "top", "writable"]


@pytest.fixture
def browser() -> Iterator[Chromium]:
    """A fresh browser; the test fails if its page complained of anything."""
    if not shutil.which("chromium"):
        pytest.skip("Chromium is not installed (Debian: chromium)")
    chromium = Chromium()
    try:
        yield chromium
    finally:
        chromium.close()


@pytest.fixture(scope="session")
def shop(writable: None) -> Iterator[Shop]:  # noqa: ARG001 asked for its effect
    """A Go service, its sidecar and Prometheus, after all that `play` makes happen."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    group = Group(f"{PREFIX}{os.getpid()}-shop")
    try:
        group.set_quota(100_000)
        group.set_memory(256 * MIB)
        try:
            opened = Shop(group)
        except UnavailableError as error:
            pytest.skip(f"Go can't be had here: {error}")
        try:
            play(opened)
            yield opened
        finally:
            opened.close()
    finally:
        group.remove()
