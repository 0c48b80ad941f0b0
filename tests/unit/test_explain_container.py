"""`explain --container-id`: the application among the processes of a pod that shares its process namespace."""

from __future__ import annotations

import json

import pytest

from cgagent.cli import main
from cgagent.host import Host


def test_it_is_the_first_process_whose_cgroup_bears_the_id(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    container = "0123456789abcdef" * 4
    real = Host.read

    def read(self: Host, path: str, limit: int = 1 << 20) -> str:
        text = real(self, path, limit)
        # v2, as seen from another container of the pod
        return f"0::/../{container}\n" if path == "/proc/1/cgroup" else text

    monkeypatch.setattr(Host, "read", read)
    assert main(["explain", "--container-id", f"containerd://{container}", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["process"]["pid"] == "1"


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("containerd://", 2, "is not a container's ID"),
        ("0::/", 2, "is not a container's ID"),
        ("f" * 64, 1, "no process of container"),
    ],
)
def test_what_names_no_container_is_told(text: str, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--container-id", text]) == code
    assert told in capsys.readouterr().err
