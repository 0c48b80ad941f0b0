"""The session on a Kubernetes node in README.md is the one that its script has."""

from __future__ import annotations

import os

from support.marked import part
from support.transcript import COMMAND, commands, planned

_README = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "README.md")


def transcript() -> str:
    with open(_README, encoding="utf-8") as file:
        return part(file.read(), COMMAND)


def test_its_commands_are_the_scripts() -> None:
    assert commands(transcript()) == planned()


def test_it_shows_a_running_program_that_follows_its_limit() -> None:
    """From nine tenths of 256 MiB to nine tenths of 320 MiB, in one and the same process."""
    runtimes = [line for line in transcript().split("\n") if line.startswith(('  "gomemlimit"', '  "pid"'))]
    before, after = runtimes[:2], runtimes[2:]
    assert (before[0], after[0]) == ('  "gomemlimit": 241591910,', '  "gomemlimit": 301989888,')
    assert before[1] == after[1]
