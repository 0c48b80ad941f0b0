"""The bundle: cgagent as one static program, with CPython linked in and its modules frozen."""

from __future__ import annotations

import os
import re
import shutil
import tempfile

from assembly.debian import AssemblyError, machine, output
from assembly.sources import ARCHITECTURES, DEPLOY, PYTHON, Sources

# What the frozen part of libpython3.11.a (Python/frozen.c) has already, for the interpreter's own start.
_IN_LIBRARY = (
    *("importlib._bootstrap", "importlib._bootstrap_external", "zipimport", "abc", "codecs", "io", "_collections_abc"),
    *("_sitebuiltins", "genericpath", "ntpath", "posixpath", "os", "site", "stat", "importlib.util"),
    *("importlib.machinery", "runpy"),
)
_ENTRY = re.compile(r'^ *\{"(\w+)", (\w+)\},', re.MULTILINE)
_OWN = ("_calls", "PyInit__calls")  # calls.c
# Imported where it is there: of another system, or what our own code has another way without.
_SPARED = {"_ctypes", "_json", "_winapi", "msvcrt", "nt", "os.path"}
_FIRST_OF_BOOTSTRAP = "atexit"  # Modules/Setup.bootstrap: from here on the interpreter needs them itself


class Program:
    """The built program.

    Attributes:
        content: of the file.
        modules: size in bytes of each module's code in it.
    """

    def __init__(self, content: bytes, modules: dict[str, int]) -> None:
        self.content = content
        self.modules = modules


def build(sources: Sources) -> Program:
    """Compile, link and strip.

    Raises:
        AssemblyError: a compiler is missing, or fails.
    """
    modules, sourceless = sources.bundle()
    wanted = {name: place for name, place in modules.items() if name not in _IN_LIBRARY}
    with tempfile.TemporaryDirectory(prefix="cgagent-bundle-") as directory:
        os.mkdir(f"{directory}/code")
        code = sources.compiled({name: path for name, (path, _) in wanted.items()}, f"{directory}/code")
        packages = {name for name, (_, is_package) in wanted.items() if is_package}
        _write_modules(directory, code, packages)
        _write_inittab(directory, sources, sourceless)
        content = _link(directory, sources)
    return Program(content, {name: len(text) for name, text in code.items()})


def _write_modules(directory: str, code: dict[str, bytes], packages: set[str]) -> None:
    """modules.h and modules.bin: one table, and all code in one piece."""
    rows, offset = [], 0
    with open(f"{directory}/modules.bin", "wb") as blob:
        for name in sorted(code):
            shown = "__main__" if name == "entry" else name
            rows.append(f'    {{"{shown}", code + {offset}, {len(code[name])}, {int(name in packages)}, 0}},\n')
            offset += blob.write(code[name])
    with open(f"{directory}/modules.h", "w") as header:
        header.write('__asm__(".section .rodata\\n.globl code\\ncode:\\n.incbin \\"modules.bin\\"\\n.previous\\n");\n')
        header.write("extern const unsigned char code[];\n")
        header.write(f"static const struct _frozen modules[] = {{\n{''.join(rows)}    {{0, 0, 0, 0, 0}},\n}};\n")


def _write_inittab(directory: str, sources: Sources, sourceless: set[str]) -> None:
    """inittab.h: those of the library's modules in C that the interpreter needs, or a module of ours."""
    config = f"{sources.stdlib}/config-3.11-{sources.triplet}/config.c"
    with open(config) as file:
        entries = _ENTRY.findall(file.read())
    names = [name for name, _ in entries]
    if _FIRST_OF_BOOTSTRAP not in names:
        raise AssemblyError(f"{config} does not look as in Python 3.11")
    missing = sourceless - {*names, _OWN[0]} - _SPARED
    if missing:
        raise AssemblyError(f"no static {', '.join(sorted(missing))} in {PYTHON}: the bundle's commands import it")
    start = names.index(_FIRST_OF_BOOTSTRAP)
    needed = [_OWN, *(entry for at, entry in enumerate(entries) if at >= start or entry[0] in sourceless)]
    with open(f"{directory}/inittab.h", "w") as header:
        header.writelines(f"extern PyObject *{function}(void);\n" for _, function in needed if function != "NULL")
        header.write("struct _inittab _PyImport_Inittab[] = {\n")
        header.writelines(f'    {{"{name}", {function}}},\n' for name, function in needed)
        header.write("    {0, 0},\n};\n")


def _link(directory: str, sources: Sources) -> bytes:
    prefix = "" if machine() == sources.architecture else f"{ARCHITECTURES[sources.architecture]}-linux-gnu-"
    for name in ("cgagent.c", "calls.c"):
        shutil.copy(os.path.join(DEPLOY, "assembly", name), directory)
    config = f"{sources.stdlib}/config-3.11-{sources.triplet}"
    words = [f"{prefix}gcc", "-std=c11", "-Wall", "-Werror", "-Os", "-static", "-o", "cgagent", "cgagent.c", "calls.c"]
    # Headers and libc.a of the same packages, whatever this machine has of its own.
    words += [f"--sysroot={sources.root}", f"-I{sources.root}/usr/include/{PYTHON}"]
    # Python's headers have assertions, which name the file that they stand in: not where it lies on this machine.
    words += [f"-ffile-prefix-map={sources.root}="]
    words += [f"{config}/lib{PYTHON}.a", "-lz", "-lm"]
    words += ["-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,relro"]
    output(words, cwd=directory)
    output([f"{prefix}strip", "--strip-all", "--remove-section=.comment", "cgagent"], cwd=directory)
    with open(f"{directory}/cgagent", "rb") as file:
        return file.read()
