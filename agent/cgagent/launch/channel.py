"""What launcher and container say to each other: pipes.

- go: the launcher says `g` when the namespaces have their maps and their network.
- report: carries one error, if there is one; closes when the command has been exec'ed.
- end: PID 1 says the command's exit code before it ends itself, so that both ends clean up at the same time.
"""

from __future__ import annotations

import os

from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.cgroups import Cgroups
    from cgagent.launch.shown.supervisor import Supervisor

_OPEN_MAX = 1 << 20


class Caller(Record):
    """What the command has from the launcher's caller.

    Attributes:
        directory: the working directory.
        umask: file mode creation mask.
        mask: blocked signals.
        alone: whether no terminal controls us: the command then gets a process group of its own, so that a signal
            for our group reaches it once, by us. At a terminal it shares ours, and job control.
    """

    __slots__ = ("alone", "directory", "mask", "umask")

    def __init__(self, directory: str, umask: int, mask: frozenset[int], alone: bool) -> None:
        self.directory = directory
        self.umask = umask
        self.mask = mask
        self.alone = alone

    @classmethod
    def here(cls, mask: frozenset[int]) -> Caller:
        """As this process has it from its own caller; `mask` is what was blocked."""
        try:
            directory = os.getcwd()
        except OSError:
            directory = "/"
        umask = os.umask(0)
        os.umask(umask)
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
            alone = False
        except OSError:
            alone = True
        return cls(directory, umask, mask, alone)


class Joined(Record):
    """A cgroup to show inside, and to enter first if it is the container's own.

    Attributes:
        version: 1 or 2.
        directory: on the host; empty where the command stays in the caller's.
        name: below /sys/fs/cgroup; empty for a v2 mount at that place itself.
        options: v1's mount data.
    """

    __slots__ = ("directory", "name", "options", "version")

    def __init__(self, version: int, directory: str, name: str, options: str) -> None:
        self.version = version
        self.directory = directory
        self.name = name
        self.options = options


class Orders(Record):
    """What the launcher has prepared for the container.

    Attributes:
        cgroups: the container's.
        aliases: links beside the cgroup mounts: (name, target).
        environ: variables for the command.
        program: the seccomp filter; empty for none.
        resolver: the text of resolv.conf; empty to leave the root's alone.
        namespaces: where the host has namespaces mounted.
        supervisor: who shows another machine; None where the command sees this one.
    """

    __slots__ = ("aliases", "cgroups", "environ", "namespaces", "program", "resolver", "supervisor")

    def __init__(
        self,
        cgroups: list[Joined],
        aliases: list[tuple[str, str]],
        resolver: str,
        environ: dict[str, str],
        program: bytes,
        namespaces: list[str],
    ) -> None:
        self.cgroups = cgroups
        self.aliases = aliases
        self.resolver = resolver
        self.environ = environ
        self.program = program
        self.namespaces = namespaces
        self.supervisor: Supervisor | None = None

    @classmethod
    def of(cls, made: Cgroups, resolver: str, environ: dict[str, str], program: bytes) -> Orders:
        """For the cgroups `made`, shown where the host has its own."""
        base = "/sys/fs/cgroup"
        joined = []
        for one in (*made.made, *made.shared):
            name = (
                one.mount.removeprefix(base).lstrip("/") if one.mount.startswith(base) else os.path.basename(one.mount)
            )
            joined.append(Joined(one.version, "" if one in made.shared else one.directory, name, one.options))
        aliases = []
        if joined and joined[0].name:
            with os.scandir(base) as entries:
                aliases = [(entry.name, os.readlink(entry.path)) for entry in entries if entry.is_symlink()]
        return cls(joined, aliases, resolver, environ, program, made.namespaces)

    def unified(self) -> str | None:
        """The v2 directory."""
        return next((one.directory for one in self.cgroups if one.version == 2 and one.directory), None)


class Channel:
    """The pipes, and a socket for the command's terminal where it has one. Every end is closed on exec."""

    def __init__(self, terminal: bool) -> None:
        self._go, self._go_in = os.pipe()
        self._report, self._report_in = os.pipe()
        self.end, self._end_in = os.pipe()
        self._with_terminal = terminal
        if terminal:
            import _socket

            self.terminal, self.terminal_in = _socket.socketpair()

    # The launcher's side.

    def keep_outer_end(self) -> None:
        """Close what belongs to the container."""
        os.close(self._go)
        os.close(self._report_in)
        os.close(self._end_in)
        if self._with_terminal:
            self.terminal_in.close()

    def go(self) -> None:
        """The namespaces have their maps and their network: the container may set itself up."""
        try:
            os.write(self._go_in, b"g")
        except BrokenPipeError:
            pass  # the container has failed, and its report says why
        os.close(self._go_in)

    def error(self) -> CgagentError | None:
        """Wait until the command runs; what kept it from that, or None."""
        data = b""
        while piece := os.read(self._report, 4096):
            data += piece
        os.close(self._report)
        if not data:
            return None
        # PID 1 and the command may both have failed: the first to say so counts.
        code, message, hint = os.fsdecode(data).split("\0")[:3]
        return CgagentError(message, hint, int(code))

    # The container's side.

    def wait(self) -> None:
        """Wait for the launcher's word; its death ends us too."""
        os.close(self._go_in)
        os.close(self._report)
        if os.read(self._go, 1) != b"g":
            os._exit(EXIT_RUN_FAILED)
        os.close(self._go)

    def report(self, error: CgagentError) -> None:
        """Send what went wrong."""
        parts = (str(error.exit_code), error.message, error.hint)
        text = "".join(part.replace("\0", " ") + "\0" for part in parts)
        try:
            os.write(self._report_in, os.fsencode(text))
        except OSError:
            pass

    def keep_last(self) -> int:
        """The end pipe's number; PID 1 closes all others."""
        return self._end_in

    def close_others(self, first: int) -> None:
        """Close every file from number `first` on, but for the report pipe, which exec closes."""
        if self._report_in < first:
            os.closerange(first, _OPEN_MAX)
            return
        os.closerange(first, self._report_in)
        os.closerange(self._report_in + 1, _OPEN_MAX)
