"""What repetitions make together, and the plan of `make proof`."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from proof import plan
from proof.figures import FEWEST, Spread, apart, apart_by_chance, gc_share, spread, throttled_share


def test_a_spread_is_the_median_and_the_whole_range() -> None:
    assert spread([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0)
    assert spread([4.0, 2.0]) == Spread(3.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([4, 5, 6], [1, 2, 3], 1),
        ([1, 2, 3], [4, 5, 6], -1),
        ([1, 2, 4], [3, 5, 6], 0),  # one value lies among the others
        ([3, 4, 5], [1, 2, 3], 0),  # they touch
        ([9, 9], [1, 1], 0),  # too few
        ([], [1, 2, 3], 0),
    ],
)
def test_values_differ_only_where_their_ranges_lie_apart(one: list[float], other: list[float], expected: int) -> None:
    assert apart(one, other) == expected


@pytest.mark.parametrize("count", [3, 4])
def test_the_chance_of_lying_apart_is_that_of_all_orders(count: int) -> None:
    """Counted out: each choice of which places of the sorted values are the first's is as likely."""
    places = list(itertools.combinations(range(2 * count), count))
    apart_places = [one for one in places if apart(one, [p for p in range(2 * count) if p not in one])]
    assert apart_by_chance(count) == len(apart_places) / len(places)


def test_the_collectors_share_is_of_the_time_that_was_not_idle() -> None:
    before = {"gc_seconds": 1.0, "total_seconds": 10.0, "idle_seconds": 4.0}
    after = {"gc_seconds": 1.5, "total_seconds": 20.0, "idle_seconds": 9.0}
    assert gc_share(before, after) == 0.5 / 5
    assert gc_share(before, before) is None  # no cycle has ended: nothing is known


def test_periods_are_those_of_the_load_alone() -> None:
    assert throttled_share((100, 90), (120, 95)) == 5 / 20
    assert throttled_share((100, 90), (100, 90)) is None


def test_each_repetition_has_every_case_once_in_an_order_of_its_own() -> None:
    trials = plan.trials(quick=False, seed=1)
    orders = [[(one.kind, one.case) for one in trials if one.repetition == repetition] for repetition in range(2)]
    for order in orders:
        assert Counter(map(str, order)) == Counter(map(str, plan.cases(quick=False)))
    assert orders[0] != orders[1]


def test_a_case_is_repeated_as_often_as_planned_and_never_twice_in_a_repetition() -> None:
    trials = plan.trials(quick=False, seed=1)
    for kind, case in plan.cases(quick=False):
        found = [one.repetition for one in trials if (one.kind, one.case) == (kind, case)]
        assert found == list(range(plan.repetitions(kind, case)))


def test_what_is_compared_by_its_range_is_repeated_often_enough_for_that() -> None:
    assert min(plan.repetitions(kind, case) for kind, case in plan.cases(quick=False) if kind == "cpu") >= FEWEST


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    assert plan.trials(quick=False, seed=7) == plan.trials(quick=False, seed=7)
    assert plan.trials(quick=False, seed=7) != plan.trials(quick=False, seed=8)


def test_the_quick_look_has_every_kind_with_and_without_cgagent() -> None:
    settings = {(trial.kind, trial.case.get("setting")) for trial in plan.trials(quick=True, seed=1)}
    assert {kind for kind, _ in settings} == {"cpu", "memory", "beside", "following"}
    assert {("cpu", plan.CGAGENT), ("cpu", plan.BIG_HOST), ("memory", plan.NINETY), ("memory", plan.UNSET)} <= settings
    assert {("following", plan.STILL), ("following", plan.TUNE)} <= settings


def test_a_full_run_is_planned_for_less_than_a_quarter_of_an_hour() -> None:
    assert sum(trial.seconds for trial in plan.trials(quick=False, seed=1)) < 15 * 60
