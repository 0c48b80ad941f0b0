"""Each finding fires where it should and is silent where it should not; FINDINGS.md knows them all."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cgagent.cli import main
from cgagent.golang.runtime import NO_MEMORY_LIMIT, parse_memory_limit
from cgagent.report.variables import parse_gomaxprocs
from support import go_program

REPOSITORY = Path(__file__).parents[2]
GIB = 1 << 30

# A container with 2 CPUs and 1 GiB on a node of 8 CPUs and 62.5 GiB, where nothing is wrong.
SOUND = {
    "proc/self/cgroup": "0::/pod/app\n",
    "proc/self/mountinfo": "25 21 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
    "proc/self/status": "Cpus_allowed_list:\t0-7\n",
    "proc/self/environ": "PATH=/bin\0",
    "proc/meminfo": "MemTotal:       65536000 kB\n",
    "sys/devices/system/cpu/online": "0-7\n",
    "sys/fs/cgroup/pod/cpu.max": "max 100000\n",
    "sys/fs/cgroup/pod/memory.max": "max\n",
    "sys/fs/cgroup/pod/app/cpu.max": "200000 100000\n",
    "sys/fs/cgroup/pod/app/cpu.stat": "usage_usec 1\nnr_periods 100\nnr_throttled 0\nthrottled_usec 0\n",
    "sys/fs/cgroup/pod/app/cpuset.cpus.effective": "0-7\n",
    "sys/fs/cgroup/pod/app/memory.max": f"{GIB}\n",
    "sys/fs/cgroup/pod/app/memory.high": "max\n",
    "sys/fs/cgroup/pod/app/memory.current": f"{GIB // 2}\n",
    "sys/fs/cgroup/pod/app/memory.stat": "anon 1\nfile 1\ninactive_file 0\n",
    "sys/fs/cgroup/pod/app/memory.events": "oom 0\noom_kill 0\n",
    "sys/fs/cgroup/pod/app/pids.current": "10\n",
    "sys/fs/cgroup/pod/app/pids.max": "100\n",
}
APP = "sys/fs/cgroup/pod/app"
POD = "sys/fs/cgroup/pod"

Find = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Find:
    """Explains SOUND with some files changed or taken away; returns level and message of each finding by id."""

    def run(files: dict[str, str | None], *options: str) -> dict[str, tuple[str, str]]:
        for name, text in (SOUND | files).items():
            if text is not None:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        assert main(["explain", "--root", str(tmp_path), "-o", "json", *options]) == 0
        findings = json.loads(capsys.readouterr().out)["findings"]
        assert all(one["remedy"] for one in findings)
        order = ["critical", "warning", "info"]
        assert [one["level"] for one in findings] == sorted((one["level"] for one in findings), key=order.index)
        return {one["id"]: (one["level"], one["message"]) for one in findings}

    return run


def test_nothing_is_told_where_nothing_is_wrong(find: Find) -> None:
    assert find({}) == {}


# id, level, what differs from SOUND, options, what the message must hold
FIRING = [
    ("malformed-file", "critical", {f"{APP}/cpu.max": "fast\n"}, [], "/sys/fs/cgroup/pod/app/cpu.max"),
    ("controller-not-visible", "critical", {"proc/self/cgroup": "3:cpu:/app\n0::/pod/app\n"}, [], "/app (cpu)"),
    (
        "cgroup-outside-view",
        "warning",
        {
            "proc/self/cgroup": "0::/app\n",
            "proc/self/mountinfo": "25 21 0:22 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        },
        [],
        "/app",
    ),
    (
        "cgroup-outside-view",
        "critical",
        {"proc/self/mountinfo": "25 21 0:22 /other /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"},
        [],
        "another cgroup",
    ),
    (
        "conflicting-mounts",
        "warning",
        {
            "proc/self/mountinfo": "25 21 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
            "26 21 0:22 /pod/app /mnt rw - cgroup2 cgroup2 rw\n",
            "mnt/memory.max": "max\n",
        },
        [],
        "/mnt/memory.max",
    ),
    (
        "no-cgroup",
        "info",
        {"proc/self/mountinfo": "21 1 8:1 / / rw - ext4 /dev/root rw\n", "proc/self/cgroup": ""},
        [],
        "no cgroup file system",
    ),
    ("usage-unknown", "info", {f"{APP}/memory.events": "oom_kill many\n"}, [], "/sys/fs/cgroup/pod/app/memory.events"),
    ("oom-kills", "critical", {f"{APP}/memory.events": "oom_kill 3\n"}, [], "3 times"),
    ("no-memory-limit", "warning", {f"{APP}/memory.max": "max\n"}, [], "no memory limit"),
    ("no-cpu-limit", "info", {f"{APP}/cpu.max": "max 100000\n"}, [], "no CPU limit"),
    ("memory-near-limit", "warning", {f"{APP}/memory.current": f"{GIB * 9 // 10 + 1}\n"}, [], "90%"),
    ("memory-near-limit", "critical", {f"{APP}/memory.current": f"{GIB}\n"}, [], "100%"),
    (
        "memory-near-limit",
        "warning",
        {f"{POD}/memory.max": f"{2 * GIB}\n", f"{POD}/memory.current": f"{2 * GIB - 1}\n"},
        [],
        "at /pod",
    ),
    ("memory-high-below-max", "warning", {f"{APP}/memory.high": f"{GIB // 2}\n"}, [], "512Mi"),
    ("memory-high-below-max", "warning", {f"{APP}/memory.high": "4096\n", f"{APP}/memory.max": "max\n"}, [], "4Ki"),
    ("cpu-throttled", "info", {f"{APP}/cpu.stat": "nr_periods 100\nnr_throttled 24\n"}, [], "24% of periods"),
    (
        "cpu-throttled",
        "warning",
        {f"{APP}/cpu.stat": "nr_periods 100\nnr_throttled 25\nthrottled_usec 1500000\n"},
        [],
        "1.5 s waited",
    ),
    ("cpu-below-one", "info", {f"{APP}/cpu.max": "50000 100000\n"}, [], "0.5 CPUs"),
    ("cpuset-narrower", "warning", {f"{APP}/cpuset.cpus.effective": "3\n"}, [], "1 CPU"),
    ("limit-beyond-machine", "info", {f"{APP}/cpu.max": "900000 100000\n"}, [], "9 CPUs"),
    (
        "limit-beyond-machine",
        "info",
        {f"{APP}/cpu.max": "900000 100000\n", "sys/devices/system/cpu/online": None},
        [],
        "9 CPUs",
    ),
    ("limit-beyond-machine", "info", {f"{APP}/memory.max": f"{100 * GIB}\n"}, [], "62.5Gi"),
    ("ancestor-binds", "warning", {f"{POD}/cpu.max": "100000 100000\n"}, [], "1 CPU (/sys/fs/cgroup/pod/cpu.max)"),
    ("ancestor-binds", "warning", {f"{POD}/memory.max": f"{GIB // 4}\n"}, [], "256Mi"),
    ("pids-near-limit", "warning", {f"{APP}/pids.current": "90\n"}, [], "90 of 100"),
    ("limit-given", "info", {}, ["--cpu-limit", "1500m"], "1500m (--cpu-limit)"),
    (
        "limit-given",
        "info",
        {},
        ["--cpu-limit", "1500m"],
        "the cgroup here says 2 CPUs (/sys/fs/cgroup/pod/app/cpu.max)",
    ),
    (
        "limit-given",
        "info",
        {},
        ["--memory-limit", "2Gi"],
        "the cgroup here says 1Gi (/sys/fs/cgroup/pod/app/memory.max)",
    ),
    (
        "limit-given",
        "info",
        {f"{APP}/cpu.max": "max 100000\n"},
        ["--cpu-limit", "1"],
        "the cgroup here says no limit",
    ),
    ("limit-given", "info", {f"{APP}/cpu.max": "x\n"}, ["--cpu-limit", "1"], "the cgroup here says what could not be"),
    ("given-limit-unlikely", "warning", {}, ["--cpu-limit", "0"], "is given as 0 (--cpu-limit): no limit"),
    ("given-limit-unlikely", "warning", {}, ["--cpu-limit", "8"], "probably no limit"),
    ("given-limit-unlikely", "warning", {}, ["--memory-limit", "60Gi"], "probably no limit"),
    ("reserve-exceeds-limit", "critical", {}, ["--memory-reserve", "2Gi"], "1Gi"),
    ("reserve-exceeds-limit", "critical", {}, ["--memory-min", "1Gi"], "1Gi"),
    ("gomaxprocs-disagrees", "warning", {"proc/self/environ": "GOMAXPROCS=8\0"}, [], "which make it 2"),
    (
        "gomaxprocs-disagrees",
        "warning",
        {"proc/self/environ": "GOMAXPROCS=64\0", f"{APP}/cpu.max": "max 100000\n"},
        [],
        "more than the 8 CPUs",
    ),
    ("gomaxprocs-malformed", "warning", {"proc/self/environ": "GOMAXPROCS=two\0"}, [], "ignores"),
    ("gomemlimit-above-limit", "critical", {"proc/self/environ": "GOMEMLIMIT=2GiB\0"}, [], "2Gi"),
    ("gomemlimit-above-limit", "critical", {"proc/self/environ": "GOMEMLIMIT=off\0"}, [], "off"),
    ("gomemlimit-near-limit", "warning", {"proc/self/environ": "GOMEMLIMIT=1000MiB\0"}, [], "95%"),
    ("gomemlimit-malformed", "critical", {"proc/self/environ": "GOMEMLIMIT=1GB\0"}, [], "end at start"),
]


@pytest.mark.parametrize(
    ("finding", "level", "files", "options", "holds"),
    FIRING,
    ids=[f"{row[0]}-{row[1]}-{number}" for number, row in enumerate(FIRING)],
)
def test_fires(
    find: Find, finding: str, level: str, files: dict[str, str | None], options: list[str], holds: str
) -> None:
    found = find(files, *options)

    assert found[finding][0] == level
    assert holds in found[finding][1]


# id, what differs from SOUND, why it is silent
SILENT: list[tuple[str, dict[str, str | None], list[str]]] = [
    # page cache that the kernel takes back at once does not count
    (
        "memory-near-limit",
        {f"{APP}/memory.current": f"{GIB}\n", f"{APP}/memory.stat": f"inactive_file {GIB // 2}\n"},
        [],
    ),
    # a pod's limit above the container's does not bind
    ("ancestor-binds", {f"{POD}/cpu.max": "300000 100000\n", f"{POD}/memory.max": f"{2 * GIB}\n"}, []),
    # what is not known is not "no limit"
    ("no-cpu-limit", {f"{APP}/cpu.max": "fast\n"}, []),
    ("no-memory-limit", {f"{APP}/memory.max": "lots\n"}, []),
    # a given limit takes its place
    ("no-cpu-limit", {f"{APP}/cpu.max": "max 100000\n"}, ["--cpu-limit", "1"]),
    ("given-limit-unlikely", {}, ["--cpu-limit", "8", "--trust-given"]),
    # another cgroup's limit, which is shown, says nothing of the process
    ("cpu-below-one", {"proc/self/cgroup": "0::/../b\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, []),
    ("limit-given", {}, ["--cpu-limit", "1", "--limits-from", "cgroup"]),
    # 95% itself is close, but not above it
    ("gomemlimit-near-limit", {"proc/self/environ": f"GOMEMLIMIT={GIB * 95 // 100}\0"}, []),
    ("gomaxprocs-disagrees", {"proc/self/environ": "GOMAXPROCS=2\0"}, []),
    # empty is unset to Go
    ("gomaxprocs-malformed", {"proc/self/environ": "GOMAXPROCS=\0"}, []),
    ("gomemlimit-malformed", {"proc/self/environ": "GOMEMLIMIT=\0"}, []),
    # the sentinel of v1 is no number beyond the machine
    ("limit-beyond-machine", {f"{APP}/memory.max": "9223372036854771712\n"}, []),
    ("pids-near-limit", {f"{APP}/pids.max": "max\n"}, []),
    ("oom-kills", {f"{APP}/memory.events": None}, []),
]


@pytest.mark.parametrize(
    ("finding", "files", "options"), SILENT, ids=[f"{row[0]}-{number}" for number, row in enumerate(SILENT)]
)
def test_is_silent(find: Find, finding: str, files: dict[str, str | None], options: list[str]) -> None:
    assert finding not in find(files, *options)


def test_v1_hierarchical_limit_tells_of_an_ancestor_that_no_mount_shows(find: Find) -> None:
    found = find(
        {
            "proc/self/cgroup": "4:memory:/pod/app\n",
            "proc/self/mountinfo": "25 21 0:22 /pod/app /mem rw - cgroup cgroup rw,memory\n",
            "mem/memory.limit_in_bytes": f"{GIB}\n",
            "mem/memory.stat": f"hierarchical_memory_limit {GIB // 2}\n",
        }
    )

    assert found["ancestor-binds"] == (
        "warning",
        "a cgroup above binds tighter than the container's own memory limit: 512Mi (/mem/memory.stat)",
    )


def test_every_id_is_documented_and_every_documented_id_exists() -> None:
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", (REPOSITORY / "FINDINGS.md").read_text(), re.MULTILINE))
    named: set[str] = set()
    for file in (REPOSITORY / "agent/cgagent").rglob("*.py"):
        strings = (node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
        named |= {value for value in strings if isinstance(value, str)}

    assert documented <= named
    elsewhere = {
        "gomaxprocs-freezes-go",
        "program-alone",
        "library-linked",
        "environment-unknown",
        "unreadable",
        "resize-pending",  # a sidecar's alone: test_watch_sight
    } | go_program.FINDINGS
    assert {row[0] for row in FIRING} | elsewhere == documented


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("5B", 5),
        ("1KiB", 1024),
        ("3MiB", 3 << 20),
        ("2GiB", 2 << 30),
        ("1TiB", 1 << 40),
        ("off", NO_MEMORY_LIMIT),
        ("9223372036854775807", NO_MEMORY_LIMIT),
    ],
)
def test_gomemlimit_is_read_as_go_reads_it(text: str, size: int) -> None:
    assert parse_memory_limit(text) == size


@pytest.mark.parametrize("text", ["1GB", "1G", "1.5GiB", "-1", "0x10", "off ", " 1", "KiB", "9223372036854775808", "٣"])
def test_gomemlimit_that_ends_a_go_program_is_malformed(text: str) -> None:
    assert parse_memory_limit(text) is None


def test_gomaxprocs_that_go_ignores_is_malformed() -> None:
    assert parse_gomaxprocs("4") == 4
    assert [parse_gomaxprocs(text) for text in ("0", "-1", "two", "1.5", "", "9" * 30)] == [None] * 6
