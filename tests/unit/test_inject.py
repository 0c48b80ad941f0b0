"""What `inject` does beside editing: reading, refusing, converting, choosing; and `wait`."""

from __future__ import annotations

import io
import json
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent.commands.manifest_options import add_containers, add_injection
from cgagent.errors import CgagentError, UsageError
from cgagent.kube import render
from cgagent.kube.additions import applied
from cgagent.kube.inject import plan
from cgagent.kube.manifests import inject, uninject, values
from cgagent.kube.quantity import ceil_of
from cgagent.kube.settings import unknown
from cgagent.kube.targets import SkippedError
from cgagent.parser import Parser
from cgagent.watch.kinds import parse_hook
from support.kube import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: orders
spec:
  containers:
  - name: app
    image: orders:1
    resources: {limits: {cpu: 1500m, memory: 256Mi}}
"""


def defaults(_name: str) -> None:
    return None


def stdin(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))


# Reading and writing.


def test_standard_input_is_read_where_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(POD.encode(), monkeypatch)
    assert run("inject") == 0
    assert "fileKeyRef" in capsys.readouterr().out


def test_folders_are_read_in_order_and_documents_are_set_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    for name, text in (("b/z.yml", POD), ("a.yaml", POD), ("notes.txt", "none"), ("c.yaml", f"---\n{POD}")):
        (tmp_path / name).write_text(text)
    assert run("uninject", str(tmp_path)) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{POD}---\n{POD}---\n{POD}"
    assert captured.err.count("pod/orders: unchanged") == 3


def test_a_dry_run_prints_a_diff_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(POD)
    assert run("inject", "--dry-run", "--quiet", str(file)) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[:2] == [f"--- {file}", f"+++ {file} (changed)"]
    assert [line for line in lines[2:] if line.startswith("-")] == []
    assert "+    - name: GOMAXPROCS" in lines
    assert captured.err == ""


def test_output_can_be_json_or_yaml_whatever_the_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(f"{POD}---\n{POD}")
    assert run("inject", "-o", "json", str(file)) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], len(document["items"])) == ("List", 2)
    file.write_text(json.dumps(values(POD)[0], indent="\t"))
    assert run("inject", "-o", "yaml", str(file)) == 0
    (again,) = values(capsys.readouterr().out)
    assert again == values(inject(POD, defaults)[0])[0]


def test_the_image_may_be_named_once_for_all_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, words, image in (
        ("registry.example/cgagent:1", [], "registry.example/cgagent:1"),
        ("registry.example/cgagent:1", ["--image=other:2"], "other:2"),
    ):
        monkeypatch.setenv("CGAGENT_IMAGE", variable)
        stdin(POD.encode(), monkeypatch)
        assert run("inject", "--quiet", *words) == 0
        assert f"image: {image}\n" in capsys.readouterr().out
    monkeypatch.setenv("CGAGENT_IMAGE", "cgagent:latest")
    with pytest.raises(UsageError, match="CGAGENT_IMAGE: 'cgagent:latest' names no version"):
        run("inject", "/nonexistent")


def test_a_byte_order_mark_stays_where_it_is() -> None:
    marked = "\ufeff" + POD
    result, _ = inject(marked, defaults)
    assert result == "\ufeff" + inject(POD, defaults)[0]
    assert uninject(result)[0] == marked


def test_an_object_in_a_list_is_injected_with_other_options_anew() -> None:
    def sidecar(name: str) -> tuple[str, str] | None:
        return ("sidecar", name) if name == "mode" else None

    first = inject(POD, sidecar)[0]
    assert inject(first, defaults)[0] == inject(POD, defaults)[0]


def test_what_kubectl_has_sorted_and_stripped_of_comments_is_uninjected_all_the_same() -> None:
    injected = values(inject(POD, defaults)[0])[0]
    text = "\n".join(render.block(json.loads(json.dumps(injected, sort_keys=True)), 0, 0)) + "\n"
    assert values(uninject(text)[0]) == values(POD)


def test_what_was_added_by_others_meanwhile_stays() -> None:
    injected = values(inject(POD, defaults)[0])[0]
    assert isinstance(injected, dict)
    injected["spec"]["volumes"].append({"name": "data", "emptyDir": {}})
    (left,) = values(uninject(json.dumps(injected))[0])
    assert isinstance(left, dict)
    assert left["spec"]["volumes"] == [{"name": "data", "emptyDir": {}}]
    assert "initContainers" not in left["spec"]


def bundle(name: str) -> tuple[str, str] | None:
    return ("bundle", name) if name == "mode" else None


def test_a_command_that_somebody_has_put_in_the_place_of_ours_stays() -> None:
    words = '    command: [/orders, -listen, ":8080", -v, -x, -y]\n'
    injected, _ = inject(POD + words, bundle)
    changed = "".join(
        words if line.lstrip().startswith("command:") else line for line in injected.splitlines(keepends=True)
    )
    assert uninject(changed)[0] == POD + words
    assert inject(changed, bundle)[0] == injected


def test_of_a_command_only_our_words_go_where_their_number_was_changed() -> None:
    original = f"{POD}    command: [/orders, --, -v]\n"
    injected, _ = inject(original, bundle)
    changed = injected.replace('"--on-error=ignore", ', '"--on-error=ignore", "--memory-ratio=0.8", "--min-procs=2", ')
    assert changed != injected
    assert uninject(changed)[0] == original


def test_a_variable_that_somebody_has_set_since_stays_and_is_not_overridden() -> None:
    injected = values(inject(POD, defaults)[0])[0]
    assert isinstance(injected, dict)
    own = {"name": "GOMAXPROCS", "value": "4"}
    env = injected["spec"]["containers"][0]["env"]
    env[[one["name"] for one in env].index("GOMAXPROCS")] = own
    text = json.dumps(injected)
    (left,) = values(uninject(text)[0])
    assert isinstance(left, dict)
    assert left["spec"]["containers"][0]["env"] == [own]
    again, (outcome,) = inject(text, defaults)
    (pod,) = values(again)
    assert isinstance(pod, dict)
    assert own in pod["spec"]["containers"][0]["env"]
    assert "GOMAXPROCS is set by the manifest" in " ".join(outcome.notes)


# Refusals: one line, and how to mend it.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode=else"], "--mode: 'else' is not a mode"),
        (["--mode=sidecar", "--kube-version=1.34"], "--mode: sidecar needs Kubernetes 1.35 or newer, not 1.34"),
        (["--kube-version=new"], "--kube-version: 'new' is not a version of Kubernetes"),
        (["--image=cgagent:latest"], "--image: 'cgagent:latest' names no version"),
        (["--image=registry:5000/cgagent"], "--image: 'registry:5000/cgagent' names no version"),
        (["--run-as=0:0"], "--run-as: '0:0' is not a user"),
        (["--mode=sidecar", "--hook=exec:/bin/sh"], "--hook: 'exec:/bin/sh' is not a hook for a pod"),
        (["--mode=sidecar", "--hook=signal:NONE"], "--hook: 'signal:NONE' is not a hook for a pod"),
        (["--mode=sidecar", "--hook=exit:1"], "--hook: 'exit:1' is not a hook for a pod"),
        (["--hook=tune"], "--hook: only the sidecar sees changes"),
        (["--confirm-raises"], "--confirm-raises: only the sidecar follows raises"),
        (["--mode=sidecar", "--hook=tune"], "--hook: tune is for the application's process"),
        (["--mode=sidecar", "--hook=exit:88", "--kube-version=1.35"], "--hook: exit:88 needs Kubernetes 1.36"),
        (["--memory-ratio=2"], "--memory-ratio: '2' is not a ratio"),
        (["--entrypoint=app"], "--entrypoint: 'app' names no command"),
        (["--entrypoint=app='X"], "--entrypoint: ''X': no closing quotation"),
        (["-o", "xml"], "--output: 'xml' is not known"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        run("inject", *words, "/nonexistent")
    assert raised.value.line().startswith(message)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "line 2: "),
        (b"a: b: c", "line 1: "),
        (b"{{ if .Values.x }}\na: b\n", "a template has to be rendered first"),
        (b"\xff\xfe", "is not UTF-8: byte 0"),
        (b"- " * 100 + b"a", "line 1: nested more than 60 deep"),
        (POD.encode() + b'  annotations: "\x01"', "characters are not allowed"),
    ],
)
def test_what_is_no_manifest_is_told_with_its_file(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(CgagentError) as raised:
        run("inject", str(file))
    assert raised.value.exit_code == 1
    assert str(file) in raised.value.line()
    assert message in raised.value.line()


def test_a_wrong_annotation_names_file_object_and_annotation(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(POD.replace("  name: orders", "  name: orders\n  annotations: {cgagent.dev/min-procs: zero}"))
    with pytest.raises(CgagentError) as raised:
        run("inject", str(file))
    where = f"{file}: pod/orders: annotation cgagent.dev/min-procs: 'zero' is not a whole number"
    assert raised.value.line().startswith(where)


def annotated(*annotations: str) -> str:
    return POD.replace("  name: orders", f"  name: orders\n  annotations: {{{', '.join(annotations)}}}")


def test_an_annotation_that_is_not_known_is_told_and_not_heeded() -> None:
    text, (outcome,) = inject(annotated("cgagent.dev/memory_ratio: '0.5'", "example.com/own: x"), defaults)
    assert outcome.notes == ["the annotation cgagent.dev/memory_ratio is not known, and not heeded"]
    assert "--memory-ratio" not in text


def test_every_option_of_an_injection_is_an_annotation() -> None:
    """By its own name."""
    parser = Parser("cgagent inject", "", "")
    add_injection(parser)
    add_containers(parser)
    names = [argument.names[-1].removeprefix("--") for argument in parser]
    assert {"mode", "container", "memory-ratio"} <= set(names)
    assert unknown({f"cgagent.dev/{name}": "" for name in (*names, "inject", "injected", "containers")}) == []


@pytest.mark.parametrize("annotation", ["container", "containers"])
def test_an_annotation_chooses_the_container(annotation: str) -> None:
    two = (
        annotated(f"cgagent.dev/{annotation}: app")
        + "  - {name: worker, image: 'x:1', resources: {limits: {cpu: 1}}}\n"
    )
    _, (outcome,) = inject(two, defaults)
    assert outcome.summary == "filekeyref: app (GOMAXPROCS, GOMEMLIMIT)"


def test_a_missing_file_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(CgagentError, match="cannot read /nonexistent: no such file or directory"):
        run("inject", "/nonexistent")
    with pytest.raises(CgagentError, match="has no manifests in it"):
        run("inject", str(tmp_path))


# The plan.


@pytest.mark.parametrize(
    ("text", "parts", "value"),
    [
        ("1500m", 1000, 1500),
        ("1", 1000, 1000),
        ("0.1", 1000, 100),
        ("1u", 1000, 1),
        ("512Mi", 1, 512 << 20),
        ("1.5Gi", 1, 3 << 29),
        ("1G", 1, 10**9),
        ("1E", 1, 10**18),
        ("129e6", 1, 129_000_000),
        ("1E3", 1, 1000),
        ("128974848000m", 1, 128974848),
        ("+2", 1, 2),
        ("1e-1", 1, 1),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str, parts: int, value: int) -> None:
    """The examples of k8s.io/apimachinery's documentation of Quantity among them; rounded up."""
    assert ceil_of(text, parts, "it") == value


