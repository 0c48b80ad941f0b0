"""The archive of a capture: the same layout back, however it was packed again, and nothing hostile taken in."""

from __future__ import annotations

import os
import subprocess

import pytest

from cgagent.capture import Capture, CaptureError, Meta, load
from cgagent.capture.archive import pack, unpack

DEEP = "/sys/fs/cgroup/" + "a" * 200 + "/" + "b" * 200


def plain() -> Capture:
    meta = Meta()
    meta.online, meta.affinity, meta.pid, meta.kernel = "0-63", "0-3", 4711, "6.1.0"
    meta.missing = {"/sys/fs/cgroup/cpu.max": ("not permitted", "permission denied")}
    files = {"/proc/self/cgroup": b"0::/caf\xe9\n", f"{DEEP}/memory.max": b"max\n"}
    return Capture(meta, files, ["/sys/fs/cgroup/empty"])


def test_an_archive_holds_the_same_layout_as_was_packed() -> None:
    assert unpack(pack(plain())) == plain()
    assert pack(plain()) == pack(plain())


def test_the_files_above_are_directories_and_empty_ones_are_kept() -> None:
    assert {"/", "/proc/self", DEEP, "/sys/fs/cgroup/empty"} <= unpack(pack(plain())).directories


@pytest.mark.parametrize("style", ["gnu", "pax"])
def test_what_tar_unpacked_and_packed_again_reads_the_same(tmp_path: object, style: str) -> None:
    with open(f"{tmp_path}/one.tar.gz", "wb") as file:
        file.write(pack(plain()))
    subprocess.run(["mkdir", f"{tmp_path}/tree"], check=True)
    subprocess.run(["tar", "-xzf", f"{tmp_path}/one.tar.gz", "-C", f"{tmp_path}/tree"], check=True)
    again = ["tar", "-czf", f"{tmp_path}/two.tar.gz", f"--format={style}", "-C", f"{tmp_path}/tree", "."]
    subprocess.run(again, check=True)
    assert load(f"{tmp_path}/two.tar.gz") == plain()
    assert load(f"{tmp_path}/tree") == plain()


def test_the_meta_document_counts_the_cpus() -> None:
    assert plain().meta.cpu_count == 64


@pytest.fixture
def tree(tmp_path: object) -> str:
    """A capture, unpacked."""
    with open(f"{tmp_path}/x.tar.gz", "wb") as file:
        file.write(pack(plain()))
    subprocess.run(["tar", "-C", str(tmp_path), "-xzf", f"{tmp_path}/x.tar.gz"], check=True)
    return f"{tmp_path}/root"


def test_links_of_an_unpacked_tree_are_followed_in_it(tree: str) -> None:
    os.rename(f"{tree}/proc/self", f"{tree}/proc/4711")
    os.symlink("4711", f"{tree}/proc/self")
    os.symlink(os.path.dirname(DEEP), f"{tree}/sys/fs/cgroup/link")
    read = load(os.path.dirname(tree))
    assert read.files["/proc/self/cgroup"] == plain().files["/proc/self/cgroup"]
    assert read.files[f"/sys/fs/cgroup/link/{os.path.basename(DEEP)}/memory.max"] == b"max\n"


def test_links_of_an_unpacked_tree_lead_to_nothing_of_this_machine(tree: str, tmp_path: object) -> None:
    with open(f"{tmp_path}/secret", "w") as file:
        file.write("secret")
    os.symlink(f"{tmp_path}/secret", f"{tree}/proc/self/status")
    os.symlink(f"../../../../../../../..{tmp_path}/secret", f"{tree}/sys/fs/cgroup/up")
    os.symlink(str(tmp_path), f"{tree}/sys/fs/cgroup/directory")
    assert b"secret" not in load(os.path.dirname(tree)).files.values()


def test_links_of_an_unpacked_tree_that_go_round_are_refused(tree: str) -> None:
    os.symlink(".", f"{tree}/sys/fs/cgroup/round")
    os.symlink("loop", f"{tree}/sys/fs/cgroup/loop")
    with pytest.raises(CaptureError, match=r"is too long|more than 10000 files"):
        load(os.path.dirname(tree))


def test_what_is_no_gzip_file_is_refused_by_its_name(tmp_path: object) -> None:
    with open(f"{tmp_path}/x.tar.gz", "wb") as file:
        file.write(b"hello")
    with pytest.raises(CaptureError) as refused:
        load(f"{tmp_path}/x.tar.gz")
    assert refused.value.line() == (
        f"{tmp_path}/x.tar.gz: it is no gzip file, or a damaged one: name a file that cgagent capture wrote"
    )
