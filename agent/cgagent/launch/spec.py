"""What is asked of the launcher, read from the words of the command line. Pure: nothing is opened or looked up.

Options bear `docker run`'s names and read its notation; what docker has no word for is named after the kernel's.
"""

from __future__ import annotations

import os

from cgagent.cgroup.numbers import cpu_list
from cgagent.errors import MalformedError, UsageError
from cgagent.launch.capabilities import chosen
from cgagent.launch.resources import UNLIMITED, IoRate, Resources, check_period, quota_of
from cgagent.record import Record
from cgagent.units import parse_count, parse_cpus, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.parser import Arguments

NAMESPACES = ("pid", "net", "mnt", "uts", "ipc", "user", "cgroup")
NETWORKS = ("none", "host", "veth")
_TMPFS_FLAGS = ("rw", "ro", "exec", "noexec", "suid", "nosuid", "dev", "nodev")
_TMPFS_SETTINGS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks")
_LEAST_MEMORY = 512 * 1024
# Position is number: asm-generic/resource.h
_ULIMIT_NAMES = "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime"
_ULIMITS = _ULIMIT_NAMES.split()


class Volume(Record):
    """A directory or file of the host, where it appears, and whether it may not be written there."""

    __slots__ = ("read_only", "source", "target")

    def __init__(self, source: str, target: str, read_only: bool) -> None:
        self.source = source
        self.target = target
        self.read_only = read_only


class Tmpfs(Record):
    """An empty file system in memory: where, mount flags by name, and the data string for the kernel."""

    __slots__ = ("data", "flags", "target")

    def __init__(self, target: str, flags: frozenset[str], data: str) -> None:
        self.target = target
        self.flags = flags
        self.data = data


class Ulimit(Record):
    """A resource limit of setrlimit(2): its number, soft and hard; -1 is unlimited."""

    __slots__ = ("hard", "name", "number", "soft")

    def __init__(self, name: str, soft: int, hard: int) -> None:
        self.name = name
        self.number = _ULIMITS.index(name)
        self.soft = soft
        self.hard = hard


class Security(Record):
    """What the command may do.

    Attributes:
        capabilities: those it keeps.
        ambient: those that were asked for by name: a user other than root gets them too.
        no_new_privileges, seccomp, masked: docker's defaults, each of which `--security-opt` can take away.
        nested: `--privileged`: a launcher inside has what it needs.
    """

    __slots__ = ("ambient", "capabilities", "masked", "nested", "no_new_privileges", "seccomp")

    def __init__(self, arguments: Arguments, own_users: bool) -> None:
        """Read the options; `own_users` is whether there is a new user namespace.

        Raises:
            UsageError: one of them is off.
        """
        added, dropped = arguments.cap_add or [], arguments.cap_drop or []
        if not own_users:
            # Only there it would make device files that work elsewhere.
            dropped = [*dropped, "MKNOD"]
        self.nested: bool = arguments.privileged
        self.capabilities = chosen(["ALL", *added] if self.nested else added, dropped)
        asked = chosen(added, ["ALL"]) if added else frozenset()
        self.ambient = asked
        self.no_new_privileges = self.seccomp = self.masked = not self.nested
        for word in arguments.security_opt or []:
            name, _, value = word.replace(":", "=", 1).partition("=")
            if name == "no-new-privileges" and value in ("", "true", "false"):
                self.no_new_privileges = value != "false"
            elif (name, value) == ("seccomp", "unconfined"):
                self.seccomp = False
            elif (name, value) == ("systempaths", "unconfined"):
                self.masked = False
            else:
                known = "no-new-privileges=false, seccomp=unconfined, systempaths=unconfined"
                raise UsageError(f"--security-opt: '{word}' is not known", f"choose one of {known}")


