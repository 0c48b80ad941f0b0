"""The results as one picture: four panels, each with its spread."""

from __future__ import annotations

import io
import statistics

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter
from PIL import Image

from proof import plan
from proof.figures import spread
from proof.results import picked
from proof.tables import heading, p99, release, throughput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proof.results import Measured, Results
    from proof.tables import Pick

COLOURS = {
    plan.BIG_HOST: "#d1495b",
    plan.OWN: "#edae49",
    plan.UNSET: "#d1495b",
    plan.WHOLE: "#edae49",
    plan.CGAGENT: "#00798c",
}
_STEP = 0.1  # seconds of a slice of the load's answers
_SMOOTH = 3


def draw(results: Results, path: str) -> None:
    """Write the picture as a PNG of a limited palette."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.2), dpi=90)
    title = f"CPU limits, Go {release(plan.NEW)}"
    _bars(axes[0][0], results, throughput, f"{title}: requests/s, closed loop", log=False)
    _bars(axes[0][1], results, p99, f"{title}: p99 in ms, open loop", log=True)
    _memory(axes[1][0], results)
    _following(axes[1][1], results)
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
        one.title.set_fontsize(10)
        one.grid(axis="y", color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)


def _bars(axes: Any, results: Results, pick: Pick, title: str, log: bool) -> None:
    limits = results.values("cpu", "cpus")
    width = 0.8 / len(plan.CPU_SETTINGS)
    for number, setting in enumerate(plan.CPU_SETTINGS):
        for place, cpus in enumerate(limits):
            values = picked(results.of("cpu", go=plan.NEW, cpus=cpus, setting=setting), pick)
            if not values:
                continue
            made = spread(values)
            reach = [[made.median - made.low], [made.high - made.median]]
            label = heading(setting, plan.NEW) if place == 0 else None
            at = place + (number - 1) * width
            axes.bar(at, made.median, width, yerr=reach, color=COLOURS[setting], capsize=2, label=label)
    axes.set_xticks(range(len(limits)), [f"{cpus:g}" for cpus in limits])
    axes.set_xlabel("CPU limit")
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(_minor))
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, fontsize=8)


def _minor(value: float, _: int) -> str:
    """The label of a tick within a decade: 2 and 5 are enough."""
    text = f"{value:g}"
    return text if text.strip("0.") in ("2", "5") else ""


def _memory(axes: Any, results: Results) -> None:
    lives = results.values("memory", "live")
    for setting in plan.MEMORY_SETTINGS:
        of = {live: results.of("memory", live=live, setting=setting) for live in lives}
        alive = {live: [one for one in ones if not one["killed"]] for live, ones in of.items()}
        served = [live for live in lives if alive[live]]
        colour, label = COLOURS[setting], setting
        axes.plot(
            served,
            [statistics.median(picked(alive[live], throughput)) for live in served],
            "o-",
            color=colour,
            label=label,
        )
        killed = [live for live in lives if any(one["killed"] for one in of[live])]
        shift = (plan.MEMORY_SETTINGS.index(setting) - 1) * 0.9
        axes.plot([live + shift for live in killed], [0] * len(killed), "X", color=colour, markersize=9, clip_on=False)
    axes.set_ylim(bottom=0)
    axes.set_xticks(lives)
    axes.set_xlabel(f"live heap, % of the limit of {plan.MEMORY_LIMIT // plan.MIB} MiB")
    axes.set_title("Memory limit: requests/s; X: killed by the kernel", loc="left")
    axes.legend(frameon=False, fontsize=8)


def _following(axes: Any, results: Results) -> None:
    shown = ((plan.STILL, COLOURS[plan.UNSET]), (plan.TUNE, COLOURS[plan.CGAGENT]))
    for setting, colour in shown:
        of = results.of("following", when=plan.GROWING, setting=setting)
        if not of:
            continue
        one = of[0]
        slices = one["load"]["slices"]
        rates = [sum(slices[at : at + _SMOOTH]) / _SMOOTH / _STEP for at in range(len(slices) - _SMOOTH + 1)]
        axes.plot([(at + _SMOOTH / 2) * _STEP for at in range(len(rates))], rates, color=colour, label=setting)
        _marks(axes, one, colour)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_title("Memory limit 420, 300, 420 MiB: requests/s", loc="left")
    axes.legend(frameon=False, fontsize=8)


def _marks(axes: Any, one: Measured, colour: str) -> None:
    """When the limit was lowered and raised, and when the kernel killed the service."""
    if one["killed"]:
        axes.plot([one["load"]["failed_at_seconds"]], [0], "X", color=colour, markersize=9, clip_on=False)
    for name in ("lowered_at", "raised_at"):
        if name in one and not one["killed"]:
            axes.axvline(one[name], color="#888888", linestyle=":", linewidth=1)
