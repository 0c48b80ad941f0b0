"""The command lines of deploy/bundle and deploy/image."""

# ruff: noqa: T201 commands print: that is what they are for

from __future__ import annotations

import gzip
import os
import sys

from assembly import program
from assembly.archive import put, tar
from assembly.debian import AssemblyError, machine
from assembly.oci import image as oci_image
from assembly.sources import DEPLOY, Sources, version
from assembly.tree import bundle_tree, image_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BUILD = os.path.join(os.path.dirname(DEPLOY), "build")
HOME = "opt/cgagent"
UID = 65532  # distroless' nonroot
# Where a volume goes: Docker gives a new named volume the owner of the directory that it covers.
VOLUME = "run/cgagent"
NAME = "cgagent"


def bundle(words: list[str], usage: str) -> int:
    """Build the bundle."""
    return _told("bundle", lambda: _bundle(_options(words, usage, ("--arch", "--output"), ("--table",))))


def image(words: list[str], usage: str) -> int:
    """Build the image."""
    valued = ("--arch", "--output", "--name", "--tree")
    return _told("image", lambda: _image(_options(words, usage, valued, ("--table",))))


def _told(name: str, build: Callable[[], None]) -> int:
    try:
        build()
    except AssemblyError as error:
        print(f"deploy/{name}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"deploy/{name}: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _options(words: list[str], usage: str, valued: tuple[str, ...], flags: tuple[str, ...]) -> dict[str, str]:
    """The options by name; ends the program where they are wrong, or help is wanted."""
    options: dict[str, str] = {}
    queue = list(words)
    while queue:
        name, sign, value = queue.pop(0).partition("=")
        if name in ("-h", "--help"):
            print(usage.strip())
            sys.exit(0)
        if name in flags and not sign:
            options[name] = "yes"
        elif name in valued and (sign or queue):
            options[name] = value if sign else queue.pop(0)
        else:
            print(usage.strip(), file=sys.stderr)
            sys.exit(2)
    return options


def _bundle(options: dict[str, str]) -> None:
    architecture = options.get("--arch", machine())
    sources = Sources(architecture)
    built = program.build(sources)
    tree = bundle_tree(sources, built)
    _write(options.get("--output", os.path.join(BUILD, f"cgagent-bundle-{architecture}.tar")), tar(tree))
    if "--table" in options:
        frozen = sum(built.modules.values())
        rows = [
            ("Python 3.11 and glibc, in C", len(built.content) - frozen),
            (
                "modules of Python, frozen",
                _sum(built.modules, lambda name: not name.startswith(("cgagent", "yaml", "entry"))),
            ),
            ("cgagent, frozen", _sum(built.modules, lambda name: name.startswith(("cgagent", "entry")))),
            ("PyYAML, frozen", _sum(built.modules, lambda name: name.startswith("yaml"))),
            ("licenses, list of parts", sum(len(content) for path, (content, _) in tree.items() if path != "cgagent")),
        ]
        _table(rows, tar(tree))


def _image(options: dict[str, str]) -> None:
    architecture = options.get("--arch", machine())
    sources = Sources(architecture)
    tree = image_tree(sources, program.build(sources))
    if "--tree" in options:
        for path, (content, mode) in tree.items():
            where = os.path.join(options["--tree"], path)
            put(where, content)
            os.chmod(where, mode)
        return
    suffix = "" if architecture == "amd64" else f"-{architecture}"
    names = [options["--name"]] if "--name" in options else [f"docker.io/library/{NAME}:{version()}"]
    layers = [(f"deploy/image: /{HOME}", tar(tree, HOME, {VOLUME: UID}))]
    archive = oci_image(layers, architecture, names, configuration())
    _write(options.get("--output", os.path.join(BUILD, f"cgagent-image{suffix}.tar")), archive)
    if "--table" in options:
        sizes = {path: len(content) for path, (content, _) in tree.items()}
        _table([(text, _sum(sizes, belongs)) for text, belongs in _GROUPS], layers[0][1])


def configuration() -> dict[str, object]:
    """What deploy/Dockerfile says of the image, in the words of the OCI's config.md."""
    return {
        "User": f"{UID}:{UID}",
        "Entrypoint": [f"/{HOME}/cgagent"],
        "Env": [f"PATH=/{HOME}"],
        "WorkingDir": "/",
        # Docker's own, not in the OCI's specification: in nanoseconds.
        "Healthcheck": {
            "Test": ["CMD", f"/{HOME}/cgagent", "healthcheck"],
            "Interval": 30 * 10**9,
            "Timeout": 5 * 10**9,
            "StartPeriod": 5 * 10**9,
        },
        "Labels": {
            "org.opencontainers.image.title": "cgagent",
            "org.opencontainers.image.description": "Makes Go services aware of the resources their container has.",
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.version": version(),
        },
    }


_SITE = "lib/python3.11/"
_OTHERS = tuple(f"{_SITE}{name}/" for name in ("bcrypt", "prometheus_client", "watchdog", "yaml"))
_TLS = ("lib/libssl", "lib/libcrypto", f"{_SITE}lib-dynload/_ssl", f"{_SITE}lib-dynload/_hashlib")
_C = (
    "lib/ld.so",
    "lib/libc.",
    "lib/libm.",
    "lib/libz.",
    "lib/libexpat",
    "lib/libffi",
    "lib/libgcc",
    "lib/libncursesw",
    "lib/libtinfo",
)
_GROUPS: list[tuple[str, Callable[[str], bool]]] = [
    ("cgagent, the bundle's static program", lambda path: path == "cgagent"),
    ("python3, the interpreter", lambda path: path == "lib/python3"),
    ("glibc, zlib, expat, libffi, libgcc, ncurses", lambda path: path.startswith(_C)),
    ("TLS: libssl, libcrypto, _ssl, _hashlib", lambda path: path.startswith(_TLS)),
    (
        "Python's library: bytecode and extensions",
        lambda path: (
            path.startswith((_SITE, "lib/terminfo/")) and not path.startswith((*_OTHERS, *_TLS, f"{_SITE}cgagent/"))
        ),
    ),
    ("prometheus_client, watchdog, PyYAML, bcrypt", lambda path: path.startswith(_OTHERS)),
    ("cgagent", lambda path: path.startswith(f"{_SITE}cgagent/") or path == "lib/entry.pyc"),
    ("licenses, list of parts", lambda path: path.startswith(("licenses/", "PARTS"))),
]


def _sum(sizes: dict[str, int], belongs: Callable[[str], bool]) -> int:
    return sum(size for name, size in sizes.items() if belongs(name))


def _write(path: str, content: bytes) -> None:
    put(path, content)
    print(f"{path}: {len(content)} bytes", file=sys.stderr)


def _table(rows: list[tuple[str, int]], archive: bytes) -> None:
    total = sum(size for _, size in rows)
    print("| what | MB |\n| --- | ---: |")
    for text, size in rows:
        print(f"| {text} | {size / 1e6:.2f} |")
    print(f"| **all** | **{total / 1e6:.2f}** |")
    print(f"| the layer or archive, gzip -9 | {len(gzip.compress(archive, 9, mtime=0)) / 1e6:.2f} |")
