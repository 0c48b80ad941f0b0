"""What is shown: numbers for the supervisor, files to lay over /proc and /sys."""

from __future__ import annotations

from cgagent.cgroup.numbers import cpu_list, format_cpu_list
from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.launch.shown import machine
from cgagent.launch.shown.options import MOST_CPUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.capture import Capture
    from cgagent.host import Host
    from cgagent.launch.shown.options import Shown

CGROUPS = "/sys/fs/cgroup"
_CPU_DIRECTORY = "/sys/devices/system/cpu"
_NODE_DIRECTORY = "/sys/devices/system/node"
_CPU_FILES = ("online", "possible", "present")


class Scene:
    """One machine as it is shown.

    Attributes:
        option: the option that asks for it, for messages.
        cpus: how many CPUs it has; 0: those of this machine.
        allowed: those that the command may run on.
        memory: bytes; 0: this machine's.
        meminfo: the numbers of /proc/meminfo, in bytes.
        files: texts to lay over single files, by absolute path.
        directories: texts to lay over whole directories: path -> relative path -> text.
        capture: the cgroup layout with the process's own files; None: the real one.
        time_offset: seconds that the container's boot clock is off.
    """

    def __init__(self, shown: Shown, host: Host, time_offset: float) -> None:
        """What the real machine's files say, read from `host`, with what `shown` changes in it.

        Raises:
            CgagentError: the capture can't be used.
        """
        self.option = shown.option
        self.cpus = shown.cpus
        self.memory = shown.memory
        self.allowed = shown.allowed or frozenset(range(shown.cpus))
        self.time_offset = time_offset
        self.files: dict[str, str] = {}
        self.directories: dict[str, dict[str, str]] = {}
        self.capture: Capture | None = None
        if shown.replay is not None:
            self._replay(shown.replay)
        if self.cpus:
            self._cpu_files(host, as_captured=not shown.cpus)
        if shown.layout is not None:
            every = machine.cpu_list(self.cpus) if self.cpus else host.read(f"{_CPU_DIRECTORY}/online").strip()
            self.capture = shown.layout.capture(every)
        real = host.read_if_there("/proc/meminfo") or ""
        if self.memory:
            real = self.files["/proc/meminfo"] = machine.meminfo(real, self.memory)
        self.meminfo = machine.meminfo_bytes(real)
        if self.cpus and host.is_directory(_NODE_DIRECTORY):
            total = self.meminfo.get("MemTotal", 0)
            self.directories[_NODE_DIRECTORY] = machine.node_directory(self.cpus, total)
        text = None if self.capture is None else self.capture.text("/proc/cgroups")
        if text is not None:
            self.files["/proc/cgroups"] = text

    def _replay(self, path: str) -> None:
        """Take layout, CPUs and memory of a capture, where the options say nothing else."""
        from cgagent.capture import load

        self.capture = load(path)
        meta = self.capture.meta
        if not self.cpus and meta.online:
            online = cpu_list(meta.online, "online") or frozenset()
            self.cpus = max(online) + 1
            if self.cpus > MOST_CPUS:
                hint = f"give --host-cpus {MOST_CPUS} or fewer"
                raise CgagentError(f"--replay: {path} is of a machine of {self.cpus} CPUs", hint, EXIT_RUN_FAILED)
            self.allowed = (cpu_list(_affinity(self.capture), "affinity") or online) & online or online
        if not self.memory:
            self.memory = meta.memory_total or 0

    def _cpu_files(self, host: Host, as_captured: bool) -> None:
        self.files["/proc/cpuinfo"] = machine.cpuinfo(host.read_if_there("/proc/cpuinfo") or "", self.cpus)
        self.files["/proc/stat"] = machine.stat(host.read_if_there("/proc/stat") or "", self.cpus)
        kernel_max = host.read_if_there(f"{_CPU_DIRECTORY}/kernel_max") or f"{self.cpus - 1}\n"
        files = self.directories[_CPU_DIRECTORY] = machine.cpu_directory(self.cpus, kernel_max)
        if self.capture is not None and as_captured:
            for name in _CPU_FILES:
                files[name] = self.capture.text(f"{_CPU_DIRECTORY}/{name}") or files[name]

    def cpusets(self) -> dict[str, str]:
        """What a cpuset's files say, by name."""
        text = f"{format_cpu_list(self.allowed)}\n"
        return dict.fromkeys(machine.CPUSET_FILES, text) if self.cpus else {}

    def overlay(self) -> dict[str, str]:
        """All texts by absolute path, but the capture's."""
        below = {f"{place}/{name}": text for place, files in self.directories.items() for name, text in files.items()}
        return self.files | below


def _affinity(capture: Capture) -> str:
    """The CPUs that the captured process might run on, or empty."""
    if capture.meta.affinity:
        return capture.meta.affinity
    for line in (capture.text("/proc/self/status") or "").split("\n"):
        if line.startswith("Cpus_allowed_list:"):
            return line.partition(":")[2].strip()
    return ""
