"""What an injection is told to do: by options, and by annotations of the pod that override them."""

from __future__ import annotations

from cgagent import __version__
from cgagent.errors import UsageError
from cgagent.policy import Policy, parse_yes
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DOMAIN = "cgagent.dev"
# What was added, and from where it can be taken out again.
INJECTED = f"{DOMAIN}/injected"
FILEKEYREF, SIDECAR, BUNDLE, AUTO = "filekeyref", "sidecar", "bundle", "auto"
MODES = (AUTO, FILEKEYREF, SIDECAR, BUNDLE)
IMAGE = f"cgagent:{__version__}"
POLICY = ("memory_ratio", "memory_reserve", "memory_min", "cpu_rounding", "min_procs", "max_procs")
SWITCHES = ("split", "expect_limits", "share_process_namespace", "confirm_raises")
_ANNOTATIONS = (
    *("inject", "injected", "mode", "kube_version", "image", "container", "containers", "run_as", "hook", "entrypoint"),
    *POLICY,
    *SWITCHES,
)
# In 1.34 fileKeyRef was alpha, off, and kept the quotes: GOMEMLIMIT="'483183820'" ends a Go program at its start.
FILEKEYREF_SINCE = (1, 35)
# What makes a hook's exit code restart all containers of the pod (KEP-5532): on by default from here on.
RESTART_ALL_SINCE = (1, 36)
TUNE, SIGNAL, EXIT = "tune", "signal", "exit"


class Settings(Record):
    """Everything that can be chosen.

    Attributes:
        mode: one of MODES but AUTO.
        image: of what is injected.
        containers: names of those to serve; empty: those that look like the application.
        policy: the policy options that are given, name -> text.
        split: whether containers that share the pod's limit get a part of it each.
        hook: what the sidecar does after a change: `tune`, `signal:NAME`, `exit:CODE`; empty: nothing.
        expect_limits: whether limits that the manifest does not show will be there (LimitRange, VPA).
        share_process_namespace: whether the sidecar shall see the application's processes and its cgroup.
        confirm_raises: whether the sidecar shall ask the API server before it takes a raised limit.
        run_as: UID and GID for what is injected, as `65532:65532`; empty: the pod's, or the image's.
        entrypoints: container -> words that its image starts, where its manifest has no command.
    """

    __slots__ = (
        "confirm_raises",
        "containers",
        "entrypoints",
        "expect_limits",
        "hook",
        "image",
        "mode",
        "policy",
        "run_as",
        "share_process_namespace",
        "split",
    )

    def __init__(self, text_of: Callable[[str], tuple[str, str] | None]) -> None:
        """Take each setting's text, and what to call it in errors, from `text_of`; None: not given.

        Raises:
            UsageError: a text does not fit its setting.
        """

        def text(name: str, default: str = "") -> tuple[str, str]:
            return text_of(name) or (default, name)

        self.mode = _mode(text("mode", AUTO), text("kube_version"))
        self.image = _image(*text("image", IMAGE))
        self.containers = tuple(one for one in text("containers")[0].replace(",", " ").split() if one)
        self.policy = {name: found[0] for name in POLICY if (found := text_of(name)) is not None}
        Policy(text_of)  # refuses what does not fit
        self.split, self.expect_limits, self.share_process_namespace, self.confirm_raises = (
            parse_yes(*text(name, "false")) for name in SWITCHES
        )
        if self.confirm_raises and self.mode != SIDECAR:
            raise UsageError(f"{text('confirm_raises')[1]}: only the sidecar follows raises", "choose --mode sidecar")
        self.hook = _hook(text("hook"), self.mode, text("kube_version"), shares=self.share_process_namespace)
        self.run_as = _run_as(*text("run_as"))
        self.entrypoints = _entrypoints(*text("entrypoint"))


def overridden(
    text_of: Callable[[str], tuple[str, str] | None], annotations: Mapping[str, object]
) -> Callable[[str], tuple[str, str] | None]:
    """`text_of` where the annotations of a pod template say nothing else: `cgagent.dev/memory-ratio`."""

    def text(name: str) -> tuple[str, str] | None:
        # Several names may stand in one annotation, which has the option's name all the same.
        names = (name, "container") if name == "containers" else (name,)
        for annotation in (f"{DOMAIN}/{one.replace('_', '-')}" for one in names):
            given = annotations.get(annotation)
            if isinstance(given, str):
                return given.strip(), f"annotation {annotation}"
        return text_of(name)

    return text


