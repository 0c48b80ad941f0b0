"""The image, run by a real Docker engine under limits as a careful team would run it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time

import pytest

from cgagent.cli import main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from deploy.engine import Engine

MIB = 1 << 20
PATIENCE = 60
HARDENED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
LIMITS = ["--cpus", "1.5", "--memory", "256m", "--memory-swap", "256m"]
EXPECTED = {"GOMAXPROCS": "2", "GOMEMLIMIT": str(256 * MIB * 9 // 10)}
SCRATCH = "cgagent-test:scratch"


def run(engine: Engine, image: str, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the image once: read-only, without capabilities, under LIMITS."""
    return engine.docker("run", "--rm", "--network", "none", *HARDENED, *LIMITS, *options, image, *words)


def files_of(engine: Engine, image: str) -> dict[str, tuple[str, int, int]]:
    """Hash, mode and owner of everything in an image, as a container of it has it."""
    container = engine.done("create", image).strip()
    try:
        exported = subprocess.run(
            [*["docker", "export", container]], env=engine.environ, capture_output=True, check=True
        ).stdout
    finally:
        engine.done("rm", container)
    found = {}
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            digest = hashlib.sha256(file.read()).hexdigest() if file else member.type.decode()
            if member.name.startswith(("opt", "run")):
                found[member.name] = digest, member.mode, member.uid
    return found


def configuration(engine: Engine, image: str) -> dict[str, Any]:
    """What `docker inspect` says of how an image is run."""
    config: dict[str, Any] = json.loads(engine.done("image", "inspect", image))[0]["Config"]
    return config


def test_it_says_who_and_what_it_is(engine: Engine, image: str) -> None:
    config = configuration(engine, image)
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/opt/cgagent/cgagent"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/opt/cgagent/cgagent", "healthcheck"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"title", "description", "version"} <= {name.rpartition(".")[2] for name in labels}


def test_the_dockerfile_makes_the_same_image(engine: Engine, image: str, built: str) -> None:
    assert files_of(engine, built) == files_of(engine, image)
    names = ("User", "Entrypoint", "Labels", "Env", "Healthcheck")
    one, other = configuration(engine, built), configuration(engine, image)
    assert {name: one[name] for name in names} == {name: other[name] for name in names}


def test_nothing_in_it_is_left_to_compile_or_may_be_written(engine: Engine, image: str) -> None:
    files = files_of(engine, image)
    assert not [name for name in files if name.endswith(".py") or "__pycache__" in name]
    assert not [name for name, (_, mode, uid) in files.items() if mode & 0o022 or (uid and name != "run/cgagent")]


@pytest.mark.parametrize("user", ["65532:65532", "0:0", "4711:4711"])
def test_explain_and_write_see_the_containers_limits(engine: Engine, image: str, user: str) -> None:
    document = json.loads(run(engine, image, "explain", "-o", "json", options=("--user", user)).stdout)
    assert document["limits"]["cpu"]["cores"] == 1.5
    assert document["limits"]["memory"]["bytes"] == 256 * MIB
    assert document["env"] == EXPECTED
    written = run(engine, image, "write", "--env-file", "-", options=("--user", user)).stdout
    assert written.splitlines()[1:] == [f"{name}='{value}'" for name, value in EXPECTED.items()]


def test_write_fills_a_new_volume_as_the_images_user(engine: Engine, image: str) -> None:
    volume = engine.done("volume", "create").strip()
    try:
        options = ("--volume", f"{volume}:/run/cgagent")
        done = run(engine, image, "write", "--env-file", "/run/cgagent/go.env", options=options)
        assert done.returncode == 0, done.stderr
        assert "GOMAXPROCS='2'" in in_volume(engine, volume, "go.env")
    finally:
        engine.done("volume", "rm", volume)


