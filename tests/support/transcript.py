"""The session on a node that README.md shows, and tests/kubernetes/session has: what was typed."""

from __future__ import annotations

import os
import re
import subprocess

COMMAND = "make session"
_SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "kubernetes", "session")
# What differs from run to run.
_NAMES = ((re.compile(r"orders-[0-9a-z]+-[0-9a-z]+"), "POD"), (re.compile(r"10\.213\.0\.[0-9]+"), "IP"))


def commands(transcript: str) -> list[str]:
    """What was typed, with POD and IP for what differs from run to run."""
    found = [line for line in transcript.split("\n") if line.startswith("$ ")]
    for pattern, name in _NAMES:
        found = [pattern.sub(name, line) for line in found]
    return found


def planned() -> list[str]:
    """What the script would type."""
    done = subprocess.run([_SCRIPT, "--commands"], capture_output=True, text=True, check=True)
    return done.stdout.strip().split("\n")
