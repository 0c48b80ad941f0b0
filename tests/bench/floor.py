"""The least that a launcher in Python does: the system calls of `cgagent run` for `true`, one after the other.

No option is read, no hierarchy looked for, no failure explained, no signal passed on, no user changed, no seccomp
filter set: what `bench_run` measures here is the interpreter, its two forks and the kernel. On cgroup v1 and hybrid.
"""

from __future__ import annotations

import gc
import os

from cgagent.launch.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    bind,
    clone,
    clone_into_cgroup,
    loopback_up,
    mount,
    mount_setattr,
    pivot_root,
    prctl,
    sethostname,
    umount2,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

BASE = "/sys/fs/cgroup"
HIERARCHIES = ("systemd", "pids", "blkio", "freezer", "devices", "memory", "cpuset", "cpuacct", "cpu")
_NAMESPACES = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC
_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
_DOCKERS = 0xA80425FB  # the fourteen capabilities


def main(root: str) -> NoReturn:
    """Launch `true` in the root file system `root`."""
    gc.disable()
    name = f"cgagent-test-floor-{os.getpid()}"
    directories = [f"{BASE}/{one}/{name}" for one in (*HIERARCHIES, "unified")]
    for directory in directories:
        os.mkdir(directory)
    for file in ("cpuset.cpus", "cpuset.mems"):
        _write(f"{BASE}/cpuset/{name}/{file}", _read(f"{BASE}/cpuset/{file}"))
    _write(f"{BASE}/cpu/{name}/cpu.cfs_period_us", b"100000")
    _write(f"{BASE}/cpu/{name}/cpu.cfs_quota_us", b"50000")
    _write(f"{BASE}/memory/{name}/memory.limit_in_bytes", b"67108864")
    go, go_in = os.pipe()
    end, end_in = os.pipe()
    init = clone(_NAMESPACES)
    if init == 0:
        _init(root, name, go, end_in)
    for kind in ("uid", "gid"):
        _write(f"/proc/{init}/{kind}_map", b"0 0 4294967295\n")
    os.write(go_in, b"g")
    code = os.read(end, 1)
    for directory in directories:
        os.rmdir(directory)
    os.waitpid(init, 0)
    os._exit(code[0])


def _init(root: str, name: str, go: int, end: int) -> NoReturn:
    os.read(go, 1)
    sethostname("floor")
    loopback_up()
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    bind(root, root, recursive=True)
    os.chdir(root)
    mount("proc", "proc", "proc", _SAFE)
    mount("sysfs", "sys", "sysfs", _SAFE | MS_RDONLY)
    mount("tmpfs", "dev", "tmpfs", MS_NOSUID)
    for device in ("null", "zero", "full", "random", "urandom", "tty"):
        os.close(os.open(f"dev/{device}", os.O_CREAT | os.O_WRONLY))
        bind(f"/dev/{device}", f"dev/{device}")
    for directory, kind in (("pts", "devpts"), ("shm", "tmpfs"), ("mqueue", "mqueue")):
        os.mkdir(f"dev/{directory}")
        mount(kind, f"dev/{directory}", kind, MS_NOSUID | MS_NOEXEC)
    for path in filter(os.path.exists, ("proc/acpi", "sys/firmware")):
        mount("tmpfs", path, "tmpfs", MS_RDONLY | _SAFE)
    for path in filter(os.path.exists, ("proc/interrupts", "proc/keys", "proc/timer_list")):
        bind("/dev/null", path)
    for path in ("proc/bus", "proc/fs", "proc/irq", "proc/sys"):
        bind(path, path, recursive=True)
        mount_setattr(path, MOUNT_ATTR_RDONLY)
    command = clone_into_cgroup(os.open(f"{BASE}/unified/{name}", os.O_RDONLY))
    if command == 0:
        _command(name)
    _, status = os.waitpid(command, 0)
    os.write(end, bytes([os.waitstatus_to_exitcode(status)]))
    os._exit(0)


def _command(name: str) -> NoReturn:
    for hierarchy in HIERARCHIES:
        _write(f"{BASE}/{hierarchy}/{name}/tasks", b"0")
    unshare(CLONE_NEWCGROUP)
    mount("tmpfs", "sys/fs/cgroup", "tmpfs", _SAFE)
    for hierarchy in HIERARCHIES:
        os.mkdir(f"sys/fs/cgroup/{hierarchy}")
        options = "name=systemd" if hierarchy == "systemd" else hierarchy
        mount("cgroup", f"sys/fs/cgroup/{hierarchy}", "cgroup", _SAFE | MS_RDONLY, options)
    os.mkdir("sys/fs/cgroup/unified")
    mount("cgroup2", "sys/fs/cgroup/unified", "cgroup2", _SAFE | MS_RDONLY)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    for number in range(41):
        if not _DOCKERS >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
    os.execve("/bin/true", ["true"], {})


def _write(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text)
    os.close(fd)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    text = os.read(fd, 4096)
    os.close(fd)
    return text
