"""What a launcher may leave behind, looked for everywhere: to compare before and after."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from cgagent.launch.names import owner
from launch.behaviour import CGAGENT

if TYPE_CHECKING:
    from collections.abc import Callable


def cgroups(pids: set[int]) -> set[str]:
    """Directories of cgroups that the launchers `pids` made."""
    found = set()
    for place, directories, _ in os.walk("/sys/fs/cgroup"):
        for name in directories:
            words = name.split("-")
            if name.startswith("cgagent-") and len(words) == 4 and words[2].isdigit() and int(words[2]) in pids:
                found.add(os.path.join(place, name))
    return found


def processes(mark: str) -> set[int]:
    """Processes with `mark` among their arguments or in their environment."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            for file in ("cmdline", "environ"):
                try:
                    with open(f"/proc/{entry}/{file}", "rb") as stream:
                        if mark.encode() in stream.read():
                            found.add(int(entry))
                except OSError:
                    pass
    return found


def mounts() -> set[str]:
    """The mounts of our namespace: mount ID, parent and point."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return {" ".join(line.split()[:5]) for line in file}


def links() -> set[str]:
    """Network interfaces of our namespace."""
    return set(os.listdir("/sys/class/net"))


def temporary() -> set[str]:
    """Files and directories with a launcher's name, where programs keep what is temporary."""
    places = ("/tmp", "/run", "/var/run", "/var/lib", "/dev/shm", "/run/cgagent")
    return {f"{place}/{name}" for place in places if os.path.isdir(place) for name in os.listdir(place) if owner(name)}


def places() -> set[str]:
    """Mounts and temporary files: what is there more than before is left. Others may take theirs away meanwhile."""
    return mounts() | temporary()


def soon(found: Callable[[], object], seconds: float = 60) -> object:
    """What `found` gives, once it gives nothing or time is up."""
    end = time.monotonic() + seconds
    while (left := found()) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def collect() -> str:
    """`cgagent run --gc`."""
    done = subprocess.run([CGAGENT, "run", "--gc"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
