"""`kubectl cgagent`: cgagent's commands for manifests, and `explain` for a pod that runs and was never touched.

kubectl finds its plugins by name: this is the program `kubectl-cgagent`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

from cgagent.cli import guarded
from cgagent.commands import inject, uninject
from cgagent.commands.explain import OUTPUTS
from cgagent.commands.manifest_options import IMAGE_HELP
from cgagent.errors import EXIT_FAILURE, EXIT_USAGE, CgagentError, UsageError, printable
from cgagent.kube.settings import IMAGE
from cgagent.kube.workload import as_map, likely_application, named
from cgagent.parser import HELP, Parser
from cgagent.texts import parse_choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.parser import Arguments, Command


DESCRIPTION = "Explain a pod that runs: an ephemeral container beside it looks at the limits it really has."
EPILOG = """\
The container runs as the application's own user and group, with no capability; it is all that it takes to see the
application's cgroup. Where the manifest names no user, the image's is not known here: give it with --run-as. What
Pod Security makes of it: restricted lets it in if that user is not root. It needs kubectl 1.31 or newer.

examples:
  kubectl cgagent explain orders-5d4f7c-x2x9k
  kubectl cgagent explain orders-5d4f7c-x2x9k -n shop -c app -o json
  kubectl cgagent inject deployment.yaml | kubectl apply -f -

The same by hand, where the application runs as 65532, as cgagent's image does; the second once look has ended:
  kubectl debug POD --container look --image IMAGE --target app --profile restricted -- cgagent explain --pid 1
  kubectl logs POD --container look
"""
# An image that is not on the node yet has to be pulled.
_PATIENCE = 90.0
# Each look is a kubectl.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 1.0
# What an ephemeral container does not get over by itself (pkg/kubelet/images/types.go, kuberuntime_container.go).
_HOPELESS = (
    *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"),
    *("CreateContainerConfigError", "StartError"),
)
_USAGE = "usage: kubectl cgagent explain|inject|uninject [options]; kubectl cgagent COMMAND --help"


def configure(parser: Parser) -> None:
    """Add the options of `explain` to `parser`."""
    parser.add_argument("-n", "--namespace", metavar="NAME", help="the pod's")
    parser.add_argument("-c", "--container", metavar="NAME", help="which container (default: the application)")
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig")
    parser.add_argument("--kubeconfig", metavar="FILE", help="instead of kubectl's own")
    parser.add_argument("--image", metavar="IMAGE", help=IMAGE_HELP)
    parser.add_argument(
        "--run-as", metavar="UID:GID", help="the application's user and group (default: the manifest's)"
    )
    parser.add_argument("-o", "--output", metavar="|".join(OUTPUTS), help="as for cgagent explain")
    parser.add_argument("pod", metavar="POD", help="its name, or pod/NAME")


def main(argv: list[str] | None = None) -> int:
    """Run `kubectl cgagent` with the words `argv`; return the exit code."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    this: Command = sys.modules[__name__]
    command: Command | None = {"explain": this, "inject": inject, "uninject": uninject}.get(name)
    if command is None:
        wanted = name in HELP
        print(_USAGE if wanted else f"'{printable(name)}' is not known: {_USAGE}", file=None if wanted else sys.stderr)
        return 0 if wanted else EXIT_USAGE
    return guarded(f"kubectl cgagent {name}", lambda: _dispatch(name, command, words))


def _dispatch(name: str, command: Command, words: list[str]) -> int:
    parser = Parser(f"kubectl cgagent {name}", command.DESCRIPTION, command.EPILOG)
    command.configure(parser)
    arguments = parser.parse(words)
    if arguments is not None:
        return command.run(arguments)
    from cgagent.helptext import help_text

    sys.stdout.write(help_text(parser))
    return 0


def run(arguments: Arguments) -> int:
    """Add the ephemeral container, and pass on what it prints; return its exit code."""
    output = parse_choice(arguments.output or OUTPUTS[0], "--output", OUTPUTS)
    pod = _pod(arguments)
    spec = as_map(pod.get("spec"))
    container = arguments.container or next(iter(likely_application(spec, _annotations(pod))), "")
    containers = named(spec.get("containers"))
    if container not in containers:
        raise UsageError(f"there is no container '{container}' in {arguments.pod}", f"it has {', '.join(containers)}")
    identity = arguments.run_as or _identity(spec, containers[container])
    process = _process(pod, container)
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="kubectl-cgagent-") as custom:
        json.dump(_custom(identity), custom)
        custom.flush()
        name = f"cgagent-{os.urandom(3).hex()}"
        words = ["debug", *_target(arguments), f"--container={name}", f"--target={container}"]
        words += [
            f"--image={arguments.image or os.environ.get('CGAGENT_IMAGE') or IMAGE}",
            "--profile=restricted",
            f"--custom={custom.name}",
            "--quiet",
        ]
        words += ["--", "cgagent", "explain", process, f"--output={output}"]
        code, _ = _kubectl(words, capture=True)
    if code:
        raise CgagentError(f"no ephemeral container can be added to {arguments.pod}", "see kubectl's message above")
    code = _ended(arguments, name)
    _kubectl(["logs", *_target(arguments), f"--container={name}"])
    return code


