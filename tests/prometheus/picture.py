"""Draw dashboards/dashboard.png: the dashboard's panels with the data of a real service, as Grafana lays them out.

`PYTHONPATH=tests python -m prometheus.picture [FILE]`; needs matplotlib beside what the tests need. Panels, queries,
units, colours and thresholds are the dashboard's own; only the drawing is ours.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter
from PIL import Image

from kernel.cgroups import MIB, PREFIX, Group
from prometheus.shop import Shop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
VARIABLES = {"$__rate_interval": "10s", "$__range": "5m", "[1h]": "[5m]", "$namespace": "shop", "$pod": ".+"}
COLOURS = {"red": "#f2495c", "orange": "#ff9830", "yellow": "#fade2a", "green": "#73bf69", "purple": "#b877d9"}
PALETTE = ("#5794f2", "#8ab8ff", "#37872d", "#fa6400", "#e0b400", "#a352cc")
GROUND, CARD, TEXT, DIM = "#111217", "#181b1f", "#d8d9da", "#8e8e8e"
COLUMN, LINE = 0.62, 0.36  # inches of a grid cell


def play_long(shop: Shop) -> None:
    """Some minutes in the life of a service: load, a limit lowered, memory raised, OOM kills, a limit raised."""
    group = shop.group
    shop.ask(f"/keep?bytes={60 * MIB}")
    time.sleep(20)
    shop.ask("/burn?threads=4&seconds=150")
    time.sleep(30)
    group.set_quota(10_000)  # little enough to bind on a machine that is busy with other things
    time.sleep(40)
    group.set_memory(384 * MIB)
    shop.ask(f"/keep?bytes={150 * MIB}")
    time.sleep(20)
    for _ in range(2):
        shop.ask(f"/eat?bytes={600 * MIB}")
        time.sleep(5)
    group.set_quota(150_000)
    time.sleep(60)


def shown(value: float, unit: str) -> str:
    """A value as Grafana shows it."""
    if unit == "bytes":
        for name in ("B", "KiB", "MiB"):
            if abs(value) < 1024:
                return f"{value:.4g} {name}"
            value /= 1024
        return f"{value:.4g} GiB"
    if unit == "percentunit":
        return f"{value * 100:.2g}%" if abs(value) < 0.1 else f"{value:.0%}"
    return f"{value:.3g}{' s' if unit == 's' else ''}"


def filled(expression: str) -> str:
    """`expression` with Grafana's variables replaced."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def legend(template: str, metric: dict[str, str]) -> str:
    """`template` with the labels of `metric`."""
    return re.sub(r"{{(\w+)}}", lambda found: metric.get(found[1], ""), template)


def override(panel: dict[str, Any], name: str) -> dict[str, Any]:
    """The properties that the panel's overrides give to the series `name`."""
    found = {}
    for one in panel["fieldConfig"]["overrides"]:
        pattern = one["matcher"]["options"]
        if name == pattern or (one["matcher"]["id"] == "byRegexp" and re.fullmatch(pattern, name)):
            found.update({each["id"]: each["value"] for each in one["properties"]})
    return found


def draw_series(axes: Any, panel: dict[str, Any], shop: Shop, start: float, end: float) -> None:
    """One panel over time."""
    defaults = panel["fieldConfig"]["defaults"]
    bars = defaults["custom"]["drawStyle"] == "bars"
    number = 0
    for target in panel["targets"]:
        for series in shop.query_range(filled(target["expr"]), start, end, 1):
            name = legend(target["legendFormat"], series["metric"])
            own = override(panel, name)
            if "unit" in own:
                continue  # another axis
            colour = COLOURS.get(own.get("color", {}).get("fixedColor", ""), PALETTE[number % len(PALETTE)])
            number += "color" not in own
            times = [float(at) - start for at, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            if bars:
                axes.bar(times, values, width=1, color=colour, alpha=0.7, label=name)
                continue
            dashed = "custom.lineStyle" in own
            axes.plot(times, values, color=colour, lw=1.6, ls="--" if dashed else "-", label=name)
            if not own:
                axes.fill_between(times, values, color=colour, alpha=0.12, lw=0)
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is not None and defaults["custom"]["thresholdsStyle"]["mode"] == "dashed":
            axes.axhline(step["value"], color=COLOURS[step["color"]], lw=1, ls=":")
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"], top=defaults.get("max"))
    axes.set_xlim(0, end - start)
    unit = defaults["unit"]
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value) // 60}:{int(value) % 60:02}"))
    axes.tick_params(colors=DIM, labelsize=7, length=0)
    axes.grid(color="#2c3235", lw=0.6)
    if axes.get_legend_handles_labels()[0]:
        columns = 3 if panel["gridPos"]["w"] > 8 or number < 2 else 2
        axes.legend(
            fontsize=6.5, frameon=False, labelcolor=TEXT, ncols=columns, loc="upper left", bbox_to_anchor=(0, -0.09)
        )


