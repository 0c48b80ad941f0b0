"""The config file of `watch`: what is read, what is refused and with which words; `cgagent config`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from cgagent import yamltext
from cgagent.cli import main
from cgagent.errors import EXIT_CONFIG, CgagentError, UsageError
from cgagent.metrics.counters import Counters
from cgagent.parser import Arguments
from cgagent.watch.config import Configuration, parse
from cgagent.watch.example import EXAMPLE
from cgagent.watch.kinds import ExecHook, HttpHook, SignalHook
from cgagent.watch.log import Log
from cgagent.watch.settings import SECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def _refused(text: str) -> str:
    """The line that refuses `text`, which has to name the file."""
    with pytest.raises(CgagentError) as caught:
        parse(text, "w.yaml")
    assert caught.value.exit_code == EXIT_CONFIG
    assert caught.value.line().startswith("w.yaml")
    return caught.value.line()


def test_scalars_keep_their_text_whatever_yaml_makes_of_them() -> None:
    texts = parse("mode: 0640\nmerge: no\npolicy: {memory_ratio: 0.90, override: on}\n", "w.yaml").texts
    assert texts == {
        "mode": ("0640", "w.yaml:1: mode"),
        "merge": ("no", "w.yaml:2: merge"),
        "memory_ratio": ("0.90", "w.yaml:3: policy.memory_ratio"),
        "override": ("on", "w.yaml:3: policy.override"),
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "policy:\nhooks:\nweb: ~\nenv_file: null\n"])
def test_what_is_left_empty_is_not_given(text: str) -> None:
    content = parse(text, "w.yaml")
    assert (content.texts, content.hooks) == ({}, [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("policy:\n  memory_ration: 0.9\n", "w.yaml:2: policy.memory_ration is not a key: did you mean memory_ratio?"),
        ("env-file: x\n", "w.yaml:1: env-file is not a key: write env_file"),
        ("memory_ratio: 0.9\n", "w.yaml:1: memory_ratio is not a key: it belongs into the section policy"),
        ("policy: {env_file: x}\n", "w.yaml:1: policy.env_file is not a key: it belongs to the top of the file"),
        ("policy: [1]\n", "w.yaml:1: policy has to be a mapping: write KEY: VALUE, one a line"),
        ("- a\n", "w.yaml:1: the file has to be a mapping: write KEY: VALUE, one a line"),
        ("env_file: [a]\n", "w.yaml:1: env_file has to be a single value: write env_file: VALUE"),
        ("\npoll: soon\n", "w.yaml:2: poll: 'soon' is not a duration: write 50ms, 1.5s, 2m or a number of seconds"),
        ("poll: 10ms\n", "w.yaml:1: poll: '10ms' is less than 500ms: changes are seen at once anyway: poll seldom"),
        ("settle: 1h\n", "w.yaml:1: settle: '1h' is more than a minute: give less: a change waits for that long"),
        ("target: 0\n", "w.yaml:1: target: '0' is not a target: give SELF, auto or a PID"),
        ("web: {max_requests: 0}\n", "w.yaml:1: web.max_requests: '0' is not a whole number: give 1 or more"),
        ("log: {level: loud}\n", "w.yaml:1: log.level: 'loud' is not known: choose one of info, debug, warning, error"),
        ("limits: {cpu_limit: many}\n", "w.yaml:1: limits.cpu_limit: 'many' is not a CPU count: write 1.5, 1500m or"),
        ("limits: {limits_from: x}\n", "w.yaml:1: limits.limits_from: 'x' is not known: choose one of auto, cgroup"),
        ("hooks: {a: b}\n", "w.yaml:1: hooks has to be a list: start each hook with a dash"),
        ("hooks: [a]\n", "w.yaml:1: hooks[0] has to be a mapping: write KEY: VALUE, one a line"),
        ("hooks:\n- name: a\n", "w.yaml:2: hooks[0] has to do one thing: give one of signal, exec, http"),
        ("hooks:\n- {signal: HUP, http: 'http://a'}\n", "w.yaml:2: hooks[0] has to do one thing: give one of"),
        ("hooks:\n- sgnal: HUP\n", "w.yaml:2: hooks[0].sgnal is not a key: did you mean signal?"),
        ("hooks:\n- signal: HAP\n", "w.yaml:2: hooks[0].signal: 'HAP' is not a signal: write HUP, USR1 or a number"),
        ("hooks:\n- exec: rm -rf /\n", "w.yaml:2: hooks[0].exec has to be a command and its arguments: write a list"),
        ("hooks:\n- exec: []\n", "w.yaml:2: hooks[0].exec has to be a command and its arguments: write a list"),
        ("hooks:\n- http: ftp://a\n", "w.yaml:2: hooks[0].http: 'ftp://a' is not a URL: write http://HOST[:PORT]/"),
        ("hooks:\n- http: http://a:x/\n", "w.yaml:2: hooks[0].http: 'http://a:x/' is not a URL: write http://HOST"),
        ("hooks:\n- http: http://u:p@a/\n", "w.yaml:2: hooks[0].http: a password in a URL ends up in logs: leave it"),
        ("hooks:\n- {signal: HUP, timeout: x}\n", "w.yaml:2: hooks[0].timeout: 'x' is not a duration: write 50ms"),
        ("hooks:\n- {signal: HUP, name: 'a b'}\n", "w.yaml:2: hooks[0].name: 'a b' is not a name: write letters"),
        ("hooks:\n- {signal: HUP, name: a}\n- {exec: [a], name: a}\n", "w.yaml:3: two hooks are called a: give each"),
        ("poll: 1m\npoll: 2m\n", "w.yaml:2: poll is given twice, first in line 1"),
        ("a: &x [1]\nb: *x\n", "w.yaml:2: aliases (*name) are not read: write the value out"),
        ("env_file: !!python/object/apply:os.system [id]\n", "w.yaml:1: tags (!name) are not read"),
        ("env_file: a\n---\nenv_file: b\n", "w.yaml:2: a second document: one is read"),
        ("[" * 5000, "w.yaml:1: nested more than 10 deep"),
        ("? [a]\n: b\n", "w.yaml:1: a key has to be a plain word"),
        ("env_file: [\n", "w.yaml:2: expected the node content, but found '<stream end>'"),
        ("\tenv_file: a\n", "w.yaml:1: found character '\\t' that cannot start any token"),
        ("env_file: \x07\n", "w.yaml: unacceptable character #x0007"),
        ("env_file: \udcff\n", "w.yaml: unacceptable character #xdcff"),
        ("x" * (yamltext.SIZE_LIMIT + 1), "w.yaml: more than 65536 bytes"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_key(text: str, line: str) -> None:
    told = _refused(text)
    assert told.startswith(line)
    assert "\n" not in told


def test_a_bomb_of_aliases_is_refused_at_its_first_one() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    assert _refused("\n".join(lines)) == "w.yaml:2: aliases (*name) are not read: write the value out"


def test_hooks_keep_their_order_names_and_times() -> None:
    text = """
