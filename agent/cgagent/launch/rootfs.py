"""The container's file system: /proc, /dev, /sys, volumes and masks on a private copy of the mount tree.

All paths but a volume's source are relative to the new root, which is the working directory from `enter` on
until `pivot` makes it the root directory. Masked and read-only paths: OCI defaults, as docker and runc set them.
"""

from __future__ import annotations

import errno
import os
import stat

from cgagent.launch.failure import failure
from cgagent.launch.syscalls import (
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_STRICTATIME,
    bind,
    mount,
    mount_setattr,
    pivot_root,
    remount,
    umount2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.spec import Spec, Tmpfs, Volume

_MASKED = (
    "proc/asound proc/acpi proc/interrupts proc/kcore proc/keys proc/latency_stats proc/timer_list proc/timer_stats "
    "proc/sched_debug proc/scsi sys/firmware sys/devices/virtual/powercap"
)
_READ_ONLY = ("proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = (
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)
_OWN = ("proc", "sys", "dev")
_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC


def enter(spec: Spec, home: str) -> None:
    """Make a private tree that will be the root, and go there; `home` stays writable."""
    # Nothing that happens here reaches the host, nor the other way round.
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    if spec.rootfs is None:
        _gather()
    else:
        if not os.path.isdir(spec.rootfs):
            raise failure(f"--rootfs: {spec.rootfs} is not a directory", "unpack an image there first")
        bind(spec.rootfs, spec.rootfs, recursive=True)
        os.chdir(spec.rootfs)
    attributes = MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if spec.read_only else 0)
    mount_setattr(".", attributes, recursive=True)
    if spec.read_only:
        # The top alone is open until `pivot`: mount points may have to be made there.
        mount_setattr(".", 0, clear_flags=MOUNT_ATTR_RDONLY)
    if spec.read_only and spec.rootfs is None and home != "/":
        # The original is still writable, and a new bind of it is too.
        bind(home, f".{home}", recursive=True)
        mount_setattr(f".{home}", MOUNT_ATTR_NODEV, recursive=True)


def _gather() -> None:
    """The host's tree, but for the three directories that a container has of its own.

    A copy of all of `/` would bring the host's /proc, /sys and cgroup mounts along: covered, but listed in
    mountinfo, where Go's runtime would find them first, and locked, so that they could not be taken away. The root
    directory itself is an empty tmpfs: mount points that are missing there are made without a trace on the host.
    """
    mount("tmpfs", "/", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1024k")
    os.chdir("/..")  # from the root directory `..` leads onto what is mounted over it
    with os.scandir("/") as entries:
        for entry in entries:
            if entry.name in _OWN:
                continue
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), entry.name)
            elif entry.is_dir():
                os.mkdir(entry.name, 0o755)
                bind(entry.path, entry.name, recursive=True)
            elif entry.is_file():
                _file(entry.name)
                bind(entry.path, entry.name)


def fill(spec: Spec) -> None:
    """Mount what a container has of its own, but for its cgroups."""
    for name in _OWN:
        _directory(name)
    _proc(spec)
    _sys(spec)
    _dev(spec)
    if spec.security.masked:
        _mask()
    for tmpfs in spec.tmpfs:
        _tmpfs(tmpfs)
    for volume in spec.volumes:
        _volume(volume)


def list_namespaces_last(spec: Spec, points: list[str]) -> None:
    """Mount anew, behind the cgroups, what the host's tree brings along of namespaces, mounted there at `points`.

    Docker keeps its containers' there (/run/docker/netns), `ip netns` its own. Go from 1.26 on gives up on mountinfo
    at the first of them and would see no quota, which in a container's own tree it does.
    """
    if spec.rootfs is not None:
        return
    for top in sorted({point.split("/")[1] for point in points}.difference(_OWN)):
        remount(top)


def pivot(spec: Spec) -> None:
    """Make the working directory the root, sealed if it is to be read-only, and let go of the old one."""
    if spec.read_only:
        mount_setattr(".", MOUNT_ATTR_RDONLY)
    pivot_root(".", ".")
    # The old root lies on top of the new one now, at the same place.
    umount2(".", MNT_DETACH)
    os.chdir("/")