class Spec(Record):
    """A container to be: the words of the command line, understood.

    Attributes:
        command: program and arguments.
        namespaces: those of NAMESPACES that are new.
        time_offset: seconds by which the monotonic and boot clocks differ in a new time namespace; None: none.
        rootfs: another root directory; None for the host's tree.
        user: `USER[:GROUP]` as given, names not yet looked up; None for root.
        environ: the command's environment.
        stop_timeout: seconds after which a second SIGTERM becomes SIGKILL.
        net_rate: bytes a second in each direction; None: no limit.
        dns: name servers.
    """

    __slots__ = (
        "best_effort",
        "cgroup_parent",
        "command",
        "dns",
        "environ",
        "go_env",
        "hostname",
        "init",
        "namespaces",
        "net",
        "net_nat",
        "net_rate",
        "preserve_fds",
        "read_only",
        "resources",
        "rootfs",
        "security",
        "stats",
        "stats_file",
        "stop_timeout",
        "time_offset",
        "tmpfs",
        "tty",
        "ulimits",
        "user",
        "volumes",
        "workdir",
    )

    def __init__(self, arguments: Arguments, environ: Mapping[str, str]) -> None:
        """Understand the words.

        Raises:
            UsageError: one of them is off.
        """
        a = arguments
        self.command: list[str] = a.command
        if not self.command or not self.command[0]:
            raise UsageError("COMMAND is missing", "write it after --, as in: cgagent run --cpus 1.5 -- ./orders")
        self.resources = _resources(a)
        self.net = _choice(a.net or "none", NETWORKS, "--net")
        shared = {_choice("mnt" if word == "mount" else word, NAMESPACES, "--share") for word in a.share or []}
        if "net" in shared and a.net not in (None, "host"):
            raise UsageError(f"--share net does not go with --net {a.net}", "leave one of the two out")
        if "net" in shared:
            self.net = "host"
        self.namespaces = frozenset(NAMESPACES) - shared - ({"net"} if self.net == "host" else set())
        self.net_nat: bool = a.net_nat
        self.dns: list[str] = a.dns or []
        for option, value in (("--net-rate", a.net_rate), ("--net-nat", a.net_nat), ("--dns", a.dns)):
            if value and self.net != "veth":
                raise UsageError(f"{option} needs --net veth", f"add it, or leave {option} out")
        self.net_rate = None if a.net_rate is None else _net_rate(a.net_rate)
        self.hostname: str | None = _hostname(a.hostname)
        if a.hostname is not None and "uts" not in self.namespaces:
            raise UsageError("--hostname does not go with --share uts", "leave one of the two out")
        self.time_offset = None if a.time_offset is None else _seconds(a.time_offset, "--time-offset")
        self.cgroup_parent: str | None = a.cgroup_parent
        self._files(a)
        self.security = Security(a, "user" in self.namespaces)
        self.user: str | None = _user(a.user)
        self.environ = _environ(a.env or [], a.env_file or [], environ)
        self.ulimits = [_ulimit(text) for text in a.ulimit or []]
        self.tty: bool = a.tty
        self.init: bool = not a.no_init
        self.stop_timeout = 10.0 if a.stop_timeout is None else _seconds(a.stop_timeout, "--stop-timeout")
        if self.stop_timeout < 0:
            raise UsageError(f"--stop-timeout: '{a.stop_timeout}' is below 0", "give seconds")
        self.preserve_fds = parse_count(a.preserve_fds or "0", "--preserve-fds")
        self.best_effort: bool = a.best_effort
        self.go_env: bool = a.go_env
        self.stats: bool = a.stats
        self.stats_file: str | None = a.stats_file

    def _files(self, a: Arguments) -> None:
        self.rootfs: str | None = None if a.rootfs is None else os.path.abspath(a.rootfs)
        self.read_only: bool = a.read_only
        self.volumes = [_volume(text) for text in a.volume or []]
        self.tmpfs = [_tmpfs(text) for text in a.tmpfs or []]
        self.workdir: str | None = None if a.workdir is None else _absolute(a.workdir, "--workdir")
        if "mnt" not in self.namespaces:
            needing = (
                ("--rootfs", a.rootfs),
                ("--read-only", a.read_only),
                ("--volume", a.volume),
                ("--tmpfs", a.tmpfs),
            )
            for option, value in needing:
                if value:
                    raise UsageError(f"{option} does not go with --share mnt", "leave one of the two out")


def _choice(text: str, choices: tuple[str, ...], option: str) -> str:
    if text not in choices:
        raise UsageError(f"{option}: '{text}' is not known", f"choose one of {', '.join(choices)}")
    return text


def _net_rate(text: str) -> int:
    from cgagent.launch.rates import parse_rate

    return parse_rate(text, "--net-rate")


def _seconds(text: str, option: str) -> float:
    digits = text.removeprefix("-").removesuffix("s").replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 12:
        raise UsageError(f"{option}: '{text}' is not a number of seconds", "write 10 or 0.5")
    return float(text.removesuffix("s"))


