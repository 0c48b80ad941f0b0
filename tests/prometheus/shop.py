"""A real Go service in a real cgroup, `cgagent watch` beside it, and a real Prometheus that scrapes both."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from golang import toolchain
from kernel.agent import CGAGENT, environment
from kernel.cgroups import MIB, Group, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATIENCE = 60
GO_VERSION = "1.27.3"

# As a pod's targets are labelled by service discovery, which is what the dashboard and the alerts join by.
_CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
scrape_configs:
  - job_name: cgagent
    static_configs: [{{targets: ["127.0.0.1:{agent}"], labels: {{namespace: shop, pod: orders-1, container: cgagent}}}}]
  - job_name: orders
    static_configs: [{{targets: ["{service}"], labels: {{namespace: shop, pod: orders-1, container: orders}}}}]
"""


def build(folder: str, proxy: str = "off") -> str:
    """The Go program in that folder, built once and kept outside the checkout.

    Args:
        folder: beside this file.
        proxy: where its modules come from, as GOPROXY; empty is the machine's own.

    Raises:
        UnavailableError: there is no toolchain, or a module can't be had.
        RuntimeError: it can't be compiled.
    """
    sources = os.path.join(os.path.dirname(os.path.abspath(__file__)), folder)
    digest = hashlib.sha256()
    for name in sorted(os.listdir(sources)):
        with open(os.path.join(sources, name), "rb") as file:
            digest.update(file.read())
    built = os.path.join(toolchain.cache(), "programs", f"{folder}-{digest.hexdigest()[:12]}")
    if not os.path.exists(built):
        go = toolchain.toolchain(GO_VERSION)
        os.makedirs(os.path.dirname(built), exist_ok=True)
        environ = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
        environ["GOCACHE"] = os.path.join(toolchain.cache(), f"build-{GO_VERSION}")
        if proxy:
            environ |= {"GOENV": "off", "GOPROXY": proxy}
        else:
            _succeed([go, "mod", "download"], toolchain.UnavailableError, env=environ, cwd=sources)
        words = [go, "build", "-o", f"{built}.{os.getpid()}", "."]
        _succeed(words, RuntimeError, env=environ, cwd=sources)
        os.rename(f"{built}.{os.getpid()}", built)
    return built


def _succeed(words: list[str], error: type[Exception], **options: Any) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise error(done.stderr.strip())


def free_port() -> int:
    """A port of the loopback interface that is free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


def fetch(url: str) -> str:
    """What is at `url`."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


class Shop:
    """All of it, running.

    Attributes:
        group: the service's cgroup.
        agent: the sidecar's port.
        service: the service's address.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._directory = tempfile.mkdtemp(prefix="cgagent-test-shop-")
        self._processes: list[subprocess.Popen[str]] = []
        self.env_file = os.path.join(self._directory, "go.env")
        self.agent = free_port()
        self._port = free_port()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        program = build("orders")
        write(f"{self.group.directories['pids']}/pids.max", 200)
        service = self._run(self.group.enter([*CGAGENT, "exec", "--", program, "127.0.0.1:0"]), stdout=subprocess.PIPE)
        assert service.stdout is not None
        self.service = service.stdout.readline().strip()
        address = f"127.0.0.1:{self.agent}"
        words = ["watch", "--target", str(service.pid), "--env-file", self.env_file, "--web.listen-address", address]
        self.sidecar = self._run([*CGAGENT, *words, "--hook", "exec:/bin/true"])
        config = os.path.join(self._directory, "prometheus.yml")
        with open(config, "w", encoding="ascii") as file:
            file.write(_CONFIG.format(agent=self.agent, service=self.service))
        self._run(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self._directory}/data",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--log.level=warn",
            ]
        )
        self.wait("up == 1", lambda found: len(found) == 2)

    def _run(self, words: list[str], **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(words, env=environment(), text=True, **options)
        self._processes.append(process)
        return process

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector that Prometheus answers with: a list of `metric` and `value`."""
        found: list[dict[str, Any]] = self._api("query", query=expression)
        return found

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series between two times: a list of `metric` and `values`."""
        times = {"start": str(start), "end": str(end), "step": str(step)}
        found: list[dict[str, Any]] = self._api("query_range", query=expression, **times)
        return found

    def names(self) -> set[str]:
        """Every metric that Prometheus has."""
        return set(self._api("label/__name__/values"))

    def _api(self, what: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        answer = json.loads(fetch(url))
        return answer["data"]["result"] if what.startswith("query") else answer["data"]

    def value(self, expression: str) -> float | None:
        """The one value of `expression`, or None."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def wait(self, expression: str, until: Callable[[list[dict[str, Any]]], bool] = bool) -> None:
        """Wait until what Prometheus answers to `expression` is as it should be: something, unless told otherwise."""
        deadline = time.monotonic() + PATIENCE
        found: Any = "no answer"
        while time.monotonic() < deadline:
            try:
                found = self.query(expression)
                if until(found):
                    return
            except OSError:
                pass  # it is still starting
            time.sleep(0.2)
        raise TimeoutError(f"{expression}: {found}")

    def ask(self, path: str) -> str:
        """Have the service do something."""
        return fetch(f"http://{self.service}{path}")

    def close(self) -> None:
        """End everything."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def missing() -> str | None:
    """What is not installed."""
    return None if shutil.which("prometheus") else "Prometheus is not installed (Debian: prometheus)"


def play(shop: Shop) -> None:
    """Have everything happen that the dashboard shows: load, changed limits, throttling, OOM kills."""
    group = shop.group
    shop.ask("/burn?threads=4&seconds=40")
    shop.ask(f"/keep?bytes={60 * MIB}")
    shop.wait("count_over_time(cgagent_cpu_limit_cores[30s]) >= 5")
    group.set_quota(10_000)  # well under the one thread that the service runs, on a busy machine too
    shop.wait("cgagent_cpu_limit_cores == 0.1")
    shop.wait("cgagent_cpu_cfs_throttled_periods_total > 50")
    group.set_memory(384 * MIB)
    shop.wait("cgagent_memory_limit_bytes == 384 * 1024 * 1024")
    # Before the kills: what is killed and held up by the quota gives its memory back late, and the next is the service.
    group.set_quota(200_000)
    for _ in range(2):
        shop.ask(f"/eat?bytes={600 * MIB}")
    shop.wait('cgagent_memory_events_total{event="oom_kill"} >= 2')
    shop.wait("cgagent_gomaxprocs == 2")
    shop.wait("count_over_time(cgagent_cpu_limit_cores[60s]) >= 30")


def main() -> int:
    """Play it once by hand, and keep it running: `PYTHONPATH=tests python -m prometheus.shop`."""
    group = Group(f"cgagent-test-{os.getpid()}-shop")
    group.set_quota(100_000)
    group.set_memory(256 * MIB)
    shop = Shop(group)
    try:
        play(shop)
        print(shop._port, shop.agent, shop.service, flush=True)
        sys.stdin.read()
    finally:
        shop.close()
        group.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