def _directory(path: str) -> None:
    """Make a mount point. A link in an image would lead the mount elsewhere."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if os.path.islink(path) or not os.path.isdir(path):
            raise failure(f"/{path} in the root file system is not a directory", "make it one") from None
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise failure(f"/{path} cannot be made in the root file system: {reason}", "make it there first") from None


def _proc(spec: Spec) -> None:
    if "pid" not in spec.namespaces and "user" in spec.namespaces:
        # The caller's PID namespace belongs to a user namespace above ours: its /proc is what there is.
        bind("/proc", "proc", recursive=True)
        return
    try:
        mount("proc", "proc", "proc", _SAFE)
    except PermissionError as error:
        hint = "an outer container masks parts of /proc; start it with --privileged (docker: systempaths=unconfined)"
        raise failure(f"a new /proc is refused: {(error.strerror or '').lower()}", hint) from None


def _sys(spec: Spec) -> None:
    if "net" in spec.namespaces or "user" not in spec.namespaces:
        mount("sysfs", "sys", "sysfs", _SAFE | MS_RDONLY)
        return
    # sysfs shows network devices: the caller's network namespace has its own. All of it but the cgroups.
    mount("tmpfs", "sys", "tmpfs", _SAFE, "mode=755,size=64k")
    for name in os.listdir("/sys"):
        os.mkdir(f"sys/{name}", 0o755)
        if name != "fs":
            bind(f"/sys/{name}", f"sys/{name}", recursive=True)
    os.mkdir("sys/fs/cgroup", 0o755)
    mount_setattr("sys", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, recursive=True)


def _dev(spec: Spec) -> None:
    mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k")
    for name in _DEVICES:
        _file(f"dev/{name}")
        # A user namespace may not make device files; the host's are as good.
        bind(f"/dev/{name}", f"dev/{name}")
    for target, name in _DEVICE_LINKS:
        os.symlink(target, f"dev/{name}")
    os.mkdir("dev/pts", 0o755)
    _devpts()
    os.mkdir("dev/shm", 0o1777)
    mount("shm", "dev/shm", "tmpfs", _SAFE, "mode=1777,size=65536k")
    os.mkdir("dev/mqueue", 0o1777)
    if "ipc" in spec.namespaces:
        mount("mqueue", "dev/mqueue", "mqueue", _SAFE)
    else:
        bind("/dev/shm", "dev/shm")  # noqa: S108 the caller's is what sharing means


def _devpts() -> None:
    options = "newinstance,ptmxmode=0666,mode=0620"
    try:
        mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, f"{options},gid=5")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Group 5 (tty) is not mapped where an ordinary user starts us.
        mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)


def _file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))


def _mask() -> None:
    for path in _MASKED.split():
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(mode):
            mount("tmpfs", path, "tmpfs", MS_RDONLY | _SAFE, "size=0")
        else:
            bind("/dev/null", path)
    for path in _READ_ONLY:
        try:
            bind(path, path, recursive=True)
            mount_setattr(path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
        except FileNotFoundError:
            continue


def _tmpfs(tmpfs: Tmpfs) -> None:
    target = inside(tmpfs.target, directory=True, option="--tmpfs")
    flags = (
        ("ro", MS_RDONLY),
        ("nosuid", MS_NOSUID),
        ("nodev", MS_NODEV),
        ("noexec", MS_NOEXEC),
    )
    mount("tmpfs", target, "tmpfs", sum(flag for name, flag in flags if name in tmpfs.flags), tmpfs.data or None)


def _volume(volume: Volume) -> None:
    try:
        directory = stat.S_ISDIR(os.stat(volume.source).st_mode)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise failure(f"--volume: {volume.source}: {reason}", "name a directory or file of the host") from None
    target = inside(volume.target, directory, option="--volume")
    bind(volume.source, target, recursive=True)
    attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | (MOUNT_ATTR_RDONLY if volume.read_only else 0)
    mount_setattr(target, attributes, recursive=True)


def inside(path: str, directory: bool, option: str) -> str:
    """Where an absolute path of the container is found from here: links are followed below the new root alone.

    Raises:
        CgagentError: it is not there and cannot be made.
    """
    root = os.getcwd()
    if root == "/":
        # A link's absolute target would be looked up in the old root, which holds the same.
        found = f".{os.path.realpath(path)}"
    else:
        from cgagent.host import Host

        found = Host(root).locate(path)
    try:
        if directory:
            os.makedirs(found, 0o755, exist_ok=True)
        elif not os.path.exists(found):
            os.makedirs(os.path.dirname(found), 0o755, exist_ok=True)
            _file(found)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise failure(f"{option}: {path} cannot be made: {reason}", "make it in the root first") from None
    return found
