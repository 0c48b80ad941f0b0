"""The results as Markdown: nothing in it is typed by hand. Pure."""

from __future__ import annotations

from proof import plan
from proof.figures import apart, spread
from proof.results import picked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proof.results import Measured, Results

    Pick = Callable[[Measured], float | None]

_AT_ONCE = 0.02  # seconds
NONE = "\N{EN DASH}"


def throughput(measured: Measured) -> float:
    """Requests a second in the closed loop."""
    return float(measured["closed"]["per_second"])


def p99(measured: Measured) -> float:
    """Milliseconds in the open loop."""
    return float(measured["open"]["p99_seconds"]) * 1e3


def p50(measured: Measured) -> float:
    return float(measured["open"]["p50_seconds"]) * 1e3


def peak(measured: Measured) -> float | None:
    """MiB; None where the kernel keeps no peak (v2 before Linux 5.19)."""
    size = measured["peak_bytes"]
    return None if size is None else float(size) / plan.MIB


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are text, the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def shown(values: Sequence[float], form: str = ",.0f", ranged: bool = True) -> str:
    """The median, and lowest and highest behind it."""
    if not values:
        return NONE
    made = spread(values)
    text = f"{made.median:{form}}"
    return f"{text} ({made.low:{form}}{NONE}{made.high:{form}})" if ranged and len(values) > 1 else text


def cpu_overview(results: Results, version: str) -> str:
    """Medians of throughput and p99 for each CPU limit, the settings side by side."""
    names = [heading(setting, version) for setting in plan.CPU_SETTINGS]
    head = ["CPU limit", *(f"requests/s: {names[0]}", *names[1:]), *(f"p99 ms: {names[0]}", *names[1:])]
    rows = []
    for cpus in results.values("cpu", "cpus"):
        of = [results.of("cpu", go=version, cpus=cpus, setting=setting) for setting in plan.CPU_SETTINGS]
        cells = [shown(picked(one, throughput), ranged=False) for one in of]
        rows.append([f"{cpus:g}", *cells, *(shown(picked(one, p99), ".1f", ranged=False) for one in of)])
    return table(head, rows, 0)


def heading(setting: str, version: str) -> str:
    """How a setting is called at the head of a column."""
    return f"Go {release(version)} by itself" if setting == plan.OWN else setting


def release(version: str) -> str:
    return ".".join(version.split(".")[:2])


def cpu_table(results: Results, version: str) -> str:
    """Everything that was measured under CPU limits, with its spread."""
    head = ["CPU limit", "setting", "GOMAXPROCS", "requests/s", "p50 ms", "p99 ms", "at requests/s"]
    head += ["throttled periods", "GC share", "peak MiB"]
    rows = []
    for cpus in results.values("cpu", "cpus"):
        for setting in plan.CPU_SETTINGS:
            of = results.of("cpu", go=version, cpus=cpus, setting=setting)
            rows.append(
                [
                    f"{cpus:g}",
                    heading(setting, version),
                    "/".join(sorted({str(one["gomaxprocs"]) for one in of})) or NONE,
                    shown(picked(of, throughput)),
                    shown(picked(of, p50), ".1f"),
                    shown(picked(of, p99), ".1f"),
                    shown(picked(of, lambda one: one["rate"]), ranged=False),
                    shown(picked(of, lambda one: one["throttled_share"]), ".0%"),
                    shown(picked(of, lambda one: one["gc_share"]), ".1%", ranged=False),
                    shown(picked(of, peak), ranged=False),
                ]
            )
    return table(head, rows, 2)


def verdict(results: Results, version: str, other: str) -> str:
    """In how many CPU limits cgagent is apart from another setting, in one sentence for both measures."""
    limits = results.values("cpu", "cpus")

    def counts(pick: Pick) -> tuple[int, int]:
        ways = []
        for cpus in limits:
            mine, theirs = (
                picked(results.of("cpu", go=version, cpus=cpus, setting=setting), pick)
                for setting in (plan.CGAGENT, other)
            )
            ways.append(apart(mine, theirs))
        return ways.count(1), ways.count(-1)

    more, less = counts(throughput)
    longer, shorter = counts(p99)
    of = len(limits)
    return (
        f"Go {release(version)}, cgagent against {heading(other, version)}: throughput is higher at {more} of {of} "
        f"CPU limits, lower at {less}; p99 is shorter at {shorter}, longer at {longer}; "
        "at the others the repetitions overlap."
    )


