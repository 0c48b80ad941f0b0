"""The Go module of deploy/go/cgagent, built by toolchains from the package index."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile

from golang.toolchain import UnavailableError, cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[[str], list[str]]

SOURCES = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "deploy", "go", "cgagent"
)
# The oldest that go.mod allows, the last before Go follows its quota by itself, and the newest.
VERSIONS = ("1.21.13", "1.24.11", "1.27.3")

_MAIN = """\
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

{imports}
)

func main() {
{start}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		word, number, _ := strings.Cut(in.Text(), " ")
		value, _ := strconv.ParseInt(number, 10, 64)
		switch word {
		case "procs":
			runtime.GOMAXPROCS(int(value))
		case "limit":
			debug.SetMemoryLimit(value)
		}
		fmt.Println(runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1))
	}
}
"""
_AUTO = ('	_ "example.com/cgagent/auto"', "")
_EXPLICIT = (
    '	"context"\n	"time"\n\n	"example.com/cgagent"',
    """\
	options := cgagent.Options{EnvFile: os.Args[1], Interval: 50 * time.Millisecond}
	options.Report = func(line string) { fmt.Fprintln(os.Stderr, line) }
	if err := cgagent.Follow(context.Background(), options); err != nil {
		panic(err)
	}""",
)


def environment() -> dict[str, str]:
    """For the `go` command: nothing is fetched, and what is compiled is kept."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": f"{cache()}/go-build",
        "GOENV": "off",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }


def conformance_program(go: str, version: str) -> str:
    """The module's tests as a program, which says what it makes of a tree of kernel files."""
    return _built(version, "test", lambda output: [go, "test", "-c", "-o", output, "."], SOURCES)


def service(go: str, version: str, go_line: str, *, explicit: bool = False) -> str:
    """A program that follows its limits by the module, and tells what it runs with when it is asked."""
    imports, start = _EXPLICIT if explicit else _AUTO
    with tempfile.TemporaryDirectory(prefix="cgagent-test-") as source:
        with open(f"{source}/main.go", "w", encoding="utf-8") as file:
            file.write(_MAIN.replace("{imports}", imports).replace("{start}", start))
        with open(f"{source}/go.mod", "w", encoding="utf-8") as file:
            file.write(
                f"module example.com/service\n\ngo {go_line}\n\nrequire example.com/cgagent v0.0.0\n\n"
                f"replace example.com/cgagent => {SOURCES}\n"
            )
        kind = f"service-{go_line}-{'explicit' if explicit else 'auto'}"
        return _built(version, kind, lambda output: [go, "build", "-buildvcs=false", "-o", output, "."], source)


def _built(version: str, kind: str, command_of: Command, source: str) -> str:
    digest = hashlib.sha256()
    for top in dict.fromkeys((SOURCES, source)):
        for directory, _, names in sorted(os.walk(top)):
            for name in sorted(names):
                with open(f"{directory}/{name}", "rb") as file:
                    digest.update(f"{name}\n".encode() + file.read())
    built = f"{cache()}/programs/module-{version}-{kind}-{digest.hexdigest()[:12]}"
    if not os.path.exists(built):
        os.makedirs(os.path.dirname(built), exist_ok=True)
        command = command_of(f"{built}.{os.getpid()}")
        done = subprocess.run(command, cwd=source, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(done.stderr.strip())
        os.rename(f"{built}.{os.getpid()}", built)
    return built
