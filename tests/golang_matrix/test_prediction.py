"""`golang.runtime.predict` against what Go programs report in real cgroups.

A machine of two CPUs tells little (the rule's least value is two): `boot v2 COMMAND` of tests/machine has eight.
"""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from cgagent.cgroup.reading import read_limits
from cgagent.golang.buildinfo import read
from cgagent.golang.libraries import AUTOMAXPROCS, AUTOMEMLIMIT
from cgagent.golang.runtime import Prediction, predict
from cgagent.host import Host
from golang.toolchain import UnavailableError
from golang_matrix.observer import observer
from kernel.cgroups import MIB, NO_QUOTA, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., subprocess.Popen[str]]

# Toolchain and go.mod's `go` line: no version before 1.25 reads the quota, later ones if the line is 1.25 or newer.
PROGRAMS = [
    ("1.24.11", "1.21"),
    ("1.24.11", "1.24"),
    ("1.25.0", "1.25"),
    ("1.25.5", "1.24"),
    ("1.25.5", "1.25"),
    ("1.26.6", "1.26"),
    ("1.27.3", "1.24"),
    ("1.27.3", "1.27"),
]
ENVIRONMENTS = {
    "nothing set": {},
    "GOMAXPROCS": {"GOMAXPROCS": "3"},
    "GOMAXPROCS of 0": {"GOMAXPROCS": "0"},
    "GOMEMLIMIT": {"GOMEMLIMIT": "90MiB"},
    "containermaxprocs=1": {"GODEBUG": "containermaxprocs=1"},
    "containermaxprocs=0": {"GODEBUG": "containermaxprocs=0"},
    "containermaxprocs=-1": {"GODEBUG": "containermaxprocs=-1"},
}
LIBRARIES = [
    *(f"{AUTOMAXPROCS}@{version}" for version in ("v1.4.0", "v1.5.0", "v1.5.1", "v1.5.2", "v1.6.0")),
    *(
        f"{AUTOMEMLIMIT}@{version}"
        for version in ("v0.2.5", "v0.2.6", "v0.6.1", "v0.7.0", "v0.7.3", "v0.7.4", "v0.7.5")
    ),
    f"{AUTOMEMLIMIT}@v1.0.0",
    f"{AUTOMEMLIMIT}@v1.0.1",
]
QUOTAS = (NO_QUOTA, 50_000, 100_000, 150_000, 250_000, 400_000)  # microseconds in a period of 100,000
CPUS = len(os.sched_getaffinity(0))


@pytest.fixture(params=PROGRAMS, ids=lambda one: f"Go {one[0]}, go {one[1]}")
def program(request: pytest.FixtureRequest) -> str:
    return built(*request.param)


def built(version: str, go_line: str, module: str = "") -> str:
    try:
        return observer(version, go_line, module)
    except (UnavailableError, OSError) as error:
        pytest.skip(f"Go {version} or {module or 'nothing else'} can't be had here: {error}")


def run(start: Start, program: str, group: Group, environment: dict[str, str], *prefix: str) -> subprocess.Popen[str]:
    return start([*prefix, program], group, stdin=subprocess.PIPE, env={"PATH": os.environ["PATH"], **environment})


def predicted(process: subprocess.Popen[str], environment: dict[str, str]) -> Prediction:
    """What is predicted of a running program, from its file and its cgroup."""
    info = read(f"/proc/{process.pid}/exe")
    assert info is not None
    return predict(info, read_limits(Host(), str(process.pid)), environment)


def told(process: subprocess.Popen[str]) -> tuple[int, int]:
    """The next report: GOMAXPROCS and the memory limit."""
    assert process.stdout is not None
    procs, limit = process.stdout.readline().split()
    return int(procs), int(limit)


def asked(process: subprocess.Popen[str]) -> tuple[int, int]:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return told(process)


