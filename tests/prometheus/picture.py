"""Draw dashboards/dashboard.png: the dashboard by Grafana's own libraries, with the data of a real service.

`PYTHONPATH=tests python -m prometheus.picture [FILE]`; needs npm, Chromium, Prometheus, and pillow beside what the
tests need.
"""

from __future__ import annotations

import json
import os
import sys
import time

from PIL import Image

from kernel.cgroups import MIB, PREFIX, Group
from prometheus import board
from prometheus.chromium import Chromium
from prometheus.shop import Shop

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")


def play_long(shop: Shop) -> None:
    """Some minutes in the life of a service: load, a limit lowered, memory raised, OOM kills, a limit raised."""
    group = shop.group
    shop.ask(f"/keep?bytes={60 * MIB}")
    time.sleep(20)
    shop.ask("/burn?threads=4&seconds=150")
    time.sleep(30)
    group.set_quota(10_000)  # little enough to bind on a machine that is busy with other things
    time.sleep(40)
    group.set_quota(50_000)
    group.set_memory(384 * MIB)
    shop.ask(f"/keep?bytes={150 * MIB}")
    time.sleep(20)
    for _ in range(2):
        shop.ask(f"/eat?bytes={600 * MIB}")
        time.sleep(5)
    group.set_quota(150_000)
    time.sleep(60)


def draw(shop: Shop, start: float, end: float, path: str) -> None:
    """The whole board, in fewer colours: half the size."""
    with open(os.path.join(ROOT, "dashboards", "cgagent.json"), encoding="utf-8") as file:
        dashboard = json.load(file)
    chromium = Chromium()
    try:
        for complaint in board.draw(chromium, board.given(shop, dashboard, start, end), path):
            print(complaint, file=sys.stderr)
    finally:
        chromium.close()
    Image.open(path).convert("RGB").quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> int:
    """Play, and draw what Prometheus then has."""
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "dashboards", "dashboard.png")
    group = Group(f"{PREFIX}{os.getpid()}-shop")
    try:
        group.set_quota(100_000)
        group.set_memory(256 * MIB)
        shop = Shop(group)
        try:
            start = time.time()
            play_long(shop)
            draw(shop, start, time.time(), path)
        finally:
            shop.close()
    finally:
        group.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
