"""From a line of /proc/PID/cgroup and the mounts to the directories of a cgroup and its visible ancestors."""

from __future__ import annotations

import os

import pytest

from cgagent.cgroup.hierarchy import (
    ANCESTOR,
    INSIDE,
    INVISIBLE,
    NO_DIRECTORY,
    STRANGER,
    Hierarchy,
    Membership,
    View,
    holder,
    parse_cgroup,
    place,
)
from cgagent.cgroup.mounts import Mount
from cgagent.errors import MalformedError
from cgagent.host import Host


def test_a_v2_line_has_no_controllers() -> None:
    assert parse_cgroup("0::/a/b\n") == [Membership(2, (), "/a/b")]


def test_a_v1_line_names_its_controllers() -> None:
    text = "4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n"
    assert parse_cgroup(text) == [
        Membership(1, ("cpu", "cpuacct"), "/docker/x"),
        Membership(1, ("name=systemd",), "/"),
    ]


def test_a_path_may_hold_colons_commas_and_blanks() -> None:
    assert parse_cgroup("0::/pod.slice:cri-containerd:a,b c\n")[0].path == "/pod.slice:cri-containerd:a,b c"


def test_an_empty_file_names_no_cgroup() -> None:
    assert parse_cgroup("") == []


@pytest.mark.parametrize(
    "text",
    ["\n", "0\n", "0:\n", "0::\n", "0::a\n", "x::/\n", "-1::/\n", "1::/\n", ":cpu:/\n", "0::/\n\n", "0::/\ngarbage\n"],
)
def test_a_line_that_the_kernel_does_not_write_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match=r"^cgroup is malformed"):
        parse_cgroup(text)


# proc_cgroup_show() has a buffer of PATH_MAX, 4096, with the final NUL in it.
def test_a_path_as_long_as_the_kernel_prints_is_read_and_a_longer_one_malformed() -> None:
    longest = "/" + "a" * 4094
    assert parse_cgroup(f"0::{longest}\n")[0].path == longest
    with pytest.raises(MalformedError, match="expected a path shorter than 4096 bytes"):
        parse_cgroup(f"0::{longest}a\n")


def test_a_controller_belongs_to_the_v1_line_that_names_it_else_to_v2() -> None:
    lines = parse_cgroup("0::/v2\n2:cpu,cpuacct:/v1\n")
    assert holder("cpu", lines) == lines[1]
    assert holder("cpuacct", lines) == lines[1]
    assert holder("memory", lines) == lines[0]
    assert holder("memory", lines[1:]) is None


