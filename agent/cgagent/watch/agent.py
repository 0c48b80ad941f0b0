"""The sidecar itself: waits for a sign, looks, decides, keeps the env file true, has the hooks run.

One thread does all that, so nothing about the decision needs a lock. Others only note (`wake`), run hooks, or ask
for a `picture`. After the first sign of a change the agent waits for the rest of a burst and then looks once; what
comes after that look is a new sign. So the last of any number of changes is always looked at.
"""

from __future__ import annotations

import os
import time

from cgagent.errors import EXIT_NO_LIMITS, CgagentError
from cgagent.watch import wake
from cgagent.watch.changes import Changes, directory_place, file_place, limit_places
from cgagent.watch.hold import Hold
from cgagent.watch.hooks import Change, Runner
from cgagent.watch.output import Output
from cgagent.watch.program import Programs
from cgagent.watch.shown import Shown
from cgagent.watch.sight import Sight, look, look_ahead
from cgagent.watch.tally import Tally
from cgagent.watch.target import EndedError, NoTargetError
from cgagent.watch.troubles import Troubles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgagent.host import Host
    from cgagent.metrics.counters import Counters
    from cgagent.report.picture import Picture
    from cgagent.watch.changes import Place
    from cgagent.watch.config import Configuration
    from cgagent.watch.log import Log
    from cgagent.watch.program import TargetProgram
    from cgagent.watch.raises import Raises
    from cgagent.watch.settings import Settings
    from cgagent.watch.target import Target

# What falls due: the end of a burst, a look that no sign has asked for, another try at the target or the env file,
# another look at a target that is new, counting events, saving the counters.
SETTLE, POLL, SEARCH, RETRY, NEW, COUNT, SAVE = "settle", "poll", "search", "retry", "new", "count", "save"
_BLIND_POLL = 1.0
# After a look that has shown nothing: it may have been the wrong moment. Each pause is twice the one before.
_SOON, _WORTH_TELLING, _AGAIN = 0.02, 0.3, 1.0
# After a target was found: what starts it may become the application only now (exec), and Go needs a moment.
_NEW = 0.25
_SAVE_EVERY = 1.0
# After another touched the env file: two who write one file by different rules must not keep each other busy.
_MEND = 0.25


