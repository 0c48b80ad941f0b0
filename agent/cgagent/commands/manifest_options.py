"""What `inject`, `uninject` and `webhook` have in common on the command line."""

from __future__ import annotations

import os
import sys

from cgagent.errors import CgagentError, printable
from cgagent.kube import files
from cgagent.kube.settings import IMAGE, MODES, POLICY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgagent.kube.manifests import Outcome
    from cgagent.parser import Arguments, Parser

OUTPUTS = ("yaml", "json")
# Settings with a twin in the environment: CGAGENT_IMAGE.
TWINS = (*POLICY, "image")
IMAGE_HELP = f"of cgagent, with its version (default: that in CGAGENT_IMAGE, else {IMAGE})"
_POLICY = (
    ("--memory-ratio", "RATIO", "share of the memory limit that GOMEMLIMIT gets (default 0.9)"),
    ("--memory-reserve", "SIZE", "taken off the memory limit before the ratio, for memory that Go does not manage"),
    ("--memory-min", "SIZE", "a GOMEMLIMIT below this is not set"),
    ("--cpu-rounding", "ceil|floor|go", "ceil (default), floor as uber-go/automaxprocs, go as Go >= 1.25"),
    ("--min-procs", "N", "smallest GOMAXPROCS"),
    ("--max-procs", "N", "largest GOMAXPROCS"),
)
_SWITCHES = {
    "split": "containers that share the pod's limit get a fixed part of it each",
    "expect_limits": "limits that the manifest does not show will be there: from a LimitRange, a VPA",
    "share_process_namespace": "the sidecar sees the application's processes: what is, not only what is wished",
    "confirm_raises": "where it does not, it asks the API server before it takes a raised limit (a Role: get pods)",
}


def add_injection(parser: Parser) -> None:
    """The options that say what to put in; each has an annotation of the pod that overrides it."""
    group = parser.add_argument_group("injection")
    group.add_argument(
        "--mode",
        metavar="|".join(MODES),
        help="filekeyref: an init container and variables from its file; sidecar: that, and it follows resizes; "
        "bundle: the command starts with cgagent; auto (default): filekeyref, or bundle before Kubernetes 1.35",
    )
    group.add_argument("--kube-version", metavar="VERSION", help="the oldest Kubernetes that it must run on")
    group.add_argument("--image", metavar="IMAGE", help=IMAGE_HELP)
    group.add_argument("--run-as", metavar="UID:GID", help="of what is put in (default: the pod's, or the image's)")
    for name, text in _SWITCHES.items():
        group.add_argument(f"--{name.replace('_', '-')}", action="store_const", const="true", help=text)
    group.add_argument(
        "--hook",
        metavar="tune|signal:NAME|exit:CODE",
        help="what the sidecar does after a change: give the running program its new GOMEMLIMIT; signal it "
        "(signal:TERM restarts it); end with CODE, by which all containers of the pod are restarted (Kubernetes 1.36)",
    )
    policy = parser.add_argument_group("policy")
    for name, metavar, text in _POLICY:
        policy.add_argument(name, metavar=metavar, help=text)


def add_containers(parser: Parser) -> None:
    """The options that are about the containers of one pod."""
    group = parser.add_argument_group("containers")
    group.add_argument(
        "--container",
        metavar="NAME",
        action="append",
        help="serve this one, repeatable (default: those that look like the application)",
    )
    group.add_argument(
        "--entrypoint",
        metavar="CONTAINER=WORDS",
        action="append",
        help="what its image starts, repeatable; for bundle, where the manifest has no command",
    )


def add_files(parser: Parser) -> None:
    """Where manifests come from and how they go out."""
    parser.add_argument("-f", "--filename", metavar="FILE", action="append", help="the same as FILE, repeatable")
    parser.add_argument("-o", "--output", metavar="|".join(OUTPUTS), help="write this instead of the input's own form")
    parser.add_argument("--dry-run", action="store_true", help="print what would change as a diff")
    parser.add_argument("--quiet", action="store_true", help="no report on stderr")
    parser.add_argument("files", metavar="FILE", nargs="*", help="a manifest, a folder of them, or - for stdin")


def settings_texts(arguments: Arguments) -> Callable[[str], tuple[str, str] | None]:
    """The text of each setting of an injection: from the command line, or if it is one of TWINS the environment."""

    def text(name: str) -> tuple[str, str] | None:
        option = f"--{name.replace('_', '-')}"
        if name == "containers":
            given, option = getattr(arguments, "container", None), "--container"
            return (",".join(given), option) if given else None
        given = getattr(arguments, name, None)
        if given is not None:
            return ("\n".join(given) if isinstance(given, list) else str(given)), option
        twin = f"CGAGENT_{name.upper()}"
        return (os.environ[twin], twin) if name in TWINS and os.environ.get(twin) else None

    return text


def names_of(arguments: Arguments) -> list[str]:
    """The files to read.

    Raises:
        CgagentError: none is named, and nothing is piped in.
    """
    names = [*(arguments.filename or []), *arguments.files]
    if not names and (sys.stdin is None or sys.stdin.isatty()):
        raise CgagentError("no manifest is named", "name files, folders, or - for standard input", 2)
    return names or [files.STDIN]


def report(outcomes: list[Outcome]) -> None:
    """Tell on stderr what became of each object."""
    for line in _lines(outcomes):
        try:
            print(printable(line), file=sys.stderr)
        except OSError:
            return  # a stderr that is full or gone is no reason to lose the manifest


def _lines(outcomes: list[Outcome]) -> Iterator[str]:
    for one in outcomes:
        yield f"{one.name}: {one.state}{f', {one.summary}' if one.summary else ''}"
        yield from (f"  {note}" for note in one.notes)
