"""What is shown: numbers for the supervisor, files to lay over /proc and /sys."""

from __future__ import annotations

from cgagent.launch.shown import machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.host import Host
    from cgagent.launch.shown.options import Shown

_CPU_DIRECTORY = "/sys/devices/system/cpu"
_NODE_DIRECTORY = "/sys/devices/system/node"


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
        time_offset: seconds that the container's boot clock is off.
    """

    def __init__(self, shown: Shown, host: Host, time_offset: float) -> None:
        """What the real machine's files say, read from `host`, with what `shown` changes in it."""
        self.option = shown.option
        self.cpus = shown.cpus
        self.memory = shown.memory
        self.allowed = shown.allowed or frozenset(range(shown.cpus))
        self.time_offset = time_offset
        self.files: dict[str, str] = {}
        self.directories: dict[str, dict[str, str]] = {}
        if self.cpus:
            self._cpu_files(host)
        real = host.read_if_there("/proc/meminfo") or ""
        if self.memory:
            real = self.files["/proc/meminfo"] = machine.meminfo(real, self.memory)
        self.meminfo = machine.meminfo_bytes(real)
        if self.cpus and host.is_directory(_NODE_DIRECTORY):
            total = self.meminfo.get("MemTotal", 0)
            self.directories[_NODE_DIRECTORY] = machine.node_directory(self.cpus, total)

    def _cpu_files(self, host: Host) -> None:
        self.files["/proc/cpuinfo"] = machine.cpuinfo(host.read_if_there("/proc/cpuinfo") or "", self.cpus)
        self.files["/proc/stat"] = machine.stat(host.read_if_there("/proc/stat") or "", self.cpus)
        kernel_max = host.read_if_there(f"{_CPU_DIRECTORY}/kernel_max") or f"{self.cpus - 1}\n"
        self.directories[_CPU_DIRECTORY] = machine.cpu_directory(self.cpus, kernel_max)

    def cpusets(self) -> dict[str, str]:
        """What a cpuset's files say, by name."""
        text = f"{machine.list_text(self.allowed)}\n"
        return dict.fromkeys(machine.CPUSET_FILES, text) if self.cpus else {}

    def overlay(self) -> Mapping[str, str]:
        """All texts by absolute path."""
        below = {f"{place}/{name}": text for place, files in self.directories.items() for name, text in files.items()}
        return self.files | below
