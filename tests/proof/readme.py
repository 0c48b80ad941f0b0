"""What `make proof` writes into README.md, and the page with everything, both from the results alone. Pure."""

from __future__ import annotations

from proof import plan, tables
from proof.figures import apart_by_chance, spread
from support import marked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proof.results import Results

BEGIN, END = marked.markers("make proof")
COMMAND = "make proof README=1"
_PANELS = "Throughput and p99 by CPU limit, outcomes by live heap, requests a second during a resize"


def replaced(text: str, block: str) -> str:
    """`text` with what is between the markers replaced.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    return marked.replaced(text, "make proof", block)


def conditions(results: Results) -> str:
    """Where, when and how it was measured."""
    document = results.document
    machine = document["machine"]
    trials = document["trials"]
    repetitions = max(trial["repetition"] for trial in trials) + 1
    other = spread([trial["other_cpus"] for trial in trials])
    quick = "**A quick look, not to be quoted.** " if document["quick"] else ""
    return (
        f"{quick}Measured on {document['when']} in {document['took_seconds'] / 60:.0f} minutes: {machine['cpus']} CPUs "
        f"({machine['model']}), Linux {machine['kernel']}, cgroups {machine['cgroups']}; {len(trials)} trials, up to "
        f"{repetitions} of a case, in random order. Other work took {other.median:.2f} CPUs meanwhile (median; at most "
        f"{other.high:.2f})."
    )


def method(results: Results) -> str:
    """How it is measured, where the table needs it."""
    cost = [
        load["cpu_seconds"] / load["seconds"]
        for case in results.cases("cpu")
        for one in results.of("cpu", **case)
        for load in (one["closed"], one["open"])
    ]
    taken = f"{spread(cost).median:.0%} of it (median; at most {max(cost):.0%})" if cost else "some of it"
    return (
        "A Go HTTP service (JSON, SHA-256, allocation, a cache as its live heap) under `cgagent run`. It may use both "
        f"CPUs within its quota; the load generator is pinned to one of them at higher priority, and takes {taken}. "
        "Throughput is a closed loop's; p99 an open loop's, counted from when a request was due, at "
        f"{plan.OPEN_LOAD:.0%} of what one CPU serves times the limit. {plan.BIG_HOST} is what a Go that looks at no "
        "cgroup takes on a machine of 32 CPUs; on 2, fewer of them can run at once than there."
    )


def block(results: Results) -> str:
    """The README's part: medians, outcomes, the picture."""
    of_memory = f"limit {plan.MEMORY_LIMIT // plan.MIB} MiB, Go {tables.release(plan.NEW)}"
    parts = [
        conditions(results),
        method(results),
        f"**CPU limits** (64 MiB of live heap, Go {tables.release(plan.NEW)}, medians):",
        tables.cpu_overview(results, plan.NEW),
        verdicts(results),
        f"**Live heap near the memory limit** ({of_memory}):",
        tables.memory_table(results),
        f"**Memory that Go does not manage** ({of_memory}, {plan.BESIDE_LIVE_SHARE}% live heap):",
        tables.beside_table(results),
        "**A memory limit lowered and raised again under load:**",
        tables.following_table(results),
        f"![{_PANELS}](tests/proof/proof.png)",
        "Spread, throttling, GC share and Go 1.24: [tests/proof/RESULTS.md](tests/proof/RESULTS.md).",
    ]
    return "\n\n".join(parts)


def verdicts(results: Results) -> str:
    """Where cgagent's repetitions lie apart from the others'."""
    versions = sorted(results.values("cpu", "go"), reverse=True)
    lines = [tables.verdict(results, version, other) for version in versions for other in (plan.BIG_HOST, plan.OWN)]
    chances = ", ".join(
        f"{apart_by_chance(count):.0%} of cases ({count} repetitions of each)"
        for count in sorted({plan.repetitions("cpu", {"go": version}) for version in versions}, reverse=True)
    )
    lines.append(
        "Higher, lower, shorter, longer: all repetitions of the one lie beyond all of the other. Of two equal settings "
        f"they lie so by chance in {chances}. At {max(plan.CPU_LIMITS):g} CPUs cgagent and Go by itself choose the "
        "same number, and what differs there is chance."
    )
    return "\n".join(f"- {line}" for line in lines)


def page(results: Results) -> str:
    """All tables."""
    parts = ["# Does it matter? All figures", f"`{COMMAND}` writes this page.", conditions(results), method(results)]
    parts.append("Values are medians, and in parentheses lowest and highest of the repetitions. " + _gc_note())
    for version in results.values("cpu", "go"):
        parts += [f"## CPU limits, Go {version}", tables.cpu_table(results, version)]
    parts += [verdicts(results), "## Live heap near the memory limit", tables.memory_table(results)]
    parts += ["## Memory that Go does not manage", tables.beside_table(results)]
    parts += ["## A memory limit lowered and raised again", tables.following_table(results)]
    failures = results.failures()
    if failures:
        parts += ["## Trials that gave no result", "\n".join(f"- {line}" for line in failures)]
    return "\n\n".join(parts) + "\n"


def _gc_note() -> str:
    return (
        "GC share: of the time in which any of the GOMAXPROCS threads did something (runtime/metrics); a thread that "
        "the kernel keeps waiting counts as doing something."
    )