@pytest.mark.parametrize(
    ("words", "code"),
    [(["write", "--env-file", "/go.env"], 1), (["wrte"], 2), (["exec", "--", "/nowhere"], 127), (["watch"], 2)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_fails_is_one_line(engine: Engine, image: str, words: list[str], code: int) -> None:
    done = run(engine, image, *words)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("cgagent")


@pytest.mark.parametrize("command", ["watch", "run", "config", "completion", "write"])
def test_every_command_has_its_help(engine: Engine, image: str, command: str) -> None:
    assert run(engine, image, command, "--help").stdout.startswith(f"usage: cgagent {command}")


def test_containerd_imports_it_too(engine: Engine, image: str, artefacts: str) -> None:  # noqa: ARG001 the order
    if not shutil.which("ctr"):
        pytest.skip("ctr is not there (Debian: containerd)")
    control = ["ctr", "--address", f"{engine.directory}/exec/containerd/containerd.sock", "--namespace", "cgagent-test"]
    done = subprocess.run([*control, "images", "import", f"{artefacts}/image.tar"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name = "docker.io/library/cgagent:0.1.0"
    assert name in subprocess.run([*control, "images", "ls", "-q"], capture_output=True, text=True).stdout.split()
    subprocess.run([*control, "images", "rm", "--sync", name], check=True, capture_output=True)


def in_volume(engine: Engine, volume: str, name: str) -> str:
    """A file of a volume; empty where it is not there."""
    directory = json.loads(engine.done("volume", "inspect", volume))[0]["Mountpoint"]
    try:
        with open(os.path.join(directory, name)) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def wait_for(what: str, seen: object, wanted: object) -> None:
    """Until `seen()` is `wanted`."""
    deadline = time.monotonic() + PATIENCE
    assert callable(seen)
    while (last := seen()) != wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: {last!r}, not {wanted!r}")
        time.sleep(0.05)


@pytest.fixture
def volume(engine: Engine, image: str) -> Iterator[str]:
    """A volume with the bundle, installed by the image as an init container would."""
    name = engine.done("volume", "create").strip()
    try:
        done = run(engine, image, "install-bundle", "/run/cgagent", options=("--volume", f"{name}:/run/cgagent"))
        assert done.returncode == 0, done.stderr
        yield name
    finally:
        engine.done("volume", "rm", "--force", name)


@pytest.fixture
def orders(engine: Engine, service: str, volume: str, tmp_path: object) -> Iterator[tuple[str, int]]:
    """The sample service in an image `FROM scratch`, started by the bundle; its container and port."""
    shutil.copy(service, f"{tmp_path}/orders")
    with open(f"{tmp_path}/Dockerfile", "w") as file:
        file.write("FROM scratch\nCOPY orders /orders\nUSER 65532:65532\n")
    engine.done("build", "--tag", SCRATCH, str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["exec", "--", "/orders", "-listen", f"127.0.0.1:{port}"]
    options = ["--detach", "--network", "host", "--volume", f"{volume}:/run/cgagent:ro", *HARDENED, *LIMITS]
    container = engine.done("run", *options, "--entrypoint", "/run/cgagent/cgagent", SCRATCH, *command).strip()
    try:
        wait_for("the service", lambda: bool(engine.fetch(f"http://127.0.0.1:{port}/healthz")), True)
        yield container, port
    finally:
        engine.docker("rm", "--force", container)


def test_a_go_program_from_scratch_runs_with_the_values(engine: Engine, orders: tuple[str, int]) -> None:
    container, port = orders
    page = json.loads(engine.fetch(f"http://127.0.0.1:{port}/debug/limits"))
    assert (page["gomaxprocs"], page["gomemlimit"]) == (2, 256 * MIB * 9 // 10)
    assert page["environ"] == EXPECTED
    assert page["pid"] == 1
    assert engine.done("stop", "--time", "30", container).strip() == container
    assert json.loads(engine.done("inspect", container))[0]["State"]["ExitCode"] == 0


def test_explain_from_beside_sees_the_services_limits(engine: Engine, image: str, orders: tuple[str, int]) -> None:
    """As `kubectl debug --target` does it: another container in the service's process namespace."""
    container, _ = orders
    options = ["--rm", "--network", "none", "--pid", f"container:{container}", *HARDENED]
    document = json.loads(engine.done("run", *options, image, "explain", "--pid", "1", "-o", "json"))
    limits = document["limits"]
    assert (limits["cpu"]["cores"], limits["memory"]["bytes"]) == (1.5, 256 * MIB)
    assert document["env"] == {}  # what it runs with is left alone
    assert document["go"]["version"] == "go1.24.11"


def test_a_capture_from_beside_explains_anywhere(
    engine: Engine, image: str, orders: tuple[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """README's line for `kubectl debug`: the service's image has no shell, and is not touched."""
    container, _ = orders
    options = ["--rm", "--network", "none", "--pid", f"container:{container}", *HARDENED]
    words = [*options, image, "capture", "--quiet", "--pid", "1", "-"]
    path = tmp_path / "orders.tar.gz"
    with path.open("wb") as file:
        subprocess.run(["docker", "run", *words], env=engine.environ, stdout=file, check=True)
    assert main(["explain", "--root", str(path), "-o", "json"]) == 0
    limits = json.loads(capsys.readouterr().out)["limits"]
    assert (limits["cpu"]["cores"], limits["memory"]["bytes"]) == (1.5, 256 * MIB)


def test_a_live_change_is_followed(engine: Engine, image: str, orders: tuple[str, int], volume: str) -> None:
    container, _ = orders
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = ["--detach", "--network", "host", "--pid", f"container:{container}", "--volume", f"{volume}:/run/cgagent"]
    options += ["--env", f"CGAGENT_WEB_LISTEN_ADDRESS={address}", "--health-interval", "1s", *HARDENED]
    words = ["watch", "--target", "auto", "--poll", "1h", "--env-file", "/run/cgagent/go.env"]
    sidecar = engine.done("run", *options, "--memory", "64m", "--cpus", "0.2", image, *words).strip()
    try:
        seen = lambda: in_volume(engine, volume, "go.env").splitlines()[1:]  # noqa: E731
        wait_for("the first values", seen, [f"{name}='{value}'" for name, value in EXPECTED.items()])
        engine.done("update", "--cpus", "1", "--memory", "512m", "--memory-swap", "512m", container)
        wait_for("the new values", seen, ["GOMAXPROCS='1'", f"GOMEMLIMIT='{512 * MIB * 9 // 10}'"])
        assert f"cgagent_gomemlimit_bytes {float(512 * MIB * 9 // 10)}" in _values(engine, address)
        health = lambda: json.loads(engine.done("inspect", sidecar))[0]["State"]["Health"]["Status"]  # noqa: E731
        wait_for("its health", health, "healthy")
        assert _comm(engine, sidecar) == "cgagent"
        engine.done("stop", "--time", "30", sidecar)
        state = json.loads(engine.done("inspect", sidecar))[0]["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    finally:
        logs = engine.docker("logs", sidecar)
        print(logs.stdout, logs.stderr)
        engine.docker("rm", "--force", sidecar)


def _values(engine: Engine, address: str) -> str:
    """The metrics, with numbers as Python writes them: 1e+08 or 100000000 are the same."""
    lines = [line.split() for line in engine.fetch(f"http://{address}/metrics").splitlines() if line[:1] != "#"]
    return "\n".join(f"{words[0]} {float(words[1])}" for words in lines if len(words) == 2)


def _comm(engine: Engine, container: str) -> str:
    pid = json.loads(engine.done("inspect", container))[0]["State"]["Pid"]
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
