"""What goes into the bundle and into the image: path -> content and mode."""

from __future__ import annotations

import os
import re
import tempfile

from assembly.archive import FILE, PROGRAM
from assembly.debian import AssemblyError, output
from assembly.sources import AGENT, DEPLOY, PYTHON, Sources, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from assembly.program import Program

    Tree = dict[str, tuple[bytes, int]]

_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_LICENSES = {"python": "libpython3.11-minimal", "glibc": "libc6", "zlib": "zlib1g"}
_MORE_LICENSES = {
    "openssl": "libssl3",
    "expat": "libexpat1",
    "libffi": "libffi8",
    "libgcc": "libgcc-s1",
    "ncurses": "libtinfo6",
}
_LINKED = ("libc6-dev ", "libpython3.11-", "pyyaml ", "zlib1g-dev ")
_SOURCELESS = 12  # bytes of a .pyc's header after the magic number: flags, time and size of a source, all 0


def bundle_tree(sources: Sources, program: Program) -> Tree:
    """The bundle: the program and its papers."""
    return {"cgagent": (program.content, PROGRAM), **_papers(sources, _LICENSES, ("pyyaml",))}


def image_tree(sources: Sources, program: Program) -> Tree:
    """The image: the bundle's program, and beside it a whole Python with every command."""
    modules, sourceless = sources.image()
    tree: Tree = {
        "cgagent": (program.content, PROGRAM),
        "lib/ld.so": (_content(sources.loader()), PROGRAM),
        "lib/python3": (_content(f"{sources.root}/usr/bin/{PYTHON}"), PROGRAM),
    }
    with tempfile.TemporaryDirectory(prefix="cgagent-image-") as directory:
        code = sources.compiled({name: path for name, (path, _) in modules.items()}, directory)
    for name, text in code.items():
        pyc = sources.magic + bytes(_SOURCELESS) + text
        path = "lib/entry" if name == "entry" else f"lib/{PYTHON}/{name.replace('.', '/')}"
        tree[f"{path}/__init__.pyc" if modules[name][1] else f"{path}.pyc"] = pyc, FILE
    tree |= _extensions(sources, sourceless)
    tree |= _data()
    tree |= _terminals(sources)
    tree |= _libraries(sources, [f"{sources.root}/usr/bin/{PYTHON}", *_extension_paths(sources, sourceless).values()])
    return {**tree, **_papers(sources, {**_LICENSES, **_MORE_LICENSES}, None)}


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _extension_paths(sources: Sources, sourceless: set[str]) -> dict[str, str]:
    """Where the modules are that are shared objects, by their path in the tree."""
    suffix = f".cpython-311-{sources.triplet}.so"
    found = {}
    for name in sorted(sourceless):
        path = f"{sources.stdlib}/lib-dynload/{name}{suffix}"
        if os.path.exists(path):
            found[f"lib/{PYTHON}/lib-dynload/{name}{suffix}"] = path
        path = f"{sources.wheels}/{name.replace('.', '/')}.abi3.so"
        if os.path.exists(path):
            found[f"lib/{PYTHON}/{name.replace('.', '/')}.abi3.so"] = path
    return found


def _extensions(sources: Sources, sourceless: set[str]) -> Tree:
    return {path: (_content(place), FILE) for path, place in _extension_paths(sources, sourceless).items()}


def _libraries(sources: Sources, objects: list[str]) -> Tree:
    """The shared libraries that `objects` need, and those that these need."""
    tree: Tree = {}
    queue = list(objects)
    places = [f"{sources.root}{prefix}/lib/{sources.triplet}" for prefix in ("", "/usr")]
    while queue:
        for name in _NEEDED.findall(output(["readelf", "--dynamic", "--wide", queue.pop()])):
            if f"lib/{name}" in tree or name.startswith("ld-linux"):
                continue
            found = [f"{place}/{name}" for place in places if os.path.exists(f"{place}/{name}")]
            if not found:
                raise AssemblyError(f"no package has {name}: add the one to PACKAGES in deploy/assembly/sources.py")
            tree[f"lib/{name}"] = _content(found[0]), FILE
            queue.append(found[0])
    return tree


def _data() -> Tree:
    """Files of cgagent that are no modules: the landing page, completion scripts."""
    tree: Tree = {}
    for directory, folders, files in os.walk(os.path.join(AGENT, "cgagent")):
        folders[:] = [folder for folder in folders if folder != "__pycache__"]
        for name in files:
            if not name.endswith((".py", ".pyc", ".typed")):
                path = os.path.join(directory, name)
                tree[f"lib/{PYTHON}/{os.path.relpath(path, AGENT)}"] = _content(path), FILE
    return tree


def _terminals(sources: Sources) -> Tree:
    """What curses has to know of terminals, of those that Debian takes for common."""
    tree: Tree = {}
    for directory, _, files in os.walk(f"{sources.root}/lib/terminfo"):
        for name in files:
            tree[f"lib/terminfo/{name[0]}/{name}"] = _content(os.path.join(directory, name)), FILE
    return tree


def _papers(sources: Sources, packages: dict[str, str], wheels: tuple[str, ...] | None) -> Tree:
    """Licenses of all that is in it, and PARTS, which says what that is; `wheels` None: all of them."""
    tree: Tree = {"licenses/cgagent": (_content(os.path.join(os.path.dirname(DEPLOY), "LICENSE")), FILE)}
    for name, package in packages.items():
        tree[f"licenses/{name}"] = _content(f"{sources.root}/usr/share/doc/{package}/copyright"), FILE
    for directory, _, files in sorted(os.walk(sources.wheels)):
        name = directory.removeprefix(sources.wheels).strip("/").partition("-")[0].lower()
        if ".dist-info" not in directory or (wheels is not None and name not in wheels):
            continue
        for file in files:
            if file.startswith(("LICENSE", "COPYING", "NOTICE")):
                tree[f"licenses/{name}-{file}"] = _content(os.path.join(directory, file)), FILE
    wanted = sources.versions if wheels is None else [one for one in sources.versions if one.startswith(_LINKED)]
    tree["PARTS"] = "".join(f"{one}\n" for one in [f"cgagent {version()}", *wanted]).encode(), FILE
    return tree
