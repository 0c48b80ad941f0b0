"""What the sidecar is told to do: each setting from option, environment, config file or its default, in that order."""

from __future__ import annotations

from cgagent import envfile
from cgagent.errors import UsageError
from cgagent.given import SOURCES, Amount, GivenLimits, read_given
from cgagent.policy import Policy, parse_yes
from cgagent.record import Record
from cgagent.texts import DOTTED
from cgagent.units import parse_count, parse_cpus, parse_duration, parse_size
from cgagent.watch import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cgagent.texts import Texts
    from cgagent.watch.hooks import Hook

SELF, AUTO = "SELF", "auto"
ON_ERROR = ("fail", "ignore")

# section of the config file -> its keys. A key is its option's name: policy's memory_ratio is --memory-ratio and
# CGAGENT_MEMORY_RATIO, web's telemetry_path is --web.telemetry-path and CGAGENT_WEB_TELEMETRY_PATH.
SECTIONS = {
    "": (
        "env_file",
        "format",
        "mode",
        "merge",
        "target",
        "target_name",
        "target_exe",
        "settle",
        "poll",
        "state_dir",
    ),
    "policy": (
        "memory_ratio",
        "memory_reserve",
        "memory_min",
        "cpu_rounding",
        "min_procs",
        "max_procs",
        "gomaxprocs",
        "override",
        "on_error",
        "require_limits",
    ),
    "limits": ("cpu_limit", "memory_limit", "limits_dir", "limits_from", "trust_given", "confirm_raises"),
    "web": ("listen_address", "telemetry_path", "max_requests", "config_file"),
    "log": ("level", "format"),
    "path": ("procfs", "sysfs", "rootfs"),
}


def setting_name(section: str, key: str) -> str:
    """The name by which a setting is looked up, which is also its attribute among the parsed arguments."""
    return f"{section}_{key}" if section in DOTTED else key


def _poll(text: str, what: str) -> float:
    seconds = parse_duration(text, what)
    if seconds < 0.5:
        raise UsageError(f"{what}: '{text}' is less than 500ms", "changes are seen at once anyway: poll seldom")
    return seconds


def _settle(text: str, what: str) -> float:
    seconds = parse_duration(text, what)
    if seconds > 60:
        raise UsageError(f"{what}: '{text}' is more than a minute", "give less: a change waits for that long")
    return seconds


def _target(text: str, what: str) -> str:
    if text in (SELF, AUTO) or (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 1 << 22):
        return text
    raise UsageError(f"{what}: '{text}' is not a target", f"give {SELF}, {AUTO} or a PID")


def _directory(text: str, what: str) -> str:
    if not text.startswith("/"):
        raise UsageError(f"{what}: '{text}' is not an absolute path", "give the directory where it is mounted")
    return text


def _requests(text: str, what: str) -> int:
    return parse_count(text, what, least=1)


class Web(Record):
    """How metrics are served: addresses, path, requests at a time, and the file for TLS and basic auth."""

    __slots__ = ("config_file", "listen_addresses", "max_requests", "telemetry_path")

    def __init__(self, texts: Texts) -> None:
        listen = texts.text("web_listen_address") or ""
        self.listen_addresses = tuple(one for one in listen.replace(",", " ").split(" ") if one)
        self.telemetry_path = texts.text("web_telemetry_path") or "/metrics"
        self.max_requests = texts.parsed("web_max_requests", _requests, 40)
        self.config_file = texts.text("web_config_file")


