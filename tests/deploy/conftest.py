"""Fixtures: the artefacts as `make bundle` and `make image` build them, and a Docker engine of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from deploy import bases
from deploy.engine import Engine, missing
from golang.toolchain import UnavailableError
from sample.build import sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGE = "cgagent:0.1.0"
BUILT = "cgagent-test:dockerfile"


def make(checkout: str, script: str, *words: str) -> None:
    """Run a script of `checkout`/deploy; skip the test where this machine has not what it needs."""
    command = [sys.executable, os.path.join(checkout, "deploy", script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 1 and any(reason in done.stderr for reason in ("is not installed", "apt-get")):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of what is built: whoever edits the checkout meanwhile does not make two builds differ."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in ("agent", "deploy"):
        shutil.copytree(f"{CHECKOUT}/{name}", f"{directory}/{name}", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(f"{CHECKOUT}/LICENSE", directory)
    return str(directory)


@pytest.fixture(scope="session")
def artefacts(checkout: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with bundle.tar and image.tar."""
    directory = tmp_path_factory.mktemp("artefacts")
    make(checkout, "bundle", "--output", f"{directory}/bundle.tar")
    make(checkout, "image", "--output", f"{directory}/image.tar")
    return str(directory)


@pytest.fixture(scope="session")
def bundle(artefacts: str) -> str:
    """The bundle's program."""
    subprocess.run(["tar", "-C", artefacts, "-xf", f"{artefacts}/bundle.tar"], check=True)
    return os.path.join(artefacts, "cgagent")


@pytest.fixture(scope="session")
def service() -> str:
    """The sample service, a static Go program."""
    try:
        return sample("1.24.11")
    except UnavailableError as error:
        pytest.skip(f"Go can't be had here: {error}")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine in this machine's network, without networks of its own."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    started = Engine()
    try:
        started.start()
        yield started
    finally:
        started.close()


@pytest.fixture(scope="session")
def image(engine: Engine, artefacts: str) -> str:
    """cgagent's image, loaded from the archive that deploy/image made."""
    engine.docker("rmi", "--force", IMAGE)
    engine.done("load", "--input", f"{artefacts}/image.tar")
    return IMAGE


@pytest.fixture(scope="session")
def built(engine: Engine, checkout: str) -> str:
    """cgagent's image, built by deploy/Dockerfile."""
    try:
        bases.debian(engine)
    except UnavailableError as error:
        pytest.skip(str(error))
    # The build fetches packages; the engine's network is this machine's.
    file = os.path.join(checkout, "deploy", "Dockerfile")
    engine.done("build", "--network", "host", "--file", file, "--tag", BUILT, checkout)
    return BUILT
