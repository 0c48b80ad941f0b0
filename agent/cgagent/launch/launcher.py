"""The launcher: starts a container, stays with it to its end, tells why it ended, leaves nothing behind.

All modules that every start needs are loaded, and all cgroups made, before launcher and container part: two
processes that fill their memory side by side copy each other's pages, which costs more than it saves.
"""

from __future__ import annotations

import os
import select
import time

from cgagent.errors import EXIT_FAILURE, EXIT_RUN_FAILED, CgagentError
from cgagent.launch import names
from cgagent.launch.cgroups import Cgroups
from cgagent.launch.channel import Caller, Channel
from cgagent.launch.failure import failure, reason, refused
from cgagent.launch.identity import User, find_user, map_ids
from cgagent.launch.init import contain
from cgagent.launch.preparation import network_plan, orders_for, scene_to_show
from cgagent.launch.resources import UNLIMITED
from cgagent.launch.signals import Signals
from cgagent.launch.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MACHINES,
    clone,
    prlimit,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from cgagent.launch.keeper import Keeper
    from cgagent.launch.network import Plan
    from cgagent.launch.report import StatsFile
    from cgagent.launch.shown.supervisor import Supervisor
    from cgagent.launch.spec import Spec
    from cgagent.launch.tty import Terminal
else:
    import _signal as signal

# The cgroup namespace follows when the command has entered its cgroups: it shows where one stands as the root.
_FLAGS = {
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "mnt": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "user": CLONE_NEWUSER,
    "cgroup": 0,
}
# A command that runs longer than this has a keeper. One that does not is gone before a keeper would be ready; what a
# launcher killed so early leaves is the next start's to remove.
_SHORT_MS = 10


def launch(spec: Spec) -> int:
    """Run the container that `spec` describes; return the command's exit code.

    Raises:
        CgagentError: it could not be set up (125), or the command could not be started (126, 127).
    """
    _check_machine()
    try:
        for fd in range(3):
            try:
                os.fstat(fd)
            except OSError:
                # Held until exec, or our pipes would become the command's stdin.
                os.open(os.devnull, os.O_RDWR)
        container = Container(spec)
        try:
            container.start()
            try:
                return container.wait()
            except OSError as error:
                raise failure(f"cannot wait for the command: {reason(error)}") from None
        finally:
            container.end()
    except OSError as error:
        raise refused(error) from None
    except CgagentError as error:
        # What the readers of cgroups and of users find wrong is ours to report.
        if error.exit_code == EXIT_FAILURE:
            error.exit_code = EXIT_RUN_FAILED
        raise


