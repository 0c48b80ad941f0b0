"""Base images, under the names that the Dockerfiles use, made on this machine: no registry is asked.

`debian:bookworm-slim` is a debootstrap of variant minbase. It finds packages where this machine finds them: its
sources of apt, its certificates. `golang:1.24-bookworm` is that and the toolchain of the tests, and
`prom/prometheus` that and Debian's Prometheus, which is older than the name says.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile

from deploy.engine import Engine
from golang.toolchain import UnavailableError, cache, toolchain

DEBIAN = "debian:bookworm-slim"
GOLANG = "golang:1.24-bookworm"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def debian(engine: Engine) -> None:
    """Have DEBIAN in the engine.

    Raises:
        UnavailableError: there is no debootstrap, or it fails.
    """
    if _there(engine, DEBIAN):
        return
    archive = os.path.join(cache(), "images", "debian-bookworm-slim.tar")
    if not os.path.exists(archive):
        _bootstrap(archive)
    engine.done("import", "--change", 'CMD ["bash"]', archive, DEBIAN)


def _bootstrap(archive: str) -> None:
    if not shutil.which("debootstrap"):
        raise UnavailableError("debootstrap is not installed (Debian: debootstrap)")
    os.makedirs(os.path.dirname(archive), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cgagent-test-base-") as root:
        words = ["debootstrap", "--variant=minbase", "bookworm", root, *_mirror()]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"debootstrap: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        _find_packages_as_here(root)
        subprocess.run(["tar", "-C", root, "-cf", f"{archive}.{os.getpid()}", "."], check=True)
    os.rename(f"{archive}.{os.getpid()}", archive)


def _mirror() -> list[str]:
    """Where this machine takes Debian from, in debootstrap's words."""
    for path in glob.glob("/etc/apt/sources.list.d/debian.sources"):
        with open(path) as file:
            return [line.split()[1] for line in file if line.startswith("URIs:")][:1]
    return []


def _find_packages_as_here(root: str) -> None:
    """Give a new system this machine's sources of packages and its certificates."""
    sources = "/etc/apt/sources.list.d/debian.sources"
    if os.path.exists(sources):
        shutil.copy(sources, f"{root}/etc/apt/sources.list.d/")
        with open(f"{root}/etc/apt/sources.list", "w"):
            pass  # debootstrap's own
    for path in glob.glob("/usr/local/share/ca-certificates/*.crt"):
        os.makedirs(f"{root}/usr/local/share/ca-certificates", exist_ok=True)
        shutil.copy(path, f"{root}/usr/local/share/ca-certificates/")
    if os.path.exists(_CERTIFICATES):
        os.makedirs(f"{root}/etc/ssl/certs", exist_ok=True)
        shutil.copy(_CERTIFICATES, f"{root}{_CERTIFICATES}")
    with open(f"{root}/etc/pip.conf", "w") as file:
        file.write(f"[global]\ncert = {_CERTIFICATES}\n")
    for path in glob.glob(f"{root}/var/cache/apt/archives/*.deb"):
        os.unlink(path)


def golang(engine: Engine) -> None:
    """Have GOLANG in the engine.

    Raises:
        UnavailableError: there is no toolchain.
    """
    if _there(engine, GOLANG):
        return
    debian(engine)
    go = os.path.dirname(os.path.dirname(toolchain("1.24.11")))
    lines = [f"FROM {DEBIAN}", "COPY . /usr/local/go", "ENV PATH=/usr/local/go/bin:/usr/bin:/bin GOTOOLCHAIN=local"]
    _built(engine, GOLANG, lines, go)


def prometheus(engine: Engine, name: str) -> None:
    """Have Debian's Prometheus in the engine under the name that the Compose file uses.

    Raises:
        UnavailableError: it is not installed.
    """
    if _there(engine, name):
        return
    debian(engine)
    program = shutil.which("prometheus")
    if program is None:
        raise UnavailableError("Prometheus is not installed (Debian: prometheus)")
    with tempfile.TemporaryDirectory(prefix="cgagent-test-base-") as directory:
        shutil.copy(program, f"{directory}/prometheus")
        lines = [
            f"FROM {DEBIAN}",
            "COPY prometheus /bin/prometheus",
            "RUN mkdir -p /prometheus && chmod 777 /prometheus",
        ]
        lines += ["WORKDIR /prometheus", "USER 65534:65534", 'ENTRYPOINT ["/bin/prometheus"]']
        _built(engine, name, lines, directory)


def _built(engine: Engine, name: str, lines: list[str], context: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        engine.done("build", "--network", "none", "--file", file.name, "--tag", name, context)


def _there(engine: Engine, name: str) -> bool:
    return engine.docker("image", "inspect", name).returncode == 0
