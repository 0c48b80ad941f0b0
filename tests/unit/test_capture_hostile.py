"""Captures come from strangers: each kind that means harm is refused in one line, and nothing of it is written."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent.capture import Capture, CaptureError, Meta
from cgagent.capture.archive import pack, unpack
from cgagent.cli import main
from support import tar
from support.tar import archive, member

SPREAD = b"root/proc/self/cgroup"
PLAIN = "captures hold plain paths below root/ alone"
KINDS = "captures hold plain files and directories alone"
ANEW = "take the capture anew with cgagent capture"
OURS = "name a file that cgagent capture wrote"
COPY = "copy it anew"


def of(path: bytes, content: bytes = b"x\n") -> bytes:
    return archive(member(path, content))


def linked(kind: bytes) -> bytes:
    return archive(member(b"root/etc/passwd", kind=kind))


def told(text: str) -> bytes:
    return archive(meta=f'{{"schema": "cgagent.capture/1", {text}}}'.encode())


HOSTILE = {
    "a path that climbs out": (
        of(b"root/../../etc/cron.d/x"),
        f"the path '/../../etc/cron.d/x' leads elsewhere: {PLAIN}",
    ),
    "a path that climbs in between": (of(b"root/sys/../../x"), f"the path '/sys/../../x' leads elsewhere: {PLAIN}"),
    "an absolute path": (of(b"/etc/passwd"), f"the path '//etc/passwd' leads elsewhere: {PLAIN}"),
    "a climb from the top": (of(b"../x"), f"the path '/../x' leads elsewhere: {PLAIN}"),
    "a path with an empty part": (of(b"root/proc//self"), f"the path '/proc//self' leads elsewhere: {PLAIN}"),
    "a path beside the tree": (of(b"home/x"), f"the member 'home/x' belongs to no capture: {ANEW}"),
    "a symbolic link": (linked(tar.LINK), f"the member 'root/etc/passwd' is a symbolic link: {KINDS}"),
    "a hard link": (linked(tar.HARD_LINK), f"the member 'root/etc/passwd' is a hard link: {KINDS}"),
    "a character device": (linked(tar.CHARACTER), f"the member 'root/etc/passwd' is a character device: {KINDS}"),
    "a block device": (linked(tar.BLOCK), f"the member 'root/etc/passwd' is a block device: {KINDS}"),
    "a FIFO": (linked(tar.FIFO), f"the member 'root/etc/passwd' is a FIFO: {KINDS}"),
    "a sparse file": (linked(tar.SPARSE), f"the member 'root/etc/passwd' is a sparse file: {KINDS}"),
    "a kind unheard of": (linked(b"Z"), f"the member 'root/etc/passwd' is of a kind that no capture holds: {KINDS}"),
    "a file twice": (
        archive(member(SPREAD, b"0::/a\n"), member(SPREAD, b"0::/b\n")),
        f"the member 'root/proc/self/cgroup' is there twice: {ANEW}",
    ),
    "a file where a directory is": (
        archive(member(b"root/proc/self"), member(SPREAD)),
        f"'/proc/self' is a file and a directory: {ANEW}",
    ),
    "a member that claims gigabytes": (
        archive(member(SPREAD, b"", size=b"77777777777\0")),
        "a member has 8589934591 bytes: 4 MiB are the limit",
    ),
    "a size in base 256": (
        archive(member(SPREAD, b"", size=b"\x80" + bytes(7) + b"\xff" * 4)),
        f"it is no tar archive, or a damaged one: {OURS}",
    ),
    "a pax header that changes a size": (
        archive(tar.pax(b"size", b"99999999999"), member(SPREAD)),
        f"a pax header in it is damaged, or changes a member's size: {ANEW}",
    ),
    "a pax header whose record has no end": (
        archive(member(b"pax", b"999999999999 path=x\n", tar.PAX), member(SPREAD)),
        f"a pax header in it is damaged, or changes a member's size: {ANEW}",
    ),
    "a pax header of megabytes": (
        archive(member(b"pax", b"x" * (1 << 20), tar.PAX)),
        "a member has 1048576 bytes: 4 MiB are the limit",
    ),
    "a pax path that climbs out": (
        archive(tar.pax(b"path", b"root/../../x"), member(b"root/x")),
        f"the path '/../../x' leads elsewhere: {PLAIN}",
    ),
    "a long name that climbs out": (
        archive(member(b"long", b"root/../../x\0", tar.LONG_NAME), member(b"root/x")),
        f"the path '/../../x' leads elsewhere: {PLAIN}",
    ),
    "a global pax header": (
        archive(member(b"pax", b"", tar.GLOBAL)),
        f"the member 'pax' is a global pax header: {KINDS}",
    ),
    "a path of 7,000 bytes": (
        archive(member(b"long", b"root/" + b"a/" * 3200, tar.LONG_NAME), member(b"root/x")),
        f"the path '{'/a' * 25}...{'a/' * 13}a' is too long: 6000 bytes are the limit",
    ),
    "a name of 300 bytes": (
        archive(tar.pax(b"path", b"root/" + b"a" * 300), member(b"root/x")),
        f"the path '/{'a' * 49}...{'a' * 27}' is too long: 6000 bytes are the limit",
    ),
    "11,000 members": (
        archive(*(member(b"root/sys/%d" % number) for number in range(11_000))),
        f"it holds more than 10000 files and directories: {ANEW}",
    ),
    "17 MiB in members that are each small enough": (
        archive(*(member(b"root/%d" % number, bytes(1 << 20)) for number in range(17))),
        f"its files have more than 16 MiB: {ANEW}",
    ),
    "a bomb": (gzip.compress(bytes(64 << 20), 9), f"unpacked it is larger than 35 MiB: {ANEW}"),
    "a bomb of many small pieces": (
        gzip.compress(bytes(1 << 20), 9) * 64,
        f"unpacked it is larger than 35 MiB: {ANEW}",
    ),
    "no gzip": (b"PK\x03\x04", f"it is no gzip file, or a damaged one: {OURS}"),
    "nothing": (b"", f"its end is missing: {COPY}"),
    "half a gzip file": (archive()[:60], f"its end is missing: {COPY}"),
    "half a tar archive": (gzip.compress(member(SPREAD, b"x" * 600)[:1100]), f"its end is missing: {COPY}"),
    "a tar archive that never ends": (
        gzip.compress(member(b"cgagent-capture.json", tar.META)),
        f"its end is missing: {COPY}",
    ),
    "a gzip file of something else": (gzip.compress(b"hello" * 200), f"it is no tar archive, or a damaged one: {OURS}"),
    "a header whose sum is off": (
        gzip.compress(member(SPREAD).replace(b"cgroup", b"cgr0up") + tar.END),
        f"it is no tar archive, or a damaged one: {OURS}",
    ),
    "no meta document": (archive(member(SPREAD), meta=None), f"it holds no cgagent-capture.json: {OURS}"),
    "meta that is no JSON": (archive(meta=b"{"), f"cgagent-capture.json is no JSON in UTF-8: {ANEW}"),
    "meta that is no UTF-8": (archive(meta=b'{"a": "\xff"}'), f"cgagent-capture.json is no JSON in UTF-8: {ANEW}"),
    "meta that is too deep": (archive(meta=b"[" * 200_000), f"cgagent-capture.json is no JSON in UTF-8: {ANEW}"),
    "meta that is a list": (archive(meta=b"[]"), "cgagent-capture.json is no JSON object: take the capture anew"),
    "meta of another schema": (
        archive(meta=b'{"schema": "cgagent.capture/9"}'),
        "cgagent-capture.json: its schema is 'cgagent.capture/9': "
        "this cgagent reads cgagent.capture/1; use the version that took it",
    ),
    "a PID that is text": (told('"pid": "x"'), "cgagent-capture.json: 'pid' can't be 'x': take the capture anew"),
    "memory below zero": (
        told('"memory_total_bytes": -1'),
        "cgagent-capture.json: 'memory_total_bytes' can't be -1: take the capture anew",
    ),
    "four thousand million CPUs": (
        told('"cpus": {"online": "0-4000000000"}'),
        "cgagent-capture.json: 'online' can't be '0-4000000000': take the capture anew",
    ),
    "the same CPUs again and again": (
        told('"cpus": {"affinity": "0-65000,0-65000"}'),
        "cgagent-capture.json: 'affinity' can't be '0-65000,0-65000': take the capture anew",
    ),
    "a view that is none": (told('"view": "up"'), "cgagent-capture.json: 'view' can't be 'up': take the capture anew"),
    "a uid map with a hole": (
        told('"uid_map": [[0, 1]]'),
        "cgagent-capture.json: 'uid_map' can't be [0, 1]: take the capture anew",
    ),
}


@pytest.mark.parametrize(("data", "says"), HOSTILE.values(), ids=HOSTILE)
def test_it_is_refused_in_one_line_and_nothing_is_written(
    data: bytes, says: str, tmp_path: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/x.tar.gz"
    with open(path, "wb") as file:
        file.write(data)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main(["explain", "--root", path]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"cgagent explain: {path}: {says}\n"
    assert os.listdir(str(tmp_path)) == ["x.tar.gz"]


def test_control_characters_of_a_name_do_not_reach_the_terminal(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{tmp_path}/x.tar.gz"
    with open(path, "wb") as file:
        file.write(archive(member(b"\x1b[2Jx\n\xff")))
    assert main(["explain", "--root", path]) == 1
    assert "'\\x1b[2Jx\\n\\udcff' belongs to no capture" in capsys.readouterr().err


def test_bytes_in_files_that_are_no_utf8_are_told_as_a_malformed_file(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{tmp_path}/x.tar.gz"
    mounts = b"25 21 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    files = {SPREAD: b"0::/\n", b"root/proc/self/mountinfo": mounts, b"root/sys/fs/cgroup/cpu.max": b"\xff\xfe 1\n"}
    with open(path, "wb") as file:
        file.write(archive(*(member(name, content) for name, content in files.items())))
    assert main(["explain", "--root", path, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["limits"]["cpu"]["cores"] is None
    assert "malformed-file" in [finding["id"] for finding in document["findings"]]


_SAMPLE = pack(Capture(Meta(), {"/proc/self/cgroup": b"0::/\n", "/sys/fs/cgroup/cpu.max": b"max 100000\n"}))
_TAR = gzip.decompress(_SAMPLE)


def _taken_or_refused(data: bytes) -> None:
    """Anything may be read or refused; nothing may end in another error, or in a path that leads out."""
    try:
        capture = unpack(data)
    except CaptureError:
        return
    for path in (*capture.files, *capture.directories):
        assert path.startswith("/")
        assert ".." not in path.split("/")


@given(st.binary(max_size=4096))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _taken_or_refused(data)
    _taken_or_refused(gzip.compress(data, 1))


@given(st.lists(st.tuples(st.integers(0, len(_TAR) - 1), st.integers(0, 255)), max_size=8))
def test_an_archive_with_any_bytes_changed_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(_TAR)
    for at, value in changes:
        data[at] = value
    _taken_or_refused(gzip.compress(bytes(data), 1))


@given(st.integers(0, len(_SAMPLE) - 1), st.integers(0, 255), st.integers(0, len(_SAMPLE)))
def test_a_gzip_file_with_a_byte_changed_or_its_end_cut_off_is_read_or_refused(at: int, value: int, end: int) -> None:
    _taken_or_refused(_SAMPLE[:at] + bytes([value]) + _SAMPLE[at + 1 : end])


_NAMES = st.binary(max_size=99).map(lambda name: b"root/" + name)
_KINDS = st.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"5", b"x", b"L", b"K", b"S", b"g", b"7"])


@given(st.lists(st.tuples(_NAMES, st.binary(max_size=64), _KINDS), max_size=6))
def test_sound_headers_with_any_names_and_kinds_are_read_or_refused(members: list[tuple[bytes, bytes, bytes]]) -> None:
    _taken_or_refused(archive(*(member(name[:100], content, kind) for name, content, kind in members)))


@given(
    st.dictionaries(
        st.sampled_from(["pid", "cpus", "view", "missing", "uid_map", "taken", "blanked"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        ),
    )
)
def test_any_meta_document_is_read_or_refused(document: dict[str, object]) -> None:
    _taken_or_refused(archive(meta=json.dumps({"schema": "cgagent.capture/1", **document}).encode()))
