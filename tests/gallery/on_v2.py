"""Takes the gallery's real captures of cgroup v2, in a machine booted for it.

    BOOT_CPUS=8 tests/machine/boot v2 .venv/bin/python tests/gallery/on_v2.py

prints each as a line `CAPTURE NAME BASE64`, for that machine can write to no other place. `base64 -d` makes the archive
of it, and keep.py the text.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

TOP = "/sys/fs/cgroup"
CONTROLLERS = "+cpu +memory +cpuset +pids"
CAPTURE = [sys.executable, "-m", "cgagent", "capture", "--quiet", "--blank-paths", "-"]
CONTAINER = "5f1c0b6f2a1e4b0fb2d9c4c0a9a4e1dc7f2f6f0e9c5d4f3a8b7c6d5e4f3a2b1c"
SHARED = ("bin", "etc", "lib", "lib64", "root", "sbin", "srv", "tmp", "usr")


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def emit(name: str, words: list[str]) -> None:
    """Run a command that writes a capture to standard output, and print it as a line."""
    done = subprocess.run(words, capture_output=True, check=False)
    print("CAPTURE", name, base64.b64encode(done.stdout).decode(), flush=True)
    if done.returncode:
        print(f"{name}: {done.stderr.decode()}", flush=True)


def slices() -> None:
    """A service without a quota, in a slice that has one, as systemd names and nests them."""
    directory = f"{TOP}/orders.slice"
    os.makedirs(f"{directory}/orders.service")
    write(f"{directory}/cgroup.subtree_control", CONTROLLERS)
    write(f"{directory}/cpu.max", "250000 100000")
    write(f"{directory}/memory.max", str(512 << 20))
    write(f"{directory}/orders.service/memory.max", str(1 << 30))
    enter = f'echo $$ > {directory}/orders.service/cgroup.procs && exec "$@"'
    emit("systemd-slice", ["sh", "-c", enter, "sh", *CAPTURE])


def container() -> None:
    """What runc makes for Docker: a cgroup below /docker, and a cgroup namespace whose root it is."""
    bundle = "/run/orders"
    os.makedirs(f"{bundle}/rootfs")
    os.makedirs(f"{TOP}/docker")
    write(f"{TOP}/docker/cgroup.subtree_control", CONTROLLERS)
    subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["process"] |= {
        "terminal": False,
        "args": CAPTURE,
        "env": [f"{name}={value}" for name, value in os.environ.items()],
    }
    config["root"]["readonly"] = False
    for name in SHARED:
        if os.path.isdir(f"/{name}"):
            source = os.path.realpath(f"/{name}")
            config["mounts"].append({"destination": f"/{name}", "source": source, "options": ["rbind", "ro"]})
    config["linux"]["cgroupsPath"] = f"/docker/{CONTAINER}"
    config["linux"]["namespaces"] = [{"type": one} for one in ("pid", "mount", "ipc", "uts", "network", "cgroup")]
    config["linux"]["resources"] = {"cpu": {"quota": 250_000, "period": 100_000}, "memory": {"limit": 384 << 20}}
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    emit("docker-v2", ["runc", "run", "--bundle", bundle, "orders"])


def launcher() -> None:
    """A command under `cgagent run`."""
    emit(
        "cgagent-run-v2", [sys.executable, "-m", "cgagent", "run", "--cpus", "2.5", "--memory", "256Mi", "--", *CAPTURE]
    )


if __name__ == "__main__":
    write(f"{TOP}/cgroup.subtree_control", CONTROLLERS)
    for take in (slices, container, launcher):
        try:
            take()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{take.__name__}: {error}", flush=True)
