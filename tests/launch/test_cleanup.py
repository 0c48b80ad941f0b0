"""Nothing is left behind, whoever is killed, at whatever moment.

Each launch is killed at a random moment of its life. CGAGENT_KILLS says how many moments (6; the slow tier takes 100).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from launch import leftovers
from launch.behaviour import CGAGENT, needs_root, needs_v1, run
from launch.private_namespaces import in_private_namespaces
from launch.test_behaviour_signals import comm, pid_inside, processes

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_root

KILLS = int(os.environ.get("CGAGENT_KILLS", "6"))
LIMITS = ("--cpus", "0.5", "--memory", "64Mi", "--pids-limit", "30", "--cpuset-cpus", "0")
COMMAND = ("sh", "-c", "sleep 1000 & sleep 1000")


def launcher(process: subprocess.Popen[bytes]) -> list[int]:
    return [process.pid]


def init(process: subprocess.Popen[bytes]) -> list[int]:
    return [pid for pid in processes(process.pid) if pid_inside(pid) == "1"]


def keeper(process: subprocess.Popen[bytes]) -> list[int]:
    """The child of the launcher that is in no container."""
    return [pid for pid in processes(process.pid) if not pid_inside(pid) and comm(pid) == comm(process.pid)]


def everything(process: subprocess.Popen[bytes]) -> list[int]:
    return [*processes(process.pid), process.pid]


def launcher_and_keeper(process: subprocess.Popen[bytes]) -> list[int]:
    return [*keeper(process), process.pid]


def group(process: subprocess.Popen[bytes]) -> list[int]:
    return [-process.pid]


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            if pid < 0:
                os.killpg(-pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def launch(mark: str, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [CGAGENT, "run", *LIMITS, *options, "--", *COMMAND],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "CGAGENT_TEST_MARK": mark},
        start_new_session=True,
    )


def pace() -> float:
    """Seconds that a launch takes here."""
    began = time.monotonic()
    run(list(LIMITS), "true")
    return time.monotonic() - began


def kill_at_random_moments(victims: Callable[[subprocess.Popen[bytes]], list[int]], *options: str) -> None:
    """Launch, kill `victims` at a moment between fork and a running command, KILLS times; then look around."""
    mark = f"cgagent-test-{os.getpid()}-{victims.__name__}"
    seed = random.randrange(1 << 32)
    moment = random.Random(seed)
    setup = pace()
    before = leftovers.places()
    launchers = set()
    for _ in range(KILLS):
        process = launch(mark, *options)
        launchers.add(process.pid)
        # Half of the moments lie in the set-up.
        time.sleep(moment.choice((moment.uniform(0, setup), moment.uniform(setup, 4 * setup))))
        kill(victims(process))
        try:
            process.wait(timeout=5 * setup)
        except subprocess.TimeoutExpired:
            # The victim was not there yet, or the launch went on without it: it is ended as a user would.
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                pytest.fail(f"a launch whose {victims.__name__} was killed does not end by SIGTERM (seed {seed})")
    assert leftovers.soon(lambda: leftovers.processes(mark)) == set(), f"seed {seed}"
    leftovers.collect()
    assert leftovers.soon(lambda: leftovers.cgroups(launchers)) == set(), f"seed {seed}"
    assert leftovers.places() - before == set(), f"seed {seed}"


@pytest.mark.parametrize(
    "victims", [launcher, init, keeper, launcher_and_keeper, group, everything], ids=lambda victim: victim.__name__
)
@in_private_namespaces
def test_nothing_is_left_when_it_is_killed(victims: Callable[[subprocess.Popen[bytes]], list[int]]) -> None:
    kill_at_random_moments(victims)


@pytest.mark.parametrize("victims", [launcher, everything], ids=lambda victim: victim.__name__)
@in_private_namespaces
def test_no_interface_is_left_when_it_is_killed(victims: Callable[[subprocess.Popen[bytes]], list[int]]) -> None:
    from cgagent.launch.netlink import Rtnetlink

    def links() -> set[str]:
        with Rtnetlink() as route:
            return {link.name for link in route.links()}

    kill_at_random_moments(victims, "--net", "veth")
    # A pair goes with its namespace, the bridge with the next sweep after that.
    assert leftovers.soon(lambda: {name for name in links() if name not in ("lo", "cgagent0")}) == set()
    leftovers.collect()
    assert links() == {"lo"}


def test_a_signal_that_comes_early_does_not_leave_it_without_a_keeper() -> None:
    process = launch(f"cgagent-test-{os.getpid()}-early")
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        process.send_signal(signal.SIGWINCH)
        time.sleep(0.002)
    kill([process.pid])
    process.wait()
    assert leftovers.soon(lambda: leftovers.cgroups({process.pid})) == set()


class TestOrdinaryEnds:
    @pytest.mark.parametrize(
        "command", ["true", "exit 3", "kill -9 $$", "sleep 1000 & true", "setsid sleep 1000 & true"]
    )
    @in_private_namespaces
    def test_leave_no_cgroup_at_once(self, command: str) -> None:
        mark = f"cgagent-test-{os.getpid()}-ordinary"
        before = leftovers.places()
        with subprocess.Popen(
            [CGAGENT, "run", *LIMITS, "--", "sh", "-c", command], env={**os.environ, "MARK": mark}
        ) as process:
            process.wait(timeout=60)
        assert leftovers.cgroups({process.pid}) == set()
        assert leftovers.soon(lambda: leftovers.processes(mark)) == set()
        assert leftovers.places() - before == set()

    def test_of_a_launch_that_fails_leave_no_cgroup(self) -> None:
        for options in (
            ["--workdir", "/proc/nowhere"],
            ["--rootfs", "/nowhere"],
            ["--user", "nosuchuser"],
            ["-v", "/nowhere:/mnt"],
        ):
            with subprocess.Popen(
                [CGAGENT, "run", *LIMITS, *options, "--", "true"], stderr=subprocess.DEVNULL
            ) as process:
                assert process.wait(timeout=60) in (2, 125)
            assert leftovers.cgroups({process.pid}) == set()

    def test_of_a_frozen_container_leave_nothing(self) -> None:
        mark = f"cgagent-test-{os.getpid()}-frozen"
        process = launch(mark)
        try:
            frozen = leftovers.soon(lambda: not (leftovers.cgroups({process.pid}) and init(process)))
            assert frozen is False
            time.sleep(0.3)
            for directory in leftovers.cgroups({process.pid}):
                for file, text in (("cgroup.freeze", "1"), ("freezer.state", "FROZEN")):
                    if os.path.exists(f"{directory}/{file}"):
                        with open(f"{directory}/{file}", "w", encoding="ascii") as stream:
                            stream.write(text)
        finally:
            process.kill()
            process.wait()
        assert leftovers.soon(lambda: leftovers.processes(mark)) == set()
        leftovers.collect()
        assert leftovers.soon(lambda: leftovers.cgroups({process.pid})) == set()


class TestGc:
    def test_removes_what_a_launch_killed_with_its_keeper_has_left(self) -> None:
        process = launch(f"cgagent-test-{os.getpid()}-gc")
        leftovers.soon(lambda: not init(process))
        time.sleep(0.2)
        kill(everything(process))
        process.wait()
        leftovers.collect()
        assert leftovers.cgroups({process.pid}) == set()

    def test_leaves_living_launches_alone(self) -> None:
        process = launch(f"cgagent-test-{os.getpid()}-living")
        try:
            leftovers.soon(lambda: not init(process))
            time.sleep(0.2)
            before = leftovers.cgroups({process.pid})
            leftovers.collect()
            assert before
            assert leftovers.cgroups({process.pid}) == before
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait()

    def test_leaves_directories_that_only_look_alike(self) -> None:
        name = f"cgagent-test-{os.getpid()}-other"
        directory = (
            next(
                f"/sys/fs/cgroup/{place}" for place in ("memory", ".") if os.access(f"/sys/fs/cgroup/{place}", os.W_OK)
            )
            + f"/{name}"
        )
        os.mkdir(directory)
        try:
            leftovers.collect()
            assert os.path.isdir(directory)
        finally:
            os.rmdir(directory)

    @needs_v1
    def test_of_a_launcher_that_we_cannot_see_only_what_no_process_is_in(self) -> None:
        directory = f"/sys/fs/cgroup/freezer/cgagent-1-{os.getpid()}-1"  # no PID namespace has the number 1
        os.makedirs(f"{directory}/made-inside")
        with subprocess.Popen(["sleep", "1000"]) as process:
            try:
                with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(process.pid))
                os.utime(directory, (0, 0))
                leftovers.collect()
                assert os.path.isdir(f"{directory}/made-inside")
            finally:
                process.kill()
        os.utime(directory, (0, 0))
        leftovers.collect()
        assert not os.path.exists(directory)

    def test_the_next_start_removes_them_too(self) -> None:
        process = launch(f"cgagent-test-{os.getpid()}-next")
        leftovers.soon(lambda: not init(process))
        time.sleep(0.2)
        kill(everything(process))
        process.wait()
        assert run(list(LIMITS), "sleep", "0.2").code == 0
        assert leftovers.soon(lambda: leftovers.cgroups({process.pid})) == set()
