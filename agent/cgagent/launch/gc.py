"""Removal of what killed launchers left: at every start in the cgroup where it happens, by `--gc` everywhere."""

from __future__ import annotations

import os
import sys
import time

from cgagent.errors import CgagentError
from cgagent.launch import cgroupfs, names

_UNSEEN_AGE = 60.0  # seconds after which an empty cgroup of a PID namespace that we can't see is a leftover


def sweep(parents: list[str]) -> list[str]:
    """Remove the leftovers directly below the cgroups `parents`; return the directories removed."""
    removed = []
    for parent in parents:
        try:
            found = os.listdir(parent)
        except OSError:
            continue
        for name in found:
            directory = f"{parent}/{name}"
            if names.owner(name) and _remove(name, directory):
                removed.append(directory)
    return removed


def collect() -> int:
    """`cgagent run --gc`: remove all leftovers and say which."""
    from cgagent.launch.cgroups import own_hierarchies, own_mountinfo

    removed = []
    for mount in {one.mount for one in own_hierarchies(own_mountinfo()) if one.mount}:
        for place, directories, _ in os.walk(mount):
            ours = [name for name in directories if names.owner(name)]
            if ours:
                removed += sweep([place])
    removed += _links()
    for directory in removed:
        sys.stdout.write(f"removed {directory}\n")
    sys.stdout.write(f"{len(removed)} leftover{'' if len(removed) == 1 else 's'} removed\n")
    return 0


def _links() -> list[str]:
    """Veth pairs and bridges, as far as we may see and remove them."""
    from cgagent.launch.network import sweep as sweep_links

    try:
        return sweep_links(names.is_alive)
    except (CgagentError, OSError):
        return []


def _remove(name: str, directory: str) -> bool:
    """Remove a cgroup if it is a leftover; whether it is gone."""
    alive = names.is_alive(name)
    if alive is None:
        # Whatever we could not see: a process in it, or below it, says that it is in use.
        return _is_old(directory) and not cgroupfs.is_populated(directory) and cgroupfs.remove_empty(directory)
    return not alive and not cgroupfs.remove([directory])


def _is_old(directory: str) -> bool:
    try:
        return time.time() - os.stat(directory).st_mtime > _UNSEEN_AGE
    except OSError:
        return False
