"""The service and the load generator, built by real toolchains and kept outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile

from golang.toolchain import UnavailableError, cache, toolchain

_HERE = os.path.dirname(os.path.abspath(__file__))


def program(name: str, version: str, cgo: bool = False) -> str:
    """The path of `service` or `load` as `version` of Go builds it; built if it is not in the cache yet.

    Its module asks for the language of that release, as a container-aware runtime demands.

    Raises:
        UnavailableError: the toolchain, or a C compiler, can't be had.
    """
    if cgo and shutil.which("gcc") is None:
        raise UnavailableError("there is no gcc")
    source = f"{_HERE}/{name}"
    built = f"{cache()}/programs/proof-{name}-{version}{'-cgo' if cgo else ''}-{_digest(source)}"
    if not os.path.exists(built):
        os.makedirs(os.path.dirname(built), exist_ok=True)
        _build(source, version, cgo, built)
    return built


def _digest(directory: str) -> str:
    digest = hashlib.sha256()
    for name in sorted(os.listdir(directory)):
        with open(f"{directory}/{name}", "rb") as file:
            digest.update(f"{name}\n".encode() + file.read())
    return digest.hexdigest()[:12]


def _build(source: str, version: str, cgo: bool, built: str) -> None:
    go = toolchain(version)
    environ = {
        **os.environ,
        "CGO_ENABLED": "1" if cgo else "0",
        "GOCACHE": f"{cache()}/go-build",
        "GOENV": "off",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as copy:
        shutil.copytree(source, copy, dirs_exist_ok=True)
        line = ".".join(version.split(".")[:2])
        with open(f"{copy}/go.mod", "w", encoding="utf-8") as file:
            file.write(f"module example.com/proof/{os.path.basename(source)}\n\ngo {line}\n")
        new = f"{built}.{os.getpid()}"
        words = [go, "build", "-buildvcs=false", "-o", new, "."]
        done = subprocess.run(words, cwd=copy, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"go build of {os.path.basename(source)}, Go {version}: {done.stderr.strip()}")
    os.rename(new, built)
