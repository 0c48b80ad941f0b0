"""Limits: read back inside as they were asked for, and shown to bite."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from launch.behaviour import CGAGENT, RUNC, V1, Runc, busybox_root, needs_root, needs_v1, run
from launch.private_namespaces import needs_iproute, output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = needs_root


class Limit(NamedTuple):
    """Options, the file of v1 and of v2 that shows them inside, its content, and the same in runc's spec."""

    options: str
    v1: tuple[str, str] | None
    v2: tuple[str, str] | None
    runc: Mapping[str, object] | None = None


class Disk(NamedTuple):
    """A block device and a directory of the file system on it."""

    device: str
    directory: str


MIB = 1 << 20
MEMORY = {"limit": 64 * MIB, "swap": 64 * MIB}
LIMITS = (
    Limit(
        "--cpus 1.5",
        ("cpu/cpu.cfs_quota_us", "150000"),
        ("cpu.max", "150000 100000"),
        {"cpu": {"quota": 150000, "period": 100000}},
    ),
    Limit(
        "--cpus 0.01",
        ("cpu/cpu.cfs_quota_us", "1000"),
        ("cpu.max", "1000 100000"),
        {"cpu": {"quota": 1000, "period": 100000}},
    ),
    Limit(
        "--cpus 250m",
        ("cpu/cpu.cfs_quota_us", "25000"),
        ("cpu.max", "25000 100000"),
        {"cpu": {"quota": 25000, "period": 100000}},
    ),
    Limit(
        "--cpus 64",
        ("cpu/cpu.cfs_quota_us", "6400000"),
        ("cpu.max", "6400000 100000"),
        {"cpu": {"quota": 6400000, "period": 100000}},
    ),
    Limit(
        "--cpu-quota 20000 --cpu-period 40000",
        ("cpu/cpu.cfs_period_us", "40000"),
        ("cpu.max", "20000 40000"),
        {"cpu": {"quota": 20000, "period": 40000}},
    ),
    Limit(
        "--cpu-quota 20000", ("cpu/cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 100000"), {"cpu": {"quota": 20000}}
    ),
    Limit("--cpu-shares 512", ("cpu/cpu.shares", "512"), ("cpu.weight", "20"), {"cpu": {"shares": 512}}),
    Limit("-c 2", ("cpu/cpu.shares", "2"), ("cpu.weight", "1"), {"cpu": {"shares": 2}}),
    Limit("--cpu-weight 200", ("cpu/cpu.shares", "2048"), ("cpu.weight", "200")),
    Limit("--cpuset-cpus 0", ("cpuset/cpuset.cpus", "0"), ("cpuset.cpus", "0"), {"cpu": {"cpus": "0"}}),
    Limit("--cpuset-cpus 0-1", ("cpuset/cpuset.cpus", "0-1"), ("cpuset.cpus", "0-1"), {"cpu": {"cpus": "0-1"}}),
    Limit("--cpuset-mems 0", ("cpuset/cpuset.mems", "0"), ("cpuset.mems", "0"), {"cpu": {"mems": "0"}}),
    Limit(
        "--memory 64Mi",
        ("memory/memory.limit_in_bytes", str(64 * MIB)),
        ("memory.max", str(64 * MIB)),
        {"memory": {"limit": 64 * MIB}},
    ),
    Limit(
        "-m 64m",
        ("memory/memory.limit_in_bytes", str(64 * MIB)),
        ("memory.max", str(64 * MIB)),
        {"memory": {"limit": 64 * MIB}},
    ),
    Limit(
        "-m 65000000",
        ("memory/memory.limit_in_bytes", str(64999424)),
        ("memory.max", str(64999424)),
        {"memory": {"limit": 65000000}},
    ),
    Limit(
        "-m 64Mi --memory-swap 96Mi",
        ("memory/memory.memsw.limit_in_bytes", str(96 * MIB)),
        ("memory.swap.max", str(32 * MIB)),
        {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
    ),
    Limit(
        "-m 64Mi", ("memory/memory.memsw.limit_in_bytes", str(64 * MIB)), ("memory.swap.max", "0"), {"memory": MEMORY}
    ),
    Limit(
        "--memory-reservation 32Mi",
        ("memory/memory.soft_limit_in_bytes", str(32 * MIB)),
        ("memory.low", str(32 * MIB)),
        {"memory": {"reservation": 32 * MIB}},
    ),
    Limit("--memory-high 48Mi", None, ("memory.high", str(48 * MIB))),
    Limit("--pids-limit 17", ("pids/pids.max", "17"), ("pids.max", "17"), {"pids": {"limit": 17}}),
    Limit("--pids-limit -1", ("pids/pids.max", "max"), ("pids.max", "max"), {"pids": {"limit": -1}}),
)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.options)
def test_a_limit_is_read_back_inside_as_it_was_asked_for(limit: Limit) -> None:
    place = limit.v1 if V1 else limit.v2
    if place is None:
        pytest.skip("the other version of cgroups has it")
    file, content = place
    if int(os.cpu_count() or 1) < 2 and content == "0-1":
        pytest.skip("one CPU")
    command = ("sh", "-c", f"cat /sys/fs/cgroup/{file}")
    ours = run(["--rootfs", busybox_root(), *limit.options.split()], *command)
    assert (ours.code, ours.stdout) == (0, f"{content}\n"), ours.stderr
    if limit.runc is not None and RUNC is not None:
        edits = {f"linux.resources.{controller}": values for controller, values in limit.runc.items()}
        assert Runc(edits, *command).run().stdout == ours.stdout


