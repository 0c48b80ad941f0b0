"""Cgroups' files kept open: the text is always that of the cgroup that stands at the place, or none."""

from __future__ import annotations

import os

import pytest

from cgagent.cgroup.openfiles import OpenFiles
from cgagent.host import Host, ReadError
from support.trees import build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def _descriptors(directory: object) -> list[str]:
    """The files below `directory` that this process has open."""
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    found = (os.readlink(link) for link in links if os.path.lexists(link))
    return sorted(path.removeprefix(f"{directory}/") for path in found if path.startswith(f"{directory}/"))


@pytest.fixture
def files() -> OpenFiles:
    return OpenFiles()


def test_each_reading_gives_what_the_file_holds_then_from_one_descriptor(tmp_path: Path, files: OpenFiles) -> None:
    host = Host(build(tmp_path, {"/a/cpu.stat": "nr_periods 1\n"}))
    for number in (1, 20, 3):
        (tmp_path / "a/cpu.stat").write_text(f"nr_periods {number}\n")
        assert files.getter(host, "/a")("cpu.stat") == f"nr_periods {number}\n"
    assert _descriptors(tmp_path) == ["a/cpu.stat"]


def test_a_file_that_is_not_there_is_none_until_one_looks_again(tmp_path: Path, files: OpenFiles) -> None:
    host = Host(build(tmp_path, {"/a/cpu.stat": ""}))
    assert files.getter(host, "/a")("memory.max") is None
    (tmp_path / "a/memory.max").write_text("max\n")
    files.look_again()
    assert files.getter(host, "/a")("memory.max") == "max\n"


def test_a_directory_that_is_not_there_has_no_files(tmp_path: Path, files: OpenFiles) -> None:
    assert files.getter(Host(build(tmp_path, {})), "/gone")("cpu.stat") is None


def test_another_directory_at_the_same_place_is_seen_when_one_looks_again(tmp_path: Path, files: OpenFiles) -> None:
    host = Host(build(tmp_path, {"/a/pids.current": "1\n", "/b/pids.current": "2\n"}))
    assert files.getter(host, "/a")("pids.current") == "1\n"
    os.rename(tmp_path / "a", tmp_path / "c")
    os.rename(tmp_path / "b", tmp_path / "a")
    files.look_again()
    assert files.getter(host, "/a")("pids.current") == "2\n"


def test_the_same_directory_seen_by_another_name_keeps_its_descriptor(tmp_path: Path, files: OpenFiles) -> None:
    root = build(tmp_path, {"/a/pids.current": "1\n"})
    files.getter(Host(root), "/a")("pids.current")
    before = set(os.listdir("/proc/self/fd"))
    os.rename(tmp_path / "a", tmp_path / "b")
    files.look_again()
    assert files.getter(Host(root), "/b")("pids.current") == "1\n"
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_nobody_asks_for_any_more_is_closed(tmp_path: Path, files: OpenFiles) -> None:
    host = Host(build(tmp_path, {"/a/pids.current": "1\n", "/b/pids.current": "2\n"}))
    files.getter(host, "/a")("pids.current")
    files.look_again()
    files.getter(host, "/b")("pids.current")
    files.look_again()
    assert _descriptors(tmp_path) == ["b/pids.current"]
    files.close()
    assert _descriptors(tmp_path) == []


def test_what_is_no_file_is_told_at_each_reading(tmp_path: Path, files: OpenFiles) -> None:
    host = Host(build(tmp_path, {"/a/cpu.stat": ""}))
    os.mkdir(tmp_path / "a/memory.stat")
    for _ in range(2):
        with pytest.raises(ReadError, match="not a regular file"):
            files.getter(host, "/a")("memory.stat")
    assert _descriptors(tmp_path) == []


def test_a_long_file_is_given_whole(tmp_path: Path, files: OpenFiles) -> None:
    host = Host(build(tmp_path, {"/a/cpuset.cpus": "7," * 50_000}))
    assert files.getter(host, "/a")("cpuset.cpus") == "7," * 50_000


def test_bytes_that_are_no_utf_8_come_back_as_they_went(tmp_path: Path, files: OpenFiles) -> None:
    host = Host(build(tmp_path, {"/a/odd": ""}))
    (tmp_path / "a/odd").write_bytes(b"\xff\n")
    assert (files.getter(host, "/a")("odd") or "").encode("utf-8", "surrogateescape") == b"\xff\n"
