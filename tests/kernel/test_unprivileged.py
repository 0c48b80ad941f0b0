"""cgagent as containers are told to run it: no root, no capabilities, a read-only root file system."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys

import pytest

import cgagent
from kernel import agent, cgroups
from kernel.cgroups import MIB, Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534
_BARE = ("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
USERS = {
    "nobody": ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *_BARE),
    "root without capabilities": ("setpriv", *_BARE),
}


@pytest.fixture(scope="session")
def public() -> Iterator[str]:
    """A directory that everybody can reach, with a copy of the package: the checkout may be in a private home."""
    directory = f"/tmp/{cgroups.PREFIX}{os.getpid()}"
    os.mkdir(directory, 0o755)
    package = os.path.dirname(str(cgagent.__file__))
    shutil.copytree(package, f"{directory}/cgagent", ignore=shutil.ignore_patterns("__pycache__"))
    os.mkdir(f"{directory}/volume")
    os.chmod(f"{directory}/volume", 0o777)  # as an emptyDir is
    for path, _, _ in os.walk(f"{directory}/cgagent"):
        os.chmod(path, 0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def interpreter() -> str:
    """A Python that an unprivileged user may run."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3.11", "/usr/bin/python3"):
        # By way of env, as below: setpriv's own exec may still reach what its user may not.
        words = [*USERS["nobody"], "env", candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if os.path.exists(candidate) and subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip("no Python >= 3.11 here that an unprivileged user may run")


@pytest.fixture(params=USERS)
def unprivileged(request: pytest.FixtureRequest, top: Group, public: str, interpreter: str) -> list[str]:
    """A limited cgroup, and the words that run cgagent in it without privileges."""
    top.set_quota(100_000)
    top.set_memory(128 * MIB)
    return top.enter([*USERS[request.param], "env", f"PYTHONPATH={public}", interpreter, "-B", "-m", "cgagent"])


@pytest.fixture
def read_only(public: str) -> list[str]:
    """Words that run the rest where everything but the volume is read-only, as readOnlyRootFilesystem makes it."""
    volume = f"{public}/volume"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        points = dict.fromkeys(line.split(" ")[4] for line in lines)
    holding = [point for point in points if point == "/" or f"{public}/".startswith(f"{point}/")]
    found = [f"mount -o remount,bind,ro {point}" for point in holding]
    script = "\n".join(["set -e", f"mount -t tmpfs -o mode=1777 tmpfs {volume}", *found, 'exec "$@"'])
    return ["unshare", "--mount", "sh", "-c", script, "read-only"]


EXPECTED = {"GOMAXPROCS": "1", "GOMEMLIMIT": str(128 * MIB * 9 // 10)}


def test_explain_needs_no_privileges(unprivileged: list[str]) -> None:
    explained = agent.document(agent.succeed([*unprivileged, "explain", "-o", "json"]).stdout)

    assert explained["env"] == EXPECTED
    assert not {"unreadable", "usage-unknown"} & set(agent.findings(explained))
    assert "GOMAXPROCS" in agent.succeed([*unprivileged, "explain"]).stdout


def test_write_needs_a_writable_directory_alone(unprivileged: list[str], public: str) -> None:
    file = f"{public}/volume/go.env"

    agent.succeed([*unprivileged, "write", "--env-file", file])

    lines = cgroups.read(file).split("\n")
    assert lines[1:] == [f"{name}='{value}'" for name, value in EXPECTED.items()]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o644
    assert os.listdir(f"{public}/volume") == ["go.env"]
    os.unlink(file)


def test_exec_needs_no_privileges(unprivileged: list[str]) -> None:
    printed = agent.succeed([*unprivileged, "exec", "--", "env"]).stdout.split("\n")

    for name, value in EXPECTED.items():
        assert f"{name}={value}" in printed


def test_a_read_only_root_is_enough(unprivileged: list[str], read_only: list[str], public: str) -> None:
    explained = agent.document(agent.succeed([*read_only, *unprivileged, "explain", "-o", "json"]).stdout)
    assert explained["env"] == EXPECTED
    script = f'"$@" && cat {public}/volume/go.env'
    words = [*unprivileged, "write", "--env-file", f"{public}/volume/go.env"]

    printed = agent.succeed([*read_only, "sh", "-c", script, "write", *words]).stdout

    assert printed.split("\n")[1:3] == [f"{name}='{value}'" for name, value in EXPECTED.items()]


def test_a_file_on_the_read_only_root_is_refused_in_one_line(
    unprivileged: list[str], read_only: list[str], public: str
) -> None:
    done = agent.run([*read_only, *unprivileged, "write", "--env-file", f"{public}/go.env"])

    assert done.returncode == 1
    assert done.stderr == (
        f"cgagent write: cannot write {public}/go.env: read-only file system: "
        "mount a writable volume there, such as an emptyDir\n"
    )


def test_another_users_process_is_explained_but_for_its_environment(
    top: Group, public: str, interpreter: str, sleeper: Callable[..., int]
) -> None:
    top.set_quota(100_000)
    top.set_memory(128 * MIB)
    words = [*USERS["nobody"], "env", f"PYTHONPATH={public}", interpreter, "-B", "-m", "cgagent"]

    command = [*words, "explain", "-o", "json", "--pid", str(sleeper(top))]
    explained = agent.document(agent.succeed(command).stdout)

    assert explained["limits"]["cpu"]["cores"] == 1.0
    assert explained["limits"]["memory"]["bytes"] == 128 * MIB
    assert "environment-unknown" in agent.findings(explained)


def test_a_level_that_may_not_be_read_is_unknown_and_blocks_write(top: Group, public: str, interpreter: str) -> None:
    """Files of an ancestor closed to others, as hardened hosts have them."""
    top.set_quota(100_000)
    container = top.child("container")
    container.set_quota(50_000)
    words = [*USERS["nobody"], "env", f"PYTHONPATH={public}", interpreter, "-B", "-m", "cgagent"]
    os.chmod(top.quota_file, 0o600)

    explained = agent.document(agent.succeed([*words, "explain", "-o", "json"], container).stdout)
    written = agent.run([*words, "write", "--env-file", "-"], container)

    assert explained["limits"]["cpu"]["cores"] is None
    assert top.quota_file in agent.findings(explained)["unreadable"]["message"]
    assert written.returncode == 1
    assert written.stdout == ""
    assert top.quota_file in written.stderr
