"""The session that README.md shows, had anew; `make session` writes it there."""

from __future__ import annotations

import os
import subprocess

from kubernetes.node import HERE, ROOT
from support.marked import replaced
from support.transcript import COMMAND, commands, planned

README = os.path.join(ROOT, "README.md")


def test_the_session_of_the_readme_is_had_again() -> None:
    done = subprocess.run([os.path.join(HERE, "session")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert commands(done.stdout) == planned()
    if os.environ.get("CGAGENT_UPDATE_README"):
        with open(README, encoding="utf-8") as file:
            text = file.read()
        text = replaced(text, COMMAND, f"```\n{done.stdout.strip()}\n```")
        with open(README, "w", encoding="utf-8") as file:
            file.write(text)
