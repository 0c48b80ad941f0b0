"""Namespaces: new by default, the caller's on demand; what crosses their borders and what does not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from launch.behaviour import CGAGENT, busybox_root, needs_root, needs_v1, run
from launch.private_namespaces import in_private_namespaces

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_root

UNFILTERED = ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"]
NAMESPACES = ("pid", "net", "mnt", "uts", "ipc", "user", "cgroup")


def inside(options: list[str], command: str) -> str:
    """What a shell's `command` prints in a container that ends well."""
    done = run(options, "sh", "-c", command)
    assert done.code == 0, done.stderr
    return done.stdout.strip()


class TestEach:
    @pytest.mark.parametrize("name", NAMESPACES)
    def test_is_a_new_one_by_default(self, name: str) -> None:
        assert inside([], f"readlink /proc/self/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")

    @pytest.mark.parametrize("name", NAMESPACES)
    def test_is_the_callers_where_it_is_shared(self, name: str) -> None:
        own = os.readlink(f"/proc/self/ns/{name}")
        kinds = " ".join(NAMESPACES)
        seen = inside(["--share", name], f"for n in {kinds}; do readlink /proc/self/ns/$n; done").split()
        assert [kind for kind, link in zip(NAMESPACES, seen, strict=True) if link == own] == [name]

    def test_may_all_be_shared(self) -> None:
        options = [word for name in NAMESPACES for word in ("--share", name)]
        seen = inside(options, f"for n in {' '.join(NAMESPACES)}; do readlink /proc/self/ns/$n; done").split()
        assert seen == [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES]

    def test_time_is_new_where_it_has_an_offset(self) -> None:
        own = os.readlink("/proc/self/ns/time")
        assert inside([], "readlink /proc/self/ns/time") == own
        assert inside(["--time-offset", "60"], "readlink /proc/self/ns/time") != own


