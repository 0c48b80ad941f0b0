"""The env file follows limits that change. Polling is set to an hour: what is seen is seen by inotify."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from kernel.cgroups import MIB, NO_QUOTA, Group
from watch.sidecar import CPUS, UNBOUND, Sidecar, read_env

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Start = Callable[..., Sidecar]
    RunIn = Callable[..., subprocess.Popen[str]]

IDLE_SECONDS = 3.0


def test_a_changed_quota_and_memory_limit_reach_the_env_file(top: Group, sidecar: Start) -> None:
    top.set_quota(100_000)
    top.set_memory(128 * MIB)
    agent = sidecar(group=top).ready()
    assert agent.env() == (1, 128 * MIB * 9 // 10)

    top.set_quota(150_000)
    agent.shows(min(2, CPUS), 128 * MIB * 9 // 10)
    top.set_memory(64 * MIB)
    agent.shows(min(2, CPUS), 64 * MIB * 9 // 10)


def test_a_limit_that_goes_away_takes_its_line_with_it(top: Group, sidecar: Start) -> None:
    top.set_quota(50_000)
    agent = sidecar(group=top).ready()
    assert agent.env() == (1, None)

    top.set_quota(NO_QUOTA)

    agent.shows(UNBOUND, None)


def test_a_limit_of_an_ancestor_counts_as_soon_as_it_binds(top: Group, sidecar: Start) -> None:
    leaf = top.child("pod").child("container")
    leaf.set_memory(256 * MIB)
    agent = sidecar(group=leaf).ready()

    top.set_quota(100_000)
    agent.shows(1, 256 * MIB * 9 // 10)
    top.set_memory(64 * MIB)
    agent.shows(1, 64 * MIB * 9 // 10)


def test_a_cpuset_that_changes_bounds_gomaxprocs(top: Group, sidecar: Start) -> None:
    if top.version("cpuset") is None or CPUS < 2:
        pytest.skip("needs the cpuset controller and two CPUs")
    top.set_quota(200_000)
    agent = sidecar(group=top).ready()
    assert agent.env()[0] == 2

    top.set_cpus("0")

    agent.shows(1, None)


def test_at_level_debug_the_log_says_why_it_looks(top: Group, sidecar: Start) -> None:
    agent = sidecar("--log.level", "debug", group=top).ready()

    top.set_memory(64 * MIB)

    agent.says("level=debug msg=looking because=settle")


def test_its_own_reads_wake_nobody(top: Group, sidecar: Start) -> None:
    top.set_quota(100_000)
    agent = sidecar(group=top).ready()
    top.set_quota(200_000)
    agent.shows(min(2, CPUS), None)
    agent.at_rest()

    before = agent.wake_ups()
    time.sleep(IDLE_SECONDS)

    assert agent.wake_ups() - before <= 2 * IDLE_SECONDS


def test_a_burst_is_looked_at_once_it_is_over(top: Group, sidecar: Start) -> None:
    top.set_quota(100_000)
    agent = sidecar("--settle", "10s", group=top).ready()
    with open(agent.env_file, "rb") as file:
        first = file.read()

    for size in (64, 65, 66, 67):
        top.set_memory(size * MIB)
        time.sleep(0.05)
        with open(agent.env_file, "rb") as file:
            assert file.read() == first

    agent.shows(1, 67 * MIB * 9 // 10)
    agent.until(lambda: agent.log.count("env file written") >= 2, "the line about it")
    assert agent.log.count("env file written") == 2


def test_every_kind_of_sign_missed_is_made_good_by_the_poll(top: Group, sidecar: Start) -> None:
    one, other = top.child("one"), top.child("other")
    one.set_quota(100_000)
    other.set_quota(200_000)
    agent = sidecar(group=one, poll="500ms").ready()

    other.move(agent.pid)  # no event tells of it

    agent.shows(min(2, CPUS), None)
    other.set_quota(100_000)
    agent.shows(1, None)


def test_the_limits_of_another_process_are_followed(top: Group, sidecar: Start, run_in: RunIn) -> None:
    top.set_quota(100_000)
    target = run_in(top, "watched")
    agent = sidecar("--target", str(target.pid)).ready()
    assert agent.env() == (1, None)

    top.set_memory(64 * MIB)

    agent.shows(1, 64 * MIB * 9 // 10)


def test_the_end_of_the_only_process_that_was_meant_ends_the_sidecar(top: Group, sidecar: Start, run_in: RunIn) -> None:
    top.set_quota(100_000)
    target = run_in(top, "watched")
    agent = sidecar("--target", str(target.pid)).ready()

    target.kill()
    target.wait()

    assert agent.end() == 1
    assert f"process {target.pid} has ended: --target auto would look for another" in agent.log


def test_a_restarted_application_is_found_again_in_its_new_cgroup(top: Group, sidecar: Start, run_in: RunIn) -> None:
    name = f"app{os.getpid()}"
    first, second = top.child("first"), top.child("second")
    first.set_memory(64 * MIB)
    second.set_memory(128 * MIB)
    target = run_in(first, name)
    agent = sidecar("--target", "auto", "--target-name", name).ready()
    agent.shows(UNBOUND, 64 * MIB * 9 // 10)

    target.kill()
    target.wait()
    first.remove()
    run_in(second, name)

    agent.shows(UNBOUND, 128 * MIB * 9 // 10)
    second.set_memory(96 * MIB)
    agent.shows(UNBOUND, 96 * MIB * 9 // 10)


def test_an_application_that_comes_later_is_waited_for(top: Group, sidecar: Start, run_in: RunIn) -> None:
    name = f"late{os.getpid()}"
    top.set_memory(64 * MIB)
    agent = sidecar("--target", "auto", "--target-exe", name)
    agent.says("about=target")
    assert not os.path.exists(agent.env_file)

    run_in(top, name)

    agent.ready().shows(UNBOUND, 64 * MIB * 9 // 10)


def test_a_wish_goes_ahead_downwards_and_waits_for_the_cgroup_upwards(
    top: Group, sidecar: Start, run_in: RunIn, place: str
) -> None:
    top.set_memory(128 * MIB)
    target = run_in(top, "wished")
    wishes = f"{place}/podinfo"
    os.mkdir(wishes)

    def wish(size: int) -> None:
        """As the kubelet does it: a new directory, and `..data` renamed to point at it."""
        fresh = f"..{time.monotonic_ns()}"
        os.mkdir(f"{wishes}/{fresh}")
        with open(f"{wishes}/{fresh}/memory_limit_bytes", "w", encoding="ascii") as file:
            file.write(str(size))
        os.symlink(fresh, f"{wishes}/..data_tmp")
        os.rename(f"{wishes}/..data_tmp", f"{wishes}/..data")

    wish(128 * MIB)
    os.symlink("..data/memory_limit_bytes", f"{wishes}/memory_limit_bytes")
    agent = sidecar("--target", str(target.pid), "--limits-dir", wishes).ready()
    assert agent.env()[1] == 128 * MIB * 9 // 10

    wish(64 * MIB)
    agent.shows(UNBOUND, 64 * MIB * 9 // 10)
    wish(256 * MIB)
    agent.shows(UNBOUND, 128 * MIB * 9 // 10)
    seen = set()
    for _ in range(100):
        seen.add(read_env(agent.env_file)[1])
        time.sleep(0.005)
    assert seen == {128 * MIB * 9 // 10}, "a wish that the cgroup has not is no limit yet"
    top.set_memory(256 * MIB)
    agent.shows(UNBOUND, 256 * MIB * 9 // 10)


def test_where_the_kernel_gives_no_inotify_the_poll_is_quicker_and_one_warning_says_so(
    top: Group, sidecar: Start
) -> None:
    if not os.path.exists("/proc/sys/user/max_inotify_instances"):
        pytest.skip("this kernel has no inotify limit for each user namespace")
    top.set_quota(100_000)
    script = 'echo 0 > /proc/sys/user/max_inotify_instances || exit 99; exec "$@"'
    agent = sidecar(group=top, prefix=["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]).ready()

    top.set_memory(64 * MIB)
    agent.shows(1, 64 * MIB * 9 // 10)
    top.set_memory(96 * MIB)
    agent.shows(1, 96 * MIB * 9 // 10)

    assert agent.log.count("level=warning") == 1
    assert "polling instead" in agent.log
    assert "raise fs.inotify.max_user_instances" in agent.log


def test_where_not_every_file_can_be_watched_the_poll_is_quicker_too(top: Group, sidecar: Start) -> None:
    if not os.path.exists("/proc/sys/user/max_inotify_watches"):
        pytest.skip("this kernel has no inotify limit for each user namespace")
    top.set_quota(100_000)
    script = 'echo 1 > /proc/sys/user/max_inotify_watches || exit 99; exec "$@"'
    agent = sidecar(group=top, prefix=["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]).ready()

    top.set_memory(64 * MIB)
    agent.shows(1, 64 * MIB * 9 // 10)

    assert agent.log.count("level=warning") == 1
    assert "raise fs.inotify.max_user_watches" in agent.log


# The sidecar, and in it what a fault could do: inotify's descriptor becomes one of something else at SIGUSR1.
_LOSES_INOTIFY = """
import os, signal, sys
from cgagent.cli import main
def lose(*_):
    for fd in os.listdir("/proc/self/fd"):
        if os.path.lexists(f"/proc/self/fd/{fd}") and "inotify" in os.readlink(f"/proc/self/fd/{fd}"):
            os.dup2(os.open("/", os.O_RDONLY), int(fd))
            print("lost", flush=True)
signal.signal(signal.SIGUSR1, lose)
sys.exit(main(sys.argv[4:]))
"""


def test_where_the_thread_that_reads_inotify_ends_another_takes_over(top: Group, sidecar: Start) -> None:
    top.set_memory(64 * MIB)
    agent = sidecar(group=top, prefix=[sys.executable, "-c", _LOSES_INOTIFY]).ready()

    for times, size in enumerate((96, 80), 1):
        top.set_memory(72 * MIB)
        agent.shows(UNBOUND, 72 * MIB * 9 // 10)
        threads = agent.at_rest()[1]
        agent.send(signal.SIGUSR1)
        agent.until(lambda: agent.log.count("lost\n") == times, "its loss")  # noqa: B023 called at once
        top.set_memory(size * MIB)
        agent.shows(UNBOUND, size * MIB * 9 // 10)

    agent.until(lambda: agent.figures()[1] == threads, "as many threads as before")
    agent.until(lambda: agent.log.count("is started again") == 2, "both restarts in the log")
    assert agent.stop() == 0
