"""The dashboard, held to Grafana's own schemas, and drawn by Grafana's own libraries with the data of a real service.

Its server is in none of the package registries that the tests install from: that it takes what deploy/compose gives it
is a test of its own, in tests/deploy, where the image is at hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from golang.toolchain import UnavailableError
from prometheus import board
from prometheus.shop import build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from prometheus.chromium import Chromium
    from prometheus.shop import Shop

DASHBOARD = os.path.abspath(f"{os.path.dirname(__file__)}/../../dashboards/cgagent.json")
# Where to keep the picture, for a person to look at.
PICTURES = os.environ.get("CGAGENT_TEST_PICTURES")


@pytest.fixture
def dashboard() -> dict[str, Any]:
    """The dashboard, a test's own to change."""
    with open(DASHBOARD, encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    return content


def panel(dashboard: dict[str, Any], title: str, kind: str = "timeseries") -> dict[str, Any]:
    """The panel with that title."""
    (found,) = (one for one in dashboard["panels"] if (one["title"], one["type"]) == (title, kind))
    return dict(found)


@pytest.fixture(scope="session")
def schema() -> str:
    """The program that knows Grafana's schemas."""
    try:
        return build("schema", proxy="")
    except UnavailableError as error:
        pytest.skip(f"Grafana's schemas can't be had here: {error}")


def refused(schema: str, dashboard: dict[str, Any], directory: Path) -> list[str]:
    """What the schemas do not know or miss."""
    for variable in dashboard["templating"]["list"]:
        if variable["current"] == {}:  # as Grafana's own export leaves it; the schema has it whole or not at all
            del variable["current"]
    path = directory / "dashboard.json"
    path.write_text(json.dumps(dashboard))
    done = subprocess.run([schema, str(path)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_grafanas_schemas_know_every_field_and_miss_none(
    schema: str, dashboard: dict[str, Any], tmp_path: Path
) -> None:
    assert refused(schema, dashboard, tmp_path) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("refesh",), "30s"),
        (("panels", 8, "fieldConfig", "defaults", "custom", "lineWith"), 1),
        (("panels", 1, "options", "colourMode"), "value"),
        (("panels", 1, "targets", 0, "expresion"), "up"),
        (("schemaVersion",), "39"),
    ],
    ids=lambda part: str(part[-1]) if isinstance(part, tuple) else None,
)
def test_a_field_that_grafana_does_not_know_or_of_another_type_is_found(
    schema: str, dashboard: dict[str, Any], tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    place: Any = dashboard
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert any(str(path[-1]) in line for line in refused(schema, dashboard, tmp_path))


@pytest.fixture(scope="session")
def given(shop: Shop) -> dict[str, Any]:
    """What Grafana draws, after all that `shop` has seen."""
    try:
        board.bundle()
    except UnavailableError as error:
        pytest.skip(f"Grafana's libraries can't be had here: {error}")
    with open(DASHBOARD, encoding="utf-8") as file:
        # From before the first series: what is there at first is not all that is there later.
        return board.given(shop, json.load(file), time.time() - 600, time.time())


def shown(browser: Chromium, title: str) -> str:
    """The text of the first panel with that title."""
    find = f"[...document.querySelectorAll('section')].find((one) => one.querySelector('h2').textContent === {title!r})"
    return str(browser.evaluate(f"{find}.innerText"))


def test_grafana_draws_every_panel_leaves_nothing_out_and_cuts_nothing(
    given: dict[str, Any], browser: Chromium, tmp_path: Path
) -> None:
    assert board.draw(browser, given, os.path.join(PICTURES or str(tmp_path), "dashboard.png")) == []
    # The server has its fonts, the libraries have not.
    assert set(browser.complaints) <= {"Failed to load resource: net::ERR_FILE_NOT_FOUND"}


def test_values_and_names_are_those_of_the_service(given: dict[str, Any], browser: Chromium, tmp_path: Path) -> None:
    board.draw(browser, given, str(tmp_path / "board.png"))
    assert shown(browser, "CPU limit").split() == ["CPU", "limit", "2.00"]
    assert shown(browser, "Memory limit").split() == ["Memory", "limit", "384", "MiB"]
    # Raised from 1 to 2, which a program that runs does not follow.
    assert shown(browser, "GOMAXPROCS").split() == ["GOMAXPROCS", "recommended", "2", "running", "1"]
    legend = shown(browser, "CPU: used, allowed, GOMAXPROCS")
    for name in ("used", "limit", "allowed CPUs", "GOMAXPROCS recommended", "GOMAXPROCS running"):
        assert f"{name} orders-1" in legend


def test_what_grafana_leaves_out_without_a_word_is_told(
    given: dict[str, Any], browser: Chromium, tmp_path: Path
) -> None:
    broken = json.loads(json.dumps(given))
    throttling = panel(broken["dashboard"], "CPU throttling")
    throttling["fieldConfig"]["defaults"]["unit"] = "parsecs"
    throttling["fieldConfig"]["overrides"].append(
        {"matcher": {"id": "byRegexp", "options": ".*"}, "properties": [{"id": "custom.lineWith", "value": 2}]}
    )
    kills = panel(broken["dashboard"], "OOM kills", "stat")
    kills["fieldConfig"]["defaults"]["color"]["mode"] = "palette-classic"
    cpu = panel(broken["dashboard"], "CPU: used, allowed, GOMAXPROCS")
    cpu["targets"][0]["legendFormat"] = cpu["targets"][1]["legendFormat"]
    cpu["gridPos"]["h"] -= 4
    del broken["answers"][str(panel(broken["dashboard"], "Tasks")["id"])]["A"][:]
    del broken["answers"][str(panel(broken["dashboard"], "Tasks")["id"])]["B"][:]
    assert sorted(board.draw(browser, broken, str(tmp_path / "board.png"))) == [
        "CPU throttling: no property custom.lineWith",
        "CPU throttling: no unit parsecs",
        "CPU: used, allowed, GOMAXPROCS: its legend is cut",
        "CPU: used, allowed, GOMAXPROCS: two series are named limit orders-1",
        "OOM kills: its thresholds are not shown",
        "Tasks: no data",
    ]
