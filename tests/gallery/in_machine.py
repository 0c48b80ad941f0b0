"""Takes the gallery's real captures of one cgroup version, in a machine booted for it: Docker, systemd, runc.

    BOOT_CPUS=8 tests/machine/boot v1|v2 .venv/bin/python tests/gallery/in_machine.py

prints each as a line `CAPTURE NAME BASE64`, for that machine can write to no other place. `base64 -d` makes the archive
of it, and keep.py the text. In that machine a systemd is started as PID 1 of a PID namespace, and all cgroups are its.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time

PLACE = "/run/gallery"
VERSION = "v1" if os.path.isdir("/sys/fs/cgroup/memory") else "v2"
UNITS = "/run/systemd/system"
BINARIES = ("dockerd", "docker", "containerd", "containerd-shim-runc-v2", "runc", "busybox")
CGAGENT = [sys.executable, "-m", "cgagent"]
CAPTURE = [*CGAGENT, "capture", "--quiet", "--blank-paths"]
CONTAINER = "5f1c0b6f2a1e4b0fb2d9c4c0a9a4e1dc7f2f6f0e9c5d4f3a8b7c6d5e4f3a2b1c"
POD = "kubepods-burstable-pod6e1f0a52_3c9b_4d7e_8f21_b5a7c4d09e63.slice"
PATIENCE = 300

# Complete units, and no sysinit.target behind them: that would set up a machine.
_ALONE = "[Unit]\nDefaultDependencies=no\n"
_PATH = f"PATH={PLACE}:/usr/bin:/bin:/usr/sbin:/sbin"
_UNIT_TEXTS = {
    "take.service": f"""
Requires=dbus.service
After=dbus.service
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
Environment={_PATH}
ExecStart={sys.executable} {os.path.abspath(__file__)} take
StandardOutput=append:{PLACE}/told
StandardError=append:{PLACE}/told
""",
    "dbus.socket": "[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    "dbus.service": """
Requires=dbus.socket
After=dbus.socket
[Service]
Type=notify
NotifyAccess=main
TimeoutStartSec=600
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
""",
    **dict.fromkeys(("sysinit.target", "basic.target", "shutdown.target"), ""),
    # What is captured: a service without a quota of its own, in a slice that has one; and a pod's slice.
    "orders.slice": f"[Slice]\nCPUQuota=250%\nMemoryMax={512 << 20}\n",
    "orders.service": f"[Service]\nSlice=orders.slice\nMemoryMax={1 << 30}\nExecStart={PLACE}/busybox sleep 9999\n",
    POD: f"[Slice]\nCPUQuota=300%\nMemoryMax={512 << 20}\n",
}


def boot() -> None:
    """Start systemd, which starts `take`, and tell what came of it."""
    if VERSION == "v1":  # by which systemd knows that its hierarchies are v1's; it mounts what is still missing
        os.makedirs("/sys/fs/cgroup/systemd")
        words = ["mount", "-t", "cgroup", "-o", "none,name=systemd,xattr", "cgroup", "/sys/fs/cgroup/systemd"]
        subprocess.run(words, check=True)
    os.makedirs(UNITS)
    os.makedirs(PLACE)
    os.makedirs("/run/dbus", exist_ok=True)
    for name, text in _UNIT_TEXTS.items():
        with open(f"{UNITS}/{name}", "w", encoding="ascii") as file:
            file.write(_ALONE + text)
    for name in BINARIES:
        source = shutil.which(name, path="/usr/sbin:/usr/bin:/bin")
        if source is None:
            sys.exit(f"in_machine: no {name}: apt-get install docker.io busybox-static")
        shutil.copy(source, PLACE)  # the machine's own files are read through an emulated device
    systemd = "/lib/systemd/systemd --unit=take.service --log-target=console"
    begin = f"mount --bind {PLACE}/console /dev/console && exec env -i container=gallery {_PATH} {systemd}"
    for name in ("console", "told"):
        with open(f"{PLACE}/{name}", "w", encoding="ascii"):
            pass
    subprocess.run(["unshare", "--pid", "--fork", "--mount", "--mount-proc", "sh", "-c", begin], check=False)
    for name in ("told", "console"):
        with open(f"{PLACE}/{name}", encoding="utf-8", errors="replace") as file:
            text = file.read()
        print(text, flush=True)
        if "CAPTURE" in text:
            break


def emit(name: str, words: list[str]) -> None:
    """Run a command that writes a capture to standard output, and print it as a line."""
    done = subprocess.run(words, capture_output=True, check=False)
    print("CAPTURE", name, base64.b64encode(done.stdout).decode(), flush=True)
    if done.returncode:
        print(f"{name}: {done.stderr.decode()}", flush=True)


def output(*words: str) -> str:
    """What a command says.

    Raises:
        CalledProcessError: it failed.
    """
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def docker(driver: str, *options: str) -> None:
    """A container of Debian's Docker, whose daemon has the cgroup driver `driver`, under 2.5 CPUs and 384 MiB."""
    place, address = f"{PLACE}/docker-{driver}", f"unix://{PLACE}/{driver}.sock"
    network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    where = [f"--data-root={place}", f"--exec-root={place}-run", f"--pidfile={place}.pid", f"--host={address}"]
    words = ["dockerd", *where, *network, "--storage-driver=vfs", f"--exec-opt=native.cgroupdriver={driver}"]
    os.makedirs(f"{PLACE}/image/bin", exist_ok=True)
    shutil.copy(f"{PLACE}/busybox", f"{PLACE}/image/bin/sleep")
    with open(f"{place}.log", "w", encoding="utf-8") as log, subprocess.Popen(words, stderr=log) as daemon:
        client = ["docker", "--host", address]
        try:
            end = time.monotonic() + PATIENCE
            while subprocess.run([*client, "version"], capture_output=True, check=False).returncode:
                if daemon.poll() is not None or time.monotonic() > end:
                    raise OSError("dockerd does not answer")
                time.sleep(1)
            subprocess.run(f"tar -C {PLACE}/image -c . | {' '.join(client)} import - orders", shell=True, check=True)
            limits = ["--cpus=2.5", "--memory=384m", "--network=none", "--security-opt=apparmor=unconfined"]
            name = output(*client, "run", "--detach", *limits, *options, "orders", "/bin/sleep", "9999")
            pid = output(*client, "inspect", "--format={{.State.Pid}}", name)
            emit(f"docker-{VERSION}-{driver}", [*CAPTURE, "--pid", pid, "-"])
            output(*client, "rm", "--force", name)
        except (OSError, subprocess.CalledProcessError):
            with open(f"{place}.log", encoding="utf-8") as told:
                print(told.read()[-4000:], flush=True)
            raise
        finally:
            daemon.terminate()