@pytest.mark.parametrize("kind", ["read-bps", "write-bps", "read-iops", "write-iops"])
def test_an_io_limit_is_read_back_inside_as_it_was_asked_for(kind: str, disk: Disk) -> None:
    number = os.stat(disk.device).st_rdev
    name = f"{os.major(number)}:{os.minor(number)}"
    direction, unit = kind.split("-")
    file = f"blkio/blkio.throttle.{direction}_{unit}_device" if V1 else "io.max"
    done = run([f"--device-{kind}", f"{disk.device}=1000"], "cat", f"/sys/fs/cgroup/{file}")
    expected = f"{name} 1000\n" if V1 else f"{direction[0]}{unit}=1000"
    assert done.code == 0, done.stderr
    assert expected in done.stdout


@needs_v1
def test_a_controller_that_is_missing_is_named_and_best_effort_goes_on_without() -> None:
    # The host of this launch has every hierarchy but one.
    hide = "umount /sys/fs/cgroup/pids && exec "
    words = f"{CGAGENT} run --memory 64Mi --pids-limit 20 "

    def hidden(command: str) -> subprocess.CompletedProcess[str]:
        there = ["unshare", "-m", "sh", "-c", hide + command]
        return subprocess.run(there, capture_output=True, text=True, check=False, timeout=60)

    done = hidden(f"{words} -- true")
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("cgagent run: --pids-limit: the pids controller is not to be had here: ")
    assert line.endswith("--best-effort goes on without")
    done = hidden(f"{words} --best-effort -- cat /sys/fs/cgroup/memory/memory.limit_in_bytes")
    assert (done.returncode, done.stdout) == (0, f"{64 * MIB}\n")
    assert done.stderr == "cgagent run: --pids-limit: the pids controller is not to be had here\n"