class Agent:
    """Follows one target until it is told to stop.

    Attributes:
        counters: what it counts, for the metrics.
    """

    def __init__(self, configuration: Configuration, counters: Counters, host: Host, log: Log) -> None:
        self.counters = counters
        self._configuration = configuration
        self._host = host
        self._log = log
        self._troubles = Troubles(log)
        self._wake = wake.Wake()
        self._changes = Changes(self._wake, log)
        self._hold = Hold(host, log)
        self._output = Output(counters, log, self._troubles)
        self._runner = Runner(counters, log, lambda: self._wake.note(wake.STOP))
        self._runner.use(self._settings.hooks)
        self._tally = Tally(self._settings.state_dir, counters, log, self._troubles)
        self._shown = Shown(host)
        self._raises = self._confirming()
        self._due: dict[str, float] = {POLL: 0.0}
        self._pause = _SOON
        self._programs = Programs(host)
        self._program: TargetProgram | None = None
        self._told_of: Target | None = None
        self._age = _NEW

    @property
    def _settings(self) -> Settings:
        return self._configuration.settings

    def _confirming(self) -> Raises | None:
        """What holds raised limits back until they are granted, where that is wanted; loaded then alone."""
        container = self._settings.confirm_raises
        if container is None:
            return None
        from cgagent.watch.raises import Raises

        return Raises(container, os.environ, lambda: self._wake.note(wake.GRANTS), self.counters)

    def picture(self) -> Picture:
        """Usage as it is now, with the limits and the decision in force. May be asked for by any thread.

        Raises:
            CgagentError: nothing has been seen yet.
        """
        return self._shown.picture()

    def ready(self) -> bool:
        """Whether the first decision is made and the env file, if there is to be one, is written."""
        return self._shown.sight is not None and (self._output.complete or self._settings.env_file is None)

    def run(self) -> int:
        """Follow the target until SIGTERM, SIGINT or a hook that ends it; return the exit code.

        Raises:
            CgagentError: there is nothing to follow, or no more.
        """
        self._wake.heed_signals()
        self._tally.load()
        try:
            self._look()
            code = self._check_first()
            if self._raises is not None:
                self._raises.start()
            while not code and self._turn():
                pass
            return code or self._runner.code
        finally:
            self._changes.close()
            self._runner.close()
            self._tally.close()
            self._hold.release()
            self._wake.close()

    def _check_first(self) -> int:
        """What a person must know of the first decision."""
        sight = self._shown.sight
        if sight is None:
            return 0
        for name, choice in sight.decision.choices():
            if choice.kept is not None:
                self._log.info("left alone: the environment has it (--override decides anew)", variable=name)
        limits = sight.limits
        if self._settings.require_limits and not limits.found:
            self._log.error("no CPU and no memory limit found, and --require-limits asks for one")
            return EXIT_NO_LIMITS
        return 0

    def _turn(self) -> bool:
        """Wait for something and do it; False at the end."""
        pause = min(self._due.values()) - time.monotonic()
        noted = self._wake.wait(pause, self._hold.pidfd)
        if wake.STOP in noted:
            self._stop(changed=SETTLE in self._due or bool(noted & {wake.LIMITS, wake.GIVEN}))
            return False
        now = time.monotonic()
        if noted & {wake.LIMITS, wake.GIVEN, wake.CONFIG}:
            self._due.setdefault(SETTLE, now + self._settings.settle)
        if wake.GRANTS in noted:  # no burst of them comes, and a container may be restarted in a second
            self._due[SETTLE] = now
        if wake.EVENTS in noted:
            self._due.setdefault(COUNT, now + self._settings.settle)
        if wake.ENV_FILE in noted:
            self._mend_file()
        if wake.TARGET in noted:
            self._lose_target()
        if wake.OBSERVER in noted:
            self._changes.restart()
            self._due[SETTLE] = now
        if wake.RELOAD in noted:
            self._reload()
            self._due[SETTLE] = now
        self._do(now)
        return True

    def _stop(self, *, changed: bool) -> None:
        self._log.info("stopping")
        self._runner.close()
        if changed:  # and was about to be looked at: it is not lost
            try:
                self._look()
            except CgagentError as error:
                self._troubles.tell("target", error.line())

    def _do(self, now: float) -> None:
        ripe = {name for name, at in self._due.items() if at <= now}
        for name in ripe - {POLL}:
            del self._due[name]
        if ripe & {SETTLE, POLL} and self._configuration.has_changed():
            self._reload()
        if ripe & {SETTLE, POLL, SEARCH, RETRY, NEW}:
            self._log.debug("looking", because=",".join(sorted(ripe)))
            self._look()
        elif COUNT in ripe:
            self._count_events()
        if SAVE in ripe:
            self._tally.save()
        elif self._tally.unsaved:
            self._due.setdefault(SAVE, now + _SAVE_EVERY)

    def _look(self) -> None:
        """Look at the target and act on what is seen. What can't be known now is told once, and tried again."""
        sight = self._sight()
        if sight is not None:
            self._accept(sight)
        # What changed between the look and its watch would be seen by no one: a new watch asks for another look.
        added = self._changes.follow(self._places(sight))
        if added - {wake.ENV_FILE}:
            self._due.setdefault(SETTLE, time.monotonic() + self._settings.settle)
        if wake.ENV_FILE in added:
            self._mend_file()
        self._due[POLL] = time.monotonic() + (_BLIND_POLL if self._changes.blind else self._settings.poll)
        if self._hold.target is None and self._hold.may_come:
            self._due[SEARCH] = time.monotonic() + self._hold.pause()

    def _sight(self) -> Sight | None:
        """What is to be seen now; None where nothing is.

        Raises:
            CgagentError: nothing is to be seen, and nothing will be.
        """
        if self._hold.is_ending:
            self._lose_target()
        try:
            pid = self._hold.find(self._settings)
            sight = look(self._host, self._settings, pid, os.environ, self._runs(pid), self._raises)
            if self._hold.is_ending:
                raise NoTargetError(f"process {pid} is ending")
        except NoTargetError as error:
            self._troubles.tell("target", error.line(), kind=error.message, waiting=True)
            return self._without_target()
        except CgagentError as error:
            never = self._shown.sight is None and not self._hold.may_come
            if never or isinstance(error, EndedError):
                raise
            # A container's first process is root's until the runtime has made it the application's user.
            if self._pause >= _WORTH_TELLING:
                self._troubles.tell("target", error.line(), kind=error.message)
            self._due[RETRY] = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, _AGAIN)
            return None
        self._pause = _SOON
        self._troubles.tell("target", "")
        self._tell_of_raises()
        return sight

    def _tell_of_raises(self) -> None:
        if self._raises is not None:
            held = " and ".join(self._raises.reasons)
            self._troubles.tell(
                "raise", f"a higher {held} limit is asked for and not granted yet" if held else "", waiting=True
            )
            self._troubles.tell("pod status", self._raises.trouble)

    def _runs(self, pid: str) -> TargetProgram | None:
        """What process `pid` runs; what the one before it ran, as long as it is still what starts the application."""
        program = self._programs.of(pid)
        if program.build is not None or self._program is None:
            self._program = program
        return self._program

    def _without_target(self) -> Sight | None:
        """What can be decided while there is no target: from what is given, but nothing above what was seen last."""
        try:
            if self._shown.sight is not None:
                return look_ahead(self._shown.sight, self._settings, os.environ)
            given = self._settings.given()
            self._troubles.tell("limits given", "")
            if given.cpu is None and given.memory is None:
                return None
            return look(self._host, self._settings, "self", os.environ, None)
        except CgagentError as error:
            self._troubles.tell("limits given", error.line())
            return None

    def _places(self, sight: Sight | None) -> Iterator[Place]:
        for directory in self._configuration.directories():
            yield directory_place(directory, wake.CONFIG)
        if self._settings.limits_dir is not None:
            yield directory_place(self._settings.limits_dir, wake.GIVEN)
        if self._settings.env_file is not None:
            yield file_place(self._settings.env_file, wake.ENV_FILE)
        if sight is not None and self._hold.is_held:
            yield from limit_places(sight.limits.standing)

    def _accept(self, sight: Sight) -> None:
        """Count what has changed, publish it, write it, tell the hooks."""
        if self._hold.is_held:
            self._tally.count(sight)
        self._shown.show(sight, self._hold.pid)
        blocked = sight.decision.blocked()
        said = "; ".join(f"{name}: {choice.blocked}" for name, choice in blocked)
        self._troubles.tell("decision", said, waiting=self._settings.ignore_errors)
        # What was known is not forgotten over it: a container that starts can't be read for some milliseconds.
        known = self._output.known(self._settings, [name for name, _ in blocked])
        if blocked and (known or not self._settings.ignore_errors):
            self._due[RETRY] = time.monotonic() + _AGAIN
        if blocked and not self._settings.ignore_errors:
            return
        env = dict(sorted((sight.decision.env() | known).items()))
        told = self._output.write(self._settings, env, sight.limits)
        if told is None:
            self._due[RETRY] = time.monotonic() + self._output.pause(self._settings.poll)
        else:
            # Where nothing has changed, hooks that keep something true still see to it.
            self._runner.submit(Change(told, env, sight.limits, self._hold.target, self._settings.env_file))
            self._look_again_at_new()

    def _look_again_at_new(self) -> None:
        """Look at a target that was found just now again and again, each time after twice the pause before."""
        if self._hold.target is not self._told_of:
            self._told_of, self._age = self._hold.target, _NEW
        if self._hold.target is not None and self._age < self._settings.poll and NEW not in self._due:
            self._due[NEW] = time.monotonic() + self._age
            self._age *= 2

    def _mend_file(self) -> None:
        """Look soon if it was not we who touched the env file: it is then written anew."""
        if self._output.is_spoiled(self._settings):
            soon = time.monotonic() + _MEND
            self._due[RETRY] = min(self._due.get(RETRY, soon), soon)

    def _lose_target(self) -> None:
        """The target has ended: its cgroup is still there for some milliseconds, with what it died of."""
        self._count_events()
        self._hold.lose()
        self._due[SEARCH] = 0.0

    def _count_events(self) -> None:
        if self._shown.sight is not None:
            self._tally.count_events(self._shown.sight)

    def _reload(self) -> None:
        before = self._settings
        if self._configuration.reload(self.counters, self._log):
            self._runner.use(self._settings.hooks)
            if self._hold.reconsider(before, self._settings):
                self._program = None
