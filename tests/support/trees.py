"""Trees of kernel files below a directory: what `--root` and `Host(root)` read."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

V2_MOUNT = "25 21 0:22 / /sys/fs/cgroup rw,nosuid,nodev,noexec - cgroup2 cgroup2 rw\n"
_BASE = """\
22 1 8:1 / / rw,relatime - ext4 /dev/root rw
20 22 0:19 / /proc rw,nosuid,nodev,noexec - proc proc rw
21 22 0:20 / /sys rw,nosuid,nodev,noexec - sysfs sysfs rw
"""


def build(root: object, files: Mapping[str, str]) -> str:
    """Write `files` (absolute paths and their text) below `root`; return it."""
    top = str(root)
    for path, text in files.items():
        place = top + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
    return top


def machine(cgroup: str, mounts: str, cpus: str = "0-63", memory_kb: int = 65536000) -> dict[str, str]:
    """The files of a machine beside its cgroup directories: where the process stands, mounts, CPUs, memory."""
    return {
        "/proc/self/cgroup": cgroup,
        "/proc/self/mountinfo": _BASE + mounts,
        "/proc/self/status": f"Name:\tapp\nCpus_allowed_list:\t{cpus}\n",
        "/proc/meminfo": f"MemTotal:       {memory_kb} kB\nMemFree:        1000 kB\n",
    }


def v2(files: Mapping[str, str], path: str = "/", **settings: object) -> dict[str, str]:
    """A v2 machine with the process in `path`; `files` are relative to the mount point /sys/fs/cgroup."""
    tree = machine(f"0::{path}\n", V2_MOUNT, **settings)  # type: ignore[arg-type]
    tree.update({f"/sys/fs/cgroup{name}": text for name, text in files.items()})
    return tree


def escape(path: str) -> str:
    r"""`path` as the kernel writes it in mountinfo (seq_path with " \t\n\\"): three octal digits each."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\" else char for char in path)
