"""The sidecar's memory and the cost of a scrape, beside node_exporter's and a bare prometheus_client server's.

All of `cgagent watch` runs: a config file (PyYAML), inotify (watchdog), metrics (prometheus_client). Its target is a Go
program, whose runtime it reads too, in a cgroup with limits; hooks make some 60 series of it, and the others have as
many. The servers take turns, so what else the machine does hits all alike. Scrapes ask as Prometheus does: OpenMetrics,
gzip. `python tests/bench/bench_metrics.py [ROUNDS]`; needs root for the cgroup.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from bench.measure import rounds_wanted
from kernel import cgroups
from kernel.cgroups import Group
from live.programs import VERSIONS as GO_VERSIONS
from live.programs import Told, go_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRAPES = 50  # of each kind in each round
HOOKS = 7  # two series each
# Files read in a scrape -> collectors of node_exporter that have as many series as ours. Ours reads 18 files of its
# cgroup, and five places of the program's memory.
COLLECTORS = {2: "meminfo loadavg", 15: "pressure filefd entropy loadavg stat sockstat vmstat softnet"}
_TICK = os.sysconf("SC_CLK_TCK")
_REQUEST = (
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Prometheus/2.42.0\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    b"text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\n\r\n"
)

# What a program gets that uses the library as its documentation says: 60 gauges of its own, a registry of its own.
_BARE = """
import sys, threading
from prometheus_client import CollectorRegistry, Gauge, start_http_server
registry = CollectorRegistry()
for number in range(60):
    Gauge(f"bare_{number}_bytes", "One of sixty gauges, with some help.", registry=registry).set(number)
start_http_server(int(sys.argv[1]), "127.0.0.1", registry)
threading.Event().wait()
"""


@dataclass
class Server:
    """A server to measure, and what was measured: seconds of each scrape, CPU seconds of all, memory in bytes."""

    name: str
    argv: list[str]
    port: int
    needs: bytes = b"# TYPE"
    new: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    cpu: float = 0.0
    series: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    wakeups: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(self.argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                connection = self.connect()
                page = gzip.decompress(scrape(connection))
                connection.close()
            except OSError:
                page = b""
            # Ours serves its own numbers before it has seen the target's.
            if self.needs in page:
                self.series = sum(1 for line in page.splitlines() if line and not line.startswith(b"#"))
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not answer")

    def connect(self) -> socket.socket:
        """A new connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def round(self) -> None:
        """Some scrapes of each kind."""
        before = cpu_seconds(self.pid)
        for _ in range(SCRAPES):
            start = time.perf_counter()
            connection = self.connect()
            scrape(connection)
            self.new.append(time.perf_counter() - start)
            connection.close()
        connection = self.connect()
        for _ in range(SCRAPES):
            start = time.perf_counter()
            # A server that ends the connection after each answer makes its client connect anew.
            try:
                scrape(connection)
            except OSError:
                connection.close()
                connection = self.connect()
                scrape(connection)
            self.kept.append(time.perf_counter() - start)
        connection.close()
        self.cpu += cpu_seconds(self.pid) - before


def scrape(connection: socket.socket) -> bytes:
    """The body of one answer."""
    connection.sendall(_REQUEST)
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    lowered = head.lower()
    if b"content-length:" in lowered:
        length = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += receive(connection)
        return body
    try:
        while True:
            body += receive(connection)
    except ConnectionError:
        return body


def receive(connection: socket.socket) -> bytes:
    """Some bytes.

    Raises:
        ConnectionError: there are no more.
    """
    piece = connection.recv(1 << 16)
    if not piece:
        raise ConnectionError("the server has ended the connection")
    return piece


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far (proc(5): utime and stime)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory(pid: int) -> dict[str, int]:
    """Rss, Pss and Anonymous of a process in bytes (proc(5): smaps_rollup)."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss", "Anonymous"):
                found[name] = int(rest.split()[0]) * 1024
    return found


def switches(pid: int) -> int:
    """How often its threads have gone to sleep so far."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))
    return total


