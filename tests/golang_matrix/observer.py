"""A Go program that tells the GOMAXPROCS and memory limit that it runs with, by toolchain and go.mod's `go` line."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile

from golang.toolchain import cache, toolchain

_MAIN = """\
package main

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
)

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


def observer(version: str, go_line: str) -> str:
    """The program's path; built where it is not in the cache, which a machine that is booted for tests can't do.

    Raises:
        golang.toolchain.UnavailableError: the toolchain can't be had.
        subprocess.CalledProcessError: it can't be built.
    """
    digest = hashlib.sha256(_MAIN.encode()).hexdigest()[:12]
    built = f"{cache()}/programs/observer-{version}-{go_line}-{digest}"
    if os.path.exists(built):
        return built
    go = toolchain(version)
    os.makedirs(os.path.dirname(built), exist_ok=True)
    source = tempfile.mkdtemp(prefix="cgagent-test-")
    try:
        for name, text in (("go.mod", f"module example.com/observer\n\ngo {go_line}\n"), ("main.go", _MAIN)):
            with open(f"{source}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": source,
            "GOCACHE": f"{cache()}/go-build",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
        }
        command = [go, "build", "-buildvcs=false", "-o", f"{source}/observer", "."]
        subprocess.run(command, cwd=source, env=environ, check=True, capture_output=True, text=True)
        shutil.move(f"{source}/observer", f"{built}.{os.getpid()}")
        os.rename(f"{built}.{os.getpid()}", built)
    finally:
        shutil.rmtree(source)
    return built
