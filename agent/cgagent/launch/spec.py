"""What is asked of the launcher, read from the words of the command line. Pure: nothing is opened or looked up.

Options bear `docker run`'s names and read its notation; what docker has no word for is named after the kernel's.
"""

from __future__ import annotations

import os

from cgagent.errors import UsageError
from cgagent.launch.bounds import read_resources, read_ulimit
from cgagent.launch.capabilities import chosen
from cgagent.record import Record
from cgagent.units import parse_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.launch.shown.options import Shown
    from cgagent.parser import Arguments

NAMESPACES = ("pid", "net", "mnt", "uts", "ipc", "user", "cgroup")
NETWORKS = ("none", "host", "veth")
# Each option of `shown.options`, which is loaded for them alone.
_SHOWING = (
    *("host_cpus", "host_memory", "simulate", "replay", "enforce"),
    *("layout", "qos", "cgroupns", "parent_cpus", "parent_memory"),
)
_TMPFS_FLAGS = ("rw", "ro", "exec", "noexec", "suid", "nosuid", "dev", "nodev")
_TMPFS_SETTINGS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks")


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
        shown: another machine or cgroup layout that the command is to see; None: this one.
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
        "shown",
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
        self.resources = read_resources(a)
        self._namespaces_and_network(a)
        self.cgroup_parent: str | None = _cgroup(a.cgroup_parent)
        self._files(a)
        self.security = Security(a, "user" in self.namespaces)
        self.user: str | None = _user(a.user)
        self.environ = _environ(a.env or [], a.env_file or [], environ)
        self.ulimits = [read_ulimit(text) for text in a.ulimit or []]
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
        self.shown: Shown | None = None
        if any(getattr(a, name) not in (None, False) for name in _SHOWING):
            from cgagent.launch.shown.options import Shown

            self.shown = Shown(a, self)

    def _namespaces_and_network(self, a: Arguments) -> None:
        self.net = _choice(a.net or "none", NETWORKS, "--net")
        shared = {_choice("mnt" if word == "mount" else word, NAMESPACES, "--share") for word in a.share or []}
        if "net" in shared and a.net not in (None, "host"):
            raise UsageError(f"--share net does not go with --net {a.net}", "leave one of the two out")
        if "net" in shared:
            self.net = "host"
        self.namespaces = frozenset(NAMESPACES) - shared - ({"net"} if self.net == "host" else set())
        self.net_nat: bool = a.net_nat
        self.dns = [_address(text) for text in a.dns or []]
        for option, value in (("--net-rate", a.net_rate), ("--net-nat", a.net_nat), ("--dns", a.dns)):
            if value and self.net != "veth":
                raise UsageError(f"{option} needs --net veth", f"add it, or leave {option} out")
        self.net_rate = None if a.net_rate is None else _net_rate(a.net_rate)
        self.hostname: str | None = _hostname(a.hostname)
        if a.hostname is not None and "uts" not in self.namespaces:
            raise UsageError("--hostname does not go with --share uts", "leave one of the two out")
        self.time_offset = None if a.time_offset is None else _seconds(a.time_offset, "--time-offset")

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


def _address(text: str) -> str:
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        raise UsageError(f"--dns: '{text}' is not an address", "write it as 192.0.2.1 or 2001:db8::1") from None
    return text


def _cgroup(path: str | None) -> str | None:
    if path is not None and ".." in path.split("/"):
        raise UsageError(f"--cgroup-parent: '{path}' may lead out of the cgroups", "name one without ..")
    return path


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
