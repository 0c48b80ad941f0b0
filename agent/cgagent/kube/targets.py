"""Which containers are served, with which variables, and where their limits come from. Pure."""

from __future__ import annotations

from cgagent.errors import CgagentError
from cgagent.kube.quantity import ceil_of
from cgagent.kube.settings import BUNDLE
from cgagent.kube.workload import as_list, as_map, likely_application, limits_of, named
from cgagent.policy import GOMAXPROCS, GOMEMLIMIT
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cgagent.kube.settings import Settings

CPU, MEMORY = "cpu", "memory"
PARTS = {CPU: 1000, MEMORY: 1}
VARIABLE = {CPU: GOMAXPROCS, MEMORY: GOMEMLIMIT}
# Where a container's limit comes from: its own resources; the pod's, whole or a fixed part of it; not in sight.
OWN, POD, PART, EXPECTED = "own", "pod", "part", "expected"


class SkippedError(CgagentError):
    """An object that is left as it is, and why."""


class Target(Record):
    """A container that is served.

    Attributes:
        name: its name.
        index: its place in `spec.containers`.
        container: as the manifest has it.
        sources: CPU and MEMORY -> OWN, POD, PART or EXPECTED; a resource without a limit is not in there.
        parts: of those that are PART, the limit: millicores or bytes.
        variables: those to be set, without those that the manifest sets itself.
    """

    __slots__ = ("container", "index", "name", "parts", "sources", "variables")

    def __init__(self, name: str, index: int, container: dict[str, object]) -> None:
        self.name = name
        self.index = index
        self.container = container
        self.sources: dict[str, str] = {}
        self.parts: dict[str, int] = {}
        self.variables: list[str] = []


def targets_of(
    spec: Mapping[str, object], annotations: Mapping[str, object], settings: Settings, notes: list[str]
) -> list[Target]:
    """The containers to serve; what a person should know of them goes into `notes`.

    Raises:
        SkippedError: there is none.
    """
    containers = named(spec.get("containers"))
    indices = {str(as_map(one).get("name")): at for at, one in enumerate(as_list(spec.get("containers")))}
    wanted = settings.containers or tuple(likely_application(spec, annotations))
    missing = [name for name in wanted if name not in containers]
    if missing:
        raise SkippedError(f"there is no container {', '.join(missing)}: it has {', '.join(containers) or 'none'}")
    found, reasons = [], []
    for name in wanted:
        target = Target(name, indices[name], containers[name])
        reason = _fill(target, spec, settings, notes)
        if reason:
            reasons.append(f"{name}: {reason}")
        else:
            found.append(target)
    if not found:
        raise SkippedError("; ".join(reasons) or "no container looks like the application: name it with --container")
    notes += [f"container {reason}: left as it is" for reason in reasons]
    return found


def _fill(target: Target, spec: Mapping[str, object], settings: Settings, notes: list[str]) -> str:
    """Find out what is to be done for `target`; the reason why nothing is, or an empty text."""
    own, pod = limits_of(target.container), limits_of(spec)
    for resource in PARTS:
        if resource in own:
            target.sources[resource] = OWN
        elif resource in pod:
            _fill_from_pod(target, resource, spec, settings, notes)
        elif settings.expect_limits:
            target.sources[resource] = EXPECTED
    if settings.mode == BUNDLE:
        return _command_missing(target, settings)
    if not target.sources:
        return "it has no CPU and no memory limit (--expect-limits if a LimitRange or VPA will set them)"
    notes += [
        f"container {target.name}: no {resource} limit, so {VARIABLE[resource]} is left to Go"
        for resource in PARTS
        if resource not in target.sources
    ]
    return _fill_variables(target, settings, notes)


def _command_missing(target: Target, settings: Settings) -> str:
    if as_list(target.container.get("command")) or target.name in settings.entrypoints:
        return ""
    return f"its image's entry point is not known here (--entrypoint {target.name}='/program its words')"


def _fill_variables(target: Target, settings: Settings, notes: list[str]) -> str:
    own = named(target.container.get("env"))
    wanted = [VARIABLE[resource] for resource in PARTS if resource in target.sources]
    if GOMAXPROCS not in wanted and "max_procs" in settings.policy:
        wanted.insert(0, GOMAXPROCS)
    for variable in wanted:
        if variable in own:
            notes.append(f"container {target.name}: {variable} is set by the manifest, and stays so")
        else:
            target.variables.append(variable)
    if not target.variables:
        return "its manifest sets what could be set"
    if as_list(target.container.get("envFrom")):
        what = " and ".join(target.variables)
        notes.append(f"container {target.name}: {what} from its envFrom would be overridden: name it in env to keep it")
    return ""


def _fill_from_pod(
    target: Target, resource: str, spec: Mapping[str, object], settings: Settings, notes: list[str]
) -> None:
    """The pod's limit, which every container without one of its own has to itself, as the kernel sees it."""
    sharing = [name for name, one in named(spec.get("containers")).items() if resource not in limits_of(one)]
    target.sources[resource] = POD
    if len(sharing) == 1:
        return
    among = f"containers {', '.join(sharing)} share the pod's {resource} limit"
    if not settings.split or settings.mode == BUNDLE:
        hint = "--split gives each its part" if settings.mode != BUNDLE else "give each a limit of its own"
        notes.append(f"container {target.name}: {among}, and each sees all of it: {hint}")
        return
    parts = PARTS[resource]
    taken = [limits_of(one).get(resource) for one in named(spec.get("containers")).values()]
    whole = ceil_of(limits_of(spec)[resource], parts, f"spec.resources.limits.{resource}")
    rest = whole - sum(ceil_of(one, parts, f"limits.{resource}") for one in taken if one is not None)
    if rest < len(sharing):
        del target.sources[resource]
        notes.append(f"container {target.name}: {among}, and the others' limits leave nothing of it")
        return
    target.sources[resource] = PART
    target.parts[resource] = rest // len(sharing)
    notes.append(f"container {target.name}: {among}: a fixed part each, which no resize of the pod changes")
