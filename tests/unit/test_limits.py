"""The limits that bind: where they were read, which level binds, and what is not known."""

from __future__ import annotations

import os
import subprocess

import pytest

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.reading import read_limits
from cgagent.errors import CgagentError
from cgagent.host import VANISHED, Host, ReadError
from support.trees import V2_MOUNT, build, machine, v2

MEM_TOTAL = 65536000 * 1024


def _limits(tmp_path: object, files: dict[str, str]) -> Limits:
    return read_limits(Host(build(tmp_path, files)))


def _ids(limits: Limits) -> list[tuple[str, str]]:
    return [(problem.id, problem.resource) for problem in limits.problems]


def test_every_number_remembers_its_file_and_its_raw_text(tmp_path: object) -> None:
    files = {"/a/cpu.max": "150000 100000\n", "/a/memory.max": "268435456\n"}
    found = _limits(tmp_path, v2(files, "/a"))
    assert (found.cpu.cores, found.cpu.source) == (1.5, "/sys/fs/cgroup/a/cpu.max")
    assert (found.memory.bytes, found.memory.source) == (268435456, "/sys/fs/cgroup/a/memory.max")
    assert [(link.path, link.file, link.quota.raw) for link in found.cpu.chain] == [
        ("/a", "/sys/fs/cgroup/a/cpu.max", "150000 100000")
    ]
    assert [(link.path, link.file, link.raw) for link in found.memory.chain] == [
        ("/a", "/sys/fs/cgroup/a/memory.max", "268435456")
    ]


def test_the_chain_lists_each_level_innermost_first_and_names_the_one_that_binds(tmp_path: object) -> None:
    files = {
        "/a/b/c/cpu.max": "max 100000\n",
        "/a/b/cpu.max": "50000 50000\n",
        "/a/cpu.max": "200000 100000\n",
        "/a/b/c/memory.max": "max\n",
        "/a/memory.max": "1048576\n",
    }
    found = _limits(tmp_path, v2(files, "/a/b/c"))
    assert [(link.path, link.quota.cores) for link in found.cpu.chain] == [("/a/b/c", None), ("/a/b", 1.0), ("/a", 2.0)]
    assert [(link.path, link.bytes) for link in found.memory.chain] == [("/a/b/c", None), ("/a", 1048576)]
    assert found.cpu.binding is found.cpu.chain[1]
    assert found.memory.binding is found.memory.chain[1]
    assert found.problems == []


def test_of_equal_limits_the_innermost_binds(tmp_path: object) -> None:
    files = {"/a/b/cpu.max": "100000 100000\n", "/a/cpu.max": "50000 50000\n"}
    found = _limits(tmp_path, v2(files, "/a/b"))
    assert found.cpu.source == "/sys/fs/cgroup/a/b/cpu.max"


def test_memory_at_or_above_the_machines_is_no_limit(tmp_path: object) -> None:
    for size, known in ((MEM_TOTAL - 1, MEM_TOTAL - 1), (MEM_TOTAL, None), (MEM_TOTAL + 1, None)):
        found = _limits(f"{tmp_path}/{size}", v2({"/memory.max": f"{size}\n"}))
        assert found.memory.bytes == known
        assert found.memory.chain[0].raw == str(size)


def test_memory_is_a_limit_where_the_machines_is_not_known(tmp_path: object) -> None:
    files = v2({"/memory.max": f"{MEM_TOTAL}\n"})
    del files["/proc/meminfo"]
    assert _limits(tmp_path, files).memory.bytes == MEM_TOTAL


def test_a_malformed_level_makes_the_number_unknown_and_names_the_file(tmp_path: object) -> None:
    files = {"/a/cpu.max": "100000 100000\n", "/cpu.max": "lots\n", "/a/memory.max": "4096\n"}
    found = _limits(tmp_path, v2(files, "/a"))
    assert found.cpu.cores is None
    assert found.memory.bytes == 4096
    assert _ids(found) == [("malformed-file", "cpu")]
    assert "/sys/fs/cgroup/cpu.max is malformed" in found.problems[0].message
    assert found.blocked("cpu") is found.problems[0]
    assert found.blocked("memory") is None


@pytest.mark.parametrize("file", ["/proc/self/cgroup", "/proc/self/mountinfo"])
def test_a_malformed_place_makes_everything_unknown(tmp_path: object, file: str) -> None:
    files = {**v2({"/cpu.max": "100000 100000\n"}), file: "rubbish\n"}
    found = _limits(tmp_path, files)
    assert found.standing.mode is None
    assert _ids(found) == [("malformed-file", "")]
    assert found.problems[0].message.startswith(f"{file} is malformed")
    assert found.blocked("cpu")
    assert found.blocked("memory")


@pytest.mark.parametrize(
    ("file", "text"),
    [("/proc/meminfo", "MemTotal: lots kB\n"), ("/proc/self/status", "Cpus_allowed_list:\t0-\n")],
)
def test_a_malformed_machine_file_is_named_too(tmp_path: object, file: str, text: str) -> None:
    found = _limits(tmp_path, {**v2({"/memory.max": "4096\n"}), file: text})
    assert [problem.id for problem in found.problems] == ["malformed-file"]
    assert file in found.problems[0].message


