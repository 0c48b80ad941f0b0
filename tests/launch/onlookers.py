"""Programs that tell what machine they see: Go of several releases with and without cgo, and Java."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache

import pytest

from golang.toolchain import UnavailableError, toolchain
from golang.toolchain import cache as cache_directory

RELEASES = ("1.24.11", "1.25.0", "1.26.6", "1.27.3")
# The child has a runtime of its own, which asks the kernel again.
_GO = """\
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

func main() {
	seen := make(chan string)
	go func() {
		runtime.LockOSThread()
		seen <- fmt.Sprint(runtime.NumCPU(), " ", runtime.GOMAXPROCS(0))
	}()
	fmt.Println(<-seen)
	if len(os.Args) > 1 {
		child := exec.Command("/proc/self/exe")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Run(); err != nil {
			panic(err)
		}
	}
}
"""
_CGO = 'package main\n\nimport "C"\n'
_JAVA = """\
public class Seen {
    public static void main(String[] words) throws Exception {
        Thread thread = new Thread(() -> System.out.println(Runtime.getRuntime().availableProcessors()));
        thread.start();
        thread.join();
    }
}
"""


@cache
def go_program(version: str, cgo: bool) -> str:
    """A program that prints NumCPU and GOMAXPROCS, and with any argument lets a child print its own as well."""
    if cgo and shutil.which("gcc") is None:
        pytest.skip("cgo needs gcc")
    return _built("seen", version, {"main.go": _GO} | ({"c.go": _CGO} if cgo else {}), cgo)


def _built(name: str, version: str, sources: dict[str, str], cgo: bool) -> str:
    files = {**sources, "go.mod": f"module example.com/{name}\n\ngo {version.rpartition('.')[0]}\n"}
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:12]
    built = f"{cache_directory()}/programs/{name}-{version}{'-cgo' * cgo}-{digest}"
    if not os.path.exists(built):
        try:
            _build(toolchain(version), version, files, cgo, built)
        except UnavailableError as error:
            pytest.skip(str(error))
    return built


def _build(go: str, version: str, files: dict[str, str], cgo: bool, built: str) -> None:
    home = cache_directory()
    environ = {**os.environ, "CGO_ENABLED": str(int(cgo)), "GOCACHE": f"{home}/build-{version}", "GOENV": "off"}
    environ |= {"GOFLAGS": "-mod=mod", "GOPATH": f"{home}/path", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    with tempfile.TemporaryDirectory(prefix="cgagent-test-seen-") as place:
        for name, text in files.items():
            with open(f"{place}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        os.makedirs(os.path.dirname(built), exist_ok=True)
        temporary = f"{built}.{os.getpid()}"
        subprocess.run([go, "build", "-C", place, "-o", temporary, "."], env=environ, check=True)
        os.rename(temporary, built)


@cache
def java_class() -> str:
    """The file of a class `Seen` that prints availableProcessors as a thread sees it."""
    compiler = shutil.which("javac")
    if shutil.which("java") is None or compiler is None:
        pytest.skip("no java and javac: apt-get install default-jdk-headless")
    place = f"{cache_directory()}/programs/seen-java-{hashlib.sha256(_JAVA.encode()).hexdigest()[:12]}"
    if not os.path.exists(f"{place}/Seen.class"):
        os.makedirs(place, exist_ok=True)
        with open(f"{place}/Seen.java", "w", encoding="utf-8") as file:
            file.write(_JAVA)
        subprocess.run([compiler, "-d", place, f"{place}/Seen.java"], check=True)
    return f"{place}/Seen.class"


if __name__ == "__main__":  # before a machine is booted that has no network and can't write to the cache
    for release in RELEASES:
        for with_cgo in (False, True):
            with suppress(pytest.skip.Exception):
                go_program(release, with_cgo)
    with suppress(pytest.skip.Exception):
        java_class()
