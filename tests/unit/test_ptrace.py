"""Which of the kernel's conditions is named, where another process's files or memory may not be read."""

from __future__ import annotations

import pytest

from cgagent.ptrace import why

OURS = {"Uid": ["1000"] * 4, "Gid": ["1000"] * 4, "CapEff": ["1"], "CapPrm": ["1"]}
MIGHTY = {"CapEff": ["80000"]}  # CAP_SYS_PTRACE, include/uapi/linux/capability.h


@pytest.mark.parametrize(
    ("ours", "theirs", "owner", "scope", "told"),
    [
        ({}, {"Uid": ["8"] * 4}, 8, 0, "it runs as user 8, cgagent as 1000: run with the same user"),
        ({}, {"Uid": ["1000", "0", "0", "0"]}, 0, 0, "it runs as user 1000/0, cgagent as 1000"),
        ({}, {"Gid": ["7", "7", "7", "7"]}, 1000, 0, "it runs as group 7, cgagent as 1000: run with the same group"),
        ({}, {}, 0, 0, "it is not dumpable"),
        ({}, {"CapPrm": ["401"]}, 1000, 0, "it has capabilities that cgagent lacks (0x400): drop them there"),
        ({}, {}, 1000, 1, "ptrace_scope is 1, and cgagent is not its parent: give cgagent CAP_SYS_PTRACE"),
        ({}, {}, 1000, 2, "ptrace_scope is 2, and"),
        (MIGHTY, {"Uid": ["0"] * 4}, 0, 3, "ptrace_scope is 3, which forbids it to everybody"),
        (MIGHTY, {"Uid": ["0"] * 4}, 0, 2, "a security module"),
        ({}, {}, 1000, 0, "a security module"),
    ],
)
def test_the_condition_that_fails_is_named(
    ours: dict[str, list[str]], theirs: dict[str, list[str]], owner: int, scope: int, told: str
) -> None:
    assert told in why(OURS | ours, OURS | theirs, owner, scope)
