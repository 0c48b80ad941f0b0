"""Names of what a launcher makes tell whose it is, and whether that launcher still lives."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from cgagent.launch import names


def test_ones_own_name_is_alive() -> None:
    assert names.is_alive(names.own()) is True


def test_a_launcher_that_ended_is_not() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        name = f"{names.PREFIX}{names.pid_namespace()}-{process.pid}-{names._start_time(process.pid)}"
        assert names.is_alive(name) is True
        process.kill()
    assert names.is_alive(name) is False


def test_neither_is_one_whose_pid_another_process_has_now() -> None:
    _, pid, start = names.owner(names.own()) or (0, 0, 0)
    assert names.is_alive(f"{names.PREFIX}{names.pid_namespace()}-{pid}-{start - 100}") is False


def test_nor_one_that_is_a_zombie() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    name = f"{names.PREFIX}{names.pid_namespace()}-{pid}-{names._start_time(pid)}"
    assert names.is_alive(name) is True
    os.close(reader)
    os.close(writer)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert names.is_alive(name) is False
    os.waitpid(pid, 0)


def test_of_another_pid_namespace_nothing_is_known() -> None:
    assert names.is_alive(f"{names.PREFIX}1-{os.getpid()}-1") is None


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/proc/self/timens_offsets"), reason="no time namespaces")
@pytest.mark.parametrize("offset", ["100000", "-1"])
def test_a_launcher_in_another_time_namespace_is_alive(offset: str) -> None:
    code = "from cgagent.launch import names; print(names.own(), flush=True); input()"
    words = ["unshare", "--time", "--boottime", offset, "--fork", sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert names.is_alive(name) is True
        process.communicate("\n")
    assert names.is_alive(name) is False


def test_a_launcher_that_cannot_be_looked_at_is_not_taken_for_dead() -> None:
    name = names.own()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert names.is_alive(name) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_other_names_have_no_owner() -> None:
    for name in ("cgagent-test-1", "cgagent-1-2", "cgagent-1-2-x", "docker-1-2-3", "cgagent-1-2-3-4"):
        assert names.owner(name) is None
