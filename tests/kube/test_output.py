"""`-o yaml` and `-o json` say the same, to the kubectl that reads them."""

from __future__ import annotations

import json
import subprocess

import pytest

from cgagent.kube import render
from cgagent.kube.yamltree import resolve
from kube.test_k8s import KUBECTL, pytestmark  # noqa: F401 no kubectl, no test
from support.kube import cases, path, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

# Each means a number, a truth value or null to some reader of YAML, or is hard to write down.
ODD = (
    *("1e3", "1E5", "1e+3", "0.1e1", "08", "010", "0o17", "0x1F", "0b11", "1_000", "+1", ".5", "1.", "1e400", "-0x1"),
    *("y", "N", "yes", "On", "off", "NULL", "~", ".inf", "-.INF", ".NaN", "NaN", "<<", "=", "-", "--", "?", "", " "),
    *("12:30:45", "2001-01-01", "#a", "a #b", "a: b", "a:", "- a", "!a", "&a", "*a", "%a", "@a", "`a", "|", ">", "{}"),
    *(
        "a\nb",
        "a\n",
        "a\n\n",
        "\na",
        " a\nb",
        "a \nb\t\n",
        "\ta",
        "a\r\nb",
        "\x7f",
        "\x85",
        "\u2028",
        "\ufeff",
        "😀\né",
    ),
)
# What may stand without quotes, and is JSON then.
PLAIN = tuple(one for one in ODD if one.strip("+-._~").isalnum() and one.lower().lstrip("-") not in (".inf", ".nan"))
PLAIN += (
    "1e+3",
    "1_000",
    "0.1e1",
    "~",
    "12:30:45",
    "2001-01-01",
    "-1",
    "-0x1",
    "0",
    "1.5",
    "1.10",
    "true",
    "nO",
    "1__0",
    "0_1",
    "_1",
    "0x1_F",
    "9223372036854775807",
)


def as_kubectl_reads(text: str, directory: Path) -> dict[str, Any]:
    """An object as kubectl makes JSON of it, without a server."""
    file = directory / "object.yaml"
    file.write_text(text, encoding="utf-8", newline="")
    words = [str(KUBECTL), "annotate", "--local", "--filename", str(file), "--output", "json", "read=yes"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_odd_text_is_written_so_that_it_stays_text(tmp_path: Path) -> None:
    data = {f"k{at}": one for at, one in enumerate(ODD)} | {"y": "a key", "1e3": "another"}
    text = render.document({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "odd"}, "data": data})
    assert as_kubectl_reads(text, tmp_path)["data"] == data


def test_what_stands_without_quotes_is_read_as_kubectl_reads_it(tmp_path: Path) -> None:
    lines = [f"  k{at}: {one}\n" for at, one in enumerate(PLAIN)]
    text = f"apiVersion: example.com/v1\nkind: Odd\nmetadata: {{name: odd}}\nspec:\n{''.join(lines)}"
    read = as_kubectl_reads(text, tmp_path)["spec"]
    assert read == {name: resolve(PLAIN[int(name[1:])]) for name in read}
    assert len(read) == len(lines)


@pytest.mark.parametrize("case", ["deployment", "comments-everywhere", "bundle-entrypoint", "policy", "cronjob"])
def test_both_outputs_say_the_same(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert case in cases()
    outputs = {}
    for output in ("yaml", "json"):
        assert run("inject", "--quiet", "-o", output, path(case, "input.yaml")) == 0
        outputs[output] = capsys.readouterr().out
    read = as_kubectl_reads(outputs["yaml"], tmp_path)
    wanted = json.loads(outputs["json"])
    del read["metadata"]["annotations"]["read"]
    wanted["metadata"].setdefault("annotations", {})
    assert read == wanted
