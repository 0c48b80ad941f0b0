"""The sample service of deploy/sample, built once and kept outside the checkout."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from golang.toolchain import UnavailableError, cache, toolchain

SOURCES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "deploy", "sample")


def sample(version: str) -> str:
    """The static program, built by that version of Go; built again when its sources change.

    Raises:
        UnavailableError: there is no such toolchain, or it does not build.
    """
    digest = hashlib.sha256()
    for name in ("go.mod", "main.go"):
        with open(os.path.join(SOURCES, name), "rb") as file:
            digest.update(file.read())
    built = os.path.join(cache(), "programs", f"sample-{version}-{digest.hexdigest()[:12]}")
    if not os.path.exists(built):
        _build(version, built)
    return built


def _build(version: str, built: str) -> None:
    go = toolchain(version)
    os.makedirs(os.path.dirname(built), exist_ok=True)
    settings = {"CGO_ENABLED": "0", "GOENV": "off", "GOFLAGS": "", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    settings |= {"GOCACHE": os.path.join(cache(), f"build-{version}"), "GOPATH": os.path.join(cache(), "path")}
    temporary = f"{built}.{os.getpid()}"
    words = [go, "build", "-C", SOURCES, "-trimpath", "-ldflags=-s", "-o", temporary, "."]
    done = subprocess.run(words, env=dict(os.environ) | settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(done.stderr.strip())
    os.rename(temporary, built)


if __name__ == "__main__":  # before a machine is booted that has no network
    for one in sys.argv[1:]:
        sample(one)
