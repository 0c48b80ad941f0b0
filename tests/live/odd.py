"""Programs that are nearly, or nearly not, what is understood: other compilers, obfuscation, emulated machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from golang.toolchain import UnavailableError, cache, toolchain

GO = "1.27.3"
# Garble's release that takes GO, from the Go module proxy.
GARBLE = "mvdan.cc/garble@v0.18.0"
_MAIN = """\
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println(len(os.Args))
	os.Stdin.Read(make([]byte, 1))
}
"""


def odd_program(kind: str) -> str:
    """The path of a program: `gccgo`, `garble`, `garble -tiny`, or a machine's name that Go builds for.

    Raises:
        UnavailableError: what builds it can't be had.
    """
    built = f"{cache()}/programs/odd-{GO}-{kind.replace(' ', '')}"
    if os.path.exists(built):
        return built
    os.makedirs(os.path.dirname(built), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as source:
        for name, text in (("main.go", _MAIN), ("go.mod", "module example.com/odd\n\ngo 1.21\n")):
            with open(f"{source}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        output = f"{built}.{os.getpid()}"
        _run(_command(kind, output), source, "" if kind == "gccgo" or kind.startswith("garble") else kind)
    os.rename(output, built)
    return built


def _command(kind: str, output: str) -> list[str]:
    if kind == "gccgo":
        if shutil.which("gccgo") is None:
            raise UnavailableError("there is no gccgo (Debian: gccgo)")
        return ["gccgo", "-static-libgo", "-o", output, "main.go"]
    if kind.startswith("garble"):
        return [_garble(), *kind.split()[1:], "build", "-o", output, "."]
    return [toolchain(GO), "build", "-buildvcs=false", "-o", output, "."]


def _garble() -> str:
    directory = f"{cache()}/garble"
    if not os.path.exists(f"{directory}/garble"):
        os.makedirs(directory, exist_ok=True)
        _run([toolchain(GO), "install", GARBLE], directory, "", GOBIN=directory)
    return f"{directory}/garble"


def _run(command: list[str], directory: str, machine: str, **more: str) -> None:
    go = os.path.dirname(toolchain(GO))
    environ = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": f"{cache()}/go-build",
        "GOENV": "off",
        "GOFLAGS": "-mod=mod",
        "GOMODCACHE": f"{cache()}/go-modules",
        "GOTOOLCHAIN": "local",
        "PATH": f"{go}:{os.environ['PATH']}",
        **more,
    }
    if machine:
        environ["GOARCH"] = machine
    done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{' '.join(command[:3])}: {done.stderr.strip()[-300:]}")
