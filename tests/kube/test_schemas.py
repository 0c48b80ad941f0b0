"""What `inject` and `k8s/` produce, held against the schemas of the Kubernetes versions that they are for."""

from __future__ import annotations

import functools
import glob
import os
import subprocess

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from cgagent.errors import CgagentError
from cgagent.kube.manifests import inject, uninject, values
from support.kube import cases, path, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = tuple(f"1.{minor}" for minor in range(29, 38))
# fileKeyRef came with 1.34, whose reader of the file keeps quotes: inject asks for 1.35.
WITH_FILEKEYREF = VERSIONS[VERSIONS.index("1.35") :]
# What is no object of Kubernetes, or not of the group that its kind belongs to.
NOT_KUBERNETES = "not-kubernetes"


def objects(documents: list[object]) -> Iterator[dict[str, object]]:
    for document in documents:
        assert isinstance(document, dict)
        if document["kind"] == "List":
            yield from objects(document["items"])
        else:
            yield document


def validate(document: dict[str, object], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def mentions_file_keys(manifest: str) -> bool:
    return "fileKeyRef" in manifest


@pytest.mark.parametrize("case", [case for case in cases() if case != NOT_KUBERNETES])
def test_injected_manifests_are_valid_for_the_versions_that_they_are_for(case: str) -> None:
    manifest = text(path(case, "golden.yaml"))
    # Pod-level resources came with 1.32.
    versions = WITH_FILEKEYREF if mentions_file_keys(manifest) else VERSIONS
    for version in versions:
        for document in objects(values(manifest)):
            validate(document, version)


def test_the_validation_itself_refuses_a_field_that_does_not_exist() -> None:
    pod = values(text(path("deployment", "golden.yaml")).replace("fileKeyRef", "fileKeyRefs"))[0]
    assert isinstance(pod, dict)
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(pod, "1.36")


@functools.cache
def published() -> tuple[str, ...]:
    """The manifests that Kubernetes publishes in its module: add-ons, examples, tests' data; none is kept here."""
    cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=False).stdout.strip()
    found = []
    for name in sorted(glob.glob(f"{cache}/k8s.io/kubernetes@v1.*/**/*.yaml", recursive=True)):
        with open(name, encoding="utf-8", newline="") as file:
            manifest = file.read()
        if "\nkind: " in f"\n{manifest}" and "containers:" in manifest and len(manifest) < 200_000:
            found.append(name)
    return tuple(found)


@pytest.mark.parametrize("mode", ["filekeyref", "sidecar", "bundle"])
def test_hundreds_of_published_manifests_are_injected_once_and_undone_to_the_byte(mode: str) -> None:
    """Those of k8s.io/kubernetes, which tests/kubernetes/cluster downloads to build the node from."""
    if not published():
        pytest.skip("the Go module k8s.io/kubernetes is not in the module cache: tests/kubernetes/cluster build")
    options = {"mode": mode, "expect_limits": "true"}

    def option(name: str) -> tuple[str, str] | None:
        return (options[name], name) if name in options else None

    injected = 0
    for name in published():
        with open(name, encoding="utf-8", newline="") as file:
            original = file.read()
        try:
            result, outcomes = inject(original, option)
        except CgagentError:
            continue  # templates and deliberate mistakes are among them
        injected += sum(outcome.state == "injected" for outcome in outcomes)
        assert not [one for one in outcomes if "layout" in one.summary], name
        assert inject(result, option)[0] == result, name
        assert uninject(result)[0] == original, name
    assert injected > (20 if mode == "bundle" else 150)
    assert os.path.basename(published()[0])
