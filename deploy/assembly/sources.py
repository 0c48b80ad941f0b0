"""Where everything comes from: Debian's packages, four wheels, and this checkout; and what of it is wanted."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

from assembly.closure import Modules
from assembly.debian import AssemblyError, cache, machine, output, unpacked

DEPLOY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
AGENT = os.path.join(os.path.dirname(DEPLOY), "agent")
OVERLAY = os.path.join(DEPLOY, "assembly", "overlay")

# Debian's words -> gcc's prefix, the kernel's name, the loader
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
PACKAGES = (
    *("libpython3.11-dev", "libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal"),
    *(
        "gcc-12-base",
        "libc6",
        "libc6-dev",
        "linux-libc-dev",
        "libexpat1",
        "libffi8",
        "libgcc-s1",
        "libncursesw6",
        "libssl3",
        "libtinfo6",
        "ncurses-base",
        "zlib1g",
        "zlib1g-dev",
    ),
)
PYTHON = "python3.11"

# The commands that start other programs and explain them: what one wants in somebody else's container.
BUNDLE_COMMANDS = ("explain", "write", "exec", "wait", "capture", "run")
OVERLAY_COMMANDS = ("install_bundle", "healthcheck")

OWN = ("cgagent", "entry")
# Imported by name at run time, or in a function of a library that we do call.
ALWAYS = (
    *("encodings.ascii", "encodings.latin_1", "encodings.unicode_escape", "encodings.utf_8", "encodings.utf_16_be"),
    *("encodings.utf_16_le", "locale", "shutil", "textwrap", "warnings"),
)
OF_THE_SIDECAR = (
    *("prometheus_client.metrics_core", "prometheus_client.registry", "prometheus_client.utils"),
    *("watchdog.observers.inotify", "watchdog.observers.inotify_c", "encodings.idna", "stringprep"),
)
# Imported where it is there, and never needed here.
CUT = (
    *("bz2", "lzma", "cgagent.completion.generate", "yaml._yaml"),
    # prometheus_client's own __init__ never runs: cgagent.metrics.client loads its modules without it.
    *(f"prometheus_client.{name}" for name in ("aiohttp", "asgi", "exposition", "gc_collector", "metrics")),
    *(f"prometheus_client.{name}" for name in ("platform_collector", "process_collector", "openmetrics")),
)


class Sources:
    """The unpacked packages and wheels for one architecture.

    Attributes:
        root: of Debian's packages.
        versions: `name version` of each, wheels too.
        magic: the first bytes of a .pyc file.
        modules: every Python source that can be had.
    """

    def __init__(self, architecture: str) -> None:
        if architecture not in ARCHITECTURES:
            raise AssemblyError(f"--arch {architecture}: the architectures are {', '.join(ARCHITECTURES)}")
        self.architecture = architecture
        self.root, self.versions = unpacked(PACKAGES, architecture)
        self.stdlib = os.path.join(self.root, "usr", "lib", PYTHON)
        self.wheels, names = _wheels(architecture)
        self.versions += names
        self.modules = Modules([AGENT, OVERLAY, self.stdlib, self.wheels])
        own = machine()
        self.magic = b""  # of .pyc files; known once something is compiled
        self._compiler_root = self.root if own == architecture else unpacked(PACKAGES, own)[0]

    @property
    def triplet(self) -> str:
        """The directory of libraries in Debian, which is gcc's prefix too."""
        return f"{ARCHITECTURES[self.architecture]}-linux-gnu"

    def compiled(self, names: dict[str, str], directory: str) -> dict[str, bytes]:
        """Marshalled code by module name, made by Debian's own Python from the sources `names`.

        Raises:
            AssemblyError: a source does not compile.
        """
        root = self._compiler_root
        kind = f"{ARCHITECTURES[machine()]}-linux-gnu"
        libraries = f"{root}/lib/{kind}:{root}/usr/lib/{kind}"
        loader = os.path.realpath(_loader(root, kind))
        script = os.path.join(DEPLOY, "assembly", "compile_modules.py")
        words = [loader, "--library-path", libraries, f"{root}/usr/bin/{PYTHON}", "-S", "-s", "-B", script, directory]
        listing = "".join(f"{name}\t{path}\n" for name, path in sorted(names.items()))
        # The order of a set's members shows in marshalled code.
        environ = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONHOME": f"{root}/usr", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(words, input=listing, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssemblyError(f"compiling modules: {done.stderr.strip().splitlines()[-1]}")
        with open(os.path.join(directory, "MAGIC"), "rb") as file:
            self.magic = file.read()
        code = {}
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                code[name] = file.read()
        return code

    def bundle(self) -> tuple[dict[str, tuple[str, bool]], set[str]]:
        """The modules of the bundle, and what it needs that is no Python source."""
        roots = [*_commands(BUNDLE_COMMANDS), *_overlay(), "cgagent.cli", "cgagent.helptext", *ALWAYS]
        return self.modules.closure(roots, OWN, CUT)

    def image(self) -> tuple[dict[str, tuple[str, bool]], set[str]]:
        """The modules of the whole Python in the image, and what it needs that is no Python source."""
        roots = [*self.modules.below("cgagent"), *_overlay(), *ALWAYS, *OF_THE_SIDECAR]
        return self.modules.closure(roots, OWN, CUT)

    def loader(self) -> str:
        """The dynamic loader of the architecture."""
        return _loader(self.root, self.triplet)


