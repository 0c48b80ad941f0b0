"""Where a v2 cgroup can be made: cgroup-v2.rst, "Delegation" and "No Internal Process Constraint".

A cgroup passes controllers on (cgroup.subtree_control) only if no process is in it, the root excepted. The
caller's own cgroup holds the caller at least, so one of these must do, tried in this order:

1. The root of the hierarchy: it may have both. Or an empty one, which --cgroup-parent may name.
2. A cgroup where we are alone: we step down into a leaf of it for the time, and up again at the end. That is what
   `systemd-run --scope -p Delegate=yes` gives, and what we ask systemd for where it is PID 1.
3. The root of a container (of a cgroup namespace): what is in it is the container's; all of it goes into a leaf.
4. The nearest cgroup above that passes the controllers on already.
"""

from __future__ import annotations

import os
import time

from cgagent.launch.cgroupfs import READ_ONLY_HINT, read, write
from cgagent.launch.failure import failure
from cgagent.launch.programs import find, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cgagent.cgroup.hierarchy import Hierarchy
    from cgagent.errors import CgagentError

    Place = tuple[str, Callable[[], None] | None]

_LEAF = "cgagent-leaf"
_SYSTEMD_PATIENCE = 5.0


def prepare(hierarchy: Hierarchy, own: str, controllers: list[str], name: str) -> Place:
    """The directory to make a cgroup in with `controllers`, and what to do when that cgroup is gone.

    Raises:
        CgagentError: there is no such place; the message names the file that stands in the way.
    """
    if not os.path.exists(f"{own}/cgroup.type") or not read(f"{own}/cgroup.procs"):
        _enable(own, controllers)
        return own, None
    if _alone(own) and os.access(f"{own}/cgroup.subtree_control", os.W_OK):
        return _step_down(own, controllers)
    if hierarchy.path == "/" and os.access(f"{own}/cgroup.procs", os.W_OK):
        _clear(own)
        _enable(own, controllers)
        return own, None
    scope = _ask_systemd(name, hierarchy)
    if scope is not None:
        return _step_down(scope, controllers)
    for level in hierarchy.levels[1:]:
        above = level.directories[0][1]
        passed = read(f"{above}/cgroup.subtree_control").split()
        if (
            set(controllers) <= set(passed)
            and os.access(above, os.W_OK)
            and os.access(f"{above}/cgroup.procs", os.W_OK)
        ):
            return above, None
    raise _no_place(own, controllers)


def _alone(directory: str) -> bool:
    return read(f"{directory}/cgroup.procs").split() == [str(os.getpid())]


def _step_down(own: str, controllers: list[str]) -> Place:
    """Move ourselves to a leaf, so that `own` can pass controllers on."""
    leaf = f"{own}/{_LEAF}-{os.getpid()}"
    before = read(f"{own}/cgroup.subtree_control").split()
    try:
        os.mkdir(leaf)
        write(f"{leaf}/cgroup.procs", "0")
    except OSError as error:
        raise failure(f"cannot use {own}: {error.filename}: {(error.strerror or '').lower()}") from None
    _enable(own, controllers)

    def leave() -> None:
        try:
            for controller in controllers:
                if controller not in before:
                    write(f"{own}/cgroup.subtree_control", f"-{controller}")
            for pid in read(f"{leaf}/cgroup.procs").split():
                write(f"{own}/cgroup.procs", pid)
            os.rmdir(leaf)
        except OSError:
            pass  # another container is still in `own`; the leaf goes with it

    return own, leave


def _clear(own: str) -> None:
    """Move everything in the root of our cgroup namespace into a leaf."""
    leaf = f"{own}/{_LEAF}"
    try:
        os.makedirs(leaf, exist_ok=True)
        for _ in range(10):
            members = read(f"{own}/cgroup.procs").split()
            if not members:
                return
            for pid in members:
                try:
                    write(f"{leaf}/cgroup.procs", pid)
                except ProcessLookupError:
                    continue  # it has ended
    except OSError as error:
        raise failure(f"cannot empty {own}: {error.filename}: {(error.strerror or '').lower()}") from None


def _enable(directory: str, controllers: list[str]) -> None:
    path = f"{directory}/cgroup.subtree_control"
    missing = [one for one in controllers if one not in read(path).split()]
    for controller in missing:
        try:
            write(path, f"+{controller}")
        except OSError as error:
            reason = (error.strerror or "").lower()
            hint = (
                "a process is in it, and a cgroup with processes passes no controllers on" if error.errno == 16 else ""
            )
            raise failure(f"cannot write +{controller} to {path}: {reason}", hint) from None


def _ask_systemd(name: str, hierarchy: Hierarchy) -> str | None:
    """A delegated scope around this process, where systemd is PID 1; None where it is not or refuses."""
    busctl = find("busctl") if os.path.isdir("/run/systemd/system") else None
    if busctl is None:
        return None
    manager = "org.freedesktop.systemd1"
    # `--user` would need the caller's environment to find its bus.
    bus = "--system" if os.geteuid() == 0 else f"--address=unix:path=/run/user/{os.geteuid()}/bus"
    words = [busctl, bus, "call", manager]
    words += ["/org/freedesktop/systemd1", f"{manager}.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))"]
    words += [f"{name}.scope", "fail", "3", "PIDs", "au", "1", str(os.getpid()), "Delegate", "b", "true"]
    words += ["CollectMode", "s", "inactive-or-failed", "0"]
    if run(words)[0]:
        return None
    deadline = time.monotonic() + _SYSTEMD_PATIENCE
    while time.monotonic() < deadline:
        path = read("/proc/self/cgroup").rpartition("0::")[2].strip()
        if path.endswith(f"/{name}.scope"):
            return f"{(hierarchy.mount or '').rstrip('/')}{path}"
        time.sleep(0.002)
    return None


def _no_place(own: str, controllers: list[str]) -> CgagentError:
    file = f"{own}/cgroup.subtree_control"
    what = ", ".join(controllers)
    if os.statvfs(own).f_flag & os.ST_RDONLY:
        return failure(f"no cgroup here can be given limits ({what}): {own} is read-only", READ_ONLY_HINT)
    return failure(
        f"no cgroup here can be given limits ({what}): {file} is not ours to write, or has processes beside us",
        "let systemd delegate one (systemd-run --user --scope -p Delegate=yes cgagent run ...), "
        "or go without the limits with --best-effort",
    )