def test_a_level_that_is_no_file_is_unreadable_not_no_limit(tmp_path: object) -> None:
    top = build(tmp_path, v2({"/a/memory.max": "4096\n"}, "/a"))
    os.mkfifo(f"{top}/sys/fs/cgroup/cpu.max")
    found = read_limits(Host(top))
    assert found.cpu.cores is None
    assert _ids(found) == [("unreadable", "cpu")]
    assert "/sys/fs/cgroup/cpu.max" in found.problems[0].message


def test_mounts_that_disagree_about_a_cgroup_are_told_and_the_smallest_counts(tmp_path: object) -> None:
    mounts = V2_MOUNT + "26 22 0:22 / /other rw - cgroup2 cgroup2 rw\n"
    files = machine("0::/a\n", mounts)
    files["/sys/fs/cgroup/a/cpu.max"] = "200000 100000\n"
    files["/other/a/cpu.max"] = "100000 100000\n"
    files["/sys/fs/cgroup/a/memory.max"] = "4096\n"
    files["/other/a/memory.max"] = "max\n"
    found = _limits(tmp_path, files)
    assert (found.cpu.cores, found.cpu.source) == (1.0, "/other/a/cpu.max")
    assert (found.memory.bytes, found.memory.source) == (4096, "/sys/fs/cgroup/a/memory.max")
    assert _ids(found) == [("conflicting-mounts", "cpu"), ("conflicting-mounts", "memory")]
    assert found.blocked("cpu") is None


def test_mounts_that_agree_are_no_conflict(tmp_path: object) -> None:
    files = machine("0::/a\n", V2_MOUNT + "26 22 0:22 / /other rw - cgroup2 cgroup2 rw\n")
    files["/sys/fs/cgroup/a/cpu.max"] = files["/other/a/cpu.max"] = "200000 100000\n"
    found = _limits(tmp_path, files)
    assert found.cpu.cores == 2.0
    assert found.problems == []


def test_a_strangers_limits_are_shown_and_not_trusted(tmp_path: object) -> None:
    mounts = "25 21 0:22 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    files = machine("0::/b\n", mounts)
    files["/sys/fs/cgroup/cpu.max"] = "100000 100000\n"
    found = _limits(tmp_path, files)
    assert found.cpu.cores == 1.0
    assert not found.cpu.trusted
    assert _ids(found) == [("cgroup-outside-view", "cpu"), ("cgroup-outside-view", "memory")]


def test_a_cgroup_file_that_can_not_be_read_leaves_the_limits_unknown_and_the_mode_known(tmp_path: object) -> None:
    root = build(tmp_path, machine("", V2_MOUNT))
    os.remove(f"{root}/proc/self/cgroup")
    os.mkfifo(f"{root}/proc/self/cgroup")
    found = read_limits(Host(root))
    assert (found.standing.mode, _ids(found)) == ("v2", [("unreadable", "")])
    assert found.blocked("cpu")
    assert found.blocked("memory")


def test_an_ancestors_limits_are_trusted(tmp_path: object) -> None:
    mounts = "25 21 0:22 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    files = machine("0::/b\n", mounts)
    files["/sys/fs/cgroup/cpu.max"] = "100000 100000\n"
    found = _limits(tmp_path, files)
    assert found.cpu.cores == 1.0
    assert found.cpu.trusted


def test_a_controller_that_is_named_and_not_mounted_blocks_its_own_number_alone(tmp_path: object) -> None:
    mounts = "31 21 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    files = machine("2:memory:/a\n1:cpu:/a\n", mounts)
    files["/sys/fs/cgroup/memory/a/memory.limit_in_bytes"] = "4096\n"
    found = _limits(tmp_path, files)
    assert _ids(found) == [("controller-not-visible", "cpu")]
    assert found.memory.bytes == 4096


def test_a_controller_that_the_kernel_has_switched_off_is_not_missed(tmp_path: object) -> None:
    rows = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t0\nmemory\t0\t1\t1\n"
    files = {**machine("0::/\n", ""), "/proc/cgroups": rows}
    assert _ids(_limits(tmp_path, files)) == [("controller-not-visible", "memory")]


def test_without_cgroups_there_is_no_limit_and_no_problem(tmp_path: object) -> None:
    found = _limits(tmp_path, machine("", ""))
    assert (found.standing.mode, found.cpu.cores, found.memory.bytes, found.problems) == ("none", None, None, [])


def test_a_missing_mountinfo_makes_everything_unknown(tmp_path: object) -> None:
    files = v2({"/cpu.max": "100000 100000\n"})
    del files["/proc/self/mountinfo"]
    found = _limits(tmp_path, files)
    assert (found.standing.mode, found.cpu.cores) == (None, None)
    assert _ids(found) == [("unreadable", "")]