def slices() -> None:
    """systemd's service in a slice of its own."""
    output("systemctl", "start", "orders.service")
    emit("systemd-slice", [*CAPTURE, "--pid", output("systemctl", "show", "-P", "MainPID", "orders.service"), "-"])
    output("systemctl", "stop", "orders.service")


def pod() -> None:
    """What runc makes of a container with the systemd driver's names in a pod's slice; the host's cgroup namespace."""
    bundle = f"{PLACE}/pod"
    os.makedirs(bundle)
    output("runc", "spec", "--bundle", bundle)
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["process"] |= {"terminal": False, "args": ["/bin/sleep", "9999"]}
    config["root"]["path"] = f"{PLACE}/image"
    config["linux"]["cgroupsPath"] = f"{POD}:cri-containerd:{CONTAINER}"
    config["linux"]["namespaces"] = [{"type": one} for one in ("pid", "mount", "ipc", "uts", "network")]
    config["linux"]["resources"] = {"cpu": {"quota": 250_000, "period": 100_000}, "memory": {"limit": 384 << 20}}
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    output("systemctl", "start", POD)
    started = ["runc", "--systemd-cgroup", "run", "--detach", "--pid-file", f"{bundle}/number", "--bundle", bundle]
    with open(f"{bundle}/log", "w", encoding="utf-8") as log:
        subprocess.run([*started, "orders"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    with open(f"{bundle}/number", encoding="ascii") as file:
        emit(f"kubernetes-systemd-{VERSION}-runc", [*CAPTURE, "--pid", file.read(), "-"])
    output("runc", "--systemd-cgroup", "delete", "--force", "orders")


def launcher() -> None:
    """A command under `cgagent run`."""
    emit(f"cgagent-run-{VERSION}", [*CGAGENT, "run", "--cpus", "2.5", "--memory", "256Mi", "--", *CAPTURE, "-"])


def take() -> None:
    """Every capture, in the machine as systemd keeps it."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/etc/docker"], check=False)  # dockerd keeps a key there
    for one in (
        slices,
        lambda: docker("cgroupfs"),
        lambda: docker("systemd", "--cgroupns=host"),
        pod,
        launcher,
    ):
        try:
            one()
        except (OSError, subprocess.CalledProcessError) as error:
            print(error, flush=True)


if __name__ == "__main__":
    take() if sys.argv[1:] == ["take"] else boot()
