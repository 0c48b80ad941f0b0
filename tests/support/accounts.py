"""Being somebody else for a while: what root may do anyway can't be refused to root."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


def runs_python(user: int = NOBODY) -> bool:
    """Whether that user reaches this interpreter: one in root's home directory is for root alone."""
    if os.geteuid() != 0:
        return False
    try:
        subprocess.run([sys.executable, "-V"], user=user, group=user, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


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
