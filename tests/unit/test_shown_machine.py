"""The texts of a machine that is shown, and of layouts: pure, as the kernel and the runtimes write them."""

from __future__ import annotations

import pytest

from cgagent.cgroup.numbers import cpu_list, format_cpu_list
from cgagent.launch.shown import machine
from cgagent.launch.shown.layouts import LAYOUTS, has_own_namespace, place, view

CPUINFO = """\
processor\t: 0
model name\t: Some CPU
physical id\t: 0
siblings\t: 2
core id\t\t: 0
cpu cores\t: 2
apicid\t\t: 0

processor\t: 1
model name\t: Some CPU
physical id\t: 1
siblings\t: 2
core id\t\t: 1
cpu cores\t: 2
apicid\t\t: 1

"""
STAT = "cpu  30 0 3 300 0 0 0 0 0 0\ncpu0 10 0 1 100 0 0 0 0 0 0\ncpu1 20 0 2 200 0 0 0 0 0 0\nintr 5\nbtime 1\n"
MEMINFO = """\
MemTotal:        8388608 kB
MemFree:         2097152 kB
MemAvailable:    4194304 kB
SwapTotal:          1024 kB
"""


@pytest.mark.parametrize(
    ("mask", "cpus", "text"),
    [
        (0b1, 1, "1"),
        (0b11, 2, "3"),
        (0b100, 3, "4"),
        (1, 8, "01"),
        ((1 << 33) - 1, 33, "1,ffffffff"),
        ((1 << 64) - 1, 64, "ffffffff,ffffffff"),
        ((1 << 200) - 1, 200, "ff" + ",ffffffff" * 6),
    ],
)
def test_a_mask_is_as_wide_as_the_machine_and_has_words_of_32_bits(mask: int, cpus: int, text: str) -> None:
    assert machine.cpu_mask(mask, cpus) == text


@pytest.mark.parametrize("text", ["0", "0-63", "3-7,150", "0,2,4-5", "1023"])
def test_a_list_is_the_one_that_the_kernels_reader_takes(text: str) -> None:
    cpus = cpu_list(text, "test")
    assert cpus is not None
    assert format_cpu_list(cpus) == text


def test_every_cpu_has_a_paragraph_of_its_own() -> None:
    paragraphs = machine.cpuinfo(CPUINFO, 3).strip().split("\n\n")
    assert [text.split("\n")[0] for text in paragraphs] == [f"processor\t: {number}" for number in range(3)]
    assert all("siblings\t: 3" in text and "cpu cores\t: 3" in text for text in paragraphs)
    assert all("physical id\t: 0" in text and "model name\t: Some CPU" in text for text in paragraphs)


def test_a_machine_that_tells_no_cpus_still_shows_them() -> None:
    assert machine.cpuinfo("", 2).count("processor") == 2


def test_the_sum_of_stat_is_that_of_its_lines() -> None:
    lines = machine.stat(STAT, 4).split("\n")
    assert [line.split(" ")[0] for line in lines[:5]] == ["cpu", "cpu0", "cpu1", "cpu2", "cpu3"]
    rows = [[int(word) for word in line.split()[1:]] for line in lines[:5]]
    assert rows[0] == [sum(column) for column in zip(*rows[1:], strict=True)]
    assert rows[3] == [0, 0, 0, 111, 0, 0, 0, 0, 0, 0], "idle for as long as CPU 0 lived"
    assert lines[5:] == ["intr 5", "btime 1", ""]


def test_fewer_cpus_leave_the_first_lines_alone() -> None:
    assert machine.stat(STAT, 1).split("\n")[:2] == ["cpu  10 0 1 100 0 0 0 0 0 0", "cpu0 10 0 1 100 0 0 0 0 0 0"]


def test_more_memory_is_free_memory() -> None:
    found = machine.meminfo_bytes(machine.meminfo(MEMINFO, 16 << 30))
    gib = 1 << 30
    assert (found["MemTotal"], found["MemFree"], found["MemAvailable"]) == (16 * gib, 10 * gib, 12 * gib)
    assert found["SwapTotal"] == 1 << 20


def test_less_memory_is_used_to_the_same_share() -> None:
    found = machine.meminfo_bytes(machine.meminfo(MEMINFO, 4 << 30))
    gib = 1 << 30
    assert (found["MemTotal"], found["MemFree"], found["MemAvailable"]) == (4 * gib, 1 * gib, 2 * gib)
    assert found["SwapTotal"] == 1 << 20


def test_a_machine_that_tells_no_memory_still_shows_it() -> None:
    assert machine.meminfo_bytes(machine.meminfo("", 1 << 30)) == {"MemTotal": 1 << 30}


def test_slices_are_named_after_all_that_is_above_them() -> None:
    steps = place("kubernetes-systemd", True, "besteffort").steps
    assert steps[:2] == ("kubepods.slice", "kubepods-besteffort.slice")
    assert steps[2].startswith("kubepods-besteffort-pod")
    assert place("kubernetes-systemd", True, "guaranteed").steps[1].startswith("kubepods-pod")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_namespace_shows_its_own_cgroup_as_the_root(layout: str) -> None:
    for unified in (False, True):
        seen = view(place(layout, unified, "burstable"), layout, unified, private=True)
        assert (seen.own, seen.root, list(seen.levels)) == ("/", "/", [""])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_namespace_v2_shows_every_level_and_v1_the_containers_alone(layout: str) -> None:
    where = place(layout, True, "burstable")
    seen = view(where, layout, True, private=False)
    assert (seen.own, seen.root) == (where.path(), "/")
    assert len(seen.levels) == len(where.steps) + 1
    bound = view(place(layout, False, "burstable"), layout, False, private=False)
    assert bound.root == ("/" if layout == "systemd-service" else bound.own)


def test_the_parent_of_a_nested_container_is_the_outer_container() -> None:
    where = place("nested", False, "burstable")
    assert where.steps[0] == where.steps[2] == "docker"
    assert where.path(where.parent) == "/" + "/".join(where.steps[:2])


def test_runtimes_give_a_namespace_on_v2_alone_and_systemd_never() -> None:
    assert has_own_namespace("docker", True)
    assert not has_own_namespace("docker", False)
    assert not has_own_namespace("systemd-service", True)
