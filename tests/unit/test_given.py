"""Limits given from outside: option, downward-API directory, environment; and when they are not believed."""

from __future__ import annotations

import os

import pytest

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.process import Problem, Standing
from cgagent.errors import CgagentError, UsageError
from cgagent.given import Amount, GivenLimits, apply_given, read_given
from cgagent.host import ReadError
from support.trees import build

GI = 1 << 30


def _limits() -> Limits:
    """What the cgroup says: half a core of 4 CPUs, 64 MiB of 16 GiB, on CPU 0 alone."""
    limits = Limits(Standing())
    limits.cpu.cores, limits.cpu.source = 0.5, "/cg/cpu.max"
    limits.cpu.online = frozenset(range(4))
    limits.cpu.allowed = frozenset({0})
    limits.memory.bytes, limits.memory.source = 64 << 20, "/cg/memory.max"
    limits.memory.total = 16 * GI
    return limits


def _applied(
    cpu: int | None = None, memory: int | None = None, limits_from: str = "auto", trust: bool = False
) -> Limits:
    limits = _limits()
    amounts = [None if value is None else Amount(value, str(value), "--x") for value in (cpu, memory)]
    apply_given(limits, GivenLimits(amounts[0], amounts[1], limits_from, trust))
    return limits


def test_options_are_read_as_people_write_them() -> None:
    cpu, memory = read_given("1.5", "256Mi", None, {})
    assert cpu == Amount(1500, "1.5", "--cpu-limit")
    assert memory == Amount(256 << 20, "256Mi", "--memory-limit")


def test_the_environment_has_millicores_and_bytes_or_the_options_texts() -> None:
    environ = {"CGAGENT_CPU_LIMIT_MILLICORES": "1500", "CGAGENT_MEMORY_LIMIT_BYTES": "4096"}
    cpu, memory = read_given(None, None, None, environ)
    assert cpu == Amount(1500, "1500", "CGAGENT_CPU_LIMIT_MILLICORES")
    assert memory == Amount(4096, "4096", "CGAGENT_MEMORY_LIMIT_BYTES")
    cpu, memory = read_given(None, None, None, {"CGAGENT_CPU_LIMIT": "1.5", "CGAGENT_MEMORY_LIMIT": "4Ki"})
    assert cpu == Amount(1500, "1.5", "CGAGENT_CPU_LIMIT")
    assert memory == Amount(4096, "4Ki", "CGAGENT_MEMORY_LIMIT")


def test_the_directory_has_files_named_as_the_variables(tmp_path: object) -> None:
    top = build(tmp_path, {"/cpu_limit_millicores": "1500", "/memory_limit_bytes": "4096\n"})
    cpu, memory = read_given(None, None, top, {})
    assert cpu == Amount(1500, "1500", f"{top}/cpu_limit_millicores")
    assert memory == Amount(4096, "4096", f"{top}/memory_limit_bytes")


def test_a_projected_volume_of_links_is_read(tmp_path: object) -> None:
    # The kubelet's atomic writer: the files are links into ..data, itself a link to a directory with a date.
    top = build(tmp_path, {"/..2026_01_01/cpu_limit": "2"})
    os.symlink("..2026_01_01", f"{top}/..data")
    os.symlink("..data/cpu_limit", f"{top}/cpu_limit")
    cpu, memory = read_given(None, None, top, {})
    assert cpu == Amount(2000, "2", f"{top}/cpu_limit")
    assert memory is None


def test_the_option_goes_before_the_directory_and_that_before_the_environment(tmp_path: object) -> None:
    top = build(tmp_path, {"/cpu_limit": "2"})
    environ = {"CGAGENT_CPU_LIMIT_MILLICORES": "3000", "CGAGENT_MEMORY_LIMIT": "1Gi"}
    assert read_given("1", None, top, environ)[0] == Amount(1000, "1", "--cpu-limit")
    assert read_given(None, None, top, environ)[0] == Amount(2000, "2", f"{top}/cpu_limit")
    cpu, memory = read_given(None, None, None, environ)
    assert cpu == Amount(3000, "3000", "CGAGENT_CPU_LIMIT_MILLICORES")
    assert memory == Amount(GI, "1Gi", "CGAGENT_MEMORY_LIMIT")


