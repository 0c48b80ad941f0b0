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


RUNNING = {
    "containerStatuses": [{"name": "app", "containerID": "containerd://ab", "state": {"running": {"startedAt": "x"}}}]
}


def _node(directory: Path, monkeypatch: pytest.MonkeyPatch, pod: dict[str, object], state: dict[str, object]) -> None:
    """Have kubectl show `pod`, take every container, and say that its state is `state`; it notes its words."""
    name = "$(cat name)"
    status = {**RUNNING, "ephemeralContainerStatuses": [{"name": "NAME", "state": state}]}
    files = {"before": pod, "after": {**pod, "status": status}}
    for file, content in files.items():
        (directory / file).write_text(json.dumps(content))
    _kubectl(
        monkeypatch,
        directory,
        f"""cd {directory}; echo "$*" >> words
case $1 in
get) if [ -e name ]; then sed "s/NAME/{name}/" after; else cat before; fi ;;
debug) for word; do case $word in --container=*) echo "${{word#*=}}" > name ;; esac; done ;;
logs) echo explained ;;
esac""",
    )


def _words(directory: Path) -> list[str]:
    return (directory / "words").read_text().splitlines()


ENDED: dict[str, object] = {"terminated": {"exitCode": 3, "reason": "Error"}}


def test_every_kubectl_is_told_which_cluster_and_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _node(tmp_path, monkeypatch, {**POD, "status": RUNNING}, ENDED)
    monkeypatch.setenv("CGAGENT_IMAGE", "registry.example/cgagent:1")
    where = ["--namespace=shop", "--context=test", "--kubeconfig=/etc/kube/config"]
    assert kubectl_plugin.main(["explain", "pod/orders", *where]) == 3
    assert capfd.readouterr().out == "explained\n"
    for line in _words(tmp_path):
        assert set(where) <= set(line.split())
        assert "orders" in line.split()
    assert [line for line in _words(tmp_path) if "--image=registry.example/cgagent:1 " in line]


def test_a_container_that_is_not_running_is_told_before_anything_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = {"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
    for pod, why in (({**POD, "status": status}, " (CrashLoopBackOff)"), ({**POD, "status": {"phase": "Pending"}}, "")):
        _node(tmp_path, monkeypatch, pod, ENDED)
        assert kubectl_plugin.main(["explain", "orders"]) == 1
        assert capsys.readouterr().err.startswith(
            f"kubectl cgagent explain: container app is not running{why}: wait for it"
        )
    assert {line.split()[0] for line in _words(tmp_path)} == {"get"}


def test_wrong_usage_is_told_before_anything_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is added to a pod stays there."""
    _node(tmp_path, monkeypatch, {**POD, "status": RUNNING}, ENDED)
    assert kubectl_plugin.main(["explain", "orders", "-o", "xml"]) == 2
    assert "--output: 'xml' is not known: choose one of text, json, yaml" in capsys.readouterr().err
    assert not (tmp_path / "words").exists()


def test_in_the_nodes_own_process_namespace_the_application_is_found_by_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 1 is the node's init there."""
    pod = {"spec": {**POD["spec"], "hostPID": True}, "status": RUNNING}
    _node(tmp_path, monkeypatch, pod, ENDED)
    assert kubectl_plugin.main(["explain", "orders"]) == 3
    assert [line for line in _words(tmp_path) if "-- cgagent explain --container-id=containerd://ab " in line]


def test_an_image_that_cannot_be_had_is_told_without_waiting_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states: list[dict[str, object]] = [
        {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        {"terminated": {"reason": "StartError", "exitCode": 128, "message": "no such image"}},
    ]
    monkeypatch.setattr(kubectl_plugin, "_PATIENCE", 3600.0)
    for state in states:
        _node(tmp_path, monkeypatch, {**POD, "status": RUNNING}, state)
        assert kubectl_plugin.main(["explain", "orders"]) == 1
        said = capsys.readouterr().err
        assert "of orders: no such image: is the image to be had on that node?" in said
