"""Files of cgroups that are read again and again, kept open: one system call for each reading instead of five.

An open file is its cgroup's for ever. Once that is removed reading says so (ENODEV), even where a new cgroup has
come by the same name. But a place can come to show another cgroup while the first lives on: the process behind
/proc/PID/root is another, or something was mounted there. So what is where is found out anew at each `look_again`.
"""

from __future__ import annotations

import os

from cgagent.cgroup.reading import getter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.cgroup.dialect import Get
    from cgagent.host import Host

# A cgroup's file is one record of seq_file, given whole where there is room: what is shorter is all of it.
_ROOM = 1 << 16


class OpenFiles:
    """Reads as `limits.getter` does. For one thread at a time."""

    def __init__(self) -> None:
        self._cgroups: dict[tuple[int, int], _Cgroup] = {}
        self._places: dict[tuple[Host, str], _Cgroup] = {}

    def getter(self, host: Host, directory: str) -> Get:
        """A file's text by its name, None where there is no such file; raises ReadError."""
        cgroup = self._places.get((host, directory))
        if cgroup is None:
            try:
                found = os.stat(host.locate(directory))
            except OSError:
                return getter(host, directory)  # which knows what that means
            # kernfs never gives an inode number twice while the machine runs.
            cgroup = self._cgroups.setdefault((found.st_dev, found.st_ino), _Cgroup())
            cgroup.at(host, directory)
            self._places[host, directory] = cgroup
        return cgroup.get

    def look_again(self) -> None:
        """Trust no place any more, and let go of the cgroups that nobody has asked for since the last time."""
        used = set(map(id, self._places.values()))
        self._places.clear()
        for inode, cgroup in list(self._cgroups.items()):
            if id(cgroup) not in used:
                self._cgroups.pop(inode).close()

    def close(self) -> None:
        """Let go of all."""
        self._places.clear()
        self.look_again()


class _Cgroup:
    """The files of one cgroup that were asked for."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._absent: set[str] = set()

    def at(self, host: Host, directory: str) -> None:
        """From now on it is reached by `directory`."""
        self._host, self._directory = host, directory
        self._by_path = getter(host, directory)
        self._absent.clear()  # files come when a controller is switched on

    def get(self, name: str) -> str | None:
        """The file's text, as `limits.getter` gives it."""
        if name in self._absent:
            return None
        try:
            fd = self._open.get(name)
            if fd is None:
                fd = self._open[name] = self._host.open(f"{self._directory}/{name}")
            data = os.pread(fd, _ROOM, 0)
        except OSError:
            self._close(name)
        else:
            if len(data) < _ROOM:
                return data.decode("utf-8", "surrogateescape")
        text = self._by_path(name)
        if text is None:
            self._absent.add(name)
        return text

    def _close(self, name: str) -> None:
        fd = self._open.pop(name, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Let go of its files."""
        for name in list(self._open):
            self._close(name)
