"""The one window on /proc and /sys: bounded text, why there is none, and never a way out of a captured tree."""

from __future__ import annotations

import errno
import os

import pytest

from cgagent.host import ABSENT, DENIED, FILE_LIMIT, UNSUITABLE, VANISHED, Host, ReadError
from support.accounts import nobody
from support.trees import build


def _kind(host: Host, path: str, **settings: int) -> str:
    with pytest.raises(ReadError) as caught:
        host.read(path, **settings)
    assert caught.value.path == path
    assert caught.value.message.startswith(f"cannot read {path}: ")
    return caught.value.kind


def test_a_file_is_read_below_the_root(tmp_path: object) -> None:
    host = Host(build(tmp_path, {"/proc/self/cgroup": "0::/\n"}))
    assert host.read("/proc/self/cgroup") == "0::/\n"
    assert not host.live


def test_the_live_machine_is_read_as_it_is() -> None:
    assert Host().live
    assert Host("///").live
    assert "\n" in Host().read("/proc/self/status")


def test_bytes_that_are_no_utf_8_come_back_as_they_went(tmp_path: object) -> None:
    with open(f"{tmp_path}/f", "wb") as file:
        file.write(b"0::/\xff\xfe\n")
    assert Host(str(tmp_path)).read("/f").encode("utf-8", "surrogateescape") == b"0::/\xff\xfe\n"


def test_an_absent_file_is_told_from_one_that_is_not_permitted(public: str) -> None:
    build(public, {"/secret": "1\n"})
    os.chmod(f"{public}/secret", 0o000)
    host = Host(public)
    with nobody():
        assert _kind(host, "/secret") == DENIED
        assert _kind(host, "/nothing") == ABSENT
        assert _kind(host, "/secret/deeper") == ABSENT
        assert host.read_if_there("/nothing") is None
        with pytest.raises(ReadError, match="permission denied"):
            host.read_if_there("/secret")


def test_a_directory_that_may_not_be_entered_hides_nothing_as_absent(public: str) -> None:
    build(public, {"/closed/file": "1\n"})
    os.chmod(f"{public}/closed", 0o000)
    try:
        with nobody():
            assert _kind(Host(public), "/closed/file") == DENIED
    finally:
        os.chmod(f"{public}/closed", 0o755)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, ABSENT),
        (errno.ENOTDIR, ABSENT),
        (errno.EOPNOTSUPP, ABSENT),
        (errno.EACCES, DENIED),
        (errno.EPERM, DENIED),
        (errno.ENODEV, VANISHED),
        (errno.ESRCH, VANISHED),
        (errno.EIO, UNSUITABLE),
        (errno.ELOOP, UNSUITABLE),
    ],
)
def test_each_error_of_the_kernel_has_its_kind(number: int, kind: str) -> None:
    assert ReadError.of("/f", OSError(number, os.strerror(number))).kind == kind


def test_an_ended_process_is_absent() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert _kind(Host(), f"/proc/{child}/cgroup") == ABSENT


def test_a_process_that_ends_between_open_and_read_has_vanished() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    fd = os.open(f"/proc/{child}/cgroup", os.O_RDONLY)
    os.close(writer)
    os.waitpid(child, 0)
    try:
        with pytest.raises(OSError, match="No such process") as caught:
            os.read(fd, 100)
        assert ReadError.of("/f", caught.value).kind == VANISHED
    finally:
        os.close(fd)


def test_a_fifo_does_not_hold_us(tmp_path: object) -> None:
    os.mkfifo(f"{tmp_path}/pipe")
    assert _kind(Host(str(tmp_path)), "/pipe") == UNSUITABLE


def test_a_directory_or_device_is_no_file_to_read(tmp_path: object) -> None:
    os.mkdir(f"{tmp_path}/d")
    assert _kind(Host(str(tmp_path)), "/d") == UNSUITABLE
    assert _kind(Host(), "/dev/zero") == UNSUITABLE


def test_reads_are_bounded(tmp_path: object) -> None:
    host = Host(build(tmp_path, {"/exact": "x" * 100_000, "/over": "x" * 100_001}))
    assert len(host.read("/exact", limit=100_000)) == 100_000
    assert _kind(host, "/over", limit=100_000) == UNSUITABLE
    # A file that says it is larger than memory costs no more than the limit.
    with open(f"{tmp_path}/huge", "wb") as file:
        file.truncate(1 << 40)
    assert _kind(host, "/huge") == UNSUITABLE
    assert FILE_LIMIT < 1 << 40