def _absolute(path: str, option: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{option}: '{path}' is not an absolute path", "start it with /")
    if "\0" in path:
        raise UsageError(f"{option}: a path holds no NUL", "leave it out")
    return os.path.normpath("/" + path.lstrip("/"))


def _hostname(text: str | None) -> str | None:
    if text is None:
        return None
    plain = text.replace("-", "").replace(".", "").replace("_", "")
    if not (plain.isascii() and plain.isalnum()) or len(text) > 64:
        raise UsageError(f"--hostname: '{text}' is not a host name", "use up to 64 letters, digits, dots and dashes")
    return text


def _user(text: str | None) -> str | None:
    if text is None:
        return None
    user, colon, group = text.partition(":")
    for word in (user, group) if colon else (user,):
        if not word or word[0] == "-" or ":" in word or "/" in word or (word.isdigit() and int(word[:11]) >= 1 << 32):
            raise UsageError(f"--user: '{text}' is not a user", "write UID, UID:GID or names, as in 1000:1000")
    return text


def _volume(text: str) -> Volume:
    parts = text.split(":")
    mode = parts.pop() if len(parts) == 3 else "rw"
    if len(parts) != 2 or not all(parts) or mode not in ("ro", "rw"):
        raise UsageError(f"--volume: '{text}' is not a volume", "write SOURCE:TARGET or SOURCE:TARGET:ro")
    return Volume(os.path.abspath(parts[0]), _target(parts[1], "--volume"), mode == "ro")


def _target(path: str, option: str) -> str:
    target = _absolute(path, option)
    if target == "/":
        raise UsageError(f"{option}: '{path}' is the root directory", "--rootfs gives another one")
    return target


def _tmpfs(text: str) -> Tmpfs:
    path, _, options = text.partition(":")
    flags, settings = {"noexec", "nosuid", "nodev"}, []
    for option in options.split(",") if options else ():
        name, sign, value = option.partition("=")
        if option in _TMPFS_FLAGS:
            opposite = option.removeprefix("no") if option.startswith("no") else f"no{option}"
            flags = (flags - {opposite}) | {option}
        elif name in _TMPFS_SETTINGS and sign and value.replace("%", "").isalnum() and value.isascii():
            settings.append(option)
        else:
            raise UsageError(f"--tmpfs: '{option}' is not an option of tmpfs", "as in --tmpfs /tmp:size=64m,mode=1777")
    return Tmpfs(_target(path, "--tmpfs"), frozenset(flags), ",".join(settings))


def _environ(assignments: list[str], files: list[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with the files' assignments and then the options'; a bare NAME takes the caller's."""
    result = dict(environ)
    lines = [(line, f"--env-file: {file}") for file in files for line in _env_lines(file)]
    for text, option in [*lines, *((text, "--env") for text in assignments)]:
        name, sign, value = text.partition("=")
        if not name or "\0" in text:
            raise UsageError(f"{option}: '{text}' is not an assignment", "write NAME=VALUE")
        if sign:
            result[name] = value
    return result


def _env_lines(file: str) -> list[str]:
    """The assignments of an env file; `'value'` in single quotes, as `cgagent write` makes it, loses them."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            text = stream.read(1 << 20)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"--env-file: cannot read {file}: {reason}", "name a file of NAME=VALUE lines") from None
    lines = []
    for line in text.split("\n"):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, sign, value = line.partition("=")
        if len(value) > 1 and value[0] == value[-1] == "'":
            value = value[1:-1]
        lines.append(name + sign + value)
    return lines


def _ulimit(text: str) -> Ulimit:
    name, _, values = text.partition("=")
    numbers = [UNLIMITED if word in ("-1", "unlimited") else _natural(word) for word in values.split(":")]
    if name not in _ULIMITS or None in numbers or len(numbers) > 2:
        raise UsageError(f"--ulimit: '{text}' is not a limit", "write NAME=SOFT or NAME=SOFT:HARD, as in nofile=1024")
    soft, hard = numbers[0], numbers[-1]
    assert soft is not None and hard is not None  # noqa: S101, PT018 None is excluded above
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        raise UsageError(f"--ulimit: '{text}': the soft limit is above the hard one", "write NAME=SOFT:HARD")
    return Ulimit(name, soft, hard)


def _natural(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) < 20 else None


def _resources(a: Arguments) -> Resources:
    r = Resources()
    _cpu(a, r)
    _memory(a, r)
    if a.pids_limit is not None and a.pids_limit not in ("-1", "0"):  # docker: both mean unlimited
        r.pids = parse_count(a.pids_limit, "--pids-limit", least=1)
    for kind, dest in (
        ("rbps", "device_read_bps"),
        ("wbps", "device_write_bps"),
        ("riops", "device_read_iops"),
        ("wiops", "device_write_iops"),
    ):
        option = f"--{dest.replace('_', '-')}"
        r.io += [_io_rate(text, kind, option) for text in getattr(a, dest) or []]
    return r


def _cpu(a: Arguments, r: Resources) -> None:
    if a.cpus is not None and (a.cpu_quota or a.cpu_period):
        raise UsageError("--cpus does not go with --cpu-quota or --cpu-period", "leave one of them out")
    if a.cpus is not None:
        millicores = parse_cpus(a.cpus, "--cpus")
        if not 0 < millicores < 10**9:
            raise UsageError(f"--cpus: '{a.cpus}' is out of range", "give 0.001 or more")
        r.quota_us, r.period_us = quota_of(millicores)
    if a.cpu_quota not in (None, "-1"):
        r.quota_us = parse_count(a.cpu_quota, "--cpu-quota")
    if a.cpu_period is not None:
        r.period_us = parse_count(a.cpu_period, "--cpu-period")
    check_period(r.quota_us, r.period_us)
    r.shares = _between(a.cpu_shares, "--cpu-shares", 2, 262144)
    r.weight = _between(a.cpu_weight, "--cpu-weight", 1, 10000)
    if r.shares is not None and r.weight is not None:
        raise UsageError("--cpu-shares does not go with --cpu-weight", "leave one of the two out")
    r.cpuset = _list(a.cpuset_cpus, "--cpuset-cpus")
    r.mems = _list(a.cpuset_mems, "--cpuset-mems")


def _between(text: str | None, option: str, low: int, high: int) -> int | None:
    if text is None:
        return None
    value = parse_count(text, option)
    if not low <= value <= high:
        raise UsageError(f"{option}: {text} is out of range", f"give {low} to {high}")
    return value


def _list(text: str | None, option: str) -> str | None:
    if text is None:
        return None
    try:
        if cpu_list(text, option):
            return text
    except MalformedError:
        pass
    raise UsageError(f"{option}: '{text}' is not a list", "write it as 0-3 or 0,2")


def _memory(a: Arguments, r: Resources) -> None:
    r.memory = _size(a.memory, "--memory")
    r.memory_high = _size(a.memory_high, "--memory-high")
    r.memory_reservation = _size(a.memory_reservation, "--memory-reservation")
    if r.memory is not None and r.memory < _LEAST_MEMORY:
        raise UsageError(f"--memory: '{a.memory}' is too little to start anything", "give 512Ki or more")
    if a.memory_swap is None:
        r.swap_by_default = True
        r.memory_swap = r.memory  # as in Kubernetes: no swap; an allocation past the limit is the OOM killer's
        return
    if r.memory is None:
        raise UsageError("--memory-swap needs --memory", "it is the sum of memory and swap")
    r.memory_swap = UNLIMITED if a.memory_swap == "-1" else _size(a.memory_swap, "--memory-swap")
    if r.memory_swap is not None and UNLIMITED < r.memory_swap < r.memory:
        raise UsageError(f"--memory-swap: '{a.memory_swap}' is below --memory", "it is the sum of memory and swap")


def _size(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    size = parse_size(text, option)
    if not 0 < size < 1 << 62:
        raise UsageError(f"{option}: '{text}' is out of range", "give a size above 0, such as 256Mi")
    return size


def _io_rate(text: str, kind: str, option: str) -> IoRate:
    # DEVICE=RATE, or docker's DEVICE:RATE. MAJOR:MINOR holds a colon of its own.
    device, sign, rate = text.rpartition("=" if "=" in text else ":")
    if not sign or not device or not rate:
        raise UsageError(f"{option}: '{text}' is not a rate", "write DEVICE=RATE, as in /dev/sda=10Mi")
    value = parse_count(rate, option, least=1) if kind.endswith("iops") else parse_size(rate, option)
    if not value:
        raise UsageError(f"{option}: '{text}' is a rate of nothing", "give 1 or more")
    return IoRate(device, kind, value, option)
