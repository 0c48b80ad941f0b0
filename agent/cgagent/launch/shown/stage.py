"""Laying a scene over /proc and /sys of the new root, which is the working directory. Read-only for the command."""

from __future__ import annotations

import os

from cgagent.launch.shown.laying import PROCESS_FILES
from cgagent.launch.shown.scene import CGROUPS
from cgagent.launch.syscalls import (
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    bind_file,
    mount,
    mount_setattr,
    umount2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.capture import Capture
    from cgagent.launch.shown.scene import Scene

SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
SEALED = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
_WORKPLACE = "dev/shm"  # covered for a moment only


def lay(scene: Scene) -> None:
    """Mount all that `scene` shows at a place that does not depend on the process that looks."""
    for place, files in scene.directories.items():
        target = place.lstrip("/")
        if os.path.isdir(target):
            mount("tmpfs", target, "tmpfs", SAFE, "mode=755")
            fill(target, files)
            mount_setattr(target, SEALED)
    _cover({place.lstrip("/"): text for place, text in scene.files.items()})


def lay_layout(capture: Capture) -> list[int]:
    """Mount a capture's cgroup tree, and /proc/thread-self to show what /proc/self does.

    Returns files of PROCESS_FILES, which lie below that tree: out of sight, but attached, so that they can be mounted.
    """
    target = CGROUPS.lstrip("/")
    mount("tmpfs", target, "tmpfs", SAFE, "mode=755")
    fill(target, {name: capture.text(f"/proc/self/{name}") or "" for name in PROCESS_FILES})
    os.symlink("self", f"{target}/thread-self")
    mount_setattr(target, SEALED)
    # A thread's own directory can't be covered before there is a thread.
    bind_file(f"{target}/thread-self", "proc/thread-self")
    files = [os.open(f"{target}/{name}", os.O_PATH | os.O_CLOEXEC) for name in PROCESS_FILES]
    mount("tmpfs", target, "tmpfs", SAFE, "mode=755")
    for path in sorted(capture.directories):
        if path.startswith(f"{CGROUPS}/"):
            os.makedirs(path.lstrip("/"), 0o755, exist_ok=True)
    paths = [path for path in capture.files if path.startswith(f"{CGROUPS}/")]
    fill(target, {path.removeprefix(f"{CGROUPS}/"): capture.text(path) or "" for path in paths})
    _alias(target)
    mount_setattr(target, SEALED)
    return files


def _alias(directory: str) -> None:
    """Links for each controller of a v1 hierarchy that has several, as systemd makes them: cpu -> cpu,cpuacct."""
    names = os.listdir(directory)
    for joint in (name for name in names if "," in name):
        for name in joint.split(","):
            if name and name not in names:
                os.symlink(joint, f"{directory}/{name}")


def lay_cpusets(scene: Scene) -> None:
    """Over the cpusets that are mounted by now: what they leave of the CPUs that are shown."""
    base = "sys/fs/cgroup"
    places = [base, *(f"{base}/{name}" for name in sorted(os.listdir(base)) if "cpuset" in name or name == "unified")]
    files = {f"{place}/{name}": text for place in places for name, text in scene.cpusets().items()}
    _cover({path: text for path, text in files.items() if os.path.exists(path)})


def _cover(files: dict[str, str]) -> None:
    """Lay texts over files that are there, from a file system that is out of sight afterwards."""
    names = {str(number): place for number, place in enumerate(files)}
    mount("tmpfs", _WORKPLACE, "tmpfs", SAFE, "mode=755")
    fill(_WORKPLACE, {name: files[place] for name, place in names.items()})
    mount_setattr(_WORKPLACE, SEALED)
    for name, place in names.items():
        bind_file(f"{_WORKPLACE}/{name}", place)
    umount2(_WORKPLACE, MNT_DETACH)


def fill(directory: str, files: dict[str, str]) -> None:
    """Write `files` below `directory`."""
    made = set()
    for name, text in files.items():
        parent = os.path.dirname(name)
        if parent and parent not in made:
            os.makedirs(f"{directory}/{parent}", 0o755, exist_ok=True)
            made.add(parent)
        fd = os.open(f"{directory}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444)
        data = text.encode("utf-8", "surrogateescape")
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