class Settings(Record):
    """All of it, checked.

    Attributes:
        env_file: the file to keep current; None: none.
        format, mode, merge: as `write` has them.
        target: SELF, AUTO or a PID.
        target_name, target_exe: which process AUTO means where there are several; None: the only one.
        settle: seconds from the first sign of a change to the decision.
        poll: seconds between looks that no sign has asked for.
        state_dir: where counters outlive the agent; None: nowhere.
        confirm_raises: the container whose raised limits wait until its pod's status has them; None: they don't.
        policy: how limits become numbers.
        ignore_errors: whether a variable that can't be decided is left out.
        require_limits: whether it is an error that there is no limit at the start.
        limits_dir: the mounted downward-API volume that limits are given in; None: none.
        hooks: what runs on a change, in order.
        web: how metrics are served.
        log_level, log_format: how things are told.
        places: where `/proc`, `/sys` and `/` of the machine are mounted.
    """

    __slots__ = (
        "_texts",
        "confirm_raises",
        "env_file",
        "format",
        "hooks",
        "ignore_errors",
        "limits_dir",
        "log_format",
        "log_level",
        "merge",
        "mode",
        "places",
        "policy",
        "poll",
        "require_limits",
        "settle",
        "state_dir",
        "target",
        "target_exe",
        "target_name",
        "web",
    )

    def __init__(self, texts: Texts, hooks: list[Hook]) -> None:
        """Take every setting from `texts`.

        Raises:
            UsageError: one does not fit.
        """
        self._texts = texts
        self.env_file = texts.text("env_file")
        self.format = texts.choice("format", envfile.FORMATS)
        self.mode = texts.parsed("mode", envfile.parse_mode, 0o644)
        self.merge = texts.parsed("merge", parse_yes, False)
        self.target = texts.parsed("target", _target, SELF)
        self.target_name = texts.text("target_name")
        self.target_exe = texts.text("target_exe")
        self.settle = texts.parsed("settle", _settle, 0.05)
        self.poll = texts.parsed("poll", _poll, 30.0)
        self.state_dir = texts.text("state_dir")
        self.policy = Policy(texts)
        self.ignore_errors = texts.choice("on_error", ON_ERROR) == "ignore"
        self.require_limits = texts.parsed("require_limits", parse_yes, False)
        self.limits_dir = texts.text("limits_dir")
        self.confirm_raises = texts.text("confirm_raises")
        self.web = Web(texts)
        self.log_level = texts.choice("log_level", ("info", *(one for one in log.LEVELS if one != "info")))
        self.log_format = texts.choice("log_format", log.FORMATS)
        paths = {"/proc": "path_procfs", "/sys": "path_sysfs", "/": "path_rootfs"}
        self.places = {part: texts.parsed(name, _directory, part) for part, name in paths.items()}
        self.hooks = hooks
        texts.choice("limits_from", SOURCES)
        texts.parsed("trust_given", parse_yes, False)

    def check_together(self) -> None:
        """Check what only shows where the settings of every source meet.

        Raises:
            UsageError: they don't go together.
        """
        if self.env_file == "-":
            raise UsageError("--env-file: watch keeps a file current", "name the file")
        if self.merge and self.format == "json":
            raise UsageError("--merge does not go with --format json", "choose dotenv, docker or shell")
        if (self.target_name or self.target_exe) and self.target != AUTO:
            raise UsageError("--target-name and --target-exe choose among several", f"give --target {AUTO} too")
        if self.confirm_raises is not None and (self.limits_dir is None or self.target != SELF):
            hint = f"give --limits-dir, and no --target: with --target {AUTO} the cgroup itself tells what is in force"
            raise UsageError("--confirm-raises is for limits that a downward-API volume shows", hint)
        if self.target == SELF and any(hook.needs_target for hook in self.hooks):
            raise UsageError("a signal or tune hook needs a process to act on", f"give --target {AUTO} or --target PID")

    def given(self) -> GivenLimits:
        """The limits given from outside, as they are now: a downward-API directory follows resizes.

        Raises:
            CgagentError: the directory is not there, or a text in it is no limit.
        """
        texts = self._texts
        options = texts.arguments
        cpu, memory = read_given(
            getattr(options, "cpu_limit", None), getattr(options, "memory_limit", None), self.limits_dir, texts.environ
        )
        return GivenLimits(
            cpu or _in_file(texts, "cpu_limit", parse_cpus),
            memory or _in_file(texts, "memory_limit", parse_size),
            texts.choice("limits_from", SOURCES),
            texts.parsed("trust_given", parse_yes, False),
        )


def _in_file(texts: Texts, name: str, parse: Callable[[str, str], int]) -> Amount | None:
    found = texts.in_file(name)
    return Amount(parse(*found), found[0], found[1]) if found else None
