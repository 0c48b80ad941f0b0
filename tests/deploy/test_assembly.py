"""How the bundle is put together: which modules, which bytes, and what is said where it can't be."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from deploy.conftest import CHECKOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="module")
def assembly() -> ModuleType:
    """The package deploy/assembly."""
    sys.path.insert(0, os.path.join(CHECKOUT, "deploy"))
    try:
        importlib.import_module("assembly.archive")
        importlib.import_module("assembly.closure")
        return importlib.import_module("assembly")
    finally:
        sys.path.pop(0)


def closure(assembly: ModuleType, tmp_path: object, files: dict[str, str], cut: tuple[str, ...] = ()) -> set[str]:
    """The modules that `own.main` may import, of these sources."""
    for path, text in files.items():
        os.makedirs(os.path.dirname(f"{tmp_path}/{path}"), exist_ok=True)
        with open(f"{tmp_path}/{path}", "w") as file:
            file.write(text)
    modules = assembly.closure.Modules([str(tmp_path)])
    found, _ = modules.closure(["own.main"], ["own"], cut)
    return set(found)


def test_a_module_brings_its_packages_and_what_their_init_imports(assembly: ModuleType, tmp_path: object) -> None:
    files = {"own/__init__.py": "import first", "own/main.py": "", "first.py": "", "second.py": ""}
    assert closure(assembly, tmp_path, files) == {"own", "own.main", "first"}


def test_imports_are_relative_absolute_or_of_submodules(assembly: ModuleType, tmp_path: object) -> None:
    files = {
        "own/__init__.py": "",
        "own/main.py": "from . import near\nfrom .deep import er\nfrom lib import sub, name",
    }
    files |= {"own/near.py": "", "own/deep/__init__.py": "", "own/deep/er.py": "", "own/far.py": ""}
    files |= {"lib/__init__.py": "name = 1", "lib/sub.py": "", "lib/other.py": ""}
    wanted = {"own", "own.main", "own.near", "own.deep", "own.deep.er", "lib", "lib.sub"}
    assert closure(assembly, tmp_path, files) == wanted


def test_functions_count_in_our_own_modules_and_not_in_libraries(assembly: ModuleType, tmp_path: object) -> None:
    files = {"own/__init__.py": "", "own/main.py": "def f():\n    import lib\n"}
    files |= {"lib.py": "try:\n    import c\nexcept ImportError:\n    pass\ndef f():\n    import never\n"}
    files |= {"c.py": "", "never.py": ""}
    assert closure(assembly, tmp_path, files) == {"own", "own.main", "lib", "c"}


def test_what_only_type_checkers_and_scripts_import_does_not_count(assembly: ModuleType, tmp_path: object) -> None:
    text = "import typing\nif TYPE_CHECKING:\n    import a\nelse:\n    import b\n"
    text += "if typing.TYPE_CHECKING:\n    import a\nif __name__ == '__main__':\n    import a\n"
    files = {"own/__init__.py": "", "own/main.py": text, "a.py": "", "b.py": ""}
    assert closure(assembly, tmp_path, files) == {"own", "own.main", "b"}


def test_what_is_cut_is_left_out_with_what_only_it_imports(assembly: ModuleType, tmp_path: object) -> None:
    files = {"own/__init__.py": "", "own/main.py": "import big.part\nimport small"}
    files |= {"big/__init__.py": "", "big/part.py": "import more", "more.py": "", "small.py": ""}
    assert closure(assembly, tmp_path, files, ("big",)) == {"own", "own.main", "small"}


def test_archives_are_sorted_owned_by_root_and_as_old_as_asked(
    assembly: ModuleType, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    tree = {"b/late": (b"2", 0o644), "a": (b"1", 0o755)}
    path = f"{tmp_path}/tree.tar"
    with open(path, "wb") as file:
        file.write(assembly.archive.tar(tree, "opt", {"run/own": 65532}))
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    names = ["opt", "opt/b", "run", "run/own", "opt/a", "opt/b/late"]
    assert [member.name for member in members] == names
    assert {member.mtime for member in members} == {86400}
    assert {member.name: member.uid for member in members if member.uid} == {"run/own": 65532}
    assert [member.mode for member in members if member.isfile()] == [0o755, 0o644]


def test_without_a_compiler_it_says_what_to_install(tmp_path: object) -> None:
    for name in ("dpkg", "dpkg-deb", "apt-get", "readelf", "tar"):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not there: the bundle is built on Debian")
        os.symlink(found, f"{tmp_path}/{name}")
    words = [sys.executable, os.path.join(CHECKOUT, "deploy", "bundle"), "--output", f"{tmp_path}/bundle.tar"]
    environ = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    if "apt-get update" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 1
    assert done.stderr == "deploy/bundle: gcc is not installed: on Debian, apt-get install gcc libc6-dev\n"
    assert not os.path.exists(f"{tmp_path}/bundle.tar")


@pytest.mark.parametrize("script", ["bundle", "image"])
def test_a_wrong_option_shows_the_usage(script: str) -> None:
    words = [sys.executable, os.path.join(CHECKOUT, "deploy", script), "--architecture"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"usage: deploy/{script}" in done.stderr


def test_an_unknown_architecture_is_one_line() -> None:
    words = [sys.executable, os.path.join(CHECKOUT, "deploy", "bundle"), "--arch", "mips"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "deploy/bundle: --arch mips: the architectures are amd64, arm64\n")


@pytest.mark.parametrize("path", ["Dockerfile", "sample/Dockerfile"])
def test_dockerfiles_are_clean(path: str) -> None:
    hadolint = os.path.join(os.path.dirname(sys.executable), "hadolint")  # of the extra dev
    words = [hadolint, os.path.join(CHECKOUT, "deploy", path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
