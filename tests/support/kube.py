"""The Kubernetes commands, run as the command line runs them, and the manifests of tests/kube/manifests."""

from __future__ import annotations

import os
from importlib import import_module

from cgagent.parser import Parser

MANIFESTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "kube", "manifests")
IMAGE = "registry.example/cgagent:0.1.0"
# Of the cases that take more than the defaults.
OPTIONS = {
    "bundle": ["--kube-version", "1.33"],
    "bundle-entrypoint": ["--mode=bundle", "--entrypoint", "app=/orders --port '80 80'", "--memory-ratio=0.7"],
    "bundle-unknown-entrypoint": ["--mode=bundle"],
    "confirm-raises": ["--mode=sidecar", "--confirm-raises"],
    "confirm-raises-several-containers": ["--mode=sidecar", "--share-process-namespace", "--confirm-raises"],
    "confirm-raises-shared-processes": ["--mode=sidecar", "--share-process-namespace"],
    "expected-limits": ["--expect-limits"],
    "hook-exit": ["--mode=sidecar", "--hook=exit:88"],
    "hook-several-containers": ["--mode=sidecar", "--share-process-namespace", "--hook=tune", "--container=app"],
    "hook-tune": ["--mode=sidecar", "--share-process-namespace", "--hook=tune"],
    "host-network-sidecar": ["--mode=sidecar"],
    "pod-level-limits-sidecar": ["--mode=sidecar", "--container", "app"],
    "pod-level-limits-split": ["--split"],
    "policy": ["--memory-ratio=80%", "--memory-reserve=32Mi", "--cpu-rounding=floor", "--max-procs=4", "--min-procs=2"],
    "restart-on-resize": ["--mode=sidecar"],
    "restart-on-resize-own-hook": ["--mode=sidecar"],
    "sidecar": ["--mode=sidecar"],
    "sidecar-shared-processes": ["--mode=sidecar", "--share-process-namespace"],
    "taken-names": ["--mode=sidecar", "--container=app"],
}


def run(name: str, *words: str) -> int:
    """`cgagent NAME WORDS…` in this process; what it prints is captured by whoever wants it."""
    command = import_module(f"cgagent.commands.{name}")
    parser = Parser(f"cgagent {name}", command.DESCRIPTION, command.EPILOG)
    command.configure(parser)
    arguments = parser.parse(words)
    assert arguments is not None
    code: int = command.run(arguments)
    return code


def cases() -> list[str]:
    """The names of the manifests."""
    suffix = ".input.yaml"
    return sorted(name.removesuffix(suffix) for name in os.listdir(MANIFESTS) if name.endswith(suffix))


def path(case: str, what: str) -> str:
    """The file of a case: `input.yaml`, `golden.yaml`, `report`."""
    return os.path.join(MANIFESTS, f"{case}.{what}")


def text(file: str) -> str:
    """A file's text with its line ends as they are."""
    with open(file, encoding="utf-8", newline="") as opened:
        return opened.read()