def _loader(root: str, triplet: str) -> str:
    directory = f"{root}/lib/{triplet}"
    names = [name for name in os.listdir(directory) if name.startswith("ld-linux-")]
    return os.path.join(directory, names[0])


def _overlay() -> list[str]:
    return ["entry", *(f"cgagent.commands.{name}" for name in OVERLAY_COMMANDS)]


def _commands(wanted: tuple[str, ...]) -> list[str]:
    """The modules of those of the commands `wanted` that the command line has, read from its table."""
    with open(os.path.join(AGENT, "cgagent", "cli.py")) as file:
        tree = ast.parse(file.read())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "COMMANDS":
            table = ast.literal_eval(node.value)
            return [f"cgagent.commands.{table[name][0]}" for name in wanted if name in table]
    raise AssemblyError("agent/cgagent/cli.py has no table COMMANDS")


def version() -> str:
    """cgagent's."""
    with open(os.path.join(AGENT, "cgagent", "__init__.py")) as file:
        tree = ast.parse(file.read())
    found = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    return str(found[-1])


def _wheels(architecture: str) -> tuple[str, list[str]]:
    """A directory with the wheels of requirements.txt unpacked, and `name version` of each."""
    requirements = os.path.join(DEPLOY, "requirements.txt")
    with open(requirements, "rb") as file:
        key = hashlib.sha256(file.read()).hexdigest()[:16]
    directory = os.path.join(cache(), "wheels", f"{architecture}-{key}")
    listing = os.path.join(directory, ".wheels.json")
    if not os.path.exists(listing):
        temporary = f"{directory}.{os.getpid()}"
        os.makedirs(temporary)
        kernel = ARCHITECTURES[architecture]
        words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        words += ["--require-hashes", "--only-binary", ":all:", "--python-version", "3.11", "--dest", temporary]
        words += ["--platform", f"manylinux2014_{kernel}", "--platform", f"manylinux_2_17_{kernel}"]
        output([*words, "--requirement", requirements])
        names = sorted(name for name in os.listdir(temporary) if name.endswith(".whl"))
        for name in names:
            with zipfile.ZipFile(os.path.join(temporary, name)) as archive:
                archive.extractall(temporary)
            os.unlink(os.path.join(temporary, name))
        with open(os.path.join(temporary, ".wheels.json"), "w") as listed:
            json.dump([" ".join(name.split("-")[:2]) for name in names], listed)
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(temporary, directory)
    with open(listing) as listed:
        return directory, json.load(listed)