def test_a_small_file_is_bounded_too(tmp_path: object) -> None:
    host = Host(build(tmp_path, {"/f": "x" * 4097}))
    assert _kind(host, "/f", limit=4096) == UNSUITABLE


@pytest.mark.parametrize(
    "target",
    [
        "/etc/outside",
        "../../../../../../../etc/outside",
        "/../../etc/outside",
        "../etc/../../../etc/outside",
    ],
)
def test_a_link_in_a_captured_tree_never_leaves_it(tmp_path: object, target: str) -> None:
    top = build(tmp_path, {"/root/etc/outside": "inside\n", "/root/sys/f": "", "/etc/outside": "outside\n"})
    os.symlink(target, f"{top}/root/sys/link")
    assert Host(f"{top}/root").read("/sys/link") == "inside\n"


def test_links_to_directories_are_followed_below_the_root(tmp_path: object) -> None:
    top = build(tmp_path, {"/sys/fs/cgroup/cpu,cpuacct/a/cpu.shares": "2\n"})
    os.symlink("cpu,cpuacct", f"{top}/sys/fs/cgroup/cpu")
    os.symlink("/sys/fs/cgroup", f"{top}/cg")
    host = Host(top)
    assert host.read("/sys/fs/cgroup/cpu/a/cpu.shares") == "2\n"
    assert host.read("/cg/cpu/a/../a/cpu.shares") == "2\n"
    assert host.is_directory("/cg/cpu/a")
    assert host.locate("/cg/cpu/a") == f"{top}/sys/fs/cgroup/cpu,cpuacct/a"


def test_each_directory_of_a_path_is_looked_up_once(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    readlink = os.readlink

    def counted(path: str) -> str:
        looked_up.append(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", counted)
    host = Host(str(tmp_path))
    path = "/a" * 100
    while path:
        host.is_directory(path)
        path = path.rpartition("/")[0]
    # 100 as directories on the way, and 100 as what is asked for
    assert len(looked_up) <= 200


def test_dots_above_the_root_stay_at_the_root(tmp_path: object) -> None:
    top = build(tmp_path, {"/root/f": "inside\n", "/f": "outside\n"})
    assert Host(f"{top}/root").read("/../../f") == "inside\n"


def test_links_in_a_circle_end(tmp_path: object) -> None:
    os.symlink("b", f"{tmp_path}/a")
    os.symlink("a", f"{tmp_path}/b")
    host = Host(str(tmp_path))
    assert _kind(host, "/a") == UNSUITABLE
    assert _kind(host, "/a/f") == UNSUITABLE
    assert not host.is_directory("/a")


def test_affinity_is_that_of_the_live_machine_alone(tmp_path: object) -> None:
    assert Host().affinity("self") == frozenset(os.sched_getaffinity(0))
    assert Host().affinity(str(os.getpid())) == frozenset(os.sched_getaffinity(0))
    assert Host(str(tmp_path)).affinity("self") is None


def test_files_are_shown_as_they_were_asked_for() -> None:
    assert Host("/captured").shown("/sys/f") == "/sys/f"
    assert Host("/proc/7/root", shown_below="/proc/7/root").shown("/sys/f") == "/proc/7/root/sys/f"


def test_parts_of_the_live_machine_may_be_mounted_elsewhere(tmp_path: object) -> None:
    root = build(tmp_path, {"/p/self/cgroup": "0::/\n", "/s/fs/cgroup/cpu.max": "max 100000\n", "/r/etc/x": "1\n"})
    host = Host(places={"/proc": f"{root}/p/", "/sys": f"{root}/s", "/": f"{root}/r"})
    assert host.live
    assert host.read("/proc/self/cgroup") == "0::/\n"
    assert host.read("/sys/fs/cgroup/cpu.max") == "max 100000\n"
    assert host.read("/etc/x") == "1\n"
    assert host.shown("/sys/fs/cgroup/cpu.max") == f"{root}/s/fs/cgroup/cpu.max"


def test_what_is_mounted_where_it_belongs_is_read_there() -> None:
    host = Host(places={"/proc": "/proc", "/sys": "/sys", "/": "/"})
    assert host.locate("/proc/self/cgroup") == "/proc/self/cgroup"
    assert host.locate("/processes") == "/processes"