def unknown(annotations: Mapping[str, object]) -> list[str]:
    """Those that seem to be for cgagent and are not."""
    known = {f"{DOMAIN}/{name.replace('_', '-')}" for name in _ANNOTATIONS}
    return [name for name in annotations if name.startswith(f"{DOMAIN}/") and name not in known]


def parse_version(text: str, what: str) -> tuple[int, int]:
    """`1.36`, `v1.36.3` as (1, 36).

    Raises:
        UsageError: it is none.
    """
    parts = text.removeprefix("v").split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts[:2]):
        raise UsageError(f"{what}: '{text}' is not a version of Kubernetes", "write it as 1.36")
    return int(parts[0]), int(parts[1])


def _mode(mode: tuple[str, str], version: tuple[str, str]) -> str:
    name, what = mode
    if name not in MODES:
        raise UsageError(f"{what}: '{name}' is not a mode", f"choose one of {', '.join(MODES)}")
    old = bool(version[0]) and parse_version(*version) < FILEKEYREF_SINCE
    if name == AUTO:
        return BUNDLE if old else FILEKEYREF
    if old and name != BUNDLE:
        raise UsageError(f"{what}: {name} needs Kubernetes 1.35 or newer, not {version[0]}", "choose bundle")
    return name


def _image(image: str, what: str) -> str:
    name, _, tag = image.rpartition("/")[2].partition(":")
    if not image.isascii() or not image.isprintable() or " " in image or not name:
        raise UsageError(f"{what}: '{image}' is not an image", f"write it as registry.example/{IMAGE}")
    if tag in ("", "latest"):
        raise UsageError(f"{what}: '{image}' names no version", f"write it as {image.removesuffix(':latest')}:VERSION")
    return image


def _hook(hook: tuple[str, str], mode: str, version: tuple[str, str], *, shares: bool) -> str:
    text, what = hook
    if not text:
        return ""
    kind, _, value = text.partition(":")
    if text != TUNE and not (kind == SIGNAL and _is_signal(value)) and not (kind == EXIT and _is_code(value)):
        hint = "write tune, signal:NAME (such as signal:TERM), or exit:CODE with a code from 79 to 125"
        raise UsageError(f"{what}: '{text}' is not a hook for a pod", hint)
    if mode != SIDECAR:
        raise UsageError(f"{what}: only the sidecar sees changes", "choose --mode sidecar")
    if kind != EXIT and not shares:
        hint = "add --share-process-namespace"
        raise UsageError(f"{what}: {text} is for the application's process, which the sidecar does not see", hint)
    if kind == EXIT and version[0] and parse_version(*version) < RESTART_ALL_SINCE:
        hint = "choose tune or signal:TERM"
        raise UsageError(f"{what}: {text} needs Kubernetes 1.36 or newer, not {version[0]}", hint)
    return text


def _is_signal(name: str) -> bool:
    import signal  # for those who name one only

    return name.isupper() and f"SIG{name}" in signal.Signals.__members__


def _is_code(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 4 and 79 <= int(text) <= 125


def _run_as(text: str, what: str) -> str:
    user, _, group = text.partition(":")
    for part in (user, group or user):
        if text and not (part.isascii() and part.isdigit() and len(part) < 11 and int(part)):
            raise UsageError(f"{what}: '{text}' is not a user", "write UID:GID, such as 65532:65532; 0 is refused")
    return f"{user}:{group or user}" if text else ""


def _entrypoints(text: str, what: str) -> dict[str, list[str]]:
    """`CONTAINER=WORDS`, one a line."""
    found: dict[str, list[str]] = {}
    for line in filter(None, text.split("\n")):
        name, sign, words = line.partition("=")
        if not sign or not name.strip() or not words.strip():
            raise UsageError(f"{what}: '{line}' names no command", "write it as app='/orders --port 8080'")
        found[name.strip()] = _words(words, what)
    return found


def _words(text: str, what: str) -> list[str]:
    import shlex  # for those who name a command only

    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{what}: '{text}': {str(error).lower()}", "quote it as for a shell") from None
