"""deploy/compose.yaml, as far as its images can be had: all of it but Grafana runs, on a real engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.parse

import pytest
import yaml

from deploy import bases
from deploy.conftest import CHECKOUT
from deploy.engine import Engine
from golang.toolchain import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MIB = 1 << 20
PATIENCE = 120
FILE = os.path.join(CHECKOUT, "deploy", "compose.yaml")
PROJECT = "cgagent-test"
# Not Grafana: see its test.
RUN = ("install", "orders", "cgagent", "prometheus")

pytestmark = pytest.mark.skipif(not shutil.which("docker-compose"), reason="needs docker-compose (Debian has it)")


def compose(engine: Engine | None, *words: str) -> str:
    """Run docker-compose on the file; return what it prints."""
    command = ["docker-compose", "--project-name", PROJECT, "--file", FILE, *words]
    environ = engine.environ if engine else dict(os.environ)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def services() -> dict[str, Any]:
    """The services of the file, as docker-compose reads it."""
    read: dict[str, Any] = yaml.safe_load(compose(None, "config"))["services"]
    return read


def wait_for(what: str, seen: Callable[[], object], wanted: object) -> None:
    """Until `seen()` is `wanted`."""
    deadline = time.monotonic() + PATIENCE
    while (last := seen()) != wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: {last!r}, not {wanted!r}")
        time.sleep(0.3)


@pytest.fixture(scope="module")
def up(engine: Engine, image: str) -> Iterator[Engine]:  # noqa: ARG001 loaded before
    """The services, in a network namespace of the engine's own."""
    try:
        bases.golang(engine)
        bases.prometheus(engine, services()["prometheus"]["image"])
    except UnavailableError as error:
        pytest.skip(str(error))
    compose(engine, "build", "orders")
    engine.stop()
    engine.start(private_network=True)
    try:
        compose(engine, "up", "--detach", *RUN)
        yield engine
    finally:
        print(compose(engine, "logs", "--no-color")[-5000:])
        compose(engine, "down", "--volumes", "--remove-orphans")
        engine.stop()
        engine.start()


def query(engine: Engine, expression: str) -> list[float]:
    """What Prometheus answers, without labels."""
    answer = engine.fetch(f"http://127.0.0.1:9090/api/v1/query?query={urllib.parse.quote(expression)}")
    return [float(one["value"][1]) for one in json.loads(answer)["data"]["result"]] if answer else []


def limits(engine: Engine) -> tuple[object, ...]:
    """What the service runs with."""
    answer = engine.fetch("http://127.0.0.1:8080/debug/limits")
    page = json.loads(answer) if answer else {}
    return page.get("gomaxprocs"), page.get("gomemlimit")


def test_each_of_ours_is_hardened_and_nothing_is_latest() -> None:
    for name, service in services().items():
        assert service["image"].rpartition(":")[2] not in ("", "latest"), name
        if name in ("install", "orders", "cgagent"):
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["user"] == "65532:65532"


def test_what_it_mounts_is_there_and_named_as_it_is_looked_for() -> None:
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(("/", ".")):
                assert os.path.isfile(source), source
    provisioning = os.path.join(CHECKOUT, "deploy", "compose", "grafana")
    with open(f"{provisioning}/dashboards.yaml") as file:
        folder = yaml.safe_load(file)["providers"][0]["options"]["path"]
    assert any(f":{folder}/cgagent.json:" in volume for volume in services()["grafana"]["volumes"])
    with open(f"{provisioning}/datasources.yaml") as file:
        source = yaml.safe_load(file)["datasources"][0]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


def test_prometheus_takes_its_config(tmp_path: object) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not there (Debian: prometheus)")
    with open(os.path.join(CHECKOUT, "deploy", "compose", "prometheus.yaml")) as file:
        text = file.read()
    path = f"{tmp_path}/prometheus.yaml"
    with open(path, "w") as file:
        file.write(text.replace("/etc/prometheus/", f"{CHECKOUT}/dashboards/"))
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_service_runs_with_the_values_and_prometheus_sees_both(up: Engine) -> None:
    wait_for("the service", lambda: limits(up), (2, 256 * MIB * 9 // 10))
    wait_for("both targets", lambda: query(up, "sum(up)"), [2.0])
    same = "go_sched_gomaxprocs_threads == on(namespace, pod) cgagent_gomaxprocs"
    wait_for("GOMAXPROCS, decided and running", lambda: query(up, same), [2.0])
    same = "go_gc_gomemlimit_bytes == on(namespace, pod) cgagent_gomemlimit_bytes"
    wait_for("GOMEMLIMIT, decided and running", lambda: query(up, same), [256 * MIB * 9 // 10])


def test_a_live_change_is_in_prometheus(up: Engine) -> None:
    container = compose(up, "ps", "--quiet", "orders").strip()
    up.done("update", "--cpus", "1", "--memory", "512m", "--memory-swap", "512m", container)
    wait_for("the new limit", lambda: query(up, "cgagent_memory_limit_bytes"), [512 * MIB])
    wait_for("the new decision", lambda: query(up, "cgagent_gomaxprocs"), [1.0])
    # The service was not restarted: what it runs with is now not what was decided, and an alert tells.
    wait_for(
        "what runs", lambda: query(up, "go_sched_gomaxprocs_threads != on(namespace, pod) cgagent_gomaxprocs"), [2]
    )


def test_grafana_shows_the_dashboard(up: Engine) -> None:
    image = services()["grafana"]["image"]
    if up.docker("image", "inspect", image).returncode:
        pytest.skip(f"{image} can't be had here: no registry is asked, and Debian has no package of it")
    compose(up, "up", "--detach", "grafana")
    search = "http://admin:admin@127.0.0.1:3000/api/search?query=cgagent"
    wait_for("the dashboard", lambda: '"uid":"cgagent"' in up.fetch(search), True)