class Container:
    """One container, seen from outside."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.name = names.own()
        self.pid = 0
        self.cgroups = Cgroups(self.name)
        self.began = time.monotonic()
        self._undo: list[Callable[[], None]] = []
        self._keeper: Keeper | None = None
        self._terminal: Terminal | None = None
        self._stats: StatsFile | None = None
        self._supervisor: Supervisor | None = None

    def start(self) -> None:
        """Bring it up to the exec of its command."""
        spec = self.spec
        user = find_user(spec.user, spec.rootfs or "/")
        plan = network_plan(spec)
        if spec.stats_file is not None:
            from cgagent.launch.report import StatsFile

            self._stats = StatsFile(spec.stats_file)
        channel = self._channel = Channel(spec.tty)
        signals = self._signals = Signals(spec.stop_timeout)
        scene = scene_to_show(spec)
        self.cgroups.create(spec.resources, spec.cgroup_parent, spec.best_effort)
        orders = orders_for(spec, self.cgroups, plan, scene)
        self._supervisor = orders.supervisor
        self.pid = _clone(sum(_FLAGS[name] for name in spec.namespaces))
        if self.pid == 0:
            contain(spec, user, channel, Caller.here(signals.mask), self.name, orders)
        channel.keep_outer_end()
        self._admit(user, plan)
        if self._supervisor is not None:
            self._supervisor.start(self.pid)
        channel.go()
        if spec.tty:
            self._take_terminal(channel)
        if self._undo:
            self._keep()  # a raw terminal or a network is not to be left behind for a moment
        if self._terminal is not None:
            self._terminal.begin()
        self._sweep()
        error = channel.error()
        if error is not None:
            raise error
        for line in self.cgroups.missing:
            _say(line)

    def _admit(self, user: User, plan: Plan | None) -> None:
        """Give the new namespaces what only comes from outside: maps, higher limits, a network."""
        spec = self.spec
        if "user" in spec.namespaces:
            map_ids(self.pid, user)
        for ulimit in spec.ulimits:
            _raise_hard_limit(self.pid, ulimit.number, ulimit.hard)
        if plan is not None:
            from cgagent.launch.network import attach

            attach(self.pid, self.name, plan)
            self._undo.append(self._disconnect)

    def _sweep(self) -> None:
        """Remove what killed launchers left in the cgroups where we are."""
        parents = [os.path.dirname(one.directory) for one in self.cgroups.made]
        # cgroupfs counts subdirectories in the link count, from 2 on: mostly ours is the only one.
        found = {name for parent in parents if os.stat(parent).st_nlink > 3 for name in os.listdir(parent)}
        found.discard(self.name)
        # Each launcher is looked at once: of 20 side by side, each has a directory in every hierarchy.
        if any(names.owner(name) and not names.is_alive(name) for name in found):
            from cgagent.launch.gc import sweep

            sweep(parents)

    def _disconnect(self) -> None:
        from cgagent.launch.network import release

        release(self.name)

    def _take_terminal(self, channel: Channel) -> None:
        from cgagent.launch.tty import Terminal

        try:
            self._terminal = Terminal(channel)
        except EOFError:
            return  # the container has failed, and its report says why
        self._undo.append(self._terminal.restore)

    def wait(self) -> int:
        """Pass signals on until the command has ended; return its exit code."""
        signals, end = self._signals, self._channel.end
        poll = select.poll()
        poll.register(signals.file, select.POLLIN)
        poll.register(end, select.POLLIN)
        supervised = -1 if self._supervisor is None else self._supervisor.ended
        if supervised >= 0:
            poll.register(supervised, select.POLLIN)
        ready = dict(poll.poll(_SHORT_MS))
        if end not in ready and self._keeper is None:
            self._keep()
        while True:
            if signals.file in ready:
                signals.pass_on(self.pid, self._terminal)
            if supervised in ready:
                poll.unregister(supervised)
                self._on_supervisors_death()
            if end in ready:
                if end != self._channel.end:
                    code = self._reap()
                    if code == EXIT_RUN_FAILED and self.spec.init:
                        raise failure("PID 1 of the container could not wait for the command")
                    return self._tell(code)
                said = os.read(end, 1)
                if said:
                    return self._tell(said[0])
                # PID 1 that was killed, or that the command itself is, says nothing: its end does.
                poll.unregister(end)
                end = os.pidfd_open(self.pid)
                poll.register(end, select.POLLIN)
            ready = dict(poll.poll())

    def _keep(self) -> None:
        """Have a keeper, now that the command turns out to be no short one."""
        from cgagent.launch.keeper import Keeper

        kept = (self._terminal.saved[0],) if self._terminal and self._terminal.saved else ()
        try:
            self._keeper = Keeper(os.pidfd_open(self.pid), self.cgroups, self._undo, kept)
        except OSError:
            pass  # the command runs; should we be killed, the next start cleans up

    def _on_supervisors_death(self) -> None:
        death = self._supervisor.death() if self._supervisor is not None else ""
        if death:
            _say(death)
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _tell(self, code: int) -> int:
        """Say why the command ended, as far as limits had a part in it; return its exit code."""
        if self._terminal is not None:
            self._terminal.finish()
            self._terminal = None
        asked = self.spec.stats or self._stats is not None
        if not (code or asked or self.cgroups.has_refused()):
            return code
        from cgagent.launch.report import Report

        report = Report(self.cgroups, self.spec.resources, code, time.monotonic() - self.began)
        for line in report.reasons():
            _say(line)
        if self.spec.stats:
            os.write(2, report.screen().encode())
        if self._stats is not None:
            self._stats.write(report)
        return code

    def _kill(self) -> None:
        if self.pid > 0:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def end(self) -> None:
        """Leave nothing behind. PID 1 takes its namespaces down at the same time."""
        keeper = self._keeper
        steps = [self.cgroups.remove_empty, self._kill]
        if self._terminal is not None:
            steps.append(self._terminal.finish)
        if self._supervisor is not None:
            steps.append(self._supervisor.end)
        steps += [self._remove_cgroups, *self._undo]
        if keeper is not None:
            steps = [keeper.dismiss, *steps, keeper.wait]
        failed: OSError | None = None
        for step in steps:
            try:
                step()
            except OSError as error:  # no reason to leave the rest behind
                failed = failed or error
        if failed is not None:
            raise failed

    def _remove_cgroups(self) -> None:
        for directory in self.cgroups.remove():
            _say(f"{directory} could not be removed: a process in it does not end")


def _clone(flags: int) -> int:
    try:
        return clone(flags)
    except OSError as error:
        reason = (error.strerror or "").lower()
        hints = {
            1: "an outer container's seccomp filter or a setting such as kernel.unprivileged_userns_clone forbids it; "
            "start the outer container with --privileged, or as root leave namespaces out with --share",
            28: "a limit in /proc/sys/user is reached",
        }
        hint = hints.get(error.errno or 0, "see user_namespaces(7)")
        raise CgagentError(f"cannot make namespaces: {reason}", hint, EXIT_RUN_FAILED) from None


def _raise_hard_limit(pid: int, number: int, hard: int) -> None:
    """Give PID 1 the room that its user namespace could not give it."""
    soft, present = prlimit(pid, number)
    if present != UNLIMITED and (hard == UNLIMITED or hard > present):
        try:
            prlimit(pid, number, (soft, hard))
        except PermissionError:
            pass  # setting it inside fails, and says so


def _check_machine() -> None:
    machine = os.uname().machine
    if machine not in MACHINES:
        raise CgagentError(f"no launcher for {machine}", f"there is one for {', '.join(MACHINES)}", EXIT_RUN_FAILED)


def _say(text: str) -> None:
    from cgagent.errors import printable

    os.write(2, os.fsencode(f"cgagent run: {printable(text)}\n"))
