"""The gallery of captures: what cgagent answers on each is what its layout says, derived by hand."""

from __future__ import annotations

import json
import os

import pytest

from cgagent.capture.archive import pack, unpack
from cgagent.cli import main
from gallery.entries import ENTRIES, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

each = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


def told(entry: Entry, tmp_path: object, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    path = f"{tmp_path}/x.tar.gz"
    with open(path, "wb") as file:
        file.write(pack(entry.capture))
    assert main([words[0], "--root", path, *words[1:]]) == 0
    return capsys.readouterr().out


@each
def test_explain_finds_the_limits_that_bind(entry: Entry, tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = json.loads(told(entry, tmp_path, capsys, "explain", "-o", "json"))
    assert document["cgroup"]["mode"] == entry.mode
    assert document["limits"]["cpu"]["cores"] == entry.cores
    assert document["limits"]["memory"]["bytes"] == entry.memory
    assert document["limits"]["cpu"]["allowed_cpus"] == entry.allowed
    assert document["env"] == entry.env
    ids = {finding["id"] for finding in document["findings"]}
    assert set(entry.findings) <= ids
    assert not {"malformed-file", "unreadable", "controller-not-visible", "cgroup-outside-view"} & ids


@each
def test_write_gives_the_values_that_follow(entry: Entry, tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(told(entry, tmp_path, capsys, "write", "--env-file", "-", "--format", "json")) == entry.env


@each
def test_it_is_small_and_comes_back_as_it_was(entry: Entry) -> None:
    packed = pack(entry.capture)
    assert unpack(packed) == entry.capture
    assert len(packed) < 16 << 10


def test_there_are_real_ones_and_made_ones() -> None:
    assert len(ENTRIES) >= 14
    assert sum(entry.real for entry in ENTRIES.values()) >= 4


def test_no_capture_in_the_gallery_names_this_machine_or_its_people() -> None:
    for entry in ENTRIES.values():
        if entry.real:
            assert entry.capture.meta.blanked


def _document(name: str) -> str:
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(top, name), encoding="utf-8") as file:
        return file.read()


def test_the_table_that_is_printed_is_of_these_captures_and_the_readme_tells_its_sums() -> None:
    rows = [line.strip("| ").split(" | ") for line in _document("GALLERY.md").splitlines() if line.startswith("| ")]
    titles = [f"{entry.title} ({'real' if entry.real else 'made'})" for entry in ENTRIES.values()]
    assert [row[0] for row in rows[2:-1]] == titles
    right = dict(zip(rows[0], rows[-1], strict=False))
    for program in rows[0][2:]:
        column = rows[0].index(program)
        assert int(right[program]) == sum("**" not in row[column] for row in rows[2:-1])
    told = " ".join(_document("README.md").split())
    assert right["Go 1.26"] == right["Go 1.27"]
    assert (
        f"of {len(ENTRIES)} captured ones, each shown to the real programs, "
        f"Go 1.24 finds its CPUs on {right['Go 1.24']}, "
        f"Go 1.25.0 on {right['Go 1.25.0']}, 1.26 and 1.27 on {right['Go 1.26']}, "
        f"automaxprocs on {right['automaxprocs']}; automemlimit finds the memory limit on {right['automemlimit']}, "
        f"cgagent both on {right['with `--go-env`']}."
    ) in told
