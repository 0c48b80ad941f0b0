"""The archive of a capture: the same layout back, however it was packed again, and nothing hostile taken in."""

from __future__ import annotations

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


def test_what_is_no_gzip_file_is_refused_by_its_name(tmp_path: object) -> None:
    with open(f"{tmp_path}/x.tar.gz", "wb") as file:
        file.write(b"hello")
    with pytest.raises(CaptureError) as refused:
        load(f"{tmp_path}/x.tar.gz")
    assert refused.value.line() == (
        f"{tmp_path}/x.tar.gz: it is no gzip file, or a damaged one: name a file that cgagent capture wrote"
    )
