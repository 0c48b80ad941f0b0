"""What a POSIX shell makes of an env file that a launcher sources."""

from __future__ import annotations

import subprocess

BASH = ("bash", "--posix")

# Only what the file assigns is exported; the shell's own variables are dropped by the caller's names.
_SCRIPT = 'set -a; . "$1" || exit; set +a; exec env -0'


def source(path: str, *names: str, shell: tuple[str, ...] = BASH) -> dict[str, str]:
    """Those of `names` that are set after `. PATH` in an empty environment, with their values.

    Raises:
        AssertionError: the shell says anything, or fails.
    """
    command = [*shell, "-c", _SCRIPT, "sh", path]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    pairs = (entry.partition(b"=") for entry in done.stdout.split(b"\0"))
    found = {name.decode("utf-8", "surrogateescape"): value for name, _, value in pairs}
    return {name: found[name].decode("utf-8", "surrogateescape") for name in names if name in found}
