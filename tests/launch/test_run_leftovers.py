"""Nothing is left behind: after any death, after any failure, whoever dies first."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cgagent.launch import names
from launch.leftovers import soon

if TYPE_CHECKING:
    from collections.abc import Callable

CGAGENT = os.path.join(os.path.dirname(sys.executable), "cgagent")
STRACE = shutil.which("strace")
DEATHS = int(os.environ.get("CGAGENT_TEST_DEATHS", "12"))
LIMITS = ("--cpus", "1", "--memory", "64Mi", "--pids-limit", "50")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups of one's own need root")


def directories(owner: int) -> list[str]:
    """The cgroups of the launcher with PID `owner`."""
    mine = f"{names.PREFIX}{names.pid_namespace()}-{owner}-"
    return [
        os.path.join(place, name)
        for place, below, _ in os.walk("/sys/fs/cgroup")
        for name in below
        if name.startswith(mine)
    ]


def processes(marker: str) -> list[int]:
    """The processes whose command line holds `marker`."""
    found = []
    for word in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{word}/cmdline", "rb") as file:
            if marker.encode() in file.read().split(b"\0"):
                found.append(int(word))
    return found


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_launcher(launcher: int) -> None:
    kill(launcher)


def kill_init(launcher: int) -> None:
    kill(*children(launcher)[:1])


def kill_keeper(launcher: int) -> None:
    kill(*children(launcher)[1:])


def kill_group(launcher: int) -> None:
    os.killpg(launcher, signal.SIGKILL)


def kill_all(launcher: int) -> None:
    kill(launcher, *children(launcher))


@pytest.mark.parametrize("murder", [kill_launcher, kill_init, kill_keeper, kill_group, kill_all])
def test_after_deaths_at_random_moments_the_next_start_finds_nothing(murder: Callable[[int], None]) -> None:
    launchers = []
    # As long as two launches take here: half of the moments lie in the set-up.
    began = time.monotonic()
    subprocess.run([CGAGENT, "run", *LIMITS, "--", "true"], check=True, timeout=60)
    life = 2 * (time.monotonic() - began)
    for _ in range(DEATHS):
        marker = f"987{random.randrange(10**9)}"
        words = [CGAGENT, "run", *LIMITS, "--", "sleep", marker]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
        time.sleep(random.uniform(0, life))
        murder(process.pid)
        if process.poll() is None:
            # The launcher lives on without its keeper, or saw nothing yet: it ends as ever.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(life)
            kill(*(pid for pid in processes(marker) if pid != process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
        process.wait()
        launchers.append((process.pid, marker))
    time.sleep(0.1)
    subprocess.run([CGAGENT, "run", *LIMITS, "--", "true"], check=True, timeout=60)
    # What has been killed takes a moment to end, and a keeper to clear up behind it.
    assert soon(lambda: [found for pid, _ in launchers if (found := directories(pid))]) == []
    assert soon(lambda: [found for _, marker in launchers if (found := processes(marker))]) == []


def test_gc_says_what_it_removed() -> None:
    # As if left by a launcher that ended: the PID is that of a process that is gone.
    with subprocess.Popen(["true"]) as gone:
        pass
    name = f"{names.PREFIX}{names.pid_namespace()}-{gone.pid}-1"
    place = next(path for path in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup") if os.path.isdir(path))
    os.makedirs(f"{place}/cgagent-test-{os.getpid()}/{name}/inner")
    try:
        done = subprocess.run([CGAGENT, "run", "--gc"], capture_output=True, text=True, check=True, timeout=60)
    finally:
        os.rmdir(f"{place}/cgagent-test-{os.getpid()}")
    assert f"removed {place}/cgagent-test-{os.getpid()}/{name}\n" in done.stdout
    *removed, count = done.stdout.splitlines()
    assert count == (f"{len(removed)} leftovers removed" if len(removed) != 1 else "1 leftover removed")


def test_gc_leaves_the_living_alone() -> None:
    with subprocess.Popen([CGAGENT, "run", *LIMITS, "--", "sh", "-c", "echo; read x"], stdin=-1, stdout=-1) as living:
        assert living.stdout is not None
        living.stdout.readline()
        subprocess.run([CGAGENT, "run", "--gc"], capture_output=True, check=True, timeout=60)
        assert directories(living.pid) != []
        living.communicate(b"go on\n", timeout=30)
    assert directories(living.pid) == []


# A call of the set-up, made to fail: the first of its kind, a middle one, or all.
CALLS = [
    *(("mount", when) for when in ("1", "2", "9", "24", "30", "40", "1+")),
    *(("mount_setattr", when) for when in ("1", "2", "4")),
    *(("prctl", when) for when in ("1", "2", "9", "1+")),
    *(("mkdir", when) for when in ("1", "3", "16", "20", "1+")),
    *((name, "1") for name in ("clone", "unshare", "pivot_root", "umount2", "sethostname", "capset", "clone3")),
    *((name, "1") for name in ("signalfd4", "pidfd_open", "setgroups", "setresgid", "setresuid", "setpgid", "rmdir")),
    *(("pipe2", when) for when in ("1", "2", "3")),
    *(("write", when) for when in ("1", "2", "3", "5", "7", "9")),
    *(("symlink", when) for when in ("1", "7")),
    *(("chdir", when) for when in ("1", "2")),
]


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize(("call", "when"), CALLS)
def test_a_system_call_that_fails_is_one_line_and_leaves_nothing(call: str, when: str, tmp_path: object) -> None:
    assert STRACE is not None
    trace = f"{tmp_path}/trace"
    inject = [
        STRACE,
        "-f",
        "-qq",
        "-o",
        trace,
        "-e",
        f"trace={call},execve",
        "-e",
        f"inject={call}:error=EPERM:when={when}",
    ]
    done = subprocess.run(
        [*inject, CGAGENT, "run", *LIMITS, "--", "echo", "started"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    with open(trace, encoding="utf-8") as file:
        launcher = int(file.readline().split()[0])
    if done.returncode == 0:
        # There was a way around it, or it was the command's or a later one's.
        assert (done.stdout, done.stderr) == ("started\n", "")
    else:
        assert done.returncode == 125
        assert done.stderr.startswith("cgagent run: ")
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr
    assert directories(launcher) == []
