"""The systemd units under a real systemd, as PID 1 of a container: a service starts with its slice's values."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from deploy import bases
from deploy.conftest import CHECKOUT
from golang.toolchain import UnavailableError
from kernel.cgroups import mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deploy.engine import Engine

MIB = 1 << 20
PATIENCE = 60
NAME = "cgagent-test:systemd"
_DOCKERFILE = f"""\
FROM {bases.DEBIAN}
RUN apt-get update && apt-get install -y --no-install-recommends curl dbus systemd
COPY --from=cgagent:0.1.0 /opt/cgagent /opt/cgagent
COPY orders /usr/local/bin/orders
COPY systemd /etc/systemd/system
RUN ln -s /opt/cgagent/cgagent /usr/local/bin/cgagent \\
    && systemctl enable orders.service cgagent-watch@orders.service
CMD ["/lib/systemd/systemd"]
"""
# Not --privileged: systemd mounts and makes cgroups, and the machine of the tests has not every capability to give.
_OPTIONS = ["--detach", "--network", "none", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]
_OPTIONS += ["--security-opt", "apparmor=unconfined", "--tmpfs", "/run", "--tmpfs", "/tmp"]
_OPTIONS += ["--volume", "/sys/fs/cgroup:/sys/fs/cgroup", "--stop-signal", "SIGRTMIN+3"]


class Machine:
    """A container whose PID 1 is systemd."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.container = engine.done("run", *_OPTIONS, NAME).strip()

    def run(self, *words: str) -> str:
        """What a command in it prints; empty where it fails."""
        return self.engine.docker("exec", self.container, *words).stdout

    def state(self, unit: str) -> str:
        """A unit's, in systemctl's words."""
        return self.run("systemctl", "is-active", unit).strip()

    def limits(self) -> tuple[object, ...]:
        """What the service runs with."""
        answer = self.run("curl", "--silent", "http://127.0.0.1:8080/debug/limits")
        page = json.loads(answer) if answer else {}
        return page.get("gomaxprocs"), page.get("gomemlimit")

    def env_file(self) -> list[str]:
        """The env file's variables."""
        return self.run("cat", "/run/cgagent/orders/go.env").splitlines()[1:]

    def metrics(self) -> str:
        """What the watcher serves."""
        return self.run("curl", "--silent", "http://127.0.0.1:9101/metrics")

    def close(self) -> None:
        """Shut it down."""
        print(self.run("journalctl", "--no-pager", "--lines", "80"))
        self.engine.docker("rm", "--force", "--volumes", self.container)


@pytest.fixture(scope="module")
def machine(engine: Engine, image: str, service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:  # noqa: ARG001 the image is copied from
    """The units, enabled and started."""
    if mode() == "v2":
        pytest.skip("systemd in a container gets its cgroups by hand here, on cgroup v1")
    try:
        bases.debian(engine)
    except UnavailableError as error:
        pytest.skip(str(error))
    context = str(tmp_path_factory.mktemp("systemd"))
    shutil.copy(service, f"{context}/orders")
    shutil.copytree(os.path.join(CHECKOUT, "deploy", "systemd"), f"{context}/systemd")
    with open(f"{context}/Dockerfile", "w") as file:
        file.write(_DOCKERFILE)
    engine.done("build", "--network", "host", "--tag", NAME, context)
    booted = Machine(engine)
    try:
        wait_for("the service", lambda: booted.state("orders.service"), "active")
        yield booted
    finally:
        booted.close()


def wait_for(what: str, seen: Callable[[], object], wanted: object) -> None:
    """Until `seen()` is `wanted`."""
    deadline = time.monotonic() + PATIENCE
    while (last := seen()) != wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: {last!r}, not {wanted!r}")
        time.sleep(0.2)


def test_the_service_starts_with_its_slices_values(machine: Machine) -> None:
    """orders.slice: CPUQuota=150%, MemoryMax=256M."""
    wait_for("what it runs with", machine.limits, (2, 256 * MIB * 9 // 10))
    assert machine.env_file() == ["GOMAXPROCS='2'", f"GOMEMLIMIT='{256 * MIB * 9 // 10}'"]


def test_a_changed_limit_is_in_the_file_and_at_the_next_start_in_the_service(machine: Machine) -> None:
    wait_for("the watcher", lambda: machine.state("cgagent-watch@orders.service"), "active")
    machine.run("systemctl", "set-property", "--runtime", "orders.slice", "CPUQuota=100%", "MemoryMax=512M")
    wait_for("the file", machine.env_file, ["GOMAXPROCS='1'", f"GOMEMLIMIT='{512 * MIB * 9 // 10}'"])
    machine.run("systemctl", "restart", "orders.service")
    wait_for("what it runs with", machine.limits, (1, 512 * MIB * 9 // 10))
    wait_for("the metrics", lambda: "\ncgagent_gomaxprocs 1" in machine.metrics(), True)


def test_the_watcher_ends_with_the_service_and_the_file_stays(machine: Machine) -> None:
    machine.run("systemctl", "stop", "orders.service")
    wait_for("the watcher", lambda: machine.state("cgagent-watch@orders.service"), "inactive")
    assert machine.env_file()
    machine.run("systemctl", "start", "orders.service")
    wait_for("the service", lambda: machine.state("orders.service"), "active")
