"""One node for all tests here, its images, and a namespace that enforces restricted Pod Security."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from cgagent.commands import kubectl_plugin
from golang.toolchain import UnavailableError
from kubernetes import node
from kubernetes.node import GO_VERSIONS, image_of
from kubernetes.pods import ROLE
from sample.build import sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

_KEEP = "CGAGENT_KEEP_NODE"  # set: use a node that is up already, and leave it


@pytest.fixture(scope="session", autouse=True)
def _node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    missing = [name for name in ("runc", "nsenter", "iptables", "openssl") if shutil.which(name) is None]
    if missing or not os.path.exists("/usr/lib/cni/bridge"):
        pytest.skip(f"not installed: {', '.join(missing) or 'containernetworking-plugins'}")
    if not os.path.exists(node.ARCHIVE):
        pytest.skip(f"{node.ARCHIVE} is not there: make image")
    kept = _KEEP in os.environ
    guard = None
    if not kept:
        node.cluster("up")
        # Who is killed cleans nothing up.
        nothing = subprocess.DEVNULL
        words = [node.CLUSTER, "guard", str(os.getpid())]
        guard = subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    try:
        _furnish(tmp_path_factory.mktemp("images"))
        yield
    finally:
        if guard is not None:
            guard.terminate()
            guard.wait()
            node.cluster("down")


def _furnish(directory: Path) -> None:
    node.cluster("load", node.ARCHIVE)
    for version in GO_VERSIONS:
        try:
            built = sample(version)
        except UnavailableError as error:
            pytest.skip(f"Go {version}: {error}")
        program = directory / "orders"
        shutil.copy(built, program)
        node.cluster("image", image_of(version), str(program))
    if os.path.exists("/bin/busybox"):
        node.cluster("image", "cgagent.test/shell:1", "/bin/busybox", str(program))
    node.cluster("kubectl", "delete", "namespace", node.NAMESPACE, "--ignore-not-found")
    node.cluster("kubectl", "create", "namespace", node.NAMESPACE)
    node.cluster("kubectl", "label", "namespace", node.NAMESPACE, node.RESTRICTED)
    node.until("a service account", lambda: node.get("serviceaccount", "default"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure comes what the node says of its pods, before they are gone."""
    report = yield
    if report.when == "call" and report.failed:
        report.sections += [(f"kubectl {' '.join(words)}", _said(words)) for words in _looks()]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in node.FIGURES:
        terminalreporter.write_line(line)


def _looks() -> Iterator[tuple[str, ...]]:
    yield ("get", "pods", "--output=wide")
    yield ("get", "events")
    for name in _said(("get", "pods", "--output=name")).split():
        yield ("logs", name, "--all-containers", "--prefix", "--tail=40")


def _said(words: tuple[str, ...]) -> str:
    try:
        return node.kubectl(*words)
    except node.NodeError as error:
        return str(error)


@pytest.fixture(autouse=True)
def _no_pods_left(_node: None) -> Iterator[None]:
    yield
    node.kubectl("delete", "pod", "--all", "--grace-period=1")


@pytest.fixture
def asked_by_pods(_node: None) -> None:
    """The API server is there for pods too."""
    if "DNAT" not in node.cluster("exec", "iptables", "-t", "nat", "-S", "PREROUTING"):
        pytest.skip("no NAT here: pods don't reach the API server")


@pytest.fixture
def role(asked_by_pods: None) -> Iterator[None]:  # noqa: ARG001 it has to be there
    """What `--confirm-raises` needs."""
    node.kubectl("apply", "-f", ROLE)
    yield
    node.kubectl("delete", "-f", ROLE)


@pytest.fixture
def kubectl_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's kubectl is the node's, and its patience that of the tests."""
    command = tmp_path / "kubectl"
    command.write_text(f'#!/bin/sh\nexec {node.CLUSTER} kubectl "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(command))
    monkeypatch.setattr(kubectl_plugin, "_PATIENCE", kubectl_plugin._PATIENCE * node.PATIENCE)
