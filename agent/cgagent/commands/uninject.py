"""`cgagent uninject`: take cgagent out of Kubernetes manifests again."""

from __future__ import annotations

from cgagent.commands.inject import change
from cgagent.commands.manifest_options import add_files
from cgagent.kube import manifests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments, Parser

DESCRIPTION = "Take out of Kubernetes manifests what cgagent inject, its webhook or its policy has put in."
EPILOG = """\
What was put in stands in the annotation cgagent.dev/injected of the pod template. Of a manifest as cgagent inject
wrote it, what is left is the original, byte for byte.

examples:
  cgagent uninject injected.yaml | kubectl apply -f -
  kubectl get deployment orders -o yaml | cgagent uninject - | kubectl replace -f -

exit codes: 0 done, whatever there was to take out; 1 a file can't be read or is no YAML; 2 wrong usage.
"""


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    add_files(parser)


def run(arguments: Arguments) -> int:
    """Take it out; return the exit code."""
    return change(arguments, manifests.uninject)