class Placed:
    """Places a v2 cgroup among mounts; directories that are to exist are made below `root`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __call__(self, path: str, *mounts: tuple[str, str], directories: tuple[str, ...] = ()) -> Hierarchy:
        for name in directories:
            os.makedirs(self.root + name, exist_ok=True)
        view = View(Host(self.root), [Mount(2, root, point, ("rw",)) for root, point in mounts])
        return place(Membership(2, (), path), [view])


@pytest.fixture
def placed(tmp_path: object) -> Placed:
    return Placed(str(tmp_path))


def _levels(hierarchy: Hierarchy) -> list[tuple[str, list[str]]]:
    return [(level.path, [directory for _, directory in level.directories]) for level in hierarchy.levels]


def test_inside_the_levels_go_from_the_process_up_to_the_mounts_root(placed: Placed) -> None:
    found = placed("/a/b", ("/", "/cg"), directories=("/cg/a/b",))
    assert found.standing == INSIDE
    assert found.mount == "/cg"
    assert _levels(found) == [("/a/b", ["/cg/a/b"]), ("/a", ["/cg/a"]), ("/", ["/cg"])]


def test_a_bind_mount_shows_the_hierarchy_from_its_root_down(placed: Placed) -> None:
    found = placed("/pod/c", ("/pod", "/cg"), directories=("/cg/c",))
    assert found.standing == INSIDE
    assert _levels(found) == [("/pod/c", ["/cg/c"]), ("/pod", ["/cg"])]


def test_slashes_too_many_and_dots_do_not_matter(placed: Placed) -> None:
    found = placed("//pod/./x/../c/", ("/pod/", "/cg/"), directories=("/cg/c",))
    assert _levels(found) == [("/pod/c", ["/cg/c"]), ("/pod", ["/cg"])]


def test_a_mount_point_may_be_the_root_directory(placed: Placed) -> None:
    assert _levels(placed("/a", ("/", "/"), directories=("/a",))) == [("/a", ["/a"]), ("/", ["/"])]


def test_without_its_directory_the_cgroups_above_are_still_levels(placed: Placed) -> None:
    found = placed("/pod/gone (deleted)", ("/", "/cg"), directories=("/cg/pod",))
    assert found.standing == NO_DIRECTORY
    assert _levels(found)[1:] == [("/pod", ["/cg/pod"]), ("/", ["/cg"])]


def test_a_mount_above_the_namespace_is_an_ancestor(placed: Placed) -> None:
    found = placed("/x", ("/../..", "/cg"), directories=("/cg",))
    assert found.standing == ANCESTOR
    assert _levels(found) == [("/../..", ["/cg"])]


def test_a_mount_of_something_else_is_a_stranger(placed: Placed) -> None:
    for path in ("/b", "/docker-other", "/", "/../x", "/../docker"):
        found = placed(path, ("/docker", "/cg"), directories=("/cg",))
        assert (path, found.standing) == (path, STRANGER)
        assert _levels(found) == [("/docker", ["/cg"])]


def test_a_cousins_mount_above_the_namespace_is_a_stranger(placed: Placed) -> None:
    assert placed("/x", ("/../cousin", "/cg"), directories=("/cg",)).standing == STRANGER
    assert placed("/x", ("/..", "/cg"), directories=("/cg",)).standing == ANCESTOR


def test_a_sibling_namespaces_process_is_not_below_our_root(placed: Placed) -> None:
    assert placed("/../x", ("/", "/cg"), directories=("/cg/x",)).standing == STRANGER


def test_seen_from_inside_another_namespace_root_and_path_go_up_alike(placed: Placed) -> None:
    found = placed("/../../x", ("/../..", "/cg"), directories=("/cg/x",))
    assert found.standing == INSIDE
    assert _levels(found) == [("/../../x", ["/cg/x"]), ("/../..", ["/cg"])]


def test_without_a_mount_the_hierarchy_is_invisible(placed: Placed) -> None:
    found = placed("/a")
    assert (found.standing, found.mount, found.levels) == (INVISIBLE, None, ())


def test_a_v1_line_is_shown_by_a_mount_of_one_of_its_controllers_alone(tmp_path: object) -> None:
    mounts = [
        Mount(1, "/", "/memory", ("rw", "memory")),
        Mount(1, "/", "/cpuset", ("rw", "cpuset")),
        Mount(2, "/", "/unified", ("rw",)),
    ]
    view = View(Host(str(tmp_path)), mounts)
    assert place(Membership(1, ("memory",), "/"), [view]).mount == "/memory"
    assert place(Membership(1, ("cpu", "cpuacct"), "/"), [view]).standing == INVISIBLE
    assert place(Membership(2, (), "/"), [view]).mount == "/unified"


def test_every_mount_that_holds_the_path_counts_and_the_widest_is_named(placed: Placed) -> None:
    found = placed("/pod/c", ("/pod/c", "/narrow"), ("/", "/wide"), directories=("/narrow", "/wide/pod/c"))
    assert found.mount == "/wide"
    assert _levels(found) == [
        ("/pod/c", ["/narrow", "/wide/pod/c"]),
        ("/pod", ["/wide/pod"]),
        ("/", ["/wide"]),
    ]


def test_a_mount_without_the_directory_does_not_count_beside_one_with_it(placed: Placed) -> None:
    found = placed("/pod/c", ("/", "/empty"), ("/pod", "/cg"), directories=("/empty", "/cg/c"))
    assert found.standing == INSIDE
    assert _levels(found) == [("/pod/c", ["/cg/c"]), ("/pod", ["/cg"])]


def test_an_ancestor_beside_a_mount_that_holds_the_path_is_one_more_level(placed: Placed) -> None:
    found = placed("/c", ("/", "/own"), ("/..", "/host"), directories=("/own/c", "/host"))
    assert found.standing == INSIDE
    assert [path for path, _ in _levels(found)] == ["/c", "/", "/.."]


def test_a_stranger_beside_a_mount_that_holds_the_path_is_left_out(placed: Placed) -> None:
    found = placed("/c", ("/other", "/cg1"), ("/", "/cg2"), directories=("/cg1", "/cg2/c"))
    assert [path for path, _ in _levels(found)] == ["/c", "/"]
