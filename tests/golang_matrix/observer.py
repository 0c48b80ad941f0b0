"""A Go program that tells the GOMAXPROCS and memory limit that it runs with.

It is built by a toolchain, with a `go` line in go.mod, and with a module that may set the two, imported for its effect.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile

from golang.toolchain import UnavailableError, cache, toolchain

_MAIN = """\
package main

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
{imports})

func main() {
	// The runtime looks for a new quota while something runs.
	go func() {
		for {
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for in := bufio.NewScanner(os.Stdin); ; {
		limit := strconv.FormatInt(debug.SetMemoryLimit(-1), 10)
		os.Stdout.WriteString(strconv.Itoa(runtime.GOMAXPROCS(0)) + " " + limit + "\\n")
		if !in.Scan() {
			return
		}
	}
}
"""


def observer(version: str, go_line: str, module: str = "") -> str:
    """The program's path; built where it is not in the cache, which a machine that is booted for tests can't do.

    `module` is `PATH@VERSION` of a module whose root package is imported; the Go module proxy has to serve it.

    Raises:
        golang.toolchain.UnavailableError: the toolchain or the module can't be had.
    """
    path, _, module_version = module.partition("@")
    main = _MAIN.replace("{imports}", f'\t_ "{path}"\n' if path else "")
    go_mod = f"module example.com/observer\n\ngo {go_line}\n"
    if path:
        go_mod += f"\nrequire {path} {module_version}\n"
    digest = hashlib.sha256(f"{main}{go_mod}".encode()).hexdigest()[:12]
    built = f"{cache()}/programs/observer-{version}-{digest}"
    if not os.path.exists(built):
        os.makedirs(os.path.dirname(built), exist_ok=True)
        source = tempfile.mkdtemp(prefix="cgagent-test-")
        try:
            _build(toolchain(version), source, {"go.mod": go_mod, "main.go": main})
            shutil.move(f"{source}/observer", f"{built}.{os.getpid()}")
            os.rename(f"{built}.{os.getpid()}", built)
        finally:
            shutil.rmtree(source)
    return built


def _build(go: str, source: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        with open(f"{source}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    environ = {
        **os.environ,
        "GOCACHE": f"{cache()}/go-build",
        "GOMODCACHE": f"{cache()}/go-modules",
        "GOENV": "off",
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    command = [go, "build", "-buildvcs=false", "-o", f"{source}/observer", "."]
    try:
        subprocess.run(command, cwd=source, env=environ, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(error.stderr.strip()) from error
