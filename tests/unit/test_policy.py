"""The rules of the numbers: what GOMAXPROCS and GOMEMLIMIT become, and why one is left unset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.process import Problem, Standing
from cgagent.errors import UsageError
from cgagent.policy import Choice, Policy, decide, parse_yes

MI = 1 << 20


def _policy(**texts: str) -> Policy:
    """A policy out of option texts; `memory_ratio="0.8"` is `--memory-ratio 0.8`."""
    return Policy(lambda name: (texts[name], "--" + name.replace("_", "-")) if name in texts else None)


def _limits(
    cores: float | None = None, size: int | None = None, cpus: int | None = 8, online: int | None = None
) -> Limits:
    limits = Limits(Standing())
    limits.cpu.cores, limits.cpu.source = cores, "/cg/cpu.max"
    limits.memory.bytes, limits.memory.source = size, "/cg/memory.max"
    limits.cpu.allowed = None if cpus is None else frozenset(range(cpus))
    limits.cpu.online = limits.cpu.allowed if online is None else frozenset(range(online))
    return limits


def _procs(cores: float | None, cpus: int | None = 8, online: int | None = None, **texts: str) -> int | None:
    return decide(_limits(cores, cpus=cpus, online=online), _policy(**texts), {}).gomaxprocs.value


def _memory(size: int | None, **texts: str) -> Choice:
    return decide(_limits(size=size), _policy(**texts), {}).gomemlimit


@pytest.mark.parametrize(
    ("cores", "ceil", "floor", "go"),
    [
        (0.001, 1, 1, 2),
        (0.5, 1, 1, 2),
        (1.0, 1, 1, 2),
        (1.001, 2, 1, 2),
        (1.5, 2, 1, 2),
        (2.0, 2, 2, 2),
        (2.5, 3, 2, 3),
        (3.0, 3, 3, 3),
        (7.999, 8, 7, 8),
        (8.0, 8, 8, 8),
        (9.5, 8, 8, 8),
    ],
)
def test_a_quota_is_rounded_as_asked_and_bounded_by_the_cpus(cores: float, ceil: int, floor: int, go: int) -> None:
    assert _procs(cores) == ceil
    assert _procs(cores, cpu_rounding="ceil") == ceil
    assert _procs(cores, cpu_rounding="floor") == floor
    assert _procs(cores, cpu_rounding="go") == go


def test_gos_minimum_of_two_holds_only_where_two_cpus_may_be_used() -> None:
    assert _procs(0.5, cpus=1, cpu_rounding="go") == 1
    assert _procs(0.5, cpus=2, cpu_rounding="go") == 2


def test_a_bound_that_changed_nothing_is_no_reason() -> None:
    for texts, cpus in (({"cpu_rounding": "floor"}, 8), ({"cpu_rounding": "go"}, 1)):
        reason = decide(_limits(0.5, cpus=cpus), _policy(**texts), {}).gomaxprocs.reason
        assert "raised" not in reason
        assert "lowered" not in reason
    assert "raised to --min-procs" in decide(_limits(0.5), _policy(min_procs="2"), {}).gomaxprocs.reason
    assert "lowered to the 8 CPUs" in decide(_limits(9.5), _policy(), {}).gomaxprocs.reason


def test_where_the_cpus_are_not_known_the_quota_alone_decides() -> None:
    assert _procs(99.5, cpus=None) == 100
    assert _procs(None, cpus=None) is None


def test_without_a_quota_a_narrower_cpuset_or_affinity_decides() -> None:
    assert _procs(None, cpus=3, online=8) == 3
    assert _procs(None, cpus=3, online=8, cpu_rounding="go") == 3


def test_without_a_quota_and_with_all_cpus_the_variable_is_not_written() -> None:
    found = decide(_limits(), _policy(), {})
    assert found.gomaxprocs.value is None
    assert "no CPU limit" in found.gomaxprocs.reason
    assert found.env() == {}


def test_min_procs_raises_and_max_procs_lowers() -> None:
    assert _procs(1.5, min_procs="4") == 4
    assert _procs(6.0, max_procs="4") == 4
    assert _procs(3.0, min_procs="2", max_procs="4") == 3


def test_min_procs_never_exceeds_the_cpus_that_may_be_used() -> None:
    assert _procs(1.5, cpus=2, min_procs="16") == 2


def test_max_procs_holds_without_a_limit_where_there_are_more_cpus() -> None:
    assert _procs(None, max_procs="4") == 4
    assert _procs(None, max_procs="8") is None
    assert _procs(None, max_procs="16") is None


def test_min_procs_alone_sets_nothing_without_a_limit() -> None:
    assert _procs(None, min_procs="2") is None


def test_the_memory_limit_gets_nine_tenths_as_a_plain_integer() -> None:
    decision = decide(_limits(1.5, 256 * MI), _policy(), {})
    assert decision.env() == {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}
    assert decision.gomemlimit.reason == "90% of 256Mi (/cg/memory.max)"


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        ({}, 241591910),
        ({"memory_ratio": "1"}, 268435456),
        ({"memory_ratio": "100%"}, 268435456),
        ({"memory_ratio": "0.5"}, 134217728),
        ({"memory_ratio": "0.29"}, 268435456 * 29 // 100),
        ({"memory_reserve": "64Mi"}, 192 * MI * 9 // 10),
        ({"memory_reserve": "64Mi", "memory_ratio": "1"}, 192 * MI),
        ({"memory_reserve": "1"}, 268435455 * 9 // 10),
        ({"memory_min": "241591910"}, 241591910),
    ],
)
def test_memory_is_the_floor_of_limit_less_reserve_times_ratio(texts: dict[str, str], value: int) -> None:
    assert _memory(256 * MI, **texts).value == value


def test_without_a_memory_limit_the_variable_is_not_written() -> None:
    for texts in ({}, {"memory_reserve": "64Mi"}, {"memory_min": "1Gi"}):
        choice = _memory(None, **texts)
        assert (choice.value, choice.blocked) == (None, None)


@pytest.mark.parametrize(
    "texts",
    [
        {"memory_reserve": "256Mi"},
        {"memory_reserve": "512Mi"},
        {"memory_min": "241591911"},
        {"memory_reserve": "128Mi", "memory_min": "128Mi"},
    ],
)
def test_a_reserve_that_leaves_nothing_or_too_little_is_an_error(texts: dict[str, str]) -> None:
    choice = _memory(256 * MI, **texts)
    assert choice.value is None
    assert choice.finding == "reserve-exceeds-limit"
    decision = decide(_limits(size=256 * MI), _policy(**texts), {})
    assert [name for name, _ in decision.blocked()] == ["GOMEMLIMIT"]
    assert "GOMEMLIMIT" not in decision.env()


def test_a_limit_so_small_that_its_share_is_nothing_is_an_error_too() -> None:
    for size in (0, 1):
        assert _memory(size).finding == "reserve-exceeds-limit"


def test_what_the_environment_has_is_left_alone_and_told() -> None:
    decision = decide(_limits(1.5, 256 * MI), _policy(), {"GOMAXPROCS": "7"})
    assert decision.gomaxprocs.kept == "7"
    assert decision.gomaxprocs.value == 2
    assert decision.env() == {"GOMEMLIMIT": "241591910"}


def test_an_empty_variable_counts_as_unset_as_it_does_for_go() -> None:
    assert "GOMAXPROCS" in decide(_limits(1.5), _policy(), {"GOMAXPROCS": ""}).env()


def test_override_decides_anew() -> None:
    decision = decide(_limits(1.5, 256 * MI), _policy(override="true"), {"GOMAXPROCS": "7", "GOMEMLIMIT": "off"})
    assert decision.env() == {"GOMAXPROCS": "2", "GOMEMLIMIT": "241591910"}


def test_a_problem_blocks_its_own_variable_and_is_the_reason() -> None:
    limits = _limits(None, 256 * MI)
    limits.problems.append(Problem("malformed-file", "cpu", "/cg/cpu.max is malformed"))
    decision = decide(limits, _policy(), {})
    assert decision.gomaxprocs.blocked == "/cg/cpu.max is malformed"
    assert decision.gomaxprocs.finding == "malformed-file"
    assert decision.env() == {"GOMEMLIMIT": "241591910"}


def test_what_is_blocked_and_already_set_by_another_is_no_error() -> None:
    limits = _limits()
    limits.problems.append(Problem("unreadable", "cpu", "cannot read /cg/cpu.max"))
    assert decide(limits, _policy(), {}).blocked() != []
    assert decide(limits, _policy(), {"GOMAXPROCS": "4"}).blocked() == []


def test_a_finding_that_does_not_block_decides_nothing() -> None:
    limits = _limits(1.5)
    limits.problems.append(Problem("conflicting-mounts", "cpu", "mounts disagree"))
    assert decide(limits, _policy(), {}).env() == {"GOMAXPROCS": "2"}


def test_a_strangers_limits_are_not_used() -> None:
    limits = _limits(1.5, 256 * MI)
    limits.cpu.trusted = limits.memory.trusted = False
    assert decide(limits, _policy(), {}).env() == {}


def test_for_another_process_its_own_cpuset_is_not_known_and_the_machine_bounds() -> None:
    limits = _limits(6.0, cpus=1, online=4)
    limits.cpu.foreign = True
    assert decide(limits, _policy(), {}).gomaxprocs.value == 4


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"memory_ratio": "0"}, "--memory-ratio: '0' is not a ratio"),
        ({"memory_reserve": "lots"}, "--memory-reserve: 'lots' is not a size"),
        ({"memory_min": "-1"}, "--memory-min: '-1' is not a size"),
        ({"cpu_rounding": "round"}, "--cpu-rounding: 'round' is not a rounding"),
        ({"min_procs": "0"}, "--min-procs: '0' is not a whole number"),
        ({"max_procs": "1.5"}, "--max-procs: '1.5' is not a whole number"),
        ({"override": "maybe"}, "--override: 'maybe' is neither yes nor no"),
        ({"min_procs": "4", "max_procs": "3"}, "--max-procs 3 is below --min-procs 4"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_name(texts: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        _policy(**texts)
    assert caught.value.message == message


def test_switches_are_words_people_write() -> None:
    assert all(parse_yes(text, "x") for text in ("1", "true", "Yes", "ON"))
    assert not any(parse_yes(text, "x") for text in ("0", "false", "No", "OFF"))


_POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "cpu_rounding": st.sampled_from(["ceil", "floor", "go"]),
        "memory_ratio": st.sampled_from(["0.001", "0.29", "0.9", "1"]),
        "min_procs": st.sampled_from(["1", "2"]),
        "max_procs": st.sampled_from(["2", "5"]),
    },
)


@given(st.tuples(st.integers(1, 10**8), st.integers(1, 10**8)), st.sampled_from([1000, 100000, 10**6]), _POLICIES)
def test_more_quota_never_means_fewer_procs(quotas: tuple[int, int], period: int, texts: dict[str, str]) -> None:
    small, large = (_procs(quota / period, 8, None, **texts) for quota in sorted(quotas))
    assert small is not None
    assert large is not None
    assert 1 <= small <= large <= 8


@given(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), st.integers(0, 2**40), _POLICIES)
def test_more_memory_never_means_a_lower_limit(sizes: tuple[int, int], reserve: int, texts: dict[str, str]) -> None:
    small, large = (_memory(size, memory_reserve=str(reserve), **texts).value for size in sorted(sizes))
    assert (small or 0) <= (large or 0) <= max(sizes)


@given(st.integers(1, 2**62), st.integers(0, 2**62))
def test_more_reserve_never_means_a_higher_limit(size: int, reserve: int) -> None:
    without, less = _memory(size).value or 0, _memory(size, memory_reserve=str(reserve)).value or 0
    assert less <= without


@given(st.integers(1, 64), st.integers(1, 10**6))
def test_a_whole_number_of_cores_is_never_rounded_away(cores: int, period: int) -> None:
    for rounding in ("ceil", "floor"):
        assert _procs(cores * period / period, cpus=64, cpu_rounding=rounding) == cores


def test_gomaxprocs_is_left_to_a_program_that_reaches_the_same_number_and_follows() -> None:
    choice = decide(_limits(1.5), _policy(), {}, lambda: 2).gomaxprocs
    assert (choice.value, choice.wanted) == (None, 2)
    assert choice.reason.startswith("left to Go, which reaches 2 by itself and follows changes: ceil of 1.5 CPUs")


def test_gomaxprocs_is_set_where_the_program_would_reach_another_number_or_its_number_is_not_known() -> None:
    assert decide(_limits(0.5), _policy(), {}, lambda: 2).gomaxprocs.value == 1
    assert decide(_limits(1.5), _policy(), {}, lambda: None).gomaxprocs.value == 2
    assert decide(_limits(1.5), _policy(), {}).gomaxprocs.value == 2


def test_gomaxprocs_always_and_never() -> None:
    assert decide(_limits(1.5), _policy(gomaxprocs="always"), {}, lambda: 2).gomaxprocs.value == 2
    never = decide(_limits(1.5), _policy(gomaxprocs="never"), {}).gomaxprocs
    assert (never.value, never.wanted) == (None, 2)
    assert "--gomaxprocs never" in never.reason
    with pytest.raises(UsageError, match="--gomaxprocs: 'sometimes' is not known"):
        _policy(gomaxprocs="sometimes")


def test_the_programs_own_number_is_not_asked_for_where_it_does_not_matter() -> None:
    def ask() -> int:
        raise AssertionError("asked")

    decide(_limits(), _policy(), {}, ask)
    decide(_limits(1.5), _policy(gomaxprocs="always"), {}, ask)
