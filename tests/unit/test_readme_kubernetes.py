"""What README.md says about Kubernetes can be typed as it stands: its shell line, its options, its paths."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

import pytest

from cgagent.cli import parser_of
from cgagent.commands import kubectl_plugin
from cgagent.parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def section() -> str:
    with open(f"{_ROOT}/README.md", encoding="utf-8") as file:
        return file.read().partition("\n## In Kubernetes\n")[2].partition("\n## ")[0]


def shell_line() -> str:
    (found,) = re.findall(r"`(sh -c '.*?' sh /orders)`", section())
    return str(found)


@pytest.mark.parametrize("shell", [["bash", "--posix"], ["dash"]])
def test_the_shells_line_hands_the_variables_on_to_the_program(shell: list[str], tmp_path: Path) -> None:
    file = tmp_path / "go.env"
    file.write_text("# written by cgagent\nGOMAXPROCS='2'\nGOMEMLIMIT='241591910'\n")
    words = shlex.split(shell_line().replace("/run/cgagent/go.env", str(file)).replace("/orders", "/usr/bin/env"))
    environment = {"PATH": os.environ["PATH"]}
    try:
        done = subprocess.run([*shell, *words[1:]], env=environment, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip(f"no {shell[0]}")
    assert {"GOMAXPROCS=2", "GOMEMLIMIT=241591910"} <= set(done.stdout.split("\n"))


def commands() -> Iterator[list[str]]:
    """The words of each command of cgagent in the section's code blocks, up to what is the shell's."""
    for block in section().split("```\n")[1::2]:
        for line in re.findall(r"(?m)^(?:\$ )?((?:kubectl )?cgagent [a-z]+ .*)", block):
            words = shlex.split(line, comments=True)
            yield words[: next((at for at, word in enumerate(words) if word in ("|", "&&", ">")), len(words))]


def test_every_command_is_understood() -> None:
    found = list(commands())
    assert len(found) >= 4
    for words in found:
        if words[0] == "kubectl":
            parser = Parser("kubectl cgagent", "", "")
            {"explain": kubectl_plugin}[words[2]].configure(parser)
            assert parser.parse(words[3:]) is not None
        else:
            assert parser_of(words[1]).parse(words[2:]) is not None


def test_every_option_that_it_names_is_one_of_the_commands() -> None:
    named = set(re.findall(r"`(--[a-z][a-z-]*)", section()))
    known = {name for command in ("inject", "watch") for one in parser_of(command) for name in one.names}
    plugin = Parser("kubectl cgagent explain", "", "")
    kubectl_plugin.configure(plugin)
    assert named >= {"--mode", "--split", "--hook", "--share-process-namespace"}
    assert named <= known | {name for one in plugin for name in one.names}


def test_every_path_that_it_names_is_there() -> None:
    named = set(re.findall(r"(?:k8s|deploy|tests)/[a-z0-9./-]*[a-z0-9]", section()))
    assert "k8s/chart" in named
    assert [path for path in named if not os.path.exists(f"{_ROOT}/{path}")] == []
