"""Real cgroups; tests skip, with the reason, where none can be made."""

from __future__ import annotations

from kernel.conftest import top, writable
from live.conftest import run

__all__ = ["run", "top", "writable"]
