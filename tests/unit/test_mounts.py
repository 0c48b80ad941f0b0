"""Cgroup mounts out of mountinfo: fields, escapes, and which mount a path lookup still reaches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent.cgroup.mounts import Mount, namespace_points, parse_mountinfo, unescape
from cgagent.errors import MalformedError
from support.trees import escape

ROOT = "22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"
V2 = "25 22 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def _points(text: str) -> list[str]:
    return [mount.point for mount in parse_mountinfo(text)]


def test_a_v2_mount_has_version_root_point_and_super_options() -> None:
    assert parse_mountinfo(ROOT + V2) == [Mount(2, "/", "/sys/fs/cgroup", ("rw", "nsdelegate"))]


def test_a_v1_mount_names_its_controllers_in_the_super_options() -> None:
    line = "30 22 0:30 /docker/a /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    assert parse_mountinfo(line) == [
        Mount(1, "/docker/a", "/sys/fs/cgroup/cpu,cpuacct", ("rw", "cpu", "cpuacct")),
    ]


def test_no_text_has_no_mounts_and_other_file_systems_are_left_out() -> None:
    assert parse_mountinfo("") == []
    assert parse_mountinfo(ROOT) == []
    assert _points("25 22 0:22 / /a rw - foo cgroup rw\n26 22 0:22 / /b rw - cgroup3 cgroup2 rw\n") == []


def test_a_mount_knows_of_the_first_namespace_that_is_mounted_before_it() -> None:
    first = "23 22 0:4 net:[4026532177] /run/netns/a rw - nsfs nsfs rw\n"
    second = "24 22 0:4 mnt:[4026532178] /run/snapd/ns/b.mnt rw - nsfs nsfs rw\n"
    assert [mount.after for mount in parse_mountinfo(ROOT + first + second + V2)] == ["net:[4026532177]"]
    assert [mount.after for mount in parse_mountinfo(ROOT + V2 + first)] == [None]


def test_namespaces_are_found_wherever_they_are_mounted() -> None:
    first = "23 22 0:4 net:[4026532177] /run/netns/a rw - nsfs nsfs rw\n"
    second = "24 22 0:4 mnt:[4026532178] /my\\040dir/b rw shared:7 - nsfs nsfs rw\n"
    assert namespace_points(ROOT + first + V2 + second) == ["/run/netns/a", "/my dir/b"]
    assert namespace_points(ROOT + V2) == []


@pytest.mark.parametrize("fields", ["", " shared:1", " shared:1 master:2", " shared:1 propagate_from:3 unbindable"])
def test_any_number_of_optional_fields_may_precede_the_dash(fields: str) -> None:
    assert _points(f"25 22 0:22 / /cg rw{fields} - cgroup2 cgroup2 rw\n") == ["/cg"]


def test_a_source_may_be_empty_or_a_dash() -> None:
    assert _points("25 22 0:22 / /a rw - cgroup2  rw\n26 22 0:23 / /b rw - cgroup2 - rw\n") == ["/a", "/b"]


def test_blanks_in_the_super_options_of_wsl_do_no_harm() -> None:
    wsl = r"560 77 0:138 / /Docker/host rw,noatime - 9p drvfs rw,path=C:\Program Files\Docker\resources;x,mmap" + "\n"
    assert _points(wsl + V2) == ["/sys/fs/cgroup"]


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (r"/a\040b", "/a b"),
        (r"/a\011b", "/a\tb"),
        (r"/a\012b", "/a\nb"),
        (r"/a\134b", "/a\\b"),
        (r"/a\134040", r"/a\040"),
        (r"\134", "\\"),
        (r"/\303\244", "/ä"),
        ("/\udcff\\040", "/\udcff "),
    ],
)
def test_octal_escapes_are_undone(written: str, path: str) -> None:
    assert unescape(written) == path


@pytest.mark.parametrize("text", ["/\\", r"/\1", r"/\04", r"/\048", r"/\x41", r"/\400", r"/\777", r"/\\"])
def test_an_escape_that_the_kernel_does_not_write_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match="three octal digits"):
        unescape(text)


@given(st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_escaped_paths_round_trip(path: str) -> None:
    assert unescape(escape(path)) == path


@given(st.binary(min_size=1).map(lambda data: "/" + data.replace(b"\0", b"0").decode("utf-8", "surrogateescape")))
def test_any_mount_point_and_root_round_trip_through_a_line(path: str) -> None:
    line = f"25 22 0:22 {escape(path)} {escape(path)} rw - cgroup2 cgroup2 rw\n"
    assert parse_mountinfo(line) == [Mount(2, path, path, ("rw",))]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "random line",
        "22 1 8:1 / /cgroup rw",
        "22 1 8:1 / /cgroup rw -",
        "22 1 8:1 / /cgroup rw - cgroup cgroup",
        "22 1 8:1 / /cgroup - cgroup cgroup rw",
        "x 1 8:1 / /cgroup rw - cgroup cgroup rw",
        "22 -1 8:1 / /cgroup rw - cgroup cgroup rw",
        "22 1 8:1 a /cgroup rw - cgroup cgroup rw",
        "22 1 8:1 / cgroup rw - cgroup cgroup rw",
    ],
)
def test_a_line_that_lacks_what_the_kernel_always_writes_is_malformed(line: str) -> None:
    with pytest.raises(MalformedError, match=r"^mountinfo is malformed"):
        parse_mountinfo(ROOT + line + "\n" + V2)


def test_a_mount_that_another_covers_is_not_there() -> None:
    assert _points(ROOT + V2 + "26 25 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n") == []


def test_a_mount_below_one_that_is_covered_from_above_is_not_there() -> None:
    assert _points(ROOT + V2 + "26 22 0:23 / /sys rw - tmpfs tmpfs rw\n") == []


def test_the_covering_mount_is_there_itself() -> None:
    v1 = "25 22 0:22 / /cg rw - cgroup cgroup rw,cpu\n"
    v2 = "26 25 0:23 / /cg rw - cgroup2 cgroup2 rw\n"
    assert [mount.version for mount in parse_mountinfo(ROOT + v1 + v2)] == [2]


def test_a_mount_made_inside_a_later_listed_one_is_reached() -> None:
    # As after switch_root(8): /sys was mounted first and then moved into the new root.
    rootfs = "1 1 0:2 / / rw - rootfs rootfs rw\n"
    sys = "20 30 0:20 / /sys rw - sysfs sysfs rw\n"
    cgroup = "25 20 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    new_root = "30 1 8:1 / / rw - ext4 /dev/root rw\n"
    assert _points(rootfs + sys + cgroup + new_root) == ["/sys/fs/cgroup"]


def test_a_mount_on_a_directory_beside_or_below_covers_nothing() -> None:
    beside = "26 22 0:23 / /sys/fs/cgroup2 rw - tmpfs tmpfs rw\n"
    below = "27 25 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    assert _points(ROOT + V2 + beside + below) == ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu"]


def test_a_covered_mount_with_an_escaped_name_is_not_there() -> None:
    first = "25 22 0:22 / /c\\040g rw - cgroup2 cgroup2 rw\n"
    assert _points(ROOT + first) == ["/c g"]
    assert _points(ROOT + first + "26 25 0:23 / /c\\040g rw - tmpfs tmpfs rw\n") == []


@pytest.mark.parametrize("parents", ["each in the one below", "all in one"])
def test_of_20_000_mounts_on_one_directory_the_last_is_reached(parents: str) -> None:
    parent = (lambda n: n - 1) if parents == "each in the one below" else (lambda _: 22)
    lines = [f"{n} {parent(n)} 0:22 /{n} /cg rw - cgroup2 cgroup2 rw\n" for n in range(100, 20100)]
    assert [mount.root for mount in parse_mountinfo(ROOT + "".join(lines))] == ["/20099"]


def test_a_circle_of_parents_does_not_hold_us() -> None:
    text = "25 26 0:22 / /cg rw - cgroup2 cgroup2 rw\n26 25 0:23 / / rw - tmpfs tmpfs rw\n"
    assert _points(text) == ["/cg"]


def test_10_000_lines_of_several_kilobytes_are_read() -> None:
    options = "rw,lowerdir=" + ":".join(["/var/lib/containers/layers/" + "x" * 64] * 16)
    lines = [f"{n} 22 0:{n} / /run/c{n}/merged rw - overlay overlay {options}\n" for n in range(100, 10100)]
    assert _points(ROOT + "".join(lines) + V2) == ["/sys/fs/cgroup"]


def test_a_line_of_a_megabyte_is_read() -> None:
    long = "90 22 0:90 / /m rw - overlay overlay rw,lowerdir=" + "x" * (1 << 20) + "\n"
    assert _points(ROOT + long + V2) == ["/sys/fs/cgroup"]