@pytest.mark.parametrize("text", ["", "x", "1Kb", "1.2.3", ".", "-1", "1e99", "1" * 50, "1 Gi", "Mi", "1ki"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ceil_of(text, 1, "it")


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
_ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "metadata": _ANYTHING | st.fixed_dictionaries({"annotations": _ANYTHING}),
            "spec": _ANYTHING
            | st.fixed_dictionaries(
                {
                    "containers": st.lists(
                        st.fixed_dictionaries(
                            {"name": _SCALARS},
                            optional={"env": _ANYTHING, "resources": _ANYTHING | st.just({"limits": {"cpu": 1}})},
                        ),
                        max_size=3,
                    )
                },
                optional={"volumes": _ANYTHING, "initContainers": _ANYTHING, "securityContext": _ANYTHING},
            ),
        },
    )
)
def test_no_pod_however_odd_is_a_fault_of_ours(template: dict[str, object]) -> None:
    """The API server validates after admission: a webhook sees anything."""
    try:
        found = plan(template, defaults)
    except (SkippedError, UsageError):
        return
    applied(template, found.additions)


_WORDS = st.text(st.sampled_from("ab:-#'\"{}[],&*!|>%@`\\ 0123nyo~.é\n\t\r\x7f\x85\u2028\ufeff_e+😀"), max_size=8)


