"""The config file of `watch`: YAML in, settings out, every error with file, line and key."""

from __future__ import annotations

import os
import time

from cgagent import yamltext
from cgagent.errors import EXIT_CONFIG, CgagentError, UsageError
from cgagent.host import Host
from cgagent.parser import Arguments, meant
from cgagent.policy import parse_yes
from cgagent.texts import Texts
from cgagent.units import parse_duration
from cgagent.watch import kinds
from cgagent.watch.settings import SECTIONS, Settings, setting_name
from cgagent.watch.tunehook import TUNE, TuneHook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.metrics.counters import Counters
    from cgagent.watch.hooks import Hook
    from cgagent.watch.log import Log
    from cgagent.yamltext import Node

    # What a setting's text is, and its place: file, line, key.
    Places = dict[str, tuple[str, str]]

_HOOKS = "hooks"
_KINDS = ("signal", "exec", "http", TUNE, "exit")
_HOOK_KEYS = ("name", *_KINDS, "timeout")
_NAME_LENGTH = 64
# What is read once, when the agent starts.
_AT_START = ("web", "state_dir", "places", "confirm_raises")


class FileContent:
    """What a config file says: the settings' texts by name, and the hooks."""

    def __init__(self, texts: Places, hooks: list[Hook]) -> None:
        self.texts = texts
        self.hooks = hooks


def read_text(path: str) -> str:
    """The text of the config file.

    Raises:
        CgagentError: it can't be read; the exit code is that of a bad configuration.
    """
    try:
        return Host().read(path, yamltext.SIZE_LIMIT)
    except CgagentError as error:
        raise CgagentError(error.message, "name a readable file of YAML", EXIT_CONFIG) from None


def parse(text: str, path: str) -> FileContent:
    """The settings in `text`, each checked by itself.

    Raises:
        CgagentError: something in it is wrong; the message names the file, the line and the key.
    """
    root = yamltext.load(text, path)
    if root.value is None:
        return FileContent({}, [])
    top = _mapping(root, path, "the file", (*SECTIONS[""], *(name for name in SECTIONS if name), _HOOKS))
    texts: Places = {}
    for section, keys in SECTIONS.items():
        if not section:
            entries = {key: node for key, node in top.items() if key in keys}
        else:
            node = top.get(section)
            entries = {} if node is None or node.value is None else _mapping(node, path, section, keys)
        for key, node in entries.items():
            shown = f"{section}.{key}" if section else key
            value = _text(node, path, shown, listed=key == "listen_address")
            if value is not None:
                texts[setting_name(section, key)] = (value, f"{path}:{node.line}: {shown}")
    hooks = _hooks(top[_HOOKS], path) if _HOOKS in top else []
    _check_each(Texts(Arguments(), {}, texts), path)
    return FileContent(texts, hooks)


def _check_each(texts: Texts, path: str) -> None:
    try:
        Settings(texts, []).given()
    except CgagentError as error:
        if error.message.startswith(f"{path}:"):
            raise _bad(error.message, error.hint) from None


def _bad(message: str, hint: str = "") -> CgagentError:
    return CgagentError(message, hint, EXIT_CONFIG)


def _mapping(node: Node, path: str, name: str, keys: tuple[str, ...]) -> dict[str, Node]:
    """The entries of a mapping whose keys are all among `keys`."""
    if not isinstance(node.value, dict):
        raise _bad(f"{path}:{node.line}: {name} has to be a mapping", "write KEY: VALUE, one a line")
    for key, value in node.value.items():
        if key not in keys:
            shown = key if name == "the file" else f"{name}.{key}"
            raise _bad(f"{path}:{value.line}: {shown} is not a key", _hint(key, keys))
    return node.value


def _hint(key: str, keys: tuple[str, ...]) -> str:
    plain = key.replace("-", "_").replace(".", "_")
    if plain in keys:
        return f"write {plain}"
    for section, others in SECTIONS.items():
        if plain in others:
            return f"it belongs into the section {section}" if section else "it belongs to the top of the file"
    return meant(plain, keys) or f"the keys here are {', '.join(keys)}"


def _text(node: Node, path: str, shown: str, *, listed: bool = False) -> str | None:
    """The text of a value; of a list, where there may be one, its texts joined by commas."""
    if listed and isinstance(node.value, list):
        return ",".join(_text(item, path, shown) or "" for item in node.value)
    if isinstance(node.value, (list, dict)):
        raise _bad(f"{path}:{node.line}: {shown} has to be a single value", f"write {shown.rpartition('.')[2]}: VALUE")
    return node.value


def _hooks(node: Node, path: str) -> list[Hook]:
    if node.value is None:
        return []
    if not isinstance(node.value, list):
        raise _bad(f"{path}:{node.line}: {_HOOKS} has to be a list", "start each hook with a dash")
    hooks: list[Hook] = []
    for number, item in enumerate(node.value):
        hook = _hook(item, path, f"{_HOOKS}[{number}]")
        if any(hook.name == other.name for other in hooks):
            raise _bad(f"{path}:{item.line}: two hooks are called {hook.name}", "give each a name of its own")
        hooks.append(hook)
    return hooks


