"""The trial of a resize: a memory limit lowered and raised again under load, with something that follows or without."""

from __future__ import annotations

import os
import subprocess
import time

from proof import plan
from proof.container import CGAGENT, Container, EndedError, FailedError, environment
from proof.generator import Load
from proof.programs import program
from proof.trials import MEMORY_CPUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proof.trials import Bench

# Open loop, of what one CPU serves: the heap must not have grown past the lower limit before anybody can resize.
_LOAD = 0.25
_EARLY = 200 * plan.MIB  # in use: the heap grows, and the lower limit may still be set
_EARLIEST = 0.5
_SETTLED = 2.5  # seconds after which the heap has been at its full size
_TRIES = 2.0  # seconds for which a refused resize is tried again
_AGAIN = 0.02


class Follower:
    """What tells the service of its new limit, or nothing.

    Its directory stands for the downward-API volume: a wish is there before the cgroup is resized.
    """

    def __init__(self, setting: str, place: str, pid: int) -> None:
        self._setting = setting
        self._pid = pid
        self._volume = f"{place}/volume"
        self._environ = environment({"CGAGENT_STATE_DIR": f"{place}/state"})
        self._sidecar: subprocess.Popen[bytes] | None = None
        os.mkdir(self._volume)
        self.wish(plan.HIGH)
        if setting == plan.SIDECAR:
            file = f"{place}/go.env"
            words = [CGAGENT, "watch", "--target", str(pid), "--env-file", file, "--hook", "tune"]
            words += ["--limits-dir", self._volume]
            with open(f"{place}/sidecar", "wb") as log:
                self._sidecar = subprocess.Popen(words, env=self._environ, stdin=subprocess.DEVNULL, stderr=log)
            if not until(lambda: os.path.exists(file), 10):
                self.end()
                raise FailedError("the sidecar has written no env file")

    def wish(self, size: int) -> None:
        """Name the limit that is to come, as the kubelet does: the file is replaced."""
        with open(f"{self._volume}/new", "w", encoding="utf-8") as file:
            file.write(f"{size}\n")
        os.rename(f"{self._volume}/new", f"{self._volume}/memory_limit_bytes")

    def resized(self) -> None:
        """The cgroup has its new limit."""
        if self._setting != plan.TUNE:
            return
        words = [CGAGENT, "tune", "--pid", str(self._pid), "--memory-limit", "auto"]
        done = subprocess.run(words, env=self._environ, capture_output=True, text=True, check=False)
        if done.returncode and os.path.exists(f"/proc/{self._pid}/exe"):
            raise FailedError(f"cgagent tune: {done.stderr.strip()[-300:]}")

    def end(self) -> None:
        """End the sidecar."""
        if self._sidecar is not None:
            self._sidecar.terminate()
            self._sidecar.wait()


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait for something to hold, for so long at most."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(_AGAIN)
    return holds()


def following(bench: Bench, case: dict[str, Any]) -> dict[str, Any]:
    """From 420 to 300 MiB and back."""
    command = [CGAGENT, "exec", "--", program("service", plan.NEW), "-live", str(plan.FOLLOWING_LIVE)]
    limits = ["--cpus", MEMORY_CPUS, "--memory", str(plan.HIGH)]
    found: dict[str, Any] = {"gomemlimit": [], "resized_after": None}
    with bench.container(limits, command) as service:
        told = service.wait_ready()
        found["gomemlimit"].append(told["gomemlimit"])
        follower = Follower(case["setting"], service.place, service.pid)
        found["rate"] = _LOAD * bench.one_cpu
        load = Load(service.address, bench.lengths.following, found["rate"])
        try:
            _resize(bench, case["when"], service, follower, found)
            found["load"] = load.wait()
        except EndedError:
            found["load"] = load.wait()
        finally:
            load.stop()
            follower.end()
    found["killed"] = bool(service.report["oom_killed"])
    if found["load"]["failed"] and not found["killed"]:
        why = f"{found['load']['failed']}: {service.ending()}"
        raise FailedError(f"the service failed, and not for want of memory: {why}")
    found["killed_after"] = found["load"]["failed_at_seconds"] - found["lowered_at"] if found["killed"] else None
    found["peak_bytes"] = service.report["memory"]["peak_bytes"]
    return found


def _resize(bench: Bench, when: str, service: Container, follower: Follower, found: dict[str, Any]) -> None:
    """Lower the limit and raise it; `found` is told when, and what the program's limit became."""
    start = time.monotonic()
    if when == plan.GROWING:
        time.sleep(_EARLIEST)
        until(lambda: service.memory_usage() > _EARLY, _SETTLED)
    else:
        time.sleep(_SETTLED)
    found["usage_before"] = service.memory_usage()
    lowered = time.monotonic()
    found["lowered_at"] = lowered - start
    follower.wish(plan.LOW)
    if until(lambda: service.set_memory(plan.LOW), _TRIES):
        found["resized_after"] = time.monotonic() - lowered
        follower.resized()
    until(lambda: not service.lives(), start + bench.lengths.raised - time.monotonic())
    found["gomemlimit"].append(service.stats()["gomemlimit"])
    found["usage_low"] = service.memory_usage()
    follower.wish(plan.HIGH)
    if not service.set_memory(plan.HIGH):
        raise FailedError("the limit can't be raised")
    found["raised_at"] = time.monotonic() - start
    follower.resized()
    until(lambda: not service.lives(), 1.5)
    found["gomemlimit"].append(service.stats()["gomemlimit"])