@needs_v1
@pytest.mark.skipif(shutil.which("chrt") is None, reason="no chrt")
def test_a_real_time_task_that_the_cpu_cgroup_does_not_take_is_told_so() -> None:
    done = subprocess.run(
        ["chrt", "-f", "1", CGAGENT, "run", "--", "true"], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode == 0:
        pytest.skip("a kernel without CONFIG_RT_GROUP_SCHED")
    assert done.returncode == 125
    assert re.fullmatch(
        r"cgagent run: /sys/fs/cgroup/\S+/cgroup.procs takes no real-time task \(SCHED_FIFO, SCHED_RR\): "
        r"start it as an ordinary one, without chrt or systemd's CPUSchedulingPolicy=\n",
        done.stderr,
    )


def test_go_env_is_what_cgagent_decides_inside() -> None:
    # 100 MiB less a tenth, and one and a half CPUs rounded up: design, "Rules of the numbers".
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one CPU")
    done = run(["--cpus", "1.5", "--memory", "100Mi", "--go-env"], "sh", "-c", "echo $GOMAXPROCS $GOMEMLIMIT")
    assert done == (0, f"2 {100 * MIB * 9 // 10}\n", "")


def test_go_env_leaves_alone_what_is_given() -> None:
    done = run(["--memory", "100Mi", "--go-env", "-e", "GOMEMLIMIT=1GiB"], "sh", "-c", "echo $GOMEMLIMIT")
    assert done == (0, "1GiB\n", "")


def test_all_limits_at_once() -> None:
    options = "--cpus 0.5 --cpuset-cpus 0 --memory 64Mi --pids-limit 30 --cpu-shares 512"
    assert run(options.split(), "true") == (0, "", "")


class TestBite:
    """Each limit, really exceeded."""

    def test_a_busy_loop_gets_its_quota_of_cpu_time_within_a_twentieth(self) -> None:
        # A small quota and the largest weight: a busy machine can give it. A short period: its edges are the error.
        options = "--cpu-quota 4000 --cpu-period 20000 --cpu-shares 262144"
        words = [CGAGENT, "run", *options.split(), "--", "sh", "-c", "while :; do :; done"]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as launcher:
            try:
                usage = Usage(launcher.pid)
                time.sleep(0.5)
                for _ in range(5):  # a machine that stands still for a moment gives less
                    first, start = usage.seconds(), time.monotonic()
                    time.sleep(3)
                    share = (usage.seconds() - first) / (time.monotonic() - start)
                    if abs(share / 0.2 - 1) <= 0.05:
                        break
            finally:
                launcher.terminate()
        assert abs(share / 0.2 - 1) <= 0.05

    def test_throttling_is_told_with_its_share(self, tmp_path: Path) -> None:
        stats = tmp_path / "stats.json"
        options = ["--cpus", "0.2", "--cpu-shares", "262144", "--stats-file", str(stats)]
        done = run(options, "timeout", "1", "sh", "-c", "while :; do :; done")
        assert done.code == 124
        cpu = json.loads(stats.read_text())["cpu"]
        assert cpu["throttled_periods"] >= 3
        assert cpu["throttled_share"] > 0.5
        assert re.search(r"throttled in \d+ of \d+ periods, .*quota 0\.2 CPUs", done.stderr)

    def test_throttling_is_told_of_a_command_that_succeeded(self) -> None:
        spin = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
        done = run(["--cpus", "0.1"], "sh", "-c", spin)
        assert (done.code, done.stdout) == (0, "")
        assert re.search(r"throttled in \d+ of \d+ periods, .*quota 0\.1 CPUs", done.stderr)

    def test_an_end_that_no_limit_had_a_part_in_loads_no_report(self) -> None:
        done = run(
            ["--memory", "64Mi", "--pids-limit", "50"], "true", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
        )
        assert done.code == 0
        assert "cgagent.launch.cgroups" in done.stderr
        assert "cgagent.launch.report" not in done.stderr

    def test_a_process_in_a_cpuset_sees_and_gets_only_those_cpus(self) -> None:
        assert run(["--cpuset-cpus", "0"], "nproc").stdout == "1\n"

    def test_an_allocation_past_the_memory_limit_is_killed_and_told(self, tmp_path: Path) -> None:
        stats = tmp_path / "stats.json"
        done = run(
            ["--memory", "64Mi", "--stats-file", str(stats)], sys.executable, "-c", "x = bytes(200 << 20); x += b'1'"
        )
        assert (done.code, done.stdout) == (137, "")
        assert re.search(r"OOM-killed: .* the memory limit of 64Mi", done.stderr)
        told = json.loads(stats.read_text())
        assert (told["oom_killed"], told["signal"], told["memory"]["limit_bytes"]) == (True, 9, 64 * MIB)
        # The peak is at the limit, not past it.
        assert 60 * MIB <= told["memory"]["peak_bytes"] <= 64 * MIB

    def test_stats_are_one_screen_for_a_person(self) -> None:
        done = run(
            ["--cpus", "0.5", "--memory", "64Mi", "--pids-limit", "20", "--stats"],
            "sh",
            "-c",
            "head -c 20m /dev/zero | tail",
        )
        assert (done.code, done.stdout) == (0, "\0" * (20 * MIB))
        rows = {line[2:15].strip(): line[15:] for line in done.stderr.splitlines() if line.startswith("  ")}
        assert set(rows) >= {"exit code", "CPU time", "memory peak", "OOM kills", "pids"}
        assert rows["exit code"].startswith("0 after ")
        assert rows["memory peak"].endswith("Mi of 64Mi")
        # `tail` keeps the 20 MiB, which are one line.
        assert float(rows["memory peak"].partition("Mi")[0]) >= 20
        assert rows["OOM kills"] == "0"
        assert rows["pids"] == "limit 20, forks refused 0"
        assert len(done.stderr.splitlines()) <= 24

    def test_a_kill_that_was_not_the_oom_killers_is_not_called_one(self, tmp_path: Path) -> None:
        stats = tmp_path / "stats.json"
        done = run(["--memory", "64Mi", "--stats-file", str(stats)], "sh", "-c", "kill -9 $$")
        assert done == (137, "", "")
        assert json.loads(stats.read_text())["oom_killed"] is False

    def test_an_allocation_below_the_memory_limit_is_not(self) -> None:
        done = run(["--memory", "128Mi"], sys.executable, "-c", "x = bytearray(b'1') * (64 << 20)")
        assert done == (0, "", "")

    def test_a_child_killed_for_memory_is_told_though_the_command_goes_on(self) -> None:
        child = f"{sys.executable} -c 'x = bytearray(200 << 20)'"
        done = run(["--memory", "64Mi"], "sh", "-c", f"{child}; echo went on $?")
        assert (done.code, done.stdout) == (0, "went on 137\n")
        assert "OOM-killed: the kernel killed 1 process" in done.stderr

    def test_a_fork_bomb_is_stopped_by_the_pids_limit(self) -> None:
        bomb = "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all"
        done = run(["--rootfs", busybox_root(), "--pids-limit", "20"], "sh", "-c", bomb)
        assert done.code != 0
        assert "all" not in done.stdout
        assert "can't fork: Resource temporarily unavailable" in done.stderr
        assert "the limit of 20 processes was hit" in done.stderr

    def test_exactly_the_limit_of_processes_may_run(self) -> None:
        # The shell and nine sleeps make ten; launcher and init do not count.
        several = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.3 & done; wait; echo all"
        assert run(["--rootfs", busybox_root(), "--pids-limit", "10"], "sh", "-c", several).stdout == "all\n"

    @pytest.mark.parametrize("direction", ["write", "read"])
    def test_dd_keeps_to_the_io_limit_within_a_fifth(self, direction: str, disk: Disk) -> None:
        file = f"{disk.directory}/cgagent-test-io-{os.getpid()}"
        rate = 4 * MIB
        ends = f"if=/dev/zero of={file}" if direction == "write" else f"if={file} of=/dev/null"
        flag = "oflag=direct" if direction == "write" else "iflag=direct"
        try:
            # Written back before the limit is there: direct I/O would wait for it, and pay twice.
            output("dd", "if=/dev/zero", f"of={file}", "bs=1M", "count=12", "conv=fsync")
            dd = f"dd {ends} bs=256k {flag} conv=notrunc"
            if subprocess.run([*dd.split(), "count=1"], capture_output=True, check=False).returncode:
                pytest.skip("this file system has no direct I/O")
            command = f"{dd} count=8 && date +%s.%N && {dd} count=40 && date +%s.%N"
            done = run([f"--device-{direction}-bps", f"{disk.device}={rate}"], "sh", "-c", command)
        finally:
            os.unlink(file)
        assert done.code == 0, done.stderr
        start, end = map(float, done.stdout.split())
        assert abs(10 * MIB / (end - start) / rate - 1) <= 0.2

    @needs_iproute
    @pytest.mark.parametrize("direction", ["in", "out"])
    def test_a_transfer_keeps_to_the_network_rate_within_a_fifth(self, direction: str) -> None:
        # The launcher's host is a network namespace of its own: this machine's network is not touched.
        inner = [sys.executable, "-c", TRANSFER, CGAGENT, direction]
        done = subprocess.run(["unshare", "-n", *inner], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert abs(float(done.stdout) / 2_000_000 - 1) <= 0.2


# Sends over `--net-rate 16mbit` for two seconds; prints bytes a second as they arrived.
TRANSFER = """
import socket, subprocess, sys, threading, time
cgagent, direction = sys.argv[1:]
SEND = "end = time.monotonic() + 2\\nwhile time.monotonic() < end: s.send(bytes(1 << 14))\\n"
# What is still queued goes with the container's network: wait until the other side has it all.
SEND += "s.shutdown(1); s.settimeout(20); s.recv(1)"
RECEIVE = (
    "n = len(s.recv(1 << 16)); t = time.monotonic()\\nwhile True:\\n    d = s.recv(1 << 16)\\n    if not d: break\\n"
    "    n += len(d)\\nprint(n / (time.monotonic() - t), flush=True)\\n"
)
inside, outside = (SEND, RECEIVE) if direction == "out" else (RECEIVE, SEND)
HEAD = "import socket, sys, time\\n"
dial = HEAD + "s = socket.create_connection((GATEWAY, 7777), 10)\\n"
dial = dial.replace("GATEWAY", "'10.231.0.1'")
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", 7777))
server.listen()
words = [cgagent, "run", "--net", "veth", "--net-rate", "16mbit", "--", sys.executable, "-c", dial + inside]
container = subprocess.Popen(words)
server.settimeout(20)
s, _ = server.accept()
exec(outside)
s.close()
sys.exit(container.wait())
"""


class Usage:
    """CPU time of a launcher's container, read from outside."""

    def __init__(self, launcher: int) -> None:
        for _ in range(200):
            found = subprocess.run(
                [
                    "find",
                    "/sys/fs/cgroup",
                    "-path",
                    f"*cgagent-*-{launcher}-*",
                    "-name",
                    "cpuacct.usage",
                    "-o",
                    "-path",
                    f"*cgagent-*-{launcher}-*",
                    "-name",
                    "cpu.stat",
                ],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.split()
            if found:
                self._file = max(found)
                return
            time.sleep(0.02)
        pytest.fail("the container has no cgroup")

    def seconds(self) -> float:
        with open(self._file, encoding="ascii") as file:
            text = file.read()
        if self._file.endswith("cpuacct.usage"):
            return int(text) / 1e9
        return int(text.split("usage_usec ")[1].split()[0]) / 1e6


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A whole disk and a directory on it: the working directory's, or one that is made of a file."""
    if V1 and not os.path.isdir("/sys/fs/cgroup/blkio"):
        pytest.skip("no blkio controller")
    number = os.stat(".").st_dev
    path = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    if os.path.exists(path):
        place = os.path.realpath(path)
        if os.path.exists(f"{place}/partition"):  # a limit on a partition is refused by the kernel
            place = os.path.dirname(place)
        if os.path.exists(f"/dev/{os.path.basename(place)}"):
            yield Disk(f"/dev/{os.path.basename(place)}", os.getcwd())
            return
    image, directory = tmp_path_factory.mktemp("disk") / "image", tmp_path_factory.mktemp("on-disk")
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    script = f"set -e; modprobe loop 2>/dev/null || :; mkfs.ext4 -q {image}; losetup --find --show {image}"
    made = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"the working directory is on no block device, and none can be made: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        subprocess.run(["mount", device, directory], check=True)
        yield Disk(device, str(directory))
    finally:
        subprocess.run(["umount", directory], check=False)
        subprocess.run(["losetup", "--detach", device], check=False)
