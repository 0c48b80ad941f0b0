"""The load generator: a process of its own on the last CPU, before everybody else there."""

from __future__ import annotations

import json
import os
import subprocess

from proof import plan
from proof.container import FailedError, environment
from proof.programs import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CPU = max(os.sched_getaffinity(0))
NICENESS = -15
CLOSED_CONNECTIONS, OPEN_CONNECTIONS = 8, 32


class Load:
    """Load that has started; `wait` gives the generator's result."""

    def __init__(self, address: str, seconds: float, rate: float | None = None) -> None:
        words = [program("load", plan.NEW), "-address", address, "-length", f"{seconds}s"]
        words += ["-connections", str(OPEN_CONNECTIONS if rate else CLOSED_CONNECTIONS), "-rate", f"{rate or 0:.3f}"]
        pipe = subprocess.PIPE
        environ = environment({"GOMAXPROCS": "2"})
        self._process = subprocess.Popen(words, env=environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        os.sched_setaffinity(self._process.pid, {CPU})
        os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> dict[str, Any]:
        """Requests, per_second, p50_seconds, p99_seconds, failed and so on, as load/main.go names them.

        Raises:
            FailedError: the generator itself failed.
        """
        out, err = self._process.communicate()
        if self._process.returncode:
            raise FailedError(f"the load generator ended with {self._process.returncode}: {err.decode()[-300:]}")
        result: dict[str, Any] = json.loads(out)
        return result

    def stop(self) -> None:
        """End it, whatever it has measured."""
        if self.running():
            self._process.kill()
        self._process.communicate()


def drive(address: str, seconds: float, rate: float | None = None) -> dict[str, Any]:
    """Load for so long: closed loop, or open at `rate` requests a second."""
    return Load(address, seconds, rate).wait()
