"""What a pod's document says of a resize in place (KEP-1287): asked for, in force, and what the kubelet makes of it.

Pure, and the document is untrusted. As a kubelet of 1.36 does it: it notes `status.observedGeneration` with its first
answer to a new specification, which is a condition PodResizePending (Deferred, Infeasible) or PodResizeInProgress;
when the cgroup has the new limits, the container's `status.resources` have them and the condition goes. A container
that the resize restarts is stopped only after the API server was told of PodResizeInProgress.
"""

from __future__ import annotations

import json

from cgagent.errors import CgagentError, UsageError, printable
from cgagent.kube.quantity import ceil_of
from cgagent.kube.workload import as_list, as_map, named
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CPU, MEMORY = "cpu", "memory"
_PARTS = {CPU: 1000, MEMORY: 1}
_MESSAGE_LENGTH = 200
# A runtime may give back what the kernel made of a limit: whole pages, quotas rounded to 10 ms of a second.
_NEARLY = 99, 100


class Resize(Record):
    """What one container's resize has come to.

    Attributes:
        asked: CPU and MEMORY -> the specification's limit in millicores or bytes; without one it is not in there.
        in_force: the same of the status.
        observed: whether the kubelet has answered to the latest specification.
        obstacle: why the resize does not come about, in the kubelet's words; empty: nothing is in its way.
        in_progress: whether the kubelet has granted it and is at it.
        restarts: whether it restarts the container.
    """

    __slots__ = ("asked", "in_force", "in_progress", "observed", "obstacle", "restarts")

    def __init__(
        self,
        asked: Mapping[str, int],
        in_force: Mapping[str, int],
        *,
        observed: bool = False,
        obstacle: str = "",
        in_progress: bool = False,
        restarts: bool = False,
    ) -> None:
        self.asked = asked
        self.in_force = in_force
        self.observed = observed
        self.obstacle = obstacle
        self.in_progress = in_progress
        self.restarts = restarts

    def is_granted(self, resource: str, wished: int) -> bool:
        """Whether the container has the limit `wished`, or is about to be started anew with it."""
        if not self.observed or self.obstacle or self.asked.get(resource) != wished:
            return False
        if self.in_progress:
            return self.restarts
        part, whole = _NEARLY
        return self.in_force.get(resource, -1) * whole >= wished * part

    def reason(self) -> str:
        """Why what is asked for is not in force."""
        if self.obstacle:
            return self.obstacle
        return "the kubelet is at it" if self.observed else "the kubelet has not answered to it yet"


def parse(text: bytes, container: str) -> Resize:
    """What the pod's document `text`, in JSON, says of `container`.

    Raises:
        CgagentError: it is no such document, or there is no such container.
    """
    try:
        document = as_map(json.loads(text))
    except (ValueError, RecursionError):
        raise CgagentError(
            "the API server's answer is no JSON", "what answers there may not be the API server"
        ) from None
    try:
        return _read(document, container)
    except UsageError as error:
        raise CgagentError(f"the API server's answer: {error.message}") from None


def _read(document: Mapping[str, object], container: str) -> Resize:
    spec, status = as_map(document.get("spec")), as_map(document.get("status"))
    found = named(spec.get("containers")).get(container)
    if found is None:
        raise CgagentError(f"the pod has no container {container}", "name the application's with --confirm-raises")
    resources = as_map(found.get("resources"))
    actual = as_map(named(status.get("containerStatuses")).get(container, {}).get("resources"))
    generation, observed = as_map(document.get("metadata")).get("generation"), status.get("observedGeneration")
    conditions = {str(one.get("type")): one for one in map(as_map, as_list(status.get("conditions")))}
    conditions = {name: one for name, one in conditions.items() if one.get("status") != "False"}
    progress = conditions.get("PodResizeInProgress", {})
    return Resize(
        _limits(resources, f"limits of {container}"),
        _limits(actual, f"limits in the status of {container}"),
        observed=isinstance(generation, int) and isinstance(observed, int) and observed >= generation,
        obstacle=_said(conditions.get("PodResizePending", {}), "Pending") or _said(progress, ""),
        in_progress=bool(progress),
        # A condition of an earlier specification says nothing of this one.
        restarts=_restarts(found, resources, actual) and progress.get("observedGeneration") == generation,
    )


def _said(condition: Mapping[str, object], reason: str) -> str:
    """The condition's reason (`reason` where it gives none) and message; empty where there is none."""
    reason = str(condition.get("reason") or reason)
    if not condition or not reason:
        return ""
    message = str(condition.get("message") or "")
    text = f"{reason}: {message}" if message else reason
    return printable(text if len(text) <= _MESSAGE_LENGTH else f"{text[: _MESSAGE_LENGTH - 3]}...")


def _limits(resources: Mapping[str, object], what: str) -> dict[str, int]:
    limits = as_map(resources.get("limits"))
    return {name: ceil_of(limits[name], parts, f"{what}: {name}") for name, parts in _PARTS.items() if name in limits}


def _restarts(container: Mapping[str, object], asked: Mapping[str, object], actual: Mapping[str, object]) -> bool:
    """Whether a resource differs whose resize restarts the container, in its limit or its request."""
    policies = map(as_map, as_list(container.get("resizePolicy")))
    restarting = {str(one.get("resourceName")) for one in policies if one.get("restartPolicy") == "RestartContainer"}
    return any(
        _amount(asked, kind, name) != _amount(actual, kind, name)
        for name in restarting & set(_PARTS)
        for kind in ("limits", "requests")
    )


def _amount(resources: Mapping[str, object], kind: str, name: str) -> int | None:
    quantity = as_map(resources.get(kind)).get(name)
    return None if quantity is None else ceil_of(quantity, _PARTS[name], name)
