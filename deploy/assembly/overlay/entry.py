"""Where cgagent starts in its bundle and in its image.

The bundle is one static program that holds the commands that start other programs, and those alone. In the image
it stands beside a whole Python, to which it hands what it has not got itself: the sidecar, the webhook.
"""

import os
import sys
from _imp import is_frozen

from cgagent import cli
from cgagent.errors import EXIT_USAGE

# What only makes sense where a bundle is.
cli.COMMANDS["install-bundle"] = ("install_bundle", "copy this program to where another container starts it")
cli.COMMANDS["healthcheck"] = ("healthcheck", "ask the sidecar beside us whether it is well, for Docker's HEALTHCHECK")


def _here(name: str) -> bool:
    return is_frozen(f"cgagent.commands.{cli.COMMANDS[name][0]}")


def _hand_on(words: list[str]) -> int:
    """Become the whole Python beside us; return only where there is none."""
    library = os.path.join(os.path.dirname(sys.executable), "lib")
    python = [f"{library}/python3", "-I", "-S", "-B", f"{library}/entry.pyc"]
    try:
        # Its prefix, and with it its modules, are found from argv[0].
        loader = ["cgagent", "--argv0", sys.executable, "--library-path", library]
        os.execv(f"{library}/ld.so", [*loader, *python, *words])  # noqa: S606 no shell is the point
    except OSError:
        have = ", ".join(name for name in cli.COMMANDS if _here(name))
        sys.stderr.write(f"cgagent: '{words[0]}' is not in this bundle, which has {have}: take cgagent's image\n")
        return EXIT_USAGE


def _start() -> int:
    words = sys.argv[1:]
    if is_frozen("cgagent.cli"):
        name = words[1] if words[:1] == ["help"] and len(words) > 1 else "".join(words[:1])
        if name in cli.COMMANDS and not _here(name):
            return _hand_on(words)
    else:
        os.environ.setdefault("TERMINFO_DIRS", os.path.join(os.path.dirname(sys.executable), "lib", "terminfo"))
        try:
            # Else ps shows the loader's name.
            with open("/proc/self/comm", "w") as file:
                file.write("cgagent")
        except OSError:
            pass
    return cli.main(words)


sys.exit(_start())
