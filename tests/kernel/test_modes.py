"""v1, v2, hybrid and none: what a process has mounted, and which version holds each controller."""

from __future__ import annotations

import pytest

from kernel import agent, cgroups
from kernel.cgroups import MIB, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def without(*versions: int) -> list[str]:
    """Words that run the rest in a mount namespace without the cgroup mounts of these versions."""
    points = [mount.point for mount in reversed(cgroups.mounts()) if mount.version in versions]
    script = "\n".join(["set -e", *(f"umount {point}" for point in points), 'exec "$@"'])
    return ["unshare", "--mount", "sh", "-c", script, "without"]


def explained_without(group: Group, *versions: int) -> dict[str, Any]:
    command = [*without(*versions), *agent.CGAGENT, "explain", "-o", "json"]
    return agent.document(agent.succeed(command, group).stdout)


@pytest.fixture
def limited(top: Group) -> Group:
    """A cgroup with 1 CPU and 128 MiB."""
    top.set_quota(100_000)
    top.set_memory(128 * MIB)
    return top


def test_the_mode_is_what_is_mounted(limited: Group) -> None:
    assert agent.explain(group=limited)["cgroup"]["mode"] == cgroups.mode()


def test_hybrid_takes_each_controller_from_the_version_that_holds_it(limited: Group) -> None:
    if cgroups.mode() != "hybrid":
        pytest.skip(f"this machine is {cgroups.mode()}")

    explained = agent.explain(group=limited)

    versions = {
        controller: one["version"] for one in explained["cgroup"]["hierarchies"] for controller in one["controllers"]
    }
    assert versions["cpu"] == versions["memory"] == 1
    assert 2 in {one["version"] for one in explained["cgroup"]["hierarchies"]}
    assert explained["limits"]["cpu"]["source"] == limited.quota_file
    assert explained["limits"]["memory"]["source"] == limited.memory_file


def test_v1_alone_is_v1(limited: Group) -> None:
    if cgroups.mode() not in ("hybrid", "v1"):
        pytest.skip("this machine has no v1 mounts")

    explained = explained_without(limited, 2)

    assert explained["cgroup"]["mode"] == "v1"
    assert (explained["limits"]["cpu"]["cores"], explained["limits"]["memory"]["bytes"]) == (1.0, 128 * MIB)


def test_v2_alone_where_v1_holds_the_controllers_is_not_taken_for_unlimited(limited: Group) -> None:
    if cgroups.mode() != "hybrid":
        pytest.skip(f"this machine is {cgroups.mode()}")

    explained = explained_without(limited, 1)

    assert explained["cgroup"]["mode"] == "v2"
    assert (explained["limits"]["cpu"]["cores"], explained["limits"]["memory"]["bytes"]) == (None, None)
    assert "controller-not-visible" in agent.findings(explained)
    assert agent.run([*without(1), *agent.CGAGENT, "write", "--env-file", "-"], limited).returncode == 1


def test_one_hierarchy_that_is_not_mounted_costs_its_own_variable_alone(limited: Group) -> None:
    if limited.version("memory") != 1:
        pytest.skip("v2 has one hierarchy")
    mount = cgroups.holder("memory")
    assert mount is not None
    prefix = ["unshare", "--mount", "sh", "-c", f'umount {mount.point}; exec "$@"', "without"]

    explained = agent.document(agent.succeed([*prefix, *agent.CGAGENT, "explain", "-o", "json"], limited).stdout)

    assert explained["limits"]["memory"]["bytes"] is None
    assert explained["env"] == {"GOMAXPROCS": "1"}
    ignoring = [*prefix, *agent.CGAGENT, "write", "--env-file", "-", "--on-error", "ignore"]
    done = agent.succeed(ignoring, limited)
    assert done.stdout.split("\n")[1:] == ["GOMAXPROCS='1'", ""]
    assert "GOMEMLIMIT left out" in done.stderr


def test_a_second_mount_of_a_hierarchy_changes_nothing(limited: Group, tmp_path: str) -> None:
    mount = cgroups.holder("memory")
    assert mount is not None
    prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind {mount.point} {tmp_path} && exec "$@"', "twice"]

    explained = agent.document(agent.succeed([*prefix, *agent.CGAGENT, "explain", "-o", "json"], limited).stdout)

    assert explained["limits"]["memory"]["bytes"] == 128 * MIB
    assert explained["cgroup"]["mode"] == cgroups.mode()
    assert "conflicting-mounts" not in agent.findings(explained)


def test_a_mount_of_another_cgroup_does_not_hide_the_right_one(limited: Group, top: Group, tmp_path: str) -> None:
    """A monitoring container that has some cgroup of the host bound into it."""
    stranger = top.child("stranger")
    stranger.set_quota(30_000)
    stranger.set_memory(16 * MIB)
    lines = [
        f"mkdir -p {tmp_path}/{one}; mount --bind {at} {tmp_path}/{one}" for one, at in stranger.directories.items()
    ]
    prefix = ["unshare", "--mount", "sh", "-c", "\n".join(["set -e", *lines, 'exec "$@"']), "bound"]
    own = limited.child("own")

    explained = agent.document(agent.succeed([*prefix, *agent.CGAGENT, "explain", "-o", "json"], own).stdout)

    assert (explained["limits"]["cpu"]["cores"], explained["limits"]["memory"]["bytes"]) == (1.0, 128 * MIB)
