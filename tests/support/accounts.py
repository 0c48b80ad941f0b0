"""Being somebody else for a while: what root may do anyway can't be refused to root."""

from __future__ import annotations

import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


@contextmanager
def nobody() -> Iterator[None]:
    """Run with the effective user and group of nobody, without root's capabilities; a user that is not root stays."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
