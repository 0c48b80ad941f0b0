"""Which process is the application, and why it can't be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from cgagent.errors import CgagentError
from cgagent.host import Host
from cgagent.watch.log import Log
from cgagent.watch.target import (
    NoTargetError,
    Process,
    Target,
    demand_own_numbers,
    find_application,
    find_pid,
    read_process,
    refusal,
)
from cgagent.watch.troubles import Troubles
from support.trees import build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

OURS, THEIRS, OTHERS = "0::/\n", "0::/../aaa\n", "0::/../bbb\n"


def _stat(pid: int, name: str, start: int, state: str = "S", flags: int = 0) -> str:
    """/proc/PID/stat up to field 22, starttime (proc(5))."""
    return f"{pid} ({name}) {state} 0 {pid} {pid} 0 -1 {flags} {'0 ' * 10}1 0 {start} 0 0\n"


def _pod(root: Path, *processes: tuple[int, str, str, str]) -> Host:
    """A /proc of a pod: each process a PID, a name, a cgroup, and the rest of its stat line."""
    files = {"/proc/self/cgroup": OURS}
    for pid, name, cgroup, stat in processes:
        files[f"/proc/{pid}/stat"] = stat or _stat(pid, name, pid)
        files[f"/proc/{pid}/cgroup"] = cgroup
    return Host(build(root, files))


def test_the_application_is_neither_pause_nor_in_our_cgroup(tmp_path: Path) -> None:
    host = _pod(tmp_path, (1, "pause", "0::/../pause\n", ""), (7, "cgagent", OURS, ""), (20, "orders", THEIRS, ""))
    assert find_application(host, None, None) == Process("20", "orders", 20, THEIRS)


def test_of_several_processes_of_one_container_the_one_started_first_counts(tmp_path: Path) -> None:
    host = _pod(
        tmp_path, (9, "worker", THEIRS, _stat(9, "worker", 500)), (30, "orders", THEIRS, _stat(30, "orders", 40))
    )
    assert find_application(host, None, None).pid == "30"


def test_of_several_containers_one_has_to_be_chosen(tmp_path: Path) -> None:
    host = _pod(tmp_path, (20, "orders", THEIRS, ""), (30, "envoy", OTHERS, ""))
    with pytest.raises(CgagentError) as caught:
        find_application(host, None, None)
    assert not isinstance(caught.value, NoTargetError)
    assert caught.value.line() == (
        "several containers' processes could be meant: 20 (orders), 30 (envoy): "
        "choose with --target-name or --target-exe"
    )
    assert find_application(host, "envoy", None).pid == "30"


def test_who_could_be_meant_may_change_and_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    troubles = Troubles(Log())
    for pid in (20, 25):
        host = _pod(tmp_path / str(pid), (pid, "orders", THEIRS, ""), (30, "envoy", OTHERS, ""))
        with pytest.raises(CgagentError) as caught:
            find_application(host, None, None)
        troubles.tell("target", caught.value.line(), kind=caught.value.message)
    told = capfd.readouterr().err
    assert "could be meant: 20 (orders), 30 (envoy)" in told
    assert told.count("could be meant") == 1
    troubles.tell("target", "")
    assert "in order again" in capfd.readouterr().err


def test_a_name_is_compared_as_far_as_the_kernel_keeps_it(tmp_path: Path) -> None:
    host = _pod(tmp_path, (20, "a-service-with-", THEIRS, ""))
    assert find_application(host, "a-service-with-a-long-name", None).pid == "20"


def test_an_executable_is_named_by_path_or_by_its_last_part(tmp_path: Path) -> None:
    host = _pod(tmp_path, (20, "main", THEIRS, ""), (30, "main", OTHERS, ""))
    (tmp_path / "proc/20/exe").symlink_to("/app/orders")
    assert find_application(host, None, "/app/orders").pid == "20"
    assert find_application(host, None, "orders").pid == "20"
    with pytest.raises(NoTargetError, match="no process has the executable /orders"):
        find_application(host, None, "/orders")


def test_kernel_threads_and_zombies_are_nobody(tmp_path: Path) -> None:
    host = _pod(
        tmp_path,
        (20, "kworker", THEIRS, _stat(20, "kworker", 1, flags=0x00200000)),
        (21, "orders", THEIRS, _stat(21, "orders", 1, state="Z")),
        (22, "orders", "0::/\n", _stat(22, "orders", 1, flags=0x4)),  # on its way out, and out of its cgroup
    )
    with pytest.raises(NoTargetError, match="no process of another container is to be seen") as told:
        find_application(host, None, None)
    assert "shareProcessNamespace: true" in told.value.line()


def test_a_name_full_of_parentheses_and_blanks_is_a_name(tmp_path: Path) -> None:
    host = _pod(tmp_path, (20, ") S (x", THEIRS, ""))
    found = read_process(host, "20")
    assert found
    assert (found.name, found.start) == (") S (x", 20)


def test_what_was_looked_for_is_told_with_what_there_is(tmp_path: Path) -> None:
    host = _pod(tmp_path, *((pid, "orders", THEIRS, "") for pid in range(20, 28)))
    with pytest.raises(NoTargetError) as caught:
        find_application(host, "billing", None)
    assert caught.value.line() == (
        "no process has the name billing: those of other containers are "
        "20 (orders), 21 (orders), 22 (orders), 23 (orders), 24 (orders) and 3 more"
    )


def test_pids_of_another_pid_namespace_are_nobody_here(tmp_path: Path) -> None:
    """By --path.procfs: what we would signal by such a PID is another process, or none."""
    elsewhere = Host(places={"/proc": str(tmp_path)})
    with pytest.raises(CgagentError, match=f"^{tmp_path} is of another PID namespace"):
        demand_own_numbers(elsewhere)  # it does not know of us
    (tmp_path / "self").symlink_to(str(os.getpid() + 1))
    with pytest.raises(CgagentError, match="is of another PID namespace"):
        demand_own_numbers(elsewhere)
    demand_own_numbers(Host(places={"/proc": "/proc/self/root/proc"}))
    demand_own_numbers(Host())


def test_a_pid_that_is_not_there_is_told() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with pytest.raises(CgagentError, match=f"there is no process {gone.pid}"):
        find_pid(Host(), str(gone.pid))


@pytest.mark.parametrize("pidfd", [True, False], ids=["by pidfd", "where the kernel gives no pidfd"])
def test_a_signal_reaches_the_process_and_never_its_pid_s_next_owner(
    pidfd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pidfd:
        monkeypatch.setattr(os, "pidfd_open", lambda _: (_ for _ in ()).throw(OSError(38, "not implemented")))
    with subprocess.Popen(["sleep", "60"]) as process:
        target = Target(find_pid(Host(), str(process.pid)), Host())
        assert (target.pidfd is not None) == pidfd
        assert target.is_same()
        target.send(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        assert not target.is_same()
        with pytest.raises(ProcessLookupError):
            target.send(signal.SIGTERM)
    target.release()
    with pytest.raises(OSError, match="No such process"):
        target.send(signal.SIGTERM)


def test_a_process_with_the_pid_of_another_is_not_taken_for_it() -> None:
    process = find_pid(Host(), str(os.getpid()))
    stranger = Process(process.pid, process.name, process.start - 1, process.cgroup)
    with pytest.raises(NoTargetError, match="has just ended"):
        Target(stranger, Host())


def test_our_own_kind_is_not_refused() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert refusal(Host(), str(process.pid)) is None
        process.kill()