def _hook(node: Node, path: str, shown: str) -> Hook:
    entries = {key: one for key, one in _mapping(node, path, shown, _HOOK_KEYS).items() if one.value is not None}
    found = [kind for kind in _KINDS if kind in entries]
    if len(found) != 1:
        raise _bad(f"{path}:{node.line}: {shown} has to do one thing", f"give one of {', '.join(_KINDS)}")
    kind, value = found[0], entries[found[0]]

    def text(key: str, default: str) -> tuple[str, str]:
        """The text of `key`, and its place."""
        one = entries.get(key)
        place = f"{path}:{one.line if one else node.line}: {shown}.{key}"
        return (_text(one, path, f"{shown}.{key}") or "" if one else default), place

    name, name_place = text("name", f"{kind}-{shown[len(_HOOKS) + 1 : -1]}")
    if not (name.replace("-", "_").replace(".", "_").isidentifier() and name.isascii() and len(name) <= _NAME_LENGTH):
        raise _bad(f"{name_place}: '{name}' is not a name", "write letters, digits, - _ and . alone, a letter first")
    try:
        timeout = parse_duration(*text("timeout", f"{kinds.TIMEOUT:g}"))
        if kind == "exec":
            return kinds.ExecHook(name, timeout, _argv(value, path, f"{shown}.exec"))
        if kind == "signal":
            return kinds.SignalHook(name, timeout, kinds.parse_signal(*text("signal", "")))
        if kind == "exit":
            return kinds.ExitHook(name, timeout, kinds.parse_code(*text("exit", "")))
        if kind == TUNE:
            words, place = text(TUNE, "")
            if not parse_yes(words, place):
                raise UsageError(f"{place}: '{words}' turns nothing on", "write true, or leave the hook out")
            return TuneHook(name, timeout)
        return kinds.HttpHook(name, timeout, kinds.parse_url(*text("http", "")))
    except UsageError as error:
        raise _bad(error.message, error.hint) from None


def _argv(node: Node, path: str, shown: str) -> list[str]:
    items = node.value if isinstance(node.value, list) else []
    argv = [_text(item, path, shown) or "" for item in items]
    if not argv or not argv[0] or any("\0" in word for word in argv):
        hint = "write a list, as in exec: [/usr/bin/logger, limits changed]; there is no shell"
        raise _bad(f"{path}:{node.line}: {shown} has to be a command and its arguments", hint)
    return argv


class Configuration:
    """The settings in force, and the file that they come from.

    Attributes:
        path: the config file; None: there is none.
        settings: all settings, of every source.
    """

    def __init__(self, arguments: Arguments, environ: Mapping[str, str], path: str | None) -> None:
        """Read the file and join it with options and environment.

        Raises:
            CgagentError: either is wrong.
        """
        self.path = os.path.abspath(path) if path is not None else None
        self._arguments = arguments
        self._environ = environ
        # Once without the file: what is wrong there is the command line's fault, not the file's.
        options = Settings(Texts(arguments, environ), _given_hooks(arguments))
        self._text = ""
        self.settings = options
        if self.path is None:
            options.check_together()
        else:
            self._text = read_text(self.path)
            self.settings = self._join(self._text, self.path)

    def _join(self, text: str, path: str) -> Settings:
        content = parse(text, path)
        hooks = _given_hooks(self._arguments) or content.hooks
        try:
            settings = Settings(Texts(self._arguments, self._environ, content.texts), hooks)
            settings.check_together()
        except UsageError as error:
            message = error.message if error.message.startswith(f"{path}:") else f"{path}: {error.message}"
            raise _bad(message, error.hint) from None
        return settings

    def directories(self) -> list[str]:
        """The directories in which a change of the file shows: where it is, and where it really is."""
        if self.path is None:
            return []
        return list(dict.fromkeys(os.path.dirname(path) for path in (self.path, os.path.realpath(self.path))))

    def has_changed(self) -> bool:
        """Whether the file has another text than the one that was read last."""
        if self.path is None:
            return False
        try:
            return read_text(self.path) != self._text
        except CgagentError:
            return False  # it is being swapped, or was removed: what was read last stays in force

    def reload(self, counters: Counters, log: Log) -> bool:
        """Read the file again; return whether its settings are in force now. If it is wrong the old ones stay."""
        if self.path is None:
            return False
        before = self.settings
        try:
            self._text = read_text(self.path)
            self.settings = self._join(self._text, self.path)
        except CgagentError as error:
            counters.config_last_reload_successful = False
            log.error("the new config is refused, the old one stays", reason=error.line())
            return False
        loaded(counters)
        log.style, log.level = self.settings.log_format, self.settings.log_level
        log.info("config reloaded", path=self.path)
        for name in _AT_START:
            if getattr(before, name) != getattr(self.settings, name):
                log.warning("this takes effect when cgagent starts again", key=name)
        return True


def loaded(counters: Counters) -> None:
    """Count a config file that was read with success."""
    counters.config_last_reload_successful = True
    counters.config_last_reload = time.time()


def _given_hooks(arguments: Arguments) -> list[Hook]:
    texts: list[str] = getattr(arguments, "hook", None) or []
    return [kinds.parse_hook(text, "--hook") for text in texts]
