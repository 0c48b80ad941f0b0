"""The pages of `make proof`: every figure comes from the results, killed is said, the README keeps what is its own."""

from __future__ import annotations

import os

import pytest

from proof import plan, readme, tables
from proof.results import Results
from proof.tables import NONE
from proof.trials import reserve_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MIB = plan.MIB


def cpu_trial(setting: str, throughput: float, p99_ms: float, repetition: int = 0, cpus: float = 0.5) -> dict[str, Any]:
    measured = {
        "gomaxprocs": 2,
        "rate": 700.0,
        "closed": {"per_second": throughput, "cpu_seconds": 0.1, "seconds": 1.0},
        "open": {"p50_seconds": 0.001, "p99_seconds": p99_ms / 1e3, "cpu_seconds": 0.2, "seconds": 2.0},
        "throttled_share": 0.25,
        "gc_share": 0.051,
        "peak_bytes": 140 * MIB,
    }
    return _trial("cpu", {"go": plan.NEW, "cpus": cpus, "setting": setting}, repetition, measured)


def memory_trial(
    live: int, setting: str, killed_after: float | None, repetition: int = 0, findings: tuple[str, ...] = ()
) -> dict[str, Any]:
    measured = {
        "killed": killed_after is not None,
        "killed_after": killed_after,
        "gc_share": None if killed_after else 0.07,
        "closed": {"per_second": 900.0},
        "findings": findings,
    }
    return _trial("memory", {"live": live, "setting": setting}, repetition, measured)


def following_trial(setting: str, killed_after: float | None, resized_after: float | None) -> dict[str, Any]:
    measured = {
        "killed": killed_after is not None,
        "killed_after": killed_after,
        "resized_after": resized_after,
        "gomemlimit": [378 * MIB, 270 * MIB, 378 * MIB],
        "rate": 100.0,
        "load": {"requests": 400, "slices": [10] * 80, "p99_seconds": 0.004},
    }
    return _trial("following", {"when": plan.GROWN, "setting": setting}, 0, measured)


def _trial(kind: str, case: dict[str, Any], repetition: int, measured: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "case": case, "repetition": repetition, "measured": measured, "other_cpus": 0.03}


def results(*trials: dict[str, Any]) -> Results:
    machine = {"cpus": 2, "model": "a CPU", "kernel": "6.18.1", "cgroups": "v2"}
    document = {"when": "2026-01-02", "took_seconds": 720.0, "quick": False, "machine": machine, "trials": list(trials)}
    return Results(document)


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")[2:]]


def test_the_overview_has_the_medians_of_each_setting_in_its_column() -> None:
    told = [
        cpu_trial(setting, base + step, p99_ms=base / 10 + step, repetition=step)
        for setting, base in zip(plan.CPU_SETTINGS, (100, 200, 300), strict=True)
        for step in range(3)
    ]
    assert rows(tables.cpu_overview(results(*told), plan.NEW)) == [
        ["0.5", "101", "201", "301", "11.0", "21.0", "31.0"],
    ]


def test_the_whole_table_shows_the_range_too() -> None:
    told = [cpu_trial(plan.OWN, 1000 + 100 * step, 5 + step, step) for step in range(3)]
    own = next(row for row in rows(tables.cpu_table(results(*told), plan.NEW)) if row[1] == "Go 1.27 by itself")
    assert own[3] == "1,100 (1,000\N{EN DASH}1,200)"
    assert own[5] == "6.0 (5.0\N{EN DASH}7.0)"


def test_a_case_without_results_is_a_dash() -> None:
    told = results(cpu_trial(plan.OWN, 1000, 5))
    assert rows(tables.cpu_overview(told, plan.NEW)) == [["0.5", NONE, "1,000", NONE, NONE, "5.0", NONE]]


def test_a_verdict_counts_the_limits_at_which_all_repetitions_lie_apart() -> None:
    def thrice(setting: str, cpus: float, throughput: float, p99: float) -> list[dict[str, Any]]:
        return [cpu_trial(setting, throughput + step, p99, step, cpus) for step in range(3)]

    told = results(
        *thrice(plan.CGAGENT, 0.5, 200, 5),
        *thrice(plan.BIG_HOST, 0.5, 100, 9),
        *thrice(plan.CGAGENT, 1.0, 100, 9),
        *thrice(plan.BIG_HOST, 1.0, 200, 5),
        *thrice(plan.CGAGENT, 1.5, 100, 5),
        *thrice(plan.BIG_HOST, 1.5, 101, 5),
    )
    verdict = tables.verdict(told, plan.NEW, plan.BIG_HOST)
    assert "throughput is higher at 1 of 3 CPU limits, lower at 1; p99 is shorter at 1, longer at 1" in verdict


