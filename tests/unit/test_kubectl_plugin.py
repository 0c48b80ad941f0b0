"""`kubectl cgagent`, with a stub for kubectl: what it makes of answers that are none, and of an impatient user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from cgagent.commands import kubectl_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PATIENCE = 60.0
POD = {"spec": {"containers": [{"name": "app", "image": "orders:1"}]}}


def _kubectl(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> None:
    """Have `script` be kubectl."""
    stub = directory / "kubectl"
    stub.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    stub.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(stub))


def test_kubectl_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECTL", str(tmp_path / "kubectl"))
    assert kubectl_plugin.main(["explain", "orders"]) == 1
    assert capsys.readouterr().err == (
        f"kubectl cgagent explain: cannot start {tmp_path}/kubectl: no such file or directory: put kubectl on PATH\n"
    )


def test_an_answer_that_is_no_json_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _kubectl(monkeypatch, tmp_path, "echo a proxy is in the way")
    assert kubectl_plugin.main(["explain", "orders"]) == 1
    assert capsys.readouterr().err == (
        "kubectl cgagent explain: kubectl says no JSON of pod orders: 'a proxy is in the way'\n"
    )


def test_a_container_that_is_not_there_is_told_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _kubectl(monkeypatch, tmp_path, f"echo '{json.dumps(POD)}'")
    assert kubectl_plugin.main(["explain", "orders", "-c", "ap"]) == 2
    assert "there is no container 'ap' in orders: it has app\n" in capsys.readouterr().err


def test_an_interrupt_while_kubectl_waits_ends_it_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kubectl(monkeypatch, tmp_path, f"echo > {tmp_path}/started; exec sleep 600")
    code = "import sys; from cgagent.commands.kubectl_plugin import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "explain", "orders"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, it would be by both of them too
    with subprocess.Popen(words, stdout=-1, stderr=-1, text=True, start_new_session=True) as process:
        signal.signal(signal.SIGINT, before)
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to kubectl too
        said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (130, ("", ""))