def matches(process: subprocess.Popen[str], environment: dict[str, str]) -> None:
    report = told(process)
    prediction = predicted(process, environment)
    assert report == (prediction.gomaxprocs.value, prediction.gomemlimit.value), prediction


@pytest.mark.parametrize("quota", QUOTAS)
@pytest.mark.parametrize("setting", ENVIRONMENTS)
def test_starts_with_what_was_predicted(top: Group, start: Start, program: str, quota: int, setting: str) -> None:
    top.set_quota(quota)
    environment = ENVIRONMENTS[setting]
    matches(run(start, program, top, environment), environment)


def test_starts_with_what_was_predicted_on_one_cpu(top: Group, start: Start, program: str) -> None:
    top.set_quota(150_000)
    matches(run(start, program, top, {}, "taskset", "-c", "0"), {})


def test_starts_with_what_was_predicted_below_a_parents_quota(top: Group, start: Start, program: str) -> None:
    top.set_quota(250_000)
    matches(run(start, program, top.child("leaf", ("cpu",)), {}), {})


@pytest.mark.parametrize("where", ["its own cgroup", "its parent"])
@pytest.mark.parametrize("module", LIBRARIES)
def test_starts_with_what_was_predicted_of_a_library(top: Group, start: Start, module: str, where: str) -> None:
    own = top.child("leaf", ("cpu", "memory"))
    # v1 lets no child have more CPU than its parent: the parent alone has a quota, or its own cgroup alone.
    (own if where == "its own cgroup" else top).set_quota(260_000)
    top.set_memory((400 if where == "its own cgroup" else 300) * MIB)
    own.set_memory((300 if where == "its own cgroup" else 400) * MIB)
    matches(run(start, built("1.27.3", "1.27", module), own, {}), {})


@pytest.mark.parametrize("share", ["0.5", "1", "off", "1.5", "half"])
def test_starts_with_what_was_predicted_of_automemlimits_share(top: Group, start: Start, share: str) -> None:
    top.set_memory(333 * MIB)
    environment = {"AUTOMEMLIMIT": share}
    matches(run(start, built("1.27.3", "1.27", f"{AUTOMEMLIMIT}@v1.0.1"), top, environment), environment)


# What Docker does on v1: the container's cgroup is all that is mounted.
_AS_DOCKER = """
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt && mkdir /mnt/cgroup
mount --bind "$1" /mnt/cgroup
umount -l "$2"
mount --move /mnt/cgroup "$2"
shift 2
exec "$@"
"""


def test_starts_with_what_was_predicted_where_the_mounts_root_is_its_cgroup(
    top: Group, start: Start, program: str
) -> None:
    if top.version("cpu") != 1:
        pytest.skip("a cgroup is bound over its hierarchy's mount as Docker does on v1")
    top.set_quota(250_000)
    directory = top.directories["cpu"]
    mount = directory.removesuffix(f"/{top.name}")
    unshare = ["unshare", "--mount", "sh", "-c", _AS_DOCKER, "docker", directory, mount]
    matches(run(start, program, top, {}, *unshare), {})


@pytest.mark.parametrize("setting", ["nothing set", "GOMAXPROCS", "containermaxprocs=1"])
def test_follows_its_quota_if_that_was_predicted(top: Group, start: Start, program: str, setting: str) -> None:
    if CPUS < 4:
        pytest.skip(f"between 2 CPUs and the {CPUS} of this machine there is nothing to follow")
    environment = ENVIRONMENTS[setting]
    top.set_quota(250_000)
    process = run(start, program, top, environment)
    matches(process, environment)
    before = predicted(process, environment).gomaxprocs
    top.set_quota(400_000)
    after = predicted(process, environment).gomaxprocs.value if before.follows else before.value
    # The runtime looks once a second. Where nothing is to change, two looks' time must have passed.
    deadline = time.monotonic() + (30 if before.follows else 3)
    while (procs := asked(process)[0]) == before.value and time.monotonic() < deadline:
        time.sleep(0.1)
    assert procs == after
