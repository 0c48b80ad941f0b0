"""The env file on file systems that fail for real: full, out of inodes, read-only, not permitted."""

from __future__ import annotations

import os
import subprocess

import pytest

from cgagent import envfile
from cgagent.cli import main
from cgagent.errors import CgagentError
from support import shell_env
from support.accounts import nobody
from support.kubelet_env import lookup

OLD = "# written by cgagent 9.9: old\nGOMAXPROCS='2'\n"
NEW = "# written by cgagent 9.9: new\nGOMAXPROCS='3'\n"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount here: {done.stderr.strip()}")


@pytest.fixture
def tmpfs(tmp_path: object) -> Iterator[Callable[[str], str]]:
    """Mounts a tmpfs with the given options and gives its directory."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    place = f"{tmp_path}/fs"
    os.mkdir(place)
    mounted = False

    def mount(options: str) -> str:
        nonlocal mounted
        _mount("-t", "tmpfs", "-o", options, "cgagent-test", place)
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", place], check=True)


def _fill(directory: str, keep: int = 0) -> None:
    """Write until nothing but `keep` bytes is left."""
    with open(f"{directory}/filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
        file.truncate(os.fstat(file.fileno()).st_size - keep)


def _is_whole(path: str, text: str) -> None:
    with open(path, "rb") as file:
        data = file.read()
    assert data.decode() == text
    value = text.partition("'")[2].partition("'")[0]
    assert lookup(data, "GOMAXPROCS") == value
    assert shell_env.source(path, "GOMAXPROCS") == {"GOMAXPROCS": value}


def _fails(path: str, text: str = NEW) -> str:
    with pytest.raises(CgagentError) as caught:
        envfile.write(path, text)
    assert caught.value.exit_code == 1
    return caught.value.line()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmpfs: Callable[[str], str]) -> None:
    directory = tmpfs("size=64k")
    path = f"{directory}/go.env"
    envfile.write(path, OLD)
    _fill(directory)
    assert _fails(path) == f"cannot write {path}: no space left on device: free some space there"
    _is_whole(path, OLD)
    assert sorted(os.listdir(directory)) == ["filler", "go.env"]
    os.unlink(f"{directory}/filler")
    assert envfile.write(path, NEW)
    _is_whole(path, NEW)


def test_a_disk_that_fills_up_amid_the_write_leaves_the_old_file(tmpfs: Callable[[str], str]) -> None:
    directory = tmpfs("size=128k")
    path = f"{directory}/go.env"
    envfile.write(path, OLD)
    _fill(directory, keep=8192)
    large = NEW + "X='" + "x" * 40_000 + "'\n"
    assert "no space left on device" in _fails(path, large)
    _is_whole(path, OLD)
    assert sorted(os.listdir(directory)) == ["filler", "go.env"]


def test_a_file_system_out_of_inodes_leaves_the_old_file(tmpfs: Callable[[str], str]) -> None:
    directory = tmpfs("size=64k,nr_inodes=3")
    path = f"{directory}/go.env"
    envfile.write(path, OLD)
    with open(f"{directory}/last", "wb"):
        pass
    assert "no space left on device" in _fails(path)
    _is_whole(path, OLD)


def test_a_read_only_file_system_leaves_the_old_file(tmpfs: Callable[[str], str]) -> None:
    directory = tmpfs("size=64k")
    path = f"{directory}/go.env"
    envfile.write(path, OLD)
    _mount("-o", "remount,ro", directory)
    expected = f"cannot write {path}: read-only file system: mount a writable volume there, such as an emptyDir"
    assert _fails(path) == expected
    _is_whole(path, OLD)
    assert not envfile.write(path, OLD)


def test_a_directory_without_permission_leaves_the_old_file(public: str) -> None:
    path = f"{public}/go.env"
    envfile.write(path, OLD)
    os.chmod(public, 0o555)
    with nobody():
        line = _fails(path)
    assert line == f"cannot write {path}: permission denied: let this user write to the directory"
    os.chmod(public, 0o755)
    _is_whole(path, OLD)
    assert os.listdir(public) == ["go.env"]


def test_a_file_that_another_user_may_not_read_is_replaced_by_who_may_write_the_directory(public: str) -> None:
    path = f"{public}/go.env"
    envfile.write(path, OLD, 0o600)
    os.chmod(public, 0o777)
    with nobody():
        assert envfile.write(path, NEW)
    _is_whole(path, NEW)


def test_the_command_tells_a_full_disk_in_one_line(
    tmpfs: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmpfs("size=64k")
    path = f"{directory}/go.env"
    envfile.write(path, OLD)
    _fill(directory)
    given = ["--limits-from", "given", "--cpu-limit", "500m"]
    assert main(["write", "--env-file", path, *given]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"cgagent write: cannot write {path}: no space left on device: free some space there\n")
    _is_whole(path, OLD)
