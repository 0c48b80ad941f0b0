"""From manifest to variable, as the kubelet goes: what is injected writes a file that it reads, with the values.

A small kubelet: it hands the limits of a golden manifest on by the downward API, has the injected containers' words run
by `cgagent write`, and looks the application's variables up in the file that this leaves.
"""

from __future__ import annotations

import math
import os

import pytest

from cgagent.kube.manifests import values
from cgagent.kube.quantity import ceil_of
from cgagent.kube.workload import as_list, as_map, limits_of, named, template_path
from support.kube import IMAGE, cases, path, run, text
from support.kubelet_env import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

PARTS = {"limits.cpu": 1000, "limits.memory": 1}
# Of the sidecar, and of no concern to the file.
SIDECARS = ("--target=", "--limits-from=", "--state-dir=", "--limits-dir=", "--web.", "--hook=", "--confirm-raises=")
POLICY = ("--memory-", "--cpu-rounding=", "--min-procs=", "--max-procs=")


def below(value: Any, *steps: str) -> Any:
    """What stands there, or an empty mapping."""
    for step in steps:
        value = value.get(step) or {}
    return value


def objects(documents: list[object]) -> Iterator[dict[str, Any]]:
    for one in map(as_map, documents):
        yield from objects(as_list(one["items"])) if one.get("kind") == "List" else [one]


def pods(case: str) -> Iterator[dict[str, Any]]:
    """The specs of the pods of a case that cgagent is in and takes variables from a file."""
    for one in objects(values(text(path(case, "golden.yaml")))):
        way = template_path(one.get("apiVersion"), one.get("kind"))
        template = below(one, *(way or ()))
        mode = below(template, "metadata", "annotations").get("cgagent.dev/injected", "bundle").split()[0]
        if way is not None and mode != "bundle":
            yield template["spec"]


def downward(spec: dict[str, Any], reference: dict[str, Any]) -> int:
    """A limit as the kubelet gives it: the container's, the pod's, or the node's size."""
    resource = reference["resource"]
    node = {"limits.cpu": os.cpu_count() or 1, "limits.memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")}
    name = resource.removeprefix("limits.")
    limit = limits_of(named(spec["containers"])[reference["containerName"]]).get(name) or limits_of(spec).get(name)
    assert reference["divisor"] == {"limits.cpu": "1m", "limits.memory": "1"}[resource]
    return ceil_of(node[resource] if limit is None else limit, PARTS[resource], resource)


def written(spec: dict[str, Any], container: dict[str, Any], directory: Path, patch: pytest.MonkeyPatch) -> None:
    """Have the words of an injected container run."""
    command, *words = container["args"]
    assert command in ("write", "watch")
    words = [word.replace("/run/cgagent", str(directory)) for word in words if not word.startswith(SIDECARS)]
    with patch.context() as patched:
        for one in container.get("env", []):
            if one.get("valueFrom", {}).get("fieldRef"):
                continue  # the pod's name
            value = one.get("value") or downward(spec, one["valueFrom"]["resourceFieldRef"])
            patched.setenv(one["name"], str(value))
        for mount in container["volumeMounts"]:
            for one in below(named(spec["volumes"]), mount["name"], "downwardAPI", "items"):
                (directory / "limits").mkdir(exist_ok=True)
                (directory / "limits" / one["path"]).write_text(str(downward(spec, one["resourceFieldRef"])))
                words.append(f"--limits-dir={directory}/limits")
        assert run("write", "--quiet", "--limits-from=given", *words) == 0


def expected(spec: dict[str, Any], container: dict[str, Any], variable: str) -> str:
    """By hand: the limits' values by the defaults of the policy."""
    resource = {"GOMAXPROCS": "cpu", "GOMEMLIMIT": "memory"}[variable]
    limit = limits_of(container).get(resource) or limits_of(spec).get(resource)
    if limit is None:
        return ""
    if variable == "GOMAXPROCS":
        return str(min(max(1, math.ceil(ceil_of(limit, 1000, "cpu") / 1000)), len(os.sched_getaffinity(0))))
    return str(ceil_of(limit, 1, "memory") * 9 // 10)


@pytest.mark.parametrize("case", [case for case in cases() if list(pods(case))])
def test_the_kubelet_finds_the_decided_values_in_the_file(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = 0
    for number, spec in enumerate(pods(case)):
        directory = tmp_path / str(number)
        directory.mkdir()
        writers = [one for one in named(spec["initContainers"]).values() if one["image"] == IMAGE]
        for writer in writers:
            written(spec, writer, directory, monkeypatch)
        words = [word for one in writers for word in below(one, "args")]
        special = any(word.startswith(POLICY) for word in words) or "split" in case
        for container in named(spec["containers"]).values():
            for variable, entry in named(container.get("env")).items():
                reference = below(entry, "valueFrom", "fileKeyRef")
                if not reference:
                    continue
                found = lookup((directory / reference["path"]).read_bytes(), reference["key"])
                assert found.isdigit() if special else found == expected(spec, container, variable)
                looked_up += 1
    assert looked_up
