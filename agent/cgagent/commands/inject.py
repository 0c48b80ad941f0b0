"""`cgagent inject`: put cgagent into Kubernetes manifests."""

from __future__ import annotations

import sys

from cgagent.commands.manifest_options import (
    OUTPUTS,
    add_containers,
    add_files,
    add_injection,
    names_of,
    report,
    settings_texts,
)
from cgagent.errors import CgagentError, UsageError
from cgagent.kube import files, manifests, render
from cgagent.kube.settings import Settings
from cgagent.kube.yamltree import TreeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cgagent.kube.manifests import Outcome
    from cgagent.parser import Arguments, Parser

DESCRIPTION = (
    "Put cgagent into Kubernetes manifests, so that Go programs start with the right GOMAXPROCS and GOMEMLIMIT."
)
EPILOG = """\
Reads manifests (YAML or JSON, several documents, kind List, folders); writes them to stdout with every object that
has a pod in it changed, and everything else byte for byte. The report goes to stderr. Twice is the same as once, and
cgagent uninject gives the original back. Nothing that the manifest sets itself is overridden.

Annotations of the pod template go before options: cgagent.dev/inject: disabled, cgagent.dev/mode,
cgagent.dev/containers, cgagent.dev/memory-ratio and so on, each named as its option.

examples:
  cgagent inject deployment.yaml | kubectl apply -f -
  kubectl get deployment orders -o yaml | cgagent inject --image registry.example/cgagent:0.1.0 - | kubectl apply -f -
  cgagent inject --mode sidecar --memory-ratio 0.8 k8s/ > injected.yaml
  cgagent inject --mode sidecar --share-process-namespace --hook tune deployment.yaml
  cgagent inject --mode sidecar --confirm-raises deployment.yaml
  cgagent inject --dry-run deployment.yaml
  cgagent inject --kube-version 1.33 --entrypoint orders='/orders --port 8080' deployment.yaml

exit codes: 0 done, whatever there was to inject; 1 a file can't be read or is no YAML; 2 wrong usage.
"""


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    add_files(parser)
    add_injection(parser)
    add_containers(parser)


def run(arguments: Arguments) -> int:
    """Inject; return the exit code."""
    texts = settings_texts(arguments)
    Settings(texts)  # wrong usage is told whether there is a pod or not
    return change(arguments, lambda text: manifests.inject(text, texts))


def change(arguments: Arguments, edit: Callable[[str], tuple[str, list[Outcome]]]) -> int:
    """Have `edit` change every manifest that is named; print the result, and the report on stderr."""
    if arguments.output is not None and arguments.output not in OUTPUTS:
        raise UsageError(f"--output: '{arguments.output}' is not known", f"choose one of {', '.join(OUTPUTS)}")
    changed, outcomes = [], []
    for name, text in files.read_all(names_of(arguments)):
        try:
            result, found = edit(text)
        except TreeError as error:
            raise CgagentError(f"{name}: {error.message}", error.hint) from None
        except UsageError as error:
            raise CgagentError(f"{name}: {error.message}", error.hint) from None
        changed.append((name, text, result))
        outcomes += found
    sys.stdout.write(_shown(changed, arguments))
    if not arguments.quiet:
        report(outcomes)
    return 0


def _shown(changed: list[tuple[str, str, str]], arguments: Arguments) -> str:
    if arguments.dry_run:
        return "".join(_diff(*one) for one in changed)
    stream = files.joined(result for _, _, result in changed)
    if arguments.output is None:
        return stream
    return _converted(manifests.values(stream), arguments.output)


def _diff(name: str, old: str, new: str) -> str:
    from difflib import unified_diff

    lines = unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name} (changed)")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _converted(documents: list[object], output: str) -> str:
    if output == "yaml":
        return "---\n".join(map(render.document, documents))
    import json

    whole = documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