def free_port() -> int:
    """A port that is free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


@contextlib.contextmanager
def target() -> Iterator[str]:
    """The PID of a Go program in a cgroup with limits."""
    group = Group(f"{cgroups.PREFIX}{os.getpid()}-bench")
    try:
        group.set_quota(150_000)
        group.set_memory(256 * cgroups.MIB)
        told = Told(go_program(GO_VERSIONS[-1], "std"))
        try:
            group.move(int(told.pid))
            yield told.pid
        finally:
            told.end()
    finally:
        group.remove()


def servers(directory: str, pid: str) -> list[Server]:
    """What is compared; the first is ours, which works for process `pid`."""
    config = os.path.join(directory, "cgagent.yaml")
    hooks = "".join(f"  - {{name: hook{number}, exec: [/bin/true]}}\n" for number in range(HOOKS))
    with open(config, "w", encoding="ascii") as file:
        file.write(f"env_file: {directory}/go.env\nhooks:\n{hooks}")
    ports = [free_port() for _ in range(4)]
    watch = [sys.executable, "-I", "-m", "cgagent", "watch", "--config", config, "--target", pid]
    found = [
        Server(
            "cgagent watch, everything",
            [*watch, "--web.listen-address", f"127.0.0.1:{ports[0]}"],
            ports[0],
            b"_go_gomaxprocs",
        ),
        Server("bare prometheus_client", [sys.executable, "-I", "-c", _BARE, str(ports[1])], ports[1]),
    ]
    exporter = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
    if exporter:
        for port, (files, collectors) in zip(ports[2:], COLLECTORS.items(), strict=True):
            words = ["--collector.disable-defaults", *(f"--collector.{one}" for one in collectors.split())]
            words += ["--web.disable-exporter-metrics", f"--web.listen-address=127.0.0.1:{port}"]
            found.append(Server(f"node_exporter, {files} files", [exporter, *words], port))
    else:
        print("node_exporter is not installed (Debian: prometheus-node-exporter)", file=sys.stderr)
    return found


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(values)[int(len(values) * share)] * 1e3


def table(measured: list[Server]) -> str:
    """The figures, and what ours are to each other's."""
    columns: dict[str, Callable[[Server], float]] = {
        "rss MiB": lambda one: one.memory["Rss"] / 2**20,
        "anon MiB": lambda one: one.memory["Anonymous"] / 2**20,
        "new least ms": lambda one: min(one.new) * 1e3,
        "new p50 ms": lambda one: percentile(one.new, 0.5),
        "new p99 ms": lambda one: percentile(one.new, 0.99),
        "kept least ms": lambda one: min(one.kept) * 1e3,
        "kept p50 ms": lambda one: percentile(one.kept, 0.5),
        "kept p99 ms": lambda one: percentile(one.kept, 0.99),
        "cpu/scrape ms": lambda one: one.cpu / (len(one.new) + len(one.kept)) * 1e3,
    }
    lines = [f"{'':<30}{'series':>8}" + "".join(f"{name:>15}" for name in columns) + f"{'wake-ups/s':>12}"]
    for one in measured:
        figures = "".join(f"{read(one):>15.2f}" for read in columns.values())
        lines.append(f"{one.name:<30}{one.series:>8}{figures}{one.wakeups:>12.1f}")
    for other in measured[1:]:
        ratios = "".join(f"{read(measured[0]) / read(other):>15.2f}" for read in columns.values())
        lines.append(f"{'ours / ' + other.name:<38}{ratios}")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    rounds = rounds_wanted(20)
    with target() as pid, tempfile.TemporaryDirectory(prefix="cgagent-bench-") as directory:
        measured = servers(directory, pid)
        try:
            for server in measured:
                server.start()
            for number in range(rounds + 1):
                for server in measured:
                    server.round()
                    if not number:  # the first warms up
                        server.new, server.kept, server.cpu = [], [], 0.0
            time.sleep(1)
            for server in measured:
                server.memory = memory(server.pid)
            before = [switches(server.pid) for server in measured]
            time.sleep(10)
            for server, count in zip(measured, before, strict=True):
                server.wakeups = (switches(server.pid) - count) / 10
        finally:
            for server in measured:
                if server.process is not None:
                    server.process.terminate()
                    server.process.wait()
    scrapes = 2 * SCRAPES * rounds
    print(f"{scrapes} scrapes of each, over loopback, half of them on new connections\n")
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
