"""What is and what is wished: the smaller counts, so nothing is promised that the cgroup does not have yet."""

from __future__ import annotations

import pytest

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.process import Problem, Standing
from cgagent.cgroup.usage import Usage
from cgagent.given import Amount, GivenLimits
from cgagent.policy import Policy, decide
from cgagent.report.findings import find
from cgagent.report.picture import Picture
from cgagent.watch.sight import Sight, heed_wish, look_ahead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GI = 1 << 30


def _limits(cores: float | None = 2.0, size: int | None = 2 * GI) -> Limits:
    limits = Limits(Standing())
    limits.cpu.cores, limits.cpu.source = cores, None if cores is None else "/cg/cpu.max"
    limits.cpu.online = limits.cpu.allowed = frozenset(range(8))
    limits.memory.bytes, limits.memory.source = size, None if size is None else "/cg/memory.max"
    limits.memory.total = 64 * GI
    return limits


def _wish(millicores: int | None, size: int | None, trust: bool = False) -> GivenLimits:
    cpu = None if millicores is None else Amount(millicores, str(millicores), "/podinfo/cpu")
    memory = None if size is None else Amount(size, str(size), "/podinfo/memory")
    return GivenLimits(cpu, memory, "auto", trust)


@pytest.mark.parametrize(
    ("actual", "wished", "counts"),
    [
        ((2.0, 2 * GI), (1000, GI), (1.0, GI)),
        ((2.0, 2 * GI), (3000, 4 * GI), (2.0, 2 * GI)),
        ((2.0, 2 * GI), (None, None), (2.0, 2 * GI)),
        ((None, None), (1000, GI), (1.0, GI)),
        ((2.0, 2 * GI), (0, 0), (2.0, 2 * GI)),  # what the downward API says of a sidecar without limits
        ((None, None), (8000, 64 * GI), (None, None)),  # as large as the machine: probably no limit at all
        ((2.0, 2 * GI), (1000, 4 * GI), (1.0, 2 * GI)),
    ],
    ids=["lower", "higher", "none", "no limit yet", "zero", "the machine's size", "one of each"],
)
def test_the_smaller_counts(
    actual: tuple[float | None, int | None],
    wished: tuple[int | None, int | None],
    counts: tuple[float | None, int | None],
) -> None:
    limits = _limits(*actual)
    heed_wish(limits, _wish(*wished))
    assert (limits.cpu.cores, limits.memory.bytes) == counts


def test_the_source_is_that_of_what_counts() -> None:
    limits = _limits()
    heed_wish(limits, _wish(1000, 4 * GI))
    assert (limits.cpu.source, limits.memory.source) == ("/podinfo/cpu", "/cg/memory.max")


def test_wish_and_fact_stay_apart() -> None:
    limits = _limits()
    heed_wish(limits, _wish(1000, 4 * GI))
    cpu, memory = limits.cpu.wish, limits.memory.wish
    assert cpu is not None
    assert memory is not None
    assert (cpu.value, cpu.fact, memory.value, memory.fact) == (1.0, 2.0, 4 * GI, 2 * GI)
    heed_wish(limits, _wish(500, GI))
    cpu = limits.cpu.wish
    assert cpu is not None
    assert (cpu.value, cpu.fact) == (0.5, 2.0), "an earlier wish is no fact"


@pytest.mark.parametrize(
    ("millicores", "size", "told"),
    [
        (2000, 2 * GI, []),
        (2005, 2 * GI, []),  # as the systemd driver rounds
        (
            3000,
            2 * GI,
            ["a CPU limit of 3 CPUs is asked for (/podinfo/cpu), in force is 2 CPUs: the resize is pending"],
        ),
        (2000, GI, ["a memory limit of 1Gi is asked for (/podinfo/memory), in force is 2Gi: the resize is pending"]),
    ],
)
def test_a_resize_that_is_pending_is_told(millicores: int, size: int, told: list[str]) -> None:
    limits = _limits()
    heed_wish(limits, _wish(millicores, size))
    picture = Picture("1", "/", limits, Usage(), decide(limits, Policy(), {}), None, None)
    found = [one.message for one in find(picture) if one.id == "resize-pending"]
    assert found == told


@pytest.mark.parametrize(("millicores", "pending"), [(1000, 1), (2000, 0), (3000, 1)])
def test_as_many_exclusive_cpus_as_are_asked_for_are_the_limit_without_a_quota(millicores: int, pending: int) -> None:
    limits = _limits(None, 2 * GI)
    limits.cpu.online, limits.cpu.allowed = frozenset(range(8)), frozenset({2, 3})
    heed_wish(limits, _wish(millicores, 2 * GI))
    picture = Picture("1", "/", limits, Usage(), decide(limits, Policy(), {}), None, None)
    assert len([one for one in find(picture) if one.id == "resize-pending"]) == pending


def test_where_the_cgroup_is_not_known_a_wish_makes_no_decision() -> None:
    limits = _limits(None, None)
    limits.problems.append(Problem("unreadable", "", "cannot read /cg/memory.max"))
    heed_wish(limits, _wish(1000, GI))
    assert (limits.cpu.cores, limits.memory.bytes) == (None, None)


class _Settings:
    """What `look_ahead` asks of the settings."""

    def __init__(self, wish: GivenLimits) -> None:
        self.policy = Policy()
        self._wish = wish

    def given(self) -> GivenLimits:
        return self._wish


def test_while_the_process_is_gone_a_wish_still_lowers_and_the_last_sight_stays_as_it_was() -> None:
    limits = _limits()
    sight = Sight(limits, decide(limits, Policy(), {}))

    ahead = look_ahead(sight, _Settings(_wish(1000, GI)), {})  # type: ignore[arg-type]

    assert ahead.decision.env() == {"GOMAXPROCS": "1", "GOMEMLIMIT": str(GI * 9 // 10)}
    assert (sight.limits.cpu.cores, sight.limits.memory.bytes) == (2.0, 2 * GI)
    again = look_ahead(ahead, _Settings(_wish(4000, 4 * GI)), {})  # type: ignore[arg-type]
    assert again.decision.env() == ahead.decision.env(), "a process that comes may have less than is wished for it"


class _Program:
    """A program whose runtime reaches two procs by itself."""

    def own_procs(self, limits: Limits) -> int:  # noqa: ARG002
        return 2


def test_while_the_process_is_gone_gomaxprocs_is_still_left_to_what_it_ran() -> None:
    limits = _limits()
    program: Any = _Program()
    sight = Sight(limits, decide(limits, Policy(), {}, lambda: 2), program)
    settings: Any = _Settings(_wish(None, GI))

    ahead = look_ahead(sight, settings, {})

    assert set(ahead.decision.env()) == {"GOMEMLIMIT"}
    assert ahead.decision.gomaxprocs.wanted == 2
    assert ahead.program is program