@given(st.dictionaries(_WORDS, st.lists(st.dictionaries(_WORDS, _WORDS, min_size=1), min_size=1), min_size=1))
def test_rendered_text_says_what_was_meant(value: dict[str, list[dict[str, str]]]) -> None:
    for step in (0, 2):
        assert values("\n".join(render.block(value, 0, step)) + "\n") == [value]


# wait.


def test_wait_ends_when_the_file_comes(tmp_path: Path) -> None:
    file = tmp_path / "go.env"

    def write() -> None:
        time.sleep(0.2)
        (tmp_path / "new").write_text("")
        os.rename(tmp_path / "new", file)

    thread = threading.Thread(target=write)
    thread.start()
    assert run("wait", "--env-file", str(file), "--timeout", "30s") == 0
    assert file.exists()
    thread.join()


@pytest.mark.parametrize("hook", ["tune", "signal:TERM", "signal:USR1", "exit:79", "exit:125"])
def test_the_sidecar_understands_every_hook_that_inject_takes(hook: str) -> None:
    options = {"mode": "sidecar", "share_process_namespace": "true", "hook": hook}
    (pod,) = values(inject(POD, lambda name: (options[name], name) if name in options else None)[0])
    assert isinstance(pod, dict)
    (word,) = [word for word in pod["spec"]["initContainers"][0]["args"] if word.startswith("--hook=")]
    assert parse_hook(word.removeprefix("--hook="), "--hook").name == hook


def test_wait_gives_up_in_time_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(CgagentError) as raised:
        run("wait", "--env-file", f"{tmp_path}/go.env", "--timeout", "50ms")
    assert raised.value.line().startswith(f"{tmp_path}/go.env is not there after 50ms: ")
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("words", [[], ["--env-file", "x", "--timeout", "soon"], ["--env-file", "x", "--timeout="]])
def test_wait_refuses_wrong_usage(words: list[str]) -> None:
    with pytest.raises(UsageError):
        run("wait", *words)