hooks:
  - signal: SIGUSR1
  - name: tell
    exec: [logger, "a b"]
    timeout: 2s
  - http: http://127.0.0.1:1/x?y=1
    timeout: 500ms
"""
    first, second, third = parse(text, "w.yaml").hooks
    assert isinstance(first, SignalHook)
    assert (first.name, first.number, first.timeout) == ("signal-0", 10, 10.0)
    assert isinstance(second, ExecHook)
    assert (second.name, second.argv, second.timeout) == ("tell", ["logger", "a b"], 2.0)
    assert isinstance(third, HttpHook)
    assert (third.name, third.url, third.timeout) == ("http-2", "http://127.0.0.1:1/x?y=1", 0.5)


def test_listen_addresses_are_one_or_a_list() -> None:
    assert parse("web: {listen_address: ':1'}", "w").texts["web_listen_address"][0] == ":1"
    assert parse("web: {listen_address: [':1', '[::1]:2']}", "w").texts["web_listen_address"][0] == ":1,[::1]:2"


def _configuration(path: Path, text: str, environ: dict[str, str] | None = None, **options: object) -> Configuration:
    path.write_text(text, encoding="utf-8")
    arguments = Arguments()
    for name, value in options.items():
        setattr(arguments, name, value)
    return Configuration(arguments, environ or {}, str(path))


def test_the_order_is_option_environment_file_default(tmp_path: Path) -> None:
    text = "policy: {memory_reserve: 1Mi, memory_min: 1Mi, min_procs: 2}\n"
    environ = {"CGAGENT_MEMORY_RESERVE": "2Mi", "CGAGENT_MEMORY_MIN": "2Mi"}

    policy = _configuration(tmp_path / "w.yaml", text, environ, memory_reserve="3Mi").settings.policy

    assert (policy.memory_reserve, policy.memory_min, policy.min_procs, policy.max_procs) == (3 << 20, 2 << 20, 2, None)


def test_given_limits_have_the_same_order(tmp_path: Path) -> None:
    text = "limits: {cpu_limit: 1, memory_limit: 1Mi}\n"

    given = _configuration(tmp_path / "w.yaml", text, {"CGAGENT_MEMORY_LIMIT_BYTES": "4096"}).settings.given()

    assert given.cpu
    assert given.memory
    assert (given.cpu.value, given.cpu.source) == (1000, f"{tmp_path}/w.yaml:1: limits.cpu_limit")
    assert (given.memory.value, given.memory.source) == (4096, "CGAGENT_MEMORY_LIMIT_BYTES")


def test_hooks_of_options_take_the_place_of_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    settings = _configuration(path, "hooks: [{exec: [a]}]\n", hook=["exec:/bin/b", "http://127.0.0.1:1"]).settings
    assert [hook.name for hook in settings.hooks] == ["exec:/bin/b", "http://127.0.0.1:1"]


def test_a_wrong_option_is_wrong_usage_and_a_wrong_file_a_wrong_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--memory-ratio: '9' is not a ratio"):
        _configuration(tmp_path / "w.yaml", "", memory_ratio="9")
    with pytest.raises(CgagentError, match=r"w\.yaml:1: policy\.memory_ratio: '9' is not a ratio") as caught:
        _configuration(tmp_path / "w.yaml", "policy: {memory_ratio: 9}")
    assert caught.value.exit_code == EXIT_CONFIG


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("policy: {min_procs: 4, max_procs: 2}\n", "--max-procs 2 is below --min-procs 4"),
        ("merge: true\nformat: json\n", "--merge does not go with --format json"),
        ("target_name: a\n", "--target-name and --target-exe choose among several"),
        ("hooks: [{signal: HUP}]\n", "a signal or tune hook needs a process to act on"),
        ("env_file: '-'\n", "--env-file: watch keeps a file current"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(CgagentError) as caught:
        _configuration(tmp_path / "w.yaml", text)
    assert caught.value.message == f"{tmp_path}/w.yaml: {told}"
    assert caught.value.exit_code == EXIT_CONFIG


def test_a_bad_new_file_leaves_the_old_settings_in_force(tmp_path: Path) -> None:
    path, counters, log = tmp_path / "w.yaml", Counters(), Log()
    configuration = _configuration(path, "poll: 10s\n")
    assert not configuration.has_changed()

    path.write_text("pol: 20s\n", encoding="utf-8")
    assert configuration.has_changed()
    assert not configuration.reload(counters, log)
    assert configuration.settings.poll == 10.0
    assert (counters.config_last_reload_successful, counters.config_last_reload) == (False, None)
    assert not configuration.has_changed(), "a file that was refused is not read again until it changes"

    path.write_text("poll: 20s\n", encoding="utf-8")
    assert configuration.reload(counters, log)
    assert configuration.settings.poll == 20.0
    assert counters.config_last_reload_successful
    path.unlink()
    assert not configuration.has_changed()
    assert not configuration.reload(counters, log)
    assert configuration.settings.poll == 20.0


def test_the_example_has_every_key_and_each_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example"]) == 0
    assert capsys.readouterr().out == EXAMPLE
    parse(EXAMPLE, "w.yaml")

    everything = re.sub(r"^(\s*)# (?=- |[a-z_]+: |  [a-z])", r"\1", EXAMPLE, flags=re.MULTILINE)
    texts = parse(everything, "w.yaml").texts

    assert len(texts) == sum(len(keys) for keys in SECTIONS.values())
    hooks = [hook.name for hook in parse(everything, "w.yaml").hooks]
    assert hooks == ["reload", "tell", "post", "tune", "restart"]


def test_check_says_ok_or_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("poll: 1m\n", encoding="utf-8")
    assert main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok\n"

    path.write_text("pol: 1m\n", encoding="utf-8")
    assert main(["config", "check", str(path)]) == EXIT_CONFIG
    assert capsys.readouterr().err == f"cgagent config: {path}:1: pol is not a key: did you mean poll?\n"

    assert main(["config", "check", f"{path}.none"]) == EXIT_CONFIG
    assert "no such file or directory" in capsys.readouterr().err


def test_check_tells_what_an_option_has_to_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("hooks: [{signal: HUP}]\n", encoding="utf-8")
    assert main(["config", "check", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{path}: ok\n"
    assert "can't be used by itself: a signal or tune hook needs a process" in printed.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["config"], "check|example is missing"),
        (["config", "chekc", "a"], "'chekc' is not an action: did you mean check?"),
        (["config", "check"], "FILE is missing: write cgagent config check FILE"),
        (["config", "example", "a"], "'a' is one word too many"),
    ],
)
def test_wrong_words_are_wrong_usage(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_yaml_is_loaded_for_a_config_file_alone() -> None:
    script = "import sys, cgagent.commands.watch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"yaml", "watchdog", "prometheus_client", "logging", "json", "dataclasses", "typing"}
