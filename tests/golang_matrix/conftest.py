"""Real cgroups for Go programs; tests skip, with the reason, where none can be made."""

from __future__ import annotations

from kernel.conftest import start, top, writable

__all__ = ["start", "top", "writable"]
