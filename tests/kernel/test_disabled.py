"""A controller that the kernel was told to leave out, as small boards' kernels are by default.

Nothing can bring that about while a machine runs:
`BOOT_APPEND=cgroup_disable=memory tests/machine/boot v2 .venv/bin/python -m pytest tests/kernel/test_disabled.py`.
"""

from __future__ import annotations

import os

import pytest

from kernel import agent, cgroups
from kernel.cgroups import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    "cgroup_disable=memory" not in cgroups.read("/proc/cmdline"), reason="this kernel was booted with every controller"
)


@pytest.fixture
def limited() -> Iterator[Group]:
    """A cgroup with 1 CPU; there is no memory controller to limit more."""
    group = Group(f"{cgroups.PREFIX}{os.getpid()}-disabled", ["cpu"])
    group.set_quota(100_000)
    try:
        yield group
    finally:
        group.remove()


def test_a_controller_that_is_switched_off_sets_no_limit_and_hides_none(limited: Group) -> None:
    explained = agent.explain(group=limited)

    assert explained["limits"]["memory"]["bytes"] is None
    assert explained["env"] == {"GOMAXPROCS": "1"}
    assert not {"controller-not-visible", "unreadable", "malformed-file"} & set(agent.findings(explained))
    assert "no-memory-limit" in agent.findings(explained)


def test_write_succeeds_without_it(limited: Group) -> None:
    done = agent.succeed([*agent.CGAGENT, "write", "--env-file", "-"], limited)

    assert done.stdout.split("\n")[1:] == ["GOMAXPROCS='1'", ""]