def test_killed_is_said_with_its_time_and_how_often() -> None:
    told = results(
        memory_trial(80, plan.UNSET, 0.4),
        memory_trial(80, plan.WHOLE, 1.5),
        memory_trial(80, plan.WHOLE, None, 1),
        memory_trial(80, plan.NINETY, None, 0, ("gomemlimit-tight",)),
        memory_trial(80, plan.NINETY, None, 1, ("gomemlimit-tight",)),
    )
    assert rows(tables.memory_table(told)) == [
        [plan.UNSET, "**killed** after 0.4 s"],
        [plan.WHOLE, "**killed 1 of 2**, else 900/s, GC 7%"],
        [plan.NINETY, "900/s, GC 7%"],
        [f"`explain --pid` of {plan.WHOLE}", NONE],
        [f"`explain --pid` of {plan.NINETY}", "`gomemlimit-tight`"],
    ]


def test_memory_beside_the_heap_shows_all_three_outcomes_and_the_reserve() -> None:
    fates = [memory_trial(45, plan.UNSET, killed)["measured"] for killed in (0.2, 0.9, None)]
    measured = {"reserve_mib": 49, "finding": "warning"}
    measured |= dict(zip(("whole", "plain", "reserved"), fates, strict=True))
    told = results(_trial("beside", {"by": "mmap", "beside": 25}, 0, measured))
    assert rows(tables.beside_table(told)) == [
        [
            "mmap, 25% (64 MiB)",
            "**killed** after 0.2 s",
            "**killed** after 0.9 s",
            "`--memory-reserve 49Mi` (warning)",
            "900/s, GC 7%",
        ]
    ]


def test_a_resize_says_who_lived_and_whether_it_was_refused() -> None:
    told = results(
        following_trial(plan.STILL, None, None),
        following_trial(plan.TUNE, 1.5, 0.001),
        following_trial(plan.SIDECAR, None, 0.25),
    )
    cells = [row[1:6] for row in rows(tables.following_table(told))]
    assert cells == [
        [plan.STILL, "refused", "lives", "378 → 270 → 378", "50%"],
        [plan.TUNE, "at once", "**killed** after 1.5 s", "378 → 270 → 378", "50%"],
        [plan.SIDECAR, "after 0.25 s", "lives", "378 → 270 → 378", "50%"],
    ]


def test_the_conditions_say_where_and_how_busy_the_machine_was() -> None:
    said = readme.conditions(results(cpu_trial(plan.OWN, 1000, 5)))
    for part in ("2026-01-02", "12 minutes", "a CPU", "6.18.1", "v2", "0.03 CPUs"):
        assert part in said
    assert "quick" not in said


def test_the_generators_own_cost_is_told() -> None:
    assert "takes 10% of it (median; at most 10%)" in readme.method(results(cpu_trial(plan.OWN, 1000, 5)))


def test_what_is_not_between_the_markers_stays_to_the_byte() -> None:
    before, after = "# Title\n\nmine\n\n", "\n\n## Next\nmine too\n"
    once = readme.replaced(f"{before}{readme.BEGIN}\nold\n{readme.END}{after}", "| new |")
    assert once == f"{before}{readme.BEGIN}\n| new |\n{readme.END}{after}"
    assert readme.replaced(once, "| new |") == once


@pytest.mark.parametrize("text", ["", readme.BEGIN, f"{readme.END}\n{readme.BEGIN}", 2 * (readme.BEGIN + readme.END)])
def test_a_text_without_its_two_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="markers"):
        readme.replaced(text, "new")


def test_the_readme_of_this_repository_has_the_markers() -> None:
    with open(f"{os.path.dirname(__file__)}/../../README.md", encoding="utf-8") as file:
        assert "| new |" in readme.replaced(file.read(), "| new |")


def test_a_failed_trial_is_on_the_page_and_in_no_table() -> None:
    failed = cpu_trial(plan.CGAGENT, 4711, 5)
    del failed["measured"]
    failed["failed"] = "no such luck"
    page = readme.page(results(cpu_trial(plan.OWN, 1000, 5), failed))
    assert "no such luck" in page
    assert "4711" not in page


def finding(remedy: str, identity: str = "memory-outside-go") -> dict[str, Any]:
    message = "70.2Mi of the 180Mi in use in its cgroup are not managed by Go: GOMEMLIMIT leaves room for it"
    return {"findings": [{"id": identity, "level": "info", "message": message, "remedy": remedy}]}


def test_the_reserve_is_what_the_finding_names() -> None:
    assert reserve_of(finding("--memory-reserve 71Mi takes it off the limit of 256Mi before the ratio")) == 71
    assert reserve_of(finding("--memory-reserve 71Mi", identity="another")) == 0
