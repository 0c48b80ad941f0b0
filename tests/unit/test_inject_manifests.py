"""`inject` and `uninject` on the manifests of tests/kube/manifests: compared whole, twice as once, and undone.

A golden file is what a person has read and found right; `CGAGENT_UPDATE=1 pytest` writes them anew, to be read again.
"""

from __future__ import annotations

import os

import pytest
import yaml

from support.kube import IMAGE, OPTIONS, cases, path, run, text

CASES = cases()
UPDATE = os.environ.get("CGAGENT_UPDATE")


def inject(capsysbinary: pytest.CaptureFixture[bytes], file: str, options: list[str]) -> tuple[str, str]:
    assert run("inject", "--image", IMAGE, *options, file) == 0
    captured = capsysbinary.readouterr()
    return captured.out.decode(), captured.err.decode()


def test_there_are_at_least_thirty_manifests() -> None:
    assert len(CASES) >= 30
    assert set(OPTIONS) <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_output_and_report_are_as_they_were_found_right(case: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output, report = inject(capsysbinary, path(case, "input.yaml"), OPTIONS.get(case, []))
    for what, found in (("golden.yaml", output), ("report", report)):
        if UPDATE:
            with open(path(case, what), "w", encoding="utf-8", newline="") as file:
                file.write(found)
        assert found == text(path(case, what))


@pytest.mark.parametrize("case", CASES)
def test_twice_is_once(case: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    again, _ = inject(capsysbinary, path(case, "golden.yaml"), OPTIONS.get(case, []))
    assert again == text(path(case, "golden.yaml"))


@pytest.mark.parametrize("case", CASES)
def test_uninject_gives_the_original_back(case: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("uninject", path(case, "golden.yaml")) == 0
    assert capsysbinary.readouterr().out.decode() == text(path(case, "input.yaml"))


@pytest.mark.parametrize("case", CASES)
def test_pyyaml_without_libyaml_gives_the_same(
    case: str, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Its two parsers place the ends of blocks differently."""
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    output, _ = inject(capsysbinary, path(case, "input.yaml"), OPTIONS.get(case, []))
    assert output == text(path(case, "golden.yaml"))
    assert run("uninject", path(case, "golden.yaml")) == 0
    assert capsysbinary.readouterr().out.decode() == text(path(case, "input.yaml"))