def test_a_tree_without_the_process_is_a_clear_error(tmp_path: object) -> None:
    with pytest.raises(CgagentError, match="holds no proc/self"):
        read_limits(Host(str(tmp_path)))
    with pytest.raises(CgagentError, match="there is no process 4194304"):
        read_limits(Host(), "4194304")


# --- CPUs


def test_cpuset_affinity_and_online_cpus_are_intersected(tmp_path: object) -> None:
    files = v2({"/a/cpuset.cpus.effective": "2-9\n"}, "/a", cpus="0-3")
    files["/sys/devices/system/cpu/online"] = "0-2,4-7\n"
    found = _limits(tmp_path, files)
    assert found.cpu.allowed == frozenset({2})
    assert found.cpu.narrowed == frozenset({2})
    assert found.cpu.cpuset == ("/sys/fs/cgroup/a/cpuset.cpus.effective", frozenset(range(2, 10)))


def test_online_cpus_are_those_of_proc_stat_where_sys_is_absent(tmp_path: object) -> None:
    files = v2({}, cpus="0-63")
    files["/proc/stat"] = "cpu  1 2 3\ncpu0 1 2 3\ncpu5 1 2 3\nintr 0\n"
    found = _limits(tmp_path, files)
    assert found.cpu.online == frozenset({0, 5})
    assert found.cpu.allowed == frozenset({0, 5})
    assert found.cpu.narrowed is None


def test_an_empty_cpuset_leaves_it_to_the_cgroup_above(tmp_path: object) -> None:
    files = v2({"/a/b/cpuset.cpus.effective": "\n", "/a/cpuset.cpus.effective": "0-1\n"}, "/a/b")
    assert _limits(tmp_path, files).cpu.allowed == frozenset({0, 1})


def test_what_nothing_tells_is_not_known(tmp_path: object) -> None:
    files = v2({})
    del files["/proc/self/status"]
    found = _limits(tmp_path, files)
    assert (found.cpu.allowed, found.cpu.narrowed) == (None, None)


# --- a process that moves


class Moving(Host):
    """A live machine in a directory, on which the process is moved after a number of reads of its cgroup."""

    live = True

    def __init__(self, root: str, paths: list[str]) -> None:
        super().__init__(root)
        self.paths = paths

    def locate(self, path: str) -> str:
        return self.root + path

    def affinity(self, pid: str) -> frozenset[int] | None:
        del pid
        return frozenset({0})

    def read(self, path: str, limit: int = 1 << 20) -> str:
        if path == "/proc/self/cgroup":
            return f"0::{self.paths.pop(0) if len(self.paths) > 1 else self.paths[0]}\n"
        if path.startswith("/sys/fs/cgroup/gone/"):
            raise ReadError(path, VANISHED, "no such device")
        return super().read(path, limit)


def test_a_process_that_is_moved_while_we_read_is_read_again(tmp_path: object) -> None:
    files = {"/a/cpu.max": "100000 100000\n", "/b/cpu.max": "200000 100000\n", "/gone/cpu.max": "1 1\n"}
    top = build(tmp_path, v2(files))
    found = read_limits(Moving(top, ["/gone", "/a", "/b"]))
    assert found.standing.hierarchies[0].path == "/b"
    assert found.cpu.cores == 2.0


def test_a_process_that_never_stays_has_unknown_limits(tmp_path: object) -> None:
    top = build(tmp_path, v2({"/a/cpu.max": "100000 100000\n", "/b/cpu.max": "200000 100000\n"}))
    found = read_limits(Moving(top, ["/a", "/b"] * 100))
    assert found.cpu.cores is None
    assert found.blocked("cpu")
    assert found.blocked("memory")


# --- the machine the tests run on


def test_this_process_stands_somewhere_on_the_live_machine() -> None:
    found = read_limits(Host())
    assert found.standing.mode in ("v1", "v2", "hybrid", "none")
    assert found.cpu.affinity == frozenset(os.sched_getaffinity(0))
    assert found.memory.total
    same = read_limits(Host(), str(os.getpid()))
    assert (same.cpu.cores, same.memory.bytes) == (found.cpu.cores, found.memory.bytes)


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace takes root")
def test_a_process_that_hides_its_cgroup_mounts_from_itself_is_seen_through_ours() -> None:
    own = read_limits(Host())
    if own.standing.mode in (None, "none"):
        pytest.skip("no cgroup is mounted here")
    script = "mount -t tmpfs cgagent-test /sys/fs/cgroup && echo ready && exec cat"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as hidden:
        assert hidden.stdin is not None
        assert hidden.stdout is not None
        if hidden.stdout.readline() != b"ready\n":
            pytest.skip("mounting is not permitted here")
        found = read_limits(Host(), str(hidden.pid))
        hidden.stdin.close()
    assert found.standing.mode == "none"
    places = [(one.path, one.standing, one.mount) for one in own.standing.hierarchies]
    assert [(one.path, one.standing, one.mount) for one in found.standing.hierarchies] == places
    assert (found.cpu.cores, found.memory.bytes) == (own.cpu.cores, own.memory.bytes)
