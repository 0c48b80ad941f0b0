"""Files of real cgroups kept open, while cgroups are removed and made again."""

from __future__ import annotations

import os

import pytest

from cgagent.cgroup.openfiles import OpenFiles
from cgagent.host import Host
from kernel.cgroups import Group, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, HOST = "pids.max", Host()


@pytest.fixture
def files() -> Iterator[OpenFiles]:
    found = OpenFiles()
    yield found
    found.close()


def _group(top: Group, most: int) -> tuple[Group, str]:
    group = top.child("again", ("pids",))
    if "pids" not in group.directories:
        pytest.skip("no cgroup mount here has the pids controller")
    directory = group.directories["pids"]
    write(f"{directory}/{FILE}", most)
    return group, directory


def test_a_number_that_changes_is_read_anew(top: Group, files: OpenFiles) -> None:
    _, directory = _group(top, 111)
    for most in (111, 2, 33_333):
        write(f"{directory}/{FILE}", most)
        assert files.getter(HOST, directory)(FILE) == f"{most}\n"


def test_of_a_cgroup_that_is_removed_nothing_is_left(top: Group, files: OpenFiles) -> None:
    group, directory = _group(top, 111)
    get = files.getter(HOST, directory)
    assert get(FILE) == "111\n"
    group.remove()
    assert get(FILE) is None
    assert not [fd for fd in os.listdir("/proc/self/fd") if directory in _target(fd)]


def test_a_cgroup_made_again_by_the_same_name_is_never_taken_for_the_old_one(top: Group, files: OpenFiles) -> None:
    group, directory = _group(top, 111)
    get = files.getter(HOST, directory)
    assert get(FILE) == "111\n"
    group.remove()
    _group(top, 222)
    assert get(FILE) == "222\n"
    files.look_again()
    assert files.getter(HOST, directory)(FILE) == "222\n"


def test_a_controller_switched_off_and_on_again_is_seen(top: Group, files: OpenFiles) -> None:
    group, directory = _group(top, 111)
    if group.version("pids") == 1:
        pytest.skip("a v1 hierarchy has its controller as long as it is mounted")
    get = files.getter(HOST, directory)
    assert get(FILE) == "111\n"
    above = f"{os.path.dirname(directory)}/cgroup.subtree_control"
    write(above, "-pids")
    assert get(FILE) is None
    write(above, "+pids")
    files.look_again()
    assert files.getter(HOST, directory)(FILE) == "max\n"


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
