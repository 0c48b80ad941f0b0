"""A Docker engine of the tests' own: its data, sockets and containers, and where wanted its network too.

Everything but the store of images is below a directory that goes with the engine. The store is kept between runs
(CGAGENT_TEST_CACHE), so that base images are made and packages fetched once.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from golang.toolchain import cache

DOCKERD = "/usr/sbin/dockerd"
DOCKER = "/usr/bin/docker"
PATIENCE = 60


def missing() -> str:
    """Why no engine can be started here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    for program in (DOCKERD, DOCKER):
        if not os.path.exists(program):
            return f"{program} is not there (Debian: docker.io)"
    return ""


class Engine:
    """dockerd, and the `docker` that talks to it.

    Attributes:
        directory: of its sockets and logs, removed with it.
        pid: dockerd's.
    """

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="cgagent-test-docker-")
        self.data = os.path.join(cache(), "docker")
        os.makedirs(self.data, exist_ok=True)
        # Two engines on one store would ruin it.
        self._lock = os.open(os.path.join(cache(), "docker.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._daemon: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def start(self, private_network: bool = False) -> None:
        """Start dockerd, in this machine's network without a bridge of its own, or in a network namespace."""
        words = [DOCKERD, "--data-root", self.data, "--exec-root", f"{self.directory}/exec"]
        words += ["--pidfile", f"{self.directory}/pid", "--host", f"unix://{self.directory}/socket"]
        words += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        if private_network:
            inside = 'ip link set lo up && exec "$@"'
            words = ["unshare", "--net", "sh", "-c", inside, "sh", *words]
        with open(f"{self.directory}/log", "ab") as log:
            self._daemon = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([DOCKER, "version"], env=self.environ, capture_output=True, check=False).returncode:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not come up:\n{self.log()[-2000:]}")
            time.sleep(0.2)
        self.pid = self._daemon.pid

    def stop(self) -> None:
        """End all containers and dockerd."""
        if self._daemon is None:
            return
        containers = self.docker("ps", "--all", "--quiet").stdout.split()
        if containers:
            self.docker("rm", "--force", "--volumes", *containers)
        self._daemon.send_signal(signal.SIGTERM)
        try:
            self._daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        self._daemon = None

    def close(self) -> None:
        """Leave nothing but the store."""
        self.stop()
        os.close(self._lock)
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split(" ")[4] for line in file]
        for mount in sorted(mounts, reverse=True):
            if mount.startswith((f"{self.directory}/", f"{self.data}/")):
                subprocess.run(["umount", "--lazy", mount], check=False)
        for directory in glob.glob("/sys/fs/cgroup/*/docker"):
            try:
                os.rmdir(directory)
            except OSError:
                pass  # another engine's containers are there
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def environ(self) -> dict[str, str]:
        """What tells a client of the engine where it is; BuildKit is not in every engine of today."""
        return {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.directory}/socket",
            "DOCKER_CONFIG": self.directory,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
        }

    def docker(self, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002
        """Run a `docker` command; look at what comes of it."""
        command = [DOCKER, *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False, input=input)

    def done(self, *words: str) -> str:
        """What a `docker` command that has to succeed prints."""
        result = self.docker(*words)
        assert result.returncode == 0, f"docker {' '.join(words)}: {result.stderr[-3000:]}{result.stdout[-1000:]}"
        return result.stdout

    def fetch(self, url: str) -> str:
        """What is at `url`, as seen from the engine's network; empty where nobody answers."""
        program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode(), end='')"
        words = ["nsenter", "--net", f"--target={self.pid}", sys.executable, "-I", "-c", program, url]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    def log(self) -> str:
        """dockerd's own."""
        with open(f"{self.directory}/log", encoding="utf-8", errors="replace") as file:
            return file.read()