def outcome(of: Sequence[Measured]) -> str:
    """Of a memory limit: throughput and GC share, or when it was killed."""
    if not of:
        return NONE
    killed = [one for one in of if one["killed"]]
    if len(killed) == len(of):
        times = picked(killed, lambda one: one["killed_after"])
        return f"**killed** after {shown(times, '.1f', ranged=False)} s" if times else "**killed** at the start"
    alive = [one for one in of if not one["killed"]]
    share = shown(picked(alive, lambda one: one["gc_share"]), ".0%", ranged=False)
    text = f"{shown(picked(alive, throughput), ranged=False)}/s, GC {share}"
    return f"**killed {len(killed)} of {len(of)}**, else {text}" if killed else text


def memory_table(results: Results) -> str:
    """Settings down, live heap across; below them the findings before the load, where the service came to that."""
    lives = results.values("memory", "live")
    rows = [
        [setting, *(outcome(results.of("memory", live=live, setting=setting)) for live in lives)]
        for setting in plan.MEMORY_SETTINGS
    ]
    rows += [
        [
            f"`explain --pid` of {setting}",
            *(_findings(results.of("memory", live=live, setting=setting)) for live in lives),
        ]
        for setting in (plan.WHOLE, plan.NINETY)
    ]
    return table(["live heap, of the limit", *(f"{live}%" for live in lives)], rows)


def _findings(of: Sequence[Measured]) -> str:
    found = sorted({identity for one in of for identity in one["findings"]})
    return ", ".join(f"`{identity}`" for identity in found) or NONE


def beside_table(results: Results) -> str:
    """What is beside the heap, what explain makes of it, and both outcomes."""
    head = ["beside Go's heap", plan.WHOLE, "90% of the limit", "`explain --pid` says", "with that reserve"]
    rows = []
    for by, share in sorted((case["by"], case["beside"]) for case in results.cases("beside")):
        of = results.of("beside", by=by, beside=share)
        size = plan.MEMORY_LIMIT * share // 100 // plan.MIB
        reserves = shown(picked(of, lambda one: one["reserve_mib"]), ranged=False)
        levels = "/".join(sorted({one["finding"] or "nothing" for one in of}))
        rows.append(
            [
                f"{by}, {share}% ({size} MiB)",
                outcome([one["whole"] for one in of]),
                outcome([one["plain"] for one in of]),
                f"`--memory-reserve {reserves}Mi` ({levels})" if of else NONE,
                outcome([one["reserved"] for one in of]),
            ]
        )
    return table(head, rows, 5)


def following_table(results: Results) -> str:
    """The resize: with and without something that follows."""
    head = [
        "limit 420 → 300 → 420 MiB",
        "who follows",
        "the resize",
        "the service",
        "GOMEMLIMIT, MiB",
        "answered",
        "p99 ms",
    ]
    rows = []
    for when in (plan.GROWING, plan.GROWN):
        for setting in (plan.STILL, plan.TUNE, plan.SIDECAR):
            of = results.of("following", when=when, setting=setting)
            if of:
                rows.append([when, setting, *_followed(of)])
    return table(head, rows, 5)


def _followed(of: Sequence[Measured]) -> list[str]:
    times = picked(of, lambda one: one["resized_after"])
    resized = "refused"
    if times:
        resized = "at once" if max(times) < _AT_ONCE else f"after {shown(times, '.2f', ranged=False)} s"
    if times and len(times) < len(of):
        resized += f", refused {len(of) - len(times)} of {len(of)}"
    killed = [one for one in of if one["killed"]]
    after = shown(picked(killed, lambda one: one["killed_after"]), ".1f", ranged=False)
    fate = "lives" if not killed else f"**killed** after {after} s"
    if 0 < len(killed) < len(of):
        fate = f"**killed {len(killed)} of {len(of)}**, after {after} s"
    limits = " → ".join(str(round(size / plan.MIB)) for size in of[0]["gomemlimit"])
    answered = picked(of, lambda one: one["load"]["requests"] / max(1.0, one["rate"] * len(one["load"]["slices"]) / 10))
    waited = picked(of, lambda one: one["load"]["p99_seconds"] * 1e3)
    return [resized, fate, limits, shown(answered, ".0%", ranged=False), shown(waited, ".1f", ranged=False)]
