"""The dashboard drawn by Grafana's own libraries, from npm, in a real browser with what a real Prometheus answered.

Grafana's server is in none of the package registries that the tests install from; the libraries that read a panel's
configuration and draw it are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile

from golang.toolchain import UnavailableError, cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from prometheus.chromium import Chromium
    from prometheus.shop import Shop

WIDTH = 1500
STEP = 1  # second, as Prometheus scrapes
# What Grafana puts in its place; an hour is more than a test has.
_VARIABLES = {"$__rate_interval": "10s", "$__range": "5m", "[1h]": "[5m]", "$namespace": "shop", "$pod": ".+"}
# Its package.json replaces react-data-grid, which draws tables: @grafana/ui asks for it at an address outside npm.
_SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "board")
_BUNDLE = (
    "node_modules/.bin/esbuild",
    "page.jsx",
    "--bundle",
    "--minify",
    "--jsx=automatic",
    '--define:process.env.NODE_ENV="production"',
    "--loader:.ttf=empty",
    "--log-level=error",
    "--outdir=built",
)
_PAGE = """<!doctype html>
<meta charset="utf-8">
<link rel="stylesheet" href="page.css">
<body>
<script src="given.js"></script>
<script src="page.js"></script>
"""


def bundle() -> str:
    """The folder of the page's script and style, built once and kept outside the checkout.

    Raises:
        UnavailableError: npm is not there, or the packages can't be had.
    """
    digest = hashlib.sha256()
    for name in sorted(os.listdir(_SOURCES)):
        with open(os.path.join(_SOURCES, name), "rb") as file:
            digest.update(file.read())
    built = os.path.join(cache(), "board", digest.hexdigest()[:12])
    if not os.path.exists(built):
        os.makedirs(os.path.dirname(built), exist_ok=True)
        # 640 MB of packages, for a script of some megabytes.
        with tempfile.TemporaryDirectory(prefix="cgagent-test-board-") as directory:
            shutil.copytree(_SOURCES, directory, dirs_exist_ok=True)
            _install(directory)
            subprocess.run(_BUNDLE, cwd=directory, check=True)
            shutil.move(os.path.join(directory, "built"), f"{built}.{os.getpid()}")
        os.rename(f"{built}.{os.getpid()}", built)
    return built


def _install(directory: str) -> None:
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UnavailableError(f"npm: {error.strerror}") from None
    if done.returncode:
        raise UnavailableError("; ".join(done.stderr.splitlines()[:3]))


def given(shop: Shop, dashboard: dict[str, Any], start: float, end: float) -> dict[str, Any]:
    """What the page draws: the dashboard, and what Prometheus answers to each panel's queries."""
    answers: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in _VARIABLES.items():
                expression = expression.replace(name, value)
            answer = shop.query(expression) if target["instant"] else shop.query_range(expression, start, end, STEP)
            answers.setdefault(panel["id"], {})[target["refId"]] = answer
    return {"dashboard": dashboard, "answers": answers, "from": start, "to": end, "step": STEP}


def draw(browser: Chromium, board: dict[str, Any], picture: str) -> list[str]:
    """Draw what is `given`, and write its picture; return what Grafana leaves out without a word."""
    with tempfile.TemporaryDirectory(prefix="cgagent-test-board-") as directory:
        shutil.copytree(bundle(), directory, dirs_exist_ok=True)
        with open(os.path.join(directory, "given.js"), "w", encoding="utf-8") as file:
            file.write(f"window.BOARD = {json.dumps(board)};")
        with open(os.path.join(directory, "index.html"), "w", encoding="ascii") as file:
            file.write(_PAGE)
        browser.look(WIDTH, 1000, "dark")
        browser.open(f"file://{directory}/index.html")
        browser.wait_for("drawn()")
        browser.screenshot(picture)
        complaints: list[str] = browser.evaluate("complaints()")
        return complaints