def draw_stat(axes: Any, panel: dict[str, Any], shop: Shop) -> None:
    """One panel of plain values."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    found = [
        (legend(target["legendFormat"], one["metric"]), float(one["value"][1]))
        for target in panel["targets"]
        for one in shop.query(filled(target["expr"]))
    ]
    for number, (name, value) in enumerate(found):
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
        x = (number + 0.5) / len(found)
        decimals = panel["fieldConfig"]["defaults"].get("decimals")
        text = f"{value:.{decimals}f}" if decimals is not None else shown(value, unit)
        axes.text(
            x,
            0.5,
            text,
            color=COLOURS[colour],
            fontsize=17 if len(found) == 1 else 12,
            ha="center",
            va="center",
            weight="bold",
        )
        axes.text(x, 0.12, name, color=DIM, fontsize=7, ha="center", va="center")
    axes.set_xticks([])
    axes.set_yticks([])


def events(shop: Shop, dashboard: dict[str, Any], start: float, end: float) -> list[tuple[float, str]]:
    """When something happened, and the colour it is marked with: the first second of each run of them."""
    marks = []
    for one in dashboard["annotations"]["list"]:
        if "expr" not in one:
            continue
        colour = {"blue": "#5794f2", "red": COLOURS["red"]}[one["iconColor"]]
        for series in shop.query_range(filled(one["expr"]), start, end, 1):
            times = [float(at) for at, _ in series["values"]]
            marks += [(at - start, colour) for before, at in zip([0.0, *times], times, strict=False) if at - before > 1]
    return marks


def draw(shop: Shop, dashboard: dict[str, Any], start: float, end: float, path: str) -> None:
    """The whole board."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = plt.figure(figsize=(24 * COLUMN, (height + 1) * LINE), facecolor=GROUND)
    marks = events(shop, dashboard, start, end)

    def box(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return x / 24, 1 - (y + h + 1) / (height + 1), w / 24, h / (height + 1)

    figure.text(0.005, 1 - 0.6 / (height + 1), dashboard["title"], color=TEXT, fontsize=12, weight="bold", va="center")
    for panel in dashboard["panels"]:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        if panel["type"] == "row":
            figure.text(*box(x + 0.15, y + 0.2, w, h)[:2], panel["title"], color=TEXT, fontsize=9, weight="bold")
            continue
        card = figure.add_axes(box(x + 0.08, y + 0.1, w - 0.16, h - 0.2), facecolor=CARD)
        card.set_xticks([])
        card.set_yticks([])
        top = 1 - 0.45 / h
        card.text(0.012, top, panel["title"], color=TEXT, fontsize=8, va="center", transform=card.transAxes)
        stat = panel["type"] == "stat"
        inner = (x + 0.3, y + 1, w - 0.6, h - 1.3) if stat else (x + 1.35, y + 1, w - 1.6, h - 2.8)
        axes = figure.add_axes(box(*inner), facecolor=CARD)
        for spine in (*axes.spines.values(), *card.spines.values()):
            spine.set_visible(False)
        if stat:
            draw_stat(axes, panel, shop)
            continue
        draw_series(axes, panel, shop, start, end)
        for at, colour in marks:
            axes.axvline(at, color=colour, lw=0.8, ls=(0, (1, 2)))
    figure.savefig(path, dpi=72, facecolor=GROUND)
    # Half the size; nobody sees the difference.
    Image.open(path).convert("RGB").quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> int:
    """Play, and draw what Prometheus then has."""
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "dashboards", "dashboard.png")
    with open(os.path.join(ROOT, "dashboards", "cgagent.json"), encoding="utf-8") as file:
        dashboard = json.load(file)
    group = Group(f"{PREFIX}{os.getpid()}-shop")
    try:
        group.set_quota(100_000)
        group.set_memory(256 * MIB)
        shop = Shop(group)
        try:
            start = time.time()
            play_long(shop)
            draw(shop, dashboard, start, time.time(), path)
        finally:
            shop.close()
    finally:
        group.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
