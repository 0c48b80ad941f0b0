"""Reading inotify, through watchdog: its one home, imported when following starts.

watchdog's `Observer` has a thread for each watch; `InotifyFD`, which it stands on, has one for all.
"""

from __future__ import annotations

import logging
import os

from watchdog.observers.inotify_c import InotifyFD  # noqa: TID253 this module is for it, and imported late itself

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.observers.inotify_c import WatchCallback

    from cgagent.watch.log import Log

# Without a handler its warnings would stand between the lines of our log in a format of their own.
logging.getLogger("watchdog").addHandler(logging.NullHandler())


class Reader(InotifyFD):
    """One inotify instance, read by a thread that tells when it ends against our will."""

    def __init__(self, ended: Callable[[], None], log: Log) -> None:
        """Make the instance; the thread is still to be started.

        Raises:
            OSError: the kernel gives no more inotify instances.
        """
        super().__init__()
        self._tell_end = ended
        self._log = log
        self._given_back = False

    @classmethod
    def _create_inotify_fd(cls) -> int:
        # inotify_init(2) knows no close-on-exec: the commands of hooks would inherit it.
        fd = super()._create_inotify_fd()
        os.set_inheritable(fd, False)
        return fd

    def watch(self, path: str, mask: int, callback: WatchCallback) -> int:
        """Have `callback` told of the events `mask` of `path`; the watch's number, -1 where we may not read `path`.

        Raises:
            OSError: it is not there, or the kernel gives no more watches.
        """
        # To a type checker watchdog's numbers are types of their own.
        return self.add_callback(os.fsencode(path), mask, callback, id(callback))  # type: ignore[arg-type]

    def unwatch(self, number: int, callback: WatchCallback) -> None:
        """Undo a `watch`.

        Raises:
            OSError: the kernel has dropped it already.
        """
        self.remove_callbacks([(number, id(callback))])  # type: ignore[list-item]

    def run(self) -> None:
        """The thread's work."""
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 whatever a library raises, following goes on
            self._log.error("reading inotify failed", reason=repr(error))
        finally:
            if not self._closed:
                self._tell_end()

    def _close_resources(self) -> None:
        # Called by whichever of thread and owner is last; not at all by a thread that failed or never started.
        if not self._given_back:
            self._given_back = True
            super()._close_resources()

    def discard(self) -> None:
        """End the thread, and give back what it has open."""
        self.stop()
        if self.is_alive():
            self.join(1.0)
        if not self.is_alive():
            self._close_resources()
