"""`cgagent watch` as users run it, and its env file read back as its readers read it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time

from kernel import agent
from support import kubelet_env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kernel.cgroups import Group

# A booted kernel under emulation is some 20 times slower than the machine.
PATIENCE = 60.0
CPUS = len(os.sched_getaffinity(0))
# GOMAXPROCS without a quota: unset, or the CPUs that may be used where they are not all of the machine's.
UNBOUND = None if os.cpu_count() == CPUS else CPUS
_MARK = re.compile(rb"# written by cgagent [^\n]+\n(?:GOMAXPROCS='[1-9][0-9]*'\n)?(?:GOMEMLIMIT='[1-9][0-9]*'\n)?")


def wait_until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until `condition` holds; say `what` did not come about if it never does."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"not within {patience} s: {what}"
        time.sleep(0.002)


def read_env(path: str) -> tuple[int | None, int | None]:
    """GOMAXPROCS and GOMEMLIMIT in an env file, which has to be a whole one."""
    with open(path, "rb") as file:
        data = file.read()
    assert _MARK.fullmatch(data), f"half a file: {data!r}"
    found = [kubelet_env.lookup(data, name) for name in ("GOMAXPROCS", "GOMEMLIMIT")]
    procs, memory = (int(text) if text else None for text in found)
    return procs, memory


def _status(directory: str) -> dict[str, str]:
    with open(f"{directory}/status", encoding="ascii") as file:
        return dict(line.split(":", 1) for line in file.read().splitlines())


class Sidecar:
    """A running `cgagent watch`.

    Attributes:
        env_file: the file that it keeps.
        pid: its PID.
    """

    def __init__(
        self,
        place: str,
        options: Sequence[str],
        group: Group | None = None,
        *,
        env_file: str | None = None,
        prefix: Sequence[str] = (),
        poll: str = "1h",
    ) -> None:
        self.env_file = env_file or f"{place}/go.env"
        # Appending: the offset is one with that of the process, which would write where the log is being read.
        self._log = tempfile.TemporaryFile("a+")  # noqa: SIM115 closed when the process is gone
        command = [*prefix, *agent.CGAGENT, "watch", "--env-file", self.env_file, "--poll", poll, *options]
        words = command if group is None else group.enter(command)
        self._process = subprocess.Popen(words, env=agent.environment(), stderr=self._log, stdout=self._log)
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        """All that it has said so far."""
        self._log.seek(0)
        return self._log.read()

    def env(self) -> tuple[int | None, int | None]:
        """What the env file says."""
        return read_env(self.env_file)

    def ready(self) -> Sidecar:
        """Wait until the env file is there."""
        self.until(lambda: os.path.exists(self.env_file), "the first env file")
        return self

    def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait until `condition` holds, while the sidecar lives."""

        def holds() -> object:
            assert self._process.poll() is None, f"it ended with {self._process.returncode}: {self.log}"
            return condition()

        try:
            wait_until(holds, what, patience)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def shows(self, procs: int | None, memory: int | None, patience: float = PATIENCE) -> None:
        """Wait until the env file says this."""
        try:
            self.until(lambda: self.env() == (procs, memory), f"{(procs, memory)}", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}\nthe env file says {self.env()}") from None

    def says(self, text: str) -> None:
        """Wait until the log says this."""
        self.until(lambda: text in self.log, f"'{text}' in the log")

    def port(self) -> int:
        """Where it serves on loopback, of which it was told `127.0.0.1:0`."""
        self.says("msg=serving addresses=127.0.0.1:")
        return int(self.log.partition("addresses=127.0.0.1:")[2].partition(" ")[0])

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        code = self._process.wait(PATIENCE)
        assert "Traceback" not in self.log, self.log
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        return self.end()

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def figures(self) -> tuple[int, int, int]:
        """Open descriptors, threads, and anonymous memory in KiB; at work it has more than `at_rest`."""
        status = _status(f"/proc/{self.pid}")
        return (
            len(os.listdir(f"/proc/{self.pid}/fd")),
            int(status["Threads"]),
            int(status["RssAnon"].split()[0]),
        )

    def at_rest(self) -> tuple[int, int, int]:
        """The same figures once every thread has slept for a while."""
        last = -1

        def rests() -> bool:
            nonlocal last
            before, last = last, self.wake_ups()
            time.sleep(0.1)
            return before == last == self.wake_ups() and self._sleeps()

        self.until(rests, "rest")
        return self.figures()

    def _sleeps(self) -> bool:
        return all(status["State"].split()[0] == "S" for status in self._tasks())

    def wake_ups(self) -> int:
        """How often its threads have waited so far (voluntary context switches)."""
        return sum(int(status["voluntary_ctxt_switches"]) for status in self._tasks())

    def _tasks(self) -> list[dict[str, str]]:
        found = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
                found.append(_status(f"/proc/{self.pid}/task/{task}"))
        return found