def _ended(arguments: Arguments, name: str) -> int:
    """The exit code of the ephemeral container, once it has ended.

    Raises:
        CgagentError: it does not start in time: its image can't be had, or Pod Security refuses it.
    """
    deadline = time.monotonic() + _PATIENCE
    pause = _FIRST_PAUSE
    stuck: dict[str, object] = {}
    while time.monotonic() < deadline:
        statuses = named(as_map(_pod(arguments).get("status")).get("ephemeralContainerStatuses"))
        state = as_map(statuses.get(name, {}).get("state"))
        ended = as_map(state.get("terminated"))
        stuck = ended or as_map(state.get("waiting"))
        if stuck.get("reason") in _HOPELESS:
            break
        if isinstance(code := ended.get("exitCode"), int):
            return code
        time.sleep(pause)
        pause = min(1.2 * pause, _LONGEST_PAUSE)
    why = stuck.get("message") or stuck.get("reason") or "it has not ended"
    raise CgagentError(f"ephemeral container {name} of {arguments.pod}: {why}", "is the image to be had on that node?")


def _target(arguments: Arguments) -> list[str]:
    """The words that name the pod to kubectl: without its kind, which `kubectl get -o name` writes."""
    where = ("namespace", "context", "kubeconfig")
    options = [f"--{name}={value}" for name in where if (value := getattr(arguments, name))]
    return [arguments.pod.removeprefix("pod/"), *options]


def _pod(arguments: Arguments) -> dict[str, object]:
    code, text = _kubectl(["get", "pod", *_target(arguments), "-o", "json"], capture=True)
    if code:
        raise CgagentError(f"kubectl can't get pod {arguments.pod}", "see its message above")
    try:
        return as_map(json.loads(text))
    except ValueError:
        raise CgagentError(f"kubectl says no JSON of pod {arguments.pod}: '{text[:80].strip()}'") from None


def _annotations(pod: Mapping[str, object]) -> dict[str, object]:
    return as_map(as_map(pod.get("metadata")).get("annotations"))


def _process(pod: Mapping[str, object], container: str) -> str:
    """Which process is the application: the first of its own namespace, or of its container in a shared one.

    Raises:
        CgagentError: there is none: the container is not running.
    """
    spec = as_map(pod.get("spec"))
    status = named(as_map(pod.get("status")).get("containerStatuses")).get(container, {})
    state = as_map(status.get("state"))
    if not as_map(state.get("running")):
        reasons = [as_map(state.get(name)).get("reason") for name in ("waiting", "terminated")]
        why = next((f" ({one})" for one in reasons if one), "")
        raise CgagentError(f"container {container} is not running{why}", "wait for it: kubectl get pod shows its state")
    shared = spec.get("shareProcessNamespace") is True or spec.get("hostPID") is True
    return f"--container-id={status.get('containerID')}" if shared else "--pid=1"


def _identity(spec: Mapping[str, object], container: Mapping[str, object]) -> str:
    """`UID:GID` that the manifest names for the container, or `UID` alone; empty: it names none."""
    security = {**as_map(spec.get("securityContext")), **as_map(container.get("securityContext"))}
    user, group = security.get("runAsUser"), security.get("runAsGroup")
    if not isinstance(user, int):
        return ""
    return f"{user}:{group}" if isinstance(group, int) else str(user)


def _custom(identity: str) -> dict[str, object]:
    """What kubectl's restricted profile leaves to be said."""
    security: dict[str, object] = {"readOnlyRootFilesystem": True}
    if identity:
        user, _, group = identity.partition(":")
        if not (user.isdigit() and (group or user).isdigit()):
            raise UsageError(f"--run-as: '{identity}' is not a user", "write UID:GID, such as 65532:65532")
        security["runAsUser"] = int(user)
        if group:  # else the image says, or it is root's: for our image as for the application's
            security["runAsGroup"] = int(group)
        if user == "0":
            security["runAsNonRoot"] = False
    return {"securityContext": security}


def _kubectl(words: list[str], *, capture: bool = False) -> tuple[int, str]:
    """kubectl's exit code, and where it is captured its output."""
    import subprocess

    program = os.environ.get("KUBECTL") or "kubectl"
    try:
        done = subprocess.run([program, *words], stdout=subprocess.PIPE if capture else None, text=True, check=False)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CgagentError(f"cannot start {program}: {reason}", "put kubectl on PATH", EXIT_FAILURE) from None
    return done.returncode, done.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