def test_nothing_given_is_nothing() -> None:
    assert read_given(None, None, None, {"CGAGENT_CPU_LIMIT": " ", "CGAGENT_MEMORY_LIMIT_BYTES": ""}) == (None, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CGAGENT_CPU_LIMIT_MILLICORES", "1500m"),
        ("CGAGENT_CPU_LIMIT_MILLICORES", "1.5"),
        ("CGAGENT_MEMORY_LIMIT_BYTES", "4Ki"),
        ("CGAGENT_CPU_LIMIT", "lots"),
        ("CGAGENT_MEMORY_LIMIT", "-1"),
    ],
)
def test_a_variable_with_rubbish_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: "):
        read_given(None, None, None, {name: text})


def test_a_file_with_rubbish_or_without_end_is_refused_by_path(tmp_path: object) -> None:
    top = build(tmp_path, {"/cpu_limit": "lots", "/memory_limit_bytes": "1" * 5000})
    with pytest.raises(UsageError, match="cpu_limit: 'lots' is not a CPU count"):
        read_given(None, "1Gi", top, {})
    with pytest.raises(ReadError, match="memory_limit_bytes: more than 4096 bytes"):
        read_given("1", None, top, {})


def test_a_directory_that_is_none_is_refused(tmp_path: object) -> None:
    with pytest.raises(CgagentError, match=r"--limits-dir: .* is not a directory"):
        read_given(None, None, f"{tmp_path}/none", {})


def test_given_limits_take_the_cgroups_place() -> None:
    limits = _applied(1500, GI)
    assert (limits.cpu.cores, limits.cpu.source) == (1.5, "--x")
    assert (limits.memory.bytes, limits.memory.source) == (GI, "--x")
    # The init container's own cpuset says nothing of the application's: the machine's CPUs bound it.
    assert limits.cpu.usable == frozenset(range(4))
    assert limits.cpu.narrowed is None


def test_what_is_not_given_is_the_cgroups() -> None:
    limits = _applied(cpu=1500)
    assert limits.memory.bytes == 64 << 20
    assert not limits.memory.foreign


def test_from_cgroup_heeds_nothing_given() -> None:
    limits = _applied(1500, GI, limits_from="cgroup")
    assert (limits.cpu.cores, limits.memory.bytes) == (0.5, 64 << 20)
    assert limits.cpu.given is None


def test_from_given_heeds_nothing_of_the_cgroup() -> None:
    limits = _applied(limits_from="given")
    assert (limits.cpu.cores, limits.memory.bytes) == (None, None)
    limits = _applied(cpu=1500, limits_from="given")
    assert (limits.cpu.cores, limits.memory.bytes) == (1.5, None)


def test_a_problem_of_the_cgroup_does_not_block_what_is_given() -> None:
    limits = _limits()
    limits.problems.append(Problem("malformed-file", "", "cgroup is malformed"))
    apply_given(limits, GivenLimits(Amount(1500, "1.5", "--cpu-limit"), None, "auto", False))
    assert limits.blocked("cpu") is None
    assert limits.blocked("memory") is not None


@pytest.mark.parametrize(("millicores", "believed"), [(3999, True), (4000, False), (5000, False), (0, False)])
def test_a_cpu_limit_as_large_as_the_machine_is_probably_none(millicores: int, believed: bool) -> None:
    cpu = _applied(cpu=millicores).cpu
    assert cpu.given is not None
    assert cpu.given.likely_none is not believed
    assert cpu.cores == (millicores / 1000 if believed else None)


@pytest.mark.parametrize(
    ("size", "believed"), [(14 * GI, True), (16 * GI * 9 // 10 + 1, False), (16 * GI, False), (0, False)]
)
def test_a_memory_limit_close_to_the_machines_is_probably_none(size: int, believed: bool) -> None:
    memory = _applied(memory=size).memory
    assert memory.given is not None
    assert memory.given.likely_none is not believed
    assert memory.bytes == (size if believed else None)


def test_trust_takes_a_large_limit_at_its_word_but_never_zero() -> None:
    limits = _applied(4000, 16 * GI, trust=True)
    assert (limits.cpu.cores, limits.memory.bytes) == (4.0, 16 * GI)
    limits = _applied(0, 0, trust=True)
    assert (limits.cpu.cores, limits.memory.bytes) == (None, None)


def test_where_the_machine_is_not_known_a_limit_is_believed() -> None:
    limits = _limits()
    limits.cpu.online, limits.memory.total = None, None
    apply_given(limits, GivenLimits(Amount(64000, "64", "x"), Amount(1 << 40, "1Ti", "x"), "auto", False))
    assert (limits.cpu.cores, limits.memory.bytes) == (64.0, 1 << 40)
