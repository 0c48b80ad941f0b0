"""What projects publish as Go modules: manifests, definitions of custom resources."""

from __future__ import annotations

import json
import subprocess

import pytest


def go_module(name: str) -> str:
    """Where the published Go module `name` is, fetched if it is not there yet."""
    try:
        done = subprocess.run(["go", "mod", "download", "-json", name], capture_output=True, text=True, check=False)
    except OSError:
        pytest.skip("no go")
    if done.returncode:
        pytest.skip(f"{name} can't be had: {done.stderr.strip() or done.stdout.strip()[-200:]}")
    return str(json.loads(done.stdout)["Dir"])