class TestNet:
    def test_host_is_the_hosts(self) -> None:
        assert inside(["--net", "host"], "readlink /proc/self/ns/net") == os.readlink("/proc/self/ns/net")

    def test_none_hides_the_hosts_ports(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            dial = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
            assert run(["--net", "host"], sys.executable, "-c", dial).code == 0
            assert "ConnectionRefusedError" in run([], sys.executable, "-c", dial).stderr

    def test_abstract_sockets_of_the_host_are_out_of_reach(self) -> None:
        name = f"cgagent-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"\0{name}")
            server.listen()
            dial = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')"
            assert run(["--net", "host"], sys.executable, "-c", dial).code == 0
            assert "ConnectionRefusedError" in run([], sys.executable, "-c", dial).stderr

    @in_private_namespaces
    def test_veth_has_an_address_a_way_out_and_name_servers(self) -> None:
        show = "cat /proc/net/route /etc/resolv.conf; ls /sys/class/net"
        done = run(["--net", "veth", "--dns", "192.0.2.53", "--dns", "192.0.2.54"], "sh", "-c", show)
        assert (done.code, done.stderr) == (0, "")
        rows = [line.split() for line in done.stdout.splitlines()]
        # proc(5), route: destination and gateway in hexadecimal, the first byte last: 10.231.0.1.
        assert ["eth0", "00000000", "0100E70A"] in [row[:3] for row in rows]
        assert ["nameserver", "192.0.2.53"] in rows
        assert ["nameserver", "192.0.2.54"] in rows
        assert rows[-2:] == [["eth0"], ["lo"]]


class TestUser:
    def test_root_inside_may_not_do_on_the_host_what_root_may(self) -> None:
        # The identity is mapped, the capabilities count inside alone.
        assert inside([], "id -u") == "0"
        # SIOCSIFNAME needs CAP_NET_ADMIN over the host's network namespace.
        rename = "ip link set lo name other 2>/dev/null || echo refused"
        assert inside(["--net", "host", "--cap-add", "NET_ADMIN"], rename) == "refused"

    def test_files_written_belong_to_the_caller(self, tmp_path: Path) -> None:
        inside(["-v", f"{tmp_path}:/mnt"], "touch /mnt/file")
        assert (tmp_path / "file").stat().st_uid == os.getuid()


class TestMounts:
    def test_made_inside_stay_inside(self, tmp_path: Path) -> None:
        command = f"mount -t tmpfs none {tmp_path} && touch {tmp_path}/file && ls {tmp_path}"
        assert inside(["--privileged"], command) == "file"
        assert list(tmp_path.iterdir()) == []
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            assert str(tmp_path) not in file.read()

    def test_made_outside_later_do_not_appear_inside(self, tmp_path: Path) -> None:
        # On a host whose mounts propagate, as systemd's do: shared is set up in a mount namespace of the test's own.
        point = tmp_path / "point"
        point.mkdir()
        script = (
            f"mount -t tmpfs none {point} && mount --make-shared {point} && mkdir {point}/sub\n"
            f"{CGAGENT} run -- sh -c 'until test -e {tmp_path}/made; do sleep 0.02; done; ls {point}/sub' &\n"
            f"sleep 0.5; mount -t tmpfs none {point}/sub && touch {point}/sub/file {tmp_path}/made\n"
            "wait"
        )
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr

    def test_of_the_host_are_not_reachable_through_the_old_root(self) -> None:
        info = inside(["--rootfs", busybox_root()], "cat /proc/self/mountinfo")
        roots = [line.split()[3:5] for line in info.splitlines()]
        assert sum(1 for _, point in roots if point == "/") == 1
        assert all(not point.startswith("/work") for _, point in roots)

    def test_the_working_directory_alone_may_be_written_where_the_rest_is_read_only(self, tmp_path: Path) -> None:
        place = str(tmp_path)
        command = f"touch {place}/file && ! touch {os.path.dirname(place)}/other 2>/dev/null && echo done"
        done = run(["--read-only"], "sh", "-c", command, cwd=place)
        assert (done.code, done.stdout) == (0, "done\n"), done.stderr
        assert (tmp_path / "file").exists()


class TestCgroups:
    def test_are_shown_where_the_host_has_them(self) -> None:
        # Co-mounted controllers are one hierarchy, at one place.
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            rows = [line.split() for line in file]
        hosts = {row[4]: row[-1] for row in rows if row[row.index("-") + 1] in ("cgroup", "cgroup2")}
        shown = {}
        for line in inside([], "cat /proc/self/mountinfo").splitlines():
            row = line.split()
            if row[row.index("-") + 1] in ("cgroup", "cgroup2"):
                assert (row[3], "ro" in row[5].split(",")) == ("/", True)
                shown[row[4]] = row[-1]
        assert shown == hosts

    @needs_v1
    def test_have_the_hosts_other_names_too(self) -> None:
        # As distributions link cpu to cpu,cpuacct; this host's directory is one of the test's own.
        script = (
            "mount --make-rprivate / && mkdir -p $0/kept && mount --rbind /sys/fs/cgroup $0/kept && "
            "mount -t tmpfs cgroup /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory && "
            "mount --move $0/kept/memory /sys/fs/cgroup/memory && ln -s memory /sys/fs/cgroup/alias && "
            f"{CGAGENT} run --memory 64Mi -- sh -c 'readlink /sys/fs/cgroup/alias; "
            "cat /sys/fs/cgroup/alias/memory.limit_in_bytes'"
        )
        with tempfile.TemporaryDirectory(prefix="cgagent-test-") as place:
            words = ["unshare", "-m", "sh", "-c", script, place]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (0, f"memory\n{64 << 20}\n"), done.stderr


class TestPid:
    def test_the_hosts_processes_can_be_neither_seen_nor_signalled(self) -> None:
        assert (
            inside(
                ["--rootfs", busybox_root()],
                f"ls -d /proc/{os.getpid()} 2>/dev/null; kill -0 {os.getpid()} 2>/dev/null || echo none",
            )
            == "none"
        )

    def test_sharing_it_shows_the_hosts(self) -> None:
        assert inside(["--share", "pid"], f"ls -d /proc/{os.getpid()}") == f"/proc/{os.getpid()}"

    def test_orphans_die_with_the_command_even_where_it_is_shared(self, tmp_path: Path) -> None:
        inside(["--share", "pid", "-v", f"{tmp_path}:/mnt"], "(sleep 1000 & echo $! > /mnt/pid) ; :")
        pid = int((tmp_path / "pid").read_text())
        for _ in range(100):
            if not os.path.exists(f"/proc/{pid}"):
                return
            time.sleep(0.05)
        pytest.fail("the orphan outlived its container")


class TestNesting:
    def test_three_deep_each_with_its_own_limits(self) -> None:
        limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"
        innermost = f"{CGAGENT} run --memory 64Mi -- sh -c '{limit} 2>/dev/null'"
        middle = f"{CGAGENT} run --privileged --memory 128Mi -- {innermost}"
        assert inside(["--privileged", "--memory", "256Mi"], middle) == str(64 << 20)

    def test_leaves_no_cgroup_of_the_inner_one(self) -> None:
        # Twice: on v2 the first has moved what was in the outer one's root to a leaf, where it stays.
        inner = f"{CGAGENT} run --memory 64Mi -- true"
        command = f"{inner}; {inner}; find /sys/fs/cgroup -name 'cgagent-[0-9]*' | wc -l"
        assert inside(["--privileged", "--memory", "256Mi"], command) == "0"

    def test_without_privilege_says_what_the_outer_one_needs(self) -> None:
        done = run([], CGAGENT, "run", "--", "true")
        assert done.code == 125
        assert "start the outer container with --privileged" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize("user", ["0", "1000"])
    def test_without_privilege_works_where_the_outer_one_neither_filters_nor_masks(self, user: str) -> None:
        # What docker asks for podman inside it; the inner one has its own filter and masks.
        command = f"{CGAGENT} run -- grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status"
        assert inside([*UNFILTERED, "--user", user], command) == "NoNewPrivs:\t1\nSeccomp:\t2"

    def test_without_privilege_has_limits_from_the_outer_one_alone_and_says_so(self) -> None:
        inner = ("run", "--memory", "64Mi")
        done = run(UNFILTERED, CGAGENT, *inner, "--", "true")
        assert done.code == 125
        (line,) = done.stderr.splitlines()
        assert line.endswith("start the outer container with --privileged, or go without the limits with --best-effort")
        done = run(UNFILTERED, CGAGENT, *inner, "--best-effort", "--", "echo", "went on")
        assert (done.code, done.stdout) == (0, "went on\n")
        assert done.stderr.startswith("cgagent run: going on without --memory: ")

    def test_needs_nothing_of_the_outer_one_where_it_shares_all_namespaces(self) -> None:
        shared = " ".join(f"--share {name}" for name in NAMESPACES)
        assert inside([], f"{CGAGENT} run {shared} -- echo ran") == "ran"

    def test_names_the_masks_that_keep_it_from_a_proc_of_its_own(self) -> None:
        done = run(["--security-opt", "seccomp=unconfined"], CGAGENT, "run", "--", "true")
        assert done.code == 125
        (line,) = done.stderr.splitlines()
        assert "a new /proc is refused" in line
        assert "systempaths=unconfined" in line


def test_a_hundred_launches_twenty_at_once_all_end_well() -> None:
    command = f"seq 100 | xargs -P 20 -I N {CGAGENT} run --cpus 0.5 --memory 64Mi --pids-limit 20 -- sh -c 'echo N'"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    # On a slow machine a launch may use up its quota, and says so.
    said = [line for line in done.stderr.splitlines() if not line.startswith("cgagent run: throttled in ")]
    assert (done.returncode, said) == (0, [])
    assert sorted(map(int, done.stdout.split())) == list(range(1, 101))
    left = subprocess.run(
        ["find", "/sys/fs/cgroup", "-name", f"cgagent-*-{os.getpid()}-*"], capture_output=True, check=False
    )
    assert left.stdout == b""
