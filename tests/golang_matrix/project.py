"""A small Go program with dependencies of every kind, and its builds."""

from __future__ import annotations

import os
import subprocess
import zipfile

from golang.toolchain import cache

_MAIN = """\
package main

import (
	"example.com/dep"
	"example.com/forked"
	"example.com/local"
	"runtime"
)

var note string

func main() {
	println(runtime.GOMAXPROCS(0), note, dep.Name, forked.Name, local.Name)
}
"""
# One dependency as it is, one that another version replaces, one that a directory replaces.
_GO_MOD = """\
module example.com/orders

go {line}

require (
	example.com/dep v1.2.3
	example.com/forked v0.9.0
	example.com/local v0.0.0
)

replace (
	example.com/forked => example.com/fork v0.9.1
	example.com/local => ./local
)
"""


class Project:
    """The program's source below `top`, and a module proxy of files that serves its dependencies."""

    def __init__(self, top: str, go_line: str = "1.21") -> None:
        self.source = f"{top}/orders"
        self._top = top
        _write(f"{self.source}/go.mod", _GO_MOD.format(line=go_line))
        _write(f"{self.source}/main.go", _MAIN)
        _write(f"{self.source}/local/go.mod", "module example.com/local\n")
        _write(f"{self.source}/local/local.go", 'package local\n\nconst Name = "local"\n')
        _publish(f"{top}/proxy", "example.com/dep", "v1.2.3", "dep")
        _publish(f"{top}/proxy", "example.com/fork", "v0.9.1", "forked", module="example.com/forked")

    def build(self, go: str, output: str, *flags: str, goarch: str = "amd64") -> subprocess.CompletedProcess[str]:
        """Run `go build` for Linux on `goarch`, without network and without cgo."""
        command = [go, "build", "-mod=mod", "-buildvcs=false", "-o", output, *flags, "."]
        return subprocess.run(
            command, cwd=self.source, env=self._environment(goarch), capture_output=True, text=True, check=False
        )

    def _environment(self, goarch: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": self._top,
            "GOOS": "linux",
            "GOARCH": goarch,
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOPROXY": f"file://{self._top}/proxy",
            "GOSUMDB": "off",
            "GOMODCACHE": f"{self._top}/modules",
            "GOFLAGS": "-modcacherw",
            # The standard library of each version and architecture is compiled but once.
            "GOCACHE": f"{cache()}/go-build",
        }


def _publish(proxy: str, path: str, version: str, package: str, module: str = "") -> None:
    """Put a module with one file into a proxy of files (https://go.dev/ref/mod#goproxy-protocol)."""
    go_mod = f"module {module or path}\n"
    _write(f"{proxy}/{path}/@v/{version}.info", f'{{"Version":"{version}"}}')
    _write(f"{proxy}/{path}/@v/{version}.mod", go_mod)
    with zipfile.ZipFile(f"{proxy}/{path}/@v/{version}.zip", "w") as archive:
        archive.writestr(f"{path}@{version}/go.mod", go_mod)
        archive.writestr(f"{path}@{version}/{package}.go", f'package {package}\n\nconst Name = "{package}"\n')


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
