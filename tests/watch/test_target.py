"""Reading another container's limits: the sidecar sees no cgroups but through /proc/PID/root, as in a pod."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from kernel.cgroups import MIB, Group
from watch.sidecar import UNBOUND, Sidecar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Sidecar]
    RunIn = Callable[..., subprocess.Popen[str]]

USER, OTHER = "64001", "64002"
# In a mount namespace of its own without cgroups.
_BLIND = ("unshare", "--mount", "sh", "-c", 'umount -R -l /sys/fs/cgroup || exit 99; exec "$@"', "sh")
_UNDUMPABLE = "import ctypes, time; ctypes.CDLL(None).prctl(4, 0); print('ready', flush=True); time.sleep(600)"


def as_user(user: str, group: str | None = None) -> tuple[str, ...]:
    """Run as this user and group, without capabilities."""
    return ("setpriv", "--reuid", user, "--regid", group or user, "--clear-groups", "--inh-caps=-all")


@pytest.fixture(autouse=True)
def _tools() -> None:
    for name in ("unshare", "setpriv", "umount"):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}(1)")
    if not os.access(sys.executable, os.X_OK) or os.stat(os.path.realpath(sys.executable)).st_mode & 5 != 5:
        pytest.skip("other users can't run this Python")


def _blind(user: str, group: str | None = None) -> list[str]:
    return [*_BLIND, *as_user(user, group)]


def test_the_same_user_and_group_suffice(top: Group, sidecar: Start, run_in: RunIn) -> None:
    top.set_memory(64 * MIB)
    target = run_in(top, "watched", prefix=as_user(USER))
    agent = sidecar("--target", str(target.pid), prefix=_blind(USER)).ready()
    assert agent.env() == (UNBOUND, 64 * MIB * 9 // 10)

    top.set_memory(96 * MIB)

    agent.shows(UNBOUND, 96 * MIB * 9 // 10)
    with open(agent.env_file, encoding="ascii") as file:
        assert f"/proc/{target.pid}/root/sys/fs/cgroup" in file.read()


@pytest.mark.parametrize(
    ("target_as", "we_as", "telling"),
    [
        ((USER, USER), (OTHER, USER), f"it runs as user {USER}, cgagent as {OTHER}: run with the same user"),
        ((USER, USER), (USER, OTHER), f"it runs as group {USER}, cgagent as {OTHER}: run with the same group"),
        (("0", "0"), (USER, USER), f"it runs as user 0, cgagent as {USER}"),
    ],
    ids=["another user", "another group", "root"],
)
def test_another_user_or_group_is_named(
    top: Group, sidecar: Start, run_in: RunIn, target_as: tuple[str, str], we_as: tuple[str, str], telling: str
) -> None:
    target = run_in(top, "watched", prefix=as_user(*target_as))

    agent = sidecar("--target", str(target.pid), prefix=_blind(*we_as))

    assert agent.end() == 1
    assert f"the limits of process {target.pid} can't be read: {telling}" in agent.log


def test_capabilities_that_only_the_target_has_are_named(top: Group, sidecar: Start, run_in: RunIn) -> None:
    target = run_in(top, "watched")
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]

    agent = sidecar("--target", str(target.pid), prefix=[*_BLIND, *without])

    assert agent.end() == 1
    assert "it has capabilities that cgagent lacks (0x" in agent.log
    assert "drop them there (capabilities: drop: [ALL])" in agent.log


def test_a_target_that_is_not_dumpable_is_told(top: Group, sidecar: Start) -> None:
    command = top.enter([*as_user(USER), sys.executable, "-c", _UNDUMPABLE])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout is not None
        assert target.stdout.readline() == "ready\n"
        try:
            agent = sidecar("--target", str(target.pid), prefix=_blind(USER))
            assert agent.end() == 1
        finally:
            target.kill()
    assert "it is not dumpable" in agent.log


def test_several_applications_have_to_be_chosen_among(top: Group, sidecar: Start, run_in: RunIn) -> None:
    name = f"twin{os.getpid()}"
    one, other = (run_in(top.child(kind), name).pid for kind in ("one", "other"))

    agent = sidecar("--target", "auto", "--target-name", name)

    agent.says("several containers' processes could be meant")
    assert f"{one} ({name}), {other} ({name}): choose with --target-name or --target-exe" in agent.log
    assert not os.path.exists(agent.env_file)


def test_that_a_choice_is_needed_is_told_once_whoever_comes_and_goes(top: Group, sidecar: Start, run_in: RunIn) -> None:
    name = f"more{os.getpid()}"
    first, second = (run_in(top.child(kind), name) for kind in ("first", "second"))
    agent = sidecar("--target", "auto", "--target-name", name)
    agent.says("several containers' processes could be meant")

    third = run_in(top.child("third"), name)
    before = agent.wake_ups()
    agent.until(lambda: agent.wake_ups() > before + 2, "a look at the three")
    for process in (first, second):
        process.kill()
        process.wait()

    agent.says(f'msg="target found" pid={third.pid}')
    assert agent.log.count("several containers' processes could be meant") == 1


def test_of_one_container_s_processes_the_first_is_the_target(top: Group, sidecar: Start, run_in: RunIn) -> None:
    name = f"many{os.getpid()}"
    first = run_in(top, name)
    for _ in range(3):
        run_in(top, name)
    top.set_memory(64 * MIB)

    agent = sidecar("--target", "auto", "--target-name", name)

    agent.says(f'msg="target found" pid={first.pid} name={name}')
