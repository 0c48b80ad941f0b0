"""Durations, targets and hooks as options have them; the sidecar's log."""

from __future__ import annotations

import json
import os

import pytest

from cgagent.errors import UsageError
from cgagent.parser import Arguments
from cgagent.texts import Texts, option_of
from cgagent.units import parse_duration
from cgagent.watch import log as log_module
from cgagent.watch.kinds import ExecHook, HttpHook, SignalHook, parse_hook
from cgagent.watch.log import Log
from cgagent.watch.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50ms", 0.05), ("0ms", 0.0), ("1.5s", 1.5), ("30", 30.0), ("2m", 120.0), ("1h", 3600.0), ("24h", 86400.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--x") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1d", "-1s", "1.s", ".5s", "1e3", "nan", "1 s", "25h", "9" * 30, "\u0661s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match=r"--x: '.*' is (not a duration|more than a day)"):
        parse_duration(text, "--x")


def test_hooks_as_options() -> None:
    signal, program, url = (parse_hook(text, "--hook") for text in ("signal:SIGHUP", "exec:/bin/x y", "https://a:1/b"))
    assert isinstance(signal, SignalHook)
    assert signal.number == 1
    assert isinstance(program, ExecHook)
    assert program.argv == ["/bin/x y"], "no shell splits it"
    assert isinstance(url, HttpHook)
    assert url.url == "https://a:1/b"


@pytest.mark.parametrize("text", ["", "signal", "signal:", "signal:0x1", "signal:99", "exec:", "shell:ls", "http://"])
def test_what_is_no_hook(text: str) -> None:
    with pytest.raises(UsageError, match=r"--hook: '.*' is not"):
        parse_hook(text, "--hook")


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("memory_ratio", "--memory-ratio"),
        ("web_listen_address", "--web.listen-address"),
        ("web_config_file", "--web.config.file"),
        ("log_level", "--log.level"),
        ("target", "--target"),
    ],
)
def test_errors_name_the_option_as_it_is_written(name: str, option: str) -> None:
    assert option_of(name) == option


def test_listen_addresses_come_from_repeated_options_or_the_environment() -> None:
    arguments = Arguments()
    setattr(arguments, "web_listen_address", [":1", ":2"])  # noqa: B010 as the parser does it
    assert Settings(Texts(arguments, {}), []).web.listen_addresses == (":1", ":2")
    environ = {"CGAGENT_WEB_LISTEN_ADDRESS": ":3, :4"}
    assert Settings(Texts(Arguments(), environ), []).web.listen_addresses == (":3", ":4")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pipe in the place of stderr, to read from."""
    read, write = os.pipe()
    monkeypatch.setattr(log_module, "_STDERR", write)
    yield read
    os.close(read)
    os.close(write)


def test_a_line_is_logfmt(written: int) -> None:
    Log().info("env file written", path='/a "b"', count=3, empty="", odd="x=y\nz")
    line = os.read(written, 4096).decode()
    assert line.startswith("time=20")
    assert line.endswith('level=info msg="env file written" path="/a \\"b\\"" count=3 empty="" odd="x=y\\\\nz"\n')


def test_a_line_is_json(written: int) -> None:
    Log("json").warning("it is so", count=3, text="a\nb")
    line = json.loads(os.read(written, 4096))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "msg": "it is so", "count": 3, "text": "a\nb"}


def test_less_than_the_level_is_not_written(written: int) -> None:
    log = Log(level="warning")
    log.info("no")
    log.debug("no")
    log.error("yes")
    assert b"msg=yes" in os.read(written, 4096)


@pytest.mark.parametrize("text", ["x" * 100_000, "\0" * 4000, "\N{GRINNING FACE}" * 4000])
@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_texts_are_cut_until_the_line_is_one_that_a_pipe_takes_at_once(written: int, style: str, text: str) -> None:
    fields = {f"field{number}": text for number in range(15)}
    Log(style).info(text, count=3, **fields)
    line = os.read(written, 65536)
    assert len(line) <= 4096
    assert line.count(b"...") == 16
    assert line.endswith(b"\n")
    if style == "json":
        found = json.loads(line)
        assert found["count"] == 3
        assert all(found[name].endswith("...") for name in fields)


def test_a_reader_that_stopped_reading_holds_nobody(written: int) -> None:
    log = Log()
    for _ in range(100):
        log.info("x" * 5000)
    assert len(os.read(written, 1 << 20)) >= 4096


def test_a_stderr_that_is_gone_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_STDERR", 987654)
    Log().info("nobody hears it")
