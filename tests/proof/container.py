"""The service under `cgagent run`, and what its cgroup says of it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import urllib.request

from kernel.cgroups import holder, read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Self

CGAGENT = os.path.join(os.path.dirname(sys.executable), "cgagent")
_PATIENCE = 30.0
_SEARCH = 2.0


class EndedError(Exception):
    """The service has ended: the kernel killed it, or it failed."""

    def __init__(self) -> None:
        super().__init__("the service has ended")


class FailedError(Exception):
    """What is no result: the service, or something that serves the trial, did not work."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's, without what would change the runtime or cgagent."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("GO", "CGAGENT_", "PYTHON"))}
    return {**kept, **(extra or {})}


class Container:
    """A service under limits. Use it as a context manager: nothing is left behind.

    Attributes:
        place: a directory of its own.
        report: what `--stats-file` says, once it has ended.
        said: the end of what it wrote to standard error, once it has ended.
        address: host:port of the service, once it is ready.
    """

    def __init__(self, place: str, limits: Sequence[str], command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.place = place
        self._file = f"{place}/stats.json"
        self._program = next(word for word in command if "proof-service" in word)
        self._pid = 0
        self._log = open(f"{place}/stderr", "w+", encoding="utf-8")  # noqa: SIM115 - closed by end()
        self.report: dict[str, Any] = {}
        self.said = ""
        self.address = ""
        words = [CGAGENT, "run", "--net", "host", *limits, "--stats-file", self._file, "--", *command]
        self._process = subprocess.Popen(
            words, env=environment(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        if kind is EndedError:
            raise FailedError(f"the service has ended: {self.ending()}") from None

    def wait_ready(self) -> dict[str, Any]:
        """Its first line: address, version, gomaxprocs, gomemlimit.

        Raises:
            EndedError: it ended before it was ready.
        """
        out = self._process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], _PATIENCE)
        line = out.readline() if ready else b""
        if not line:
            raise EndedError
        told: dict[str, Any] = json.loads(line)
        self.address = told["address"]
        assert self.pid
        return told

    @property
    def pid(self) -> int:
        """The service's PID as the host has it."""
        deadline = time.monotonic() + _SEARCH
        while not self._pid:
            self._pid = self._find()
            if self._process.poll() is not None or time.monotonic() > deadline:
                break
        if not self._pid:
            raise EndedError
        return self._pid

    def _find(self) -> int:
        """The descendant that runs the service; 0 if none is seen: the kernel's list may leave out a process."""
        wanted = os.stat(self._program)
        for pid in _descendants(self._process.pid):
            try:
                if os.path.samestat(os.stat(f"/proc/{pid}/exe"), wanted):
                    return pid
            except OSError:
                continue
        return 0

    def lives(self) -> bool:
        """Whether the service has not ended."""
        return os.path.exists(f"/proc/{self.pid}/exe")

    def directory(self, controller: str) -> str:
        """Its cgroup in the hierarchy that has `controller`."""
        mount = holder(controller)
        assert mount is not None
        try:
            lines = read(f"/proc/{self.pid}/cgroup").split("\n")
        except OSError:
            raise EndedError from None
        for line in lines:
            _, names, path = line.split(":", 2)
            if (controller in names.split(",")) if mount.version == 1 else not names:
                return mount.point + path.removeprefix(mount.root)
        raise FailedError(f"no cgroup has the controller {controller}")

    def throttling(self) -> tuple[int, int]:
        """Periods in which it ran, and those in which it was throttled."""
        lines = dict(line.split(" ") for line in self._read("cpu", "cpu.stat").split("\n"))
        return int(lines["nr_periods"]), int(lines["nr_throttled"])

    def memory_usage(self) -> int:
        """Bytes charged to it."""
        return int(self._read("memory", "memory.current", "memory.usage_in_bytes"))

    def _read(self, controller: str, *names: str) -> str:
        """The first of these files of its cgroup that is there."""
        directory = self.directory(controller)
        for name in names:
            try:
                return read(f"{directory}/{name}")
            except FileNotFoundError:
                continue
        raise EndedError

    def set_memory(self, size: int) -> bool:
        """Resize its memory limit as an in-place resize does; False where v1 refuses, for more is in use."""
        directory = self.directory("memory")
        v2 = os.path.exists(f"{directory}/memory.max")
        try:
            write(f"{directory}/{'memory.max' if v2 else 'memory.limit_in_bytes'}", size)
        except OSError:
            return False
        return True

    def stats(self) -> dict[str, float]:
        """What its runtime says of itself.

        Raises:
            EndedError: it does not answer.
        """
        try:
            with urllib.request.urlopen(f"http://{self.address}/stats", timeout=_PATIENCE) as answer:
                told: dict[str, float] = json.load(answer)
        except OSError:
            raise EndedError from None
        return told

    def ending(self) -> str:
        """How it ended, for a message."""
        reasons = "; ".join(self.report["reasons"]) or "cgagent run knows no reason"
        return f"exit code {self.report['exit_code']}: {reasons}; {self.said}"

    def end(self) -> None:
        """End it and read the report; safe to call again.

        Raises:
            FailedError: there is no report.
        """
        if self._log.closed:
            return
        if self._process.poll() is None and not self._is_gone():
            self._process.terminate()
        try:
            self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.seek(0)
        self.said = self._log.read().strip()[-300:]
        self._log.close()
        try:
            with open(self._file, encoding="utf-8") as file:
                self.report = json.load(file)
        except (OSError, ValueError):
            raise FailedError(f"cgagent run left no report: {self.said}") from None

    def _is_gone(self) -> bool:
        """Whether the kernel has just killed it, and cgagent run is about to say so."""
        deadline = time.monotonic() + 0.5
        while self._pid and not os.path.exists(f"/proc/{self._pid}/exe") and time.monotonic() < deadline:
            if self._process.poll() is not None:
                return True
            time.sleep(0.02)
        return False


def _descendants(pid: int) -> Iterator[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            children = read(f"/proc/{pid}/task/{thread}/children").split()
        except OSError:
            continue
        for child in children:
            yield int(child)
            yield from _descendants(int(child))
