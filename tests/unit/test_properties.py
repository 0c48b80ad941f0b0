"""What holds for any text: parsers raise the project's own error or nothing, whatever a file or a person says."""

from __future__ import annotations

import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from cgagent import envfile
from cgagent.cgroup import v1, v2
from cgagent.cgroup.hierarchy import parse_cgroup
from cgagent.cgroup.mounts import parse_mountinfo, unescape
from cgagent.cgroup.numbers import cpu_list, flat_keyed, unsigned
from cgagent.cgroup.reading import read_limits
from cgagent.cgroup.usage import pressure, read_usage
from cgagent.errors import CgagentError
from cgagent.given import read_given
from cgagent.host import Host
from cgagent.policy import Policy, decide
from cgagent.units import parse_count, parse_cpus, parse_ratio, parse_size
from support.trees import V2_MOUNT, build, machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cgagent.cgroup.dialect import Get

# Bytes of any kind, as a file's come in: what is no UTF-8 becomes surrogates.
BYTES = st.binary(max_size=200).map(lambda data: data.decode("utf-8", "surrogateescape"))
# Text of any kind, as nothing but a person's argument could be: lone surrogates of the upper half too.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=40)
# Nearly right: the pieces that kernel files are made of, in any order.
PIECES = st.sampled_from(
    [
        *"0/:,-=%\\ \t\r\n'\"#a\0é٣\udcff",
        "1",
        "100000",
        "max",
        "-1",
        "9" * 25,
        "  ",
        "::",
        "/..",
        " - ",
        "Mi",
        "m",
        "export ",
        "cgroup",
        "cgroup2",
        "cpu",
        "memory",
        "rw",
        "\\040",
        "total=",
        "some ",
        "nr_periods ",
        "GOMAXPROCS",
        "hierarchical_memory_limit ",
    ]
)
NEARLY = st.lists(PIECES, max_size=20).map("".join)
FILES = BYTES | NEARLY
ANY = FILES | TEXT


def _tame(parse: Callable[[], object]) -> None:
    """`parse` gives something or raises the project's own error, which makes one printable line."""
    line = ""
    try:
        parse()
    except CgagentError as error:
        line = error.line()
    assert line.isprintable()


@given(FILES)
def test_files_of_a_process(text: str) -> None:
    _tame(lambda: parse_cgroup(text))
    _tame(lambda: parse_mountinfo(text))
    _tame(lambda: unescape(text))


@given(st.lists(st.sampled_from(["25", "1", "0:22", "/", "/a", "/a\\040b", "rw", "-", "cgroup", "cgroup2", "", "x"])))
def test_lines_of_mountinfo_with_fields_anywhere(fields: list[str]) -> None:
    _tame(lambda: parse_mountinfo(" ".join(fields) + "\n" + V2_MOUNT))


@given(ANY)
def test_numbers(text: str) -> None:
    _tame(lambda: unsigned(text, "f"))
    _tame(lambda: cpu_list(text, "f"))
    assert all(isinstance(value, str) for value in flat_keyed(text).values())


@given(FILES, FILES)
def test_every_reader_of_a_cgroups_files(first: str, second: str) -> None:
    texts = [first, second]

    def get(name: str) -> str | None:
        return texts[len(name) % 2]

    readers: list[Callable[[Get], object]] = []
    for dialect in (v1, v2):
        readers += [dialect.cpu_quota, dialect.memory_bounds, dialect.cpuset, dialect.cpu_settings, dialect.cpu_usage]
        readers += [dialect.cpu_throttling, dialect.memory_usage, dialect.memory_events]
    for read in readers:
        _tame(lambda read=read: read(get))  # type: ignore[misc]
    _tame(lambda: pressure(get, "cpu.pressure"))


@given(ANY)
def test_what_people_write(text: str) -> None:
    for parse in (parse_size, parse_cpus, parse_count, parse_ratio, envfile.parse_mode):
        _tame(lambda parse=parse: parse(text, "--x"))  # type: ignore[misc]
    for name in ("memory_ratio", "memory_reserve", "memory_min", "cpu_rounding", "min_procs", "max_procs", "override"):
        _tame(lambda name=name: Policy(lambda asked: (text, "--x") if asked == name else None))  # type: ignore[misc]
    for name in ("CPU_LIMIT", "CPU_LIMIT_MILLICORES", "MEMORY_LIMIT", "MEMORY_LIMIT_BYTES"):
        _tame(lambda name=name: read_given(None, None, None, {f"CGAGENT_{name}": text}))  # type: ignore[misc]


@given(ANY, st.sampled_from(["dotenv", "docker", "shell"]))
def test_any_old_env_file_can_be_merged_and_read(old: str, style: str) -> None:
    ours = envfile.render({"GOMAXPROCS": "2"}, "# written by cgagent 9.9", style)
    merged = envfile.merge(ours, old, style)
    assert merged.startswith(ours)
    assert envfile.merge(ours, merged, style) == merged
    _tame(lambda: envfile.parse(old, "f"))


@settings(max_examples=60)
@given(FILES, FILES, FILES, FILES)
def test_a_whole_tree_of_rubbish_is_read_and_decided_on(cgroup: str, mounts: str, limit: str, other: str) -> None:
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as top:
        for tree in (machine(cgroup, mounts), machine("0::/a\n", V2_MOUNT)):
            build(top, tree)
            for name in ("cpu.max", "cpuset.cpus.effective", "memory.high", "cpu.stat"):
                build(top, {f"/sys/fs/cgroup/a/{name}": limit, "/sys/fs/cgroup/memory.max": other})
            build(top, {"/proc/meminfo": f"MemTotal: {other}\n", "/proc/self/status": f"Cpus_allowed_list:{limit}\n"})
            limits = read_limits(Host(top))
            read_usage(limits)
            env = decide(limits, Policy(), {}).env()
            assert all(value.isdigit() and int(value) > 0 for value in env.values())
            assert envfile.header(limits).isprintable()


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0\n"), min_size=1, max_size=12), max_size=4))
def test_a_cgroup_of_any_name_is_found(names: list[str]) -> None:
    names = [name for name in names if name not in (".", "..")]
    path = "/" + "/".join(names)
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as top:
        build(top, machine(f"0::{path}\n", V2_MOUNT))
        build(top, {os.path.join("/sys/fs/cgroup", *names, "cpu.max"): "150000 100000\n"})
        assert read_limits(Host(top)).cpu.cores == 1.5
