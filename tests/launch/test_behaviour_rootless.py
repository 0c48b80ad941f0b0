"""An ordinary user's containers: all namespaces, no limits unless a cgroup is delegated, and clear words about it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest

from launch.behaviour import CGAGENT, V1, Result, busybox_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534
NAMESPACES = ("pid", "net", "mnt", "uts", "ipc", "user", "cgroup")


def run(options: str, *command: str) -> Result:
    """`cgagent run` as an ordinary user."""
    words = [CGAGENT, "run", *options.split(), "--", *command]
    done = as_user(words)
    return Result(done.returncode, done.stdout, done.stderr)


def as_user(words: list[str]) -> subprocess.CompletedProcess[str]:
    drop: list[str] = []
    if os.geteuid() == 0:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    return subprocess.run([*drop, *words], capture_output=True, text=True, timeout=60, check=False, cwd="/", input="")


@cache
def refusal() -> str:
    """Why an ordinary user has no user namespaces here; empty where there are."""
    try:
        done = as_user(["unshare", "-Ur", "true"])
    except OSError as error:
        return str(error)
    return done.stderr.strip()


@pytest.fixture(autouse=True)
def user_namespaces() -> None:
    if refusal():
        pytest.skip(f"no user namespaces for an ordinary user: {refusal()}")


@pytest.fixture(scope="module")
def root() -> str:
    """A root file system that the ordinary user may read."""
    place = busybox_root()
    os.chmod(os.path.dirname(place), 0o755)
    return place


class TestWithoutLimits:
    def test_is_root_inside_and_itself_outside(self) -> None:
        done = run("", "sh", "-c", "id -u; cut -c1-30 /proc/self/uid_map")
        assert done.code == 0, done.stderr
        inside, uid_map = done.stdout.splitlines()
        assert inside == "0"
        assert uid_map.split()[:2] == ["0", str(NOBODY if os.geteuid() == 0 else os.getuid())]

    @pytest.mark.parametrize("name", NAMESPACES)
    def test_has_each_namespace_of_its_own(self, name: str) -> None:
        assert run("", "readlink", f"/proc/self/ns/{name}").stdout.strip() != os.readlink(f"/proc/self/ns/{name}")

    def test_has_dockers_capabilities_inside_and_no_more(self) -> None:
        assert run("", "grep", "^CapEff", "/proc/self/status").stdout == "CapEff:\t00000000a80425fb\n"

    def test_has_no_new_privileges_and_a_seccomp_filter(self) -> None:
        done = run("", "grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status")
        assert done.stdout == "NoNewPrivs:\t1\nSeccomp:\t2\n"

    @pytest.mark.parametrize(
        ("options", "command", "expected"),
        [
            ("--hostname box", "hostname", "box\n"),
            ("--env A=b", "echo $A", "b\n"),
            ("--workdir /tmp", "pwd", "/tmp\n"),
            ("--tmpfs /mnt", "touch /mnt/x && ls /mnt", "x\n"),
            ("", "ls -d /proc/[0-9]* | wc -l | grep -c '^[2-9]$'", "1\n"),
            ("", "cat /sys/class/net/lo/operstate | grep -c .", "1\n"),
            ("--tty", "test -t 0 && echo terminal", "terminal"),
            ("", "exit 5", ""),
        ],
    )
    def test_works_as_roots(self, options: str, command: str, expected: str) -> None:
        done = run(options, "sh", "-c", command)
        assert done.stdout.strip() == expected.strip(), done.stderr
        assert done.code == (5 if command == "exit 5" else 0)

    def test_may_have_another_root(self, root: str) -> None:
        assert run(f"--rootfs {root}", "sh", "-c", "ls -d /bin; test -e /work || echo none").stdout == "/bin\nnone\n"

    def test_a_kill_of_the_command_is_told_by_its_code(self) -> None:
        assert run("", "sh", "-c", "kill -9 $$").code == 137


class TestWithLimits:
    @pytest.mark.parametrize("options", ["--memory 64Mi", "--cpus 1", "--pids-limit 10", "--cpuset-cpus 0"])
    def test_says_which_file_it_may_not_make_and_both_ways_out(self, options: str) -> None:
        done = run(options, "true")
        if done.code == 0:
            pytest.skip("this user's cgroup is delegated")
        assert done.code == 125
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert "/sys/fs/cgroup" in line
        assert re.search(r"permission denied|not writable|read-only", line, re.IGNORECASE)
        assert "--best-effort" in line
        assert "root" in line or "Delegate=" in line

    def test_goes_on_without_them_where_it_is_told_to_and_says_so(self) -> None:
        done = run("--memory 64Mi --best-effort", "echo", "went on")
        assert (done.code, done.stdout) == (0, "went on\n")
        assert "memory" in done.stderr or run("--memory 64Mi", "true").code == 0


class TestWithSubordinateIds:
    """newuidmap and newgidmap give more than one ID, where /etc/subuid and /etc/subgid give them to the user."""

    @pytest.fixture
    def subordinate(self, tmp_path: Path) -> str:
        """A shell's text that runs what follows with IDs from 200000 on: the machine's own files stay as they are."""
        if os.geteuid() != 0 or not all(map(shutil.which, ("newuidmap", "newgidmap"))):
            pytest.skip("uidmap is not installed, or we are not root to give IDs to the user")
        (tmp_path / "subid").write_text("nobody:200000:65536\n")
        lay = "".join(f"mount --bind {tmp_path}/subid /etc/{name} && " for name in ("subuid", "subgid"))
        drop = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all"
        return f"touch /etc/subuid /etc/subgid && {lay} exec {drop} {CGAGENT} run"

    def inside(self, subordinate: str, options: str, command: str) -> str:
        words = ["unshare", "-m", "sh", "-c", f"{subordinate} {options} -- sh -c '{command}'"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd="/")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    @pytest.mark.parametrize("kind", ["uid", "gid"])
    def test_are_mapped_behind_ones_own(self, subordinate: str, kind: str) -> None:
        rows = [row.split() for row in self.inside(subordinate, "", f"cat /proc/self/{kind}_map").splitlines()]
        assert rows == [["0", str(NOBODY), "1"], ["1", "200000", "65536"]]

    def test_a_user_other_than_root_can_be_had(self, subordinate: str) -> None:
        assert self.inside(subordinate, "--user 1000:1001", "id -u; id -g") == "1000\n1001\n"

    def test_a_user_beyond_them_is_refused_with_the_way_out(self, subordinate: str) -> None:
        words = ["unshare", "-m", "sh", "-c", f"{subordinate} --user 65537 -- true"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd="/")
        assert done.returncode == 125
        (line,) = done.stderr.splitlines()
        assert "not mapped in the user namespace" in line
        assert "/etc/subuid" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root delegates")
@pytest.mark.skipif(V1, reason="v1 cgroups here: an ordinary user is given none; make test-launch-v2")
class TestInADelegatedCgroup:
    """cgroup-v2.rst, "Delegation": the user owns the directory, cgroup.procs and cgroup.subtree_control."""

    @pytest.fixture
    def delegated(self) -> Iterator[str]:
        base = "/sys/fs/cgroup"
        name = f"{base}/cgagent-test-{os.getpid()}"
        for word in ("memory", "pids"):
            with open(f"{base}/cgroup.subtree_control", "w", encoding="ascii") as file:
                file.write(f"+{word}")
        os.mkdir(name)
        for path in (name, f"{name}/cgroup.procs", f"{name}/cgroup.subtree_control"):
            os.chown(path, NOBODY, NOBODY)
        yield name
        for place, _, _ in os.walk(name, topdown=False):
            os.rmdir(place)

    def run_in(self, directory: str, command: str) -> subprocess.CompletedProcess[str]:
        """A shell's text, run by the user in the cgroup."""
        enter = f"echo $$ > {directory}/cgroup.procs && exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
        words = ["sh", "-c", f"{enter} --inh-caps=-all {command}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd="/")

    def test_limits_are_set_and_nothing_is_left(self, delegated: str) -> None:
        show = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
        done = self.run_in(delegated, f"{CGAGENT} run --memory 64Mi --pids-limit 20 -- sh -c '{show}'")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{64 << 20}\n20\n", "")
        assert [name for _, names, _ in os.walk(delegated) for name in names] == []

    def test_the_limit_bites(self, delegated: str) -> None:
        grow = f'{sys.executable} -c "bytearray(200 << 20)"'
        done = self.run_in(delegated, f"{CGAGENT} run --memory 64Mi -- {grow}")
        assert done.returncode == 137
        assert "the memory limit of 64Mi was reached" in done.stderr

    def test_beside_another_process_the_file_that_stands_in_the_way_is_named(self, delegated: str) -> None:
        # The shell stays in the cgroup, which so may pass no controller on.
        done = self.run_in(delegated, f"sh -c '{CGAGENT} run --memory 64Mi -- true; exit $?'")
        assert done.returncode == 125
        (line,) = done.stderr.splitlines()
        assert f"{delegated}/cgroup.subtree_control" in line
        assert "Delegate=yes" in line
        assert "--best-effort" in line


def test_veth_says_what_it_needs() -> None:
    done = run("--net veth", "true")
    assert done.code == 125
    (line,) = done.stderr.splitlines()
    assert "CAP_NET_ADMIN in the host's network namespace" in line
    assert "--net none" in line
