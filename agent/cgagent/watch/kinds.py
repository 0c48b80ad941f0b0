"""The kinds of hooks: a signal, a command, a POST, a new limit for a running program; and how each is written."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

from cgagent.errors import UsageError
from cgagent.watch.hooks import Change, EndingError, Hook, HookError
from cgagent.watch.tunehook import TUNE, TuneHook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT = 10.0
# Above sysexits.h, of which cgagent has 78, and below a shell's and signals' own.
_CODES = 79, 125


class SignalHook(Hook):
    """Sends a signal to the target."""

    needs_target = True

    def __init__(self, name: str, timeout: float, number: int) -> None:
        super().__init__(name, timeout)
        self.number = number

    def run(self, change: Change) -> None:
        """Send it; to a process that has ended since, never to another that got its PID."""
        if change.target is None:
            raise HookError("the target is not running")
        try:
            change.target.send(self.number)
        except OSError as error:
            raise HookError(f"process {change.target.pid}: {(error.strerror or str(error)).lower()}") from None


class ExecHook(Hook):
    """Runs a command, without a shell, its output on our stderr."""

    def __init__(self, name: str, timeout: float, argv: Sequence[str]) -> None:
        super().__init__(name, timeout)
        self.argv = list(argv)
        self._running: int | None = None
        self._cancelled = False

    def run(self, change: Change) -> None:
        """Run it to its end; at the end of its time kill it and all that it has started."""
        try:
            pid = os.posix_spawnp(
                self.argv[0],
                self.argv,
                change.environment(os.environ),
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
                setpgroup=0,
                # Python ignores these two from its start; a command must have them as every program expects.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            raise HookError(f"{self.argv[0]}: {(error.strerror or str(error)).lower()}") from None
        self._running = pid
        if self._cancelled:  # while it was being started
            _signal_group(pid, signal.SIGTERM)
        try:
            if not _ends_within(pid, self.timeout):
                _signal_group(pid, signal.SIGKILL)
                raise HookError(f"killed after {self.timeout:g} s")
        finally:
            self._running = None
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            _reap_orphans()
        if code:
            raise HookError(f"ended with {code}" if code > 0 else f"ended by signal {-code}")

    def cancel(self) -> None:
        """End the command that runs."""
        self._cancelled = True
        pid = self._running
        if pid is not None:
            _signal_group(pid, signal.SIGTERM)


class HttpHook(Hook):
    """POSTs the change as JSON; a status of 200 to 299 is success."""

    def __init__(self, name: str, timeout: float, url: str) -> None:
        super().__init__(name, timeout)
        self.url = url
        self._posting: threading.Thread | None = None

    def run(self, change: Change) -> None:
        """Post it. What can't be interrupted (a name that is being resolved) is left to end by itself."""
        from cgagent.watch.post import Post

        if self._posting is not None and self._posting.is_alive():
            raise HookError(f"{self.url}: the request before is still on its way")
        post = Post(self.url, change.document(), self.timeout)
        self._posting = threading.Thread(target=post.send, name=f"hook {self.name}", daemon=True)
        try:
            self._posting.start()
        except RuntimeError as error:  # pids.max
            raise HookError(str(error)) from None
        self._posting.join(self.timeout)
        if self._posting.is_alive():
            post.abort()
            raise HookError(f"{self.url}: no answer within {self.timeout:g} s")
        if post.problem:
            raise HookError(f"{self.url}: {post.problem}")


class ExitHook(Hook):
    """Ends the agent with a code that somebody acts on: Kubernetes restarts all containers of the pod, if so told."""

    def __init__(self, name: str, timeout: float, code: int) -> None:
        super().__init__(name, timeout)
        self.code = code

    def run(self, change: Change) -> None:  # noqa: ARG002 whatever has changed
        """End."""
        raise EndingError(self.code)


def _ends_within(pid: int, seconds: float) -> bool:
    """Whether the child `pid` ends within `seconds`."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # a sandbox, or a kernel before 5.3
        return _ends_by_polling(pid, time.monotonic() + seconds)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))
    finally:
        os.close(fd)


def _ends_by_polling(pid: int, deadline: float) -> bool:
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except OSError:
        pass  # it has just ended


def _reap_orphans() -> None:
    """Where we are PID 1 of a container, what commands leave behind is ours to reap."""
    try:
        while os.getpid() == 1 and os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def parse_signal(text: str, what: str) -> int:
    """`text` as a signal: `HUP`, `SIGHUP` or its number.

    Raises:
        UsageError: there is no such signal.
    """
    name = text.upper().removeprefix("SIG")
    found = getattr(signal, f"SIG{name}", None)
    if isinstance(found, signal.Signals):
        return int(found)
    if text.isascii() and text.isdigit() and int(text[:4]) in signal.valid_signals():
        return int(text[:4])
    raise UsageError(f"{what}: '{text}' is not a signal", "write HUP, USR1 or a number")


def parse_url(text: str, what: str) -> str:
    """`text` as the URL of a hook.

    Raises:
        UsageError: it is none.
    """
    scheme, _, rest = text.partition("://")
    host = rest.partition("/")[0]
    if "@" in host:
        raise UsageError(f"{what}: a password in a URL ends up in logs", "leave it out")
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    plain = text.isascii() and text.isprintable() and not any(char in text for char in ' "<>\\^`{|}')
    if scheme not in ("http", "https") or not host or not plain or (colon and not (name and port.isdigit())):
        raise UsageError(f"{what}: '{text}' is not a URL", "write http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")
    return text


def parse_code(text: str, what: str) -> int:
    """`text` as an exit code that nothing else gives.

    Raises:
        UsageError: it is none.
    """
    if text.isascii() and text.isdigit() and _CODES[0] <= int(text[:4]) <= _CODES[1]:
        return int(text[:4])
    raise UsageError(f"{what}: '{text}' is not an exit code for a hook", "write a number from 79 to 125")


def parse_hook(text: str, what: str) -> Hook:
    """`text` as the option has it: `signal:HUP`, `exec:/bin/program`, `http://host/path`, `exit:88` or `tune`.

    Raises:
        UsageError: it is none.
    """
    kind, _, value = text.partition(":")
    if kind in ("http", "https"):
        return HttpHook(text, TIMEOUT, parse_url(text, what))
    if kind == "signal" and value:
        return SignalHook(text, TIMEOUT, parse_signal(value, what))
    if kind == "exec" and value:
        return ExecHook(text, TIMEOUT, [value])
    if kind == "exit" and value:
        return ExitHook(text, TIMEOUT, parse_code(value, what))
    if text == TUNE:
        return TuneHook(text, TIMEOUT)
    hint = "write signal:HUP, exec:/path/to/program, http://host:port/path, tune or exit:CODE"
    raise UsageError(f"{what}: '{text}' is not a hook", f"{hint}; arguments and time limits go into the config file")
