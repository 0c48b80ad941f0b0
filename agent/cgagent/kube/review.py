"""AdmissionReview (k8s.io/api admission/v1): a pod about to be created, answered with a JSON Patch. Pure.

Whatever is wrong with a pod or with us, the pod is let in as it is: a webhook that makes things better must not keep
anything from running.
"""

from __future__ import annotations

import base64
import json

from cgagent.errors import CgagentError, UsageError
from cgagent.kube.additions import json_patch
from cgagent.kube.inject import plan
from cgagent.kube.targets import SkippedError
from cgagent.kube.workload import as_map
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

API_VERSION, KIND = "admission.k8s.io/v1", "AdmissionReview"
INJECTED, SKIPPED, REFUSED = "injected", "skipped", "refused"
RESULTS = (INJECTED, SKIPPED, REFUSED)
# The API server cuts longer warnings off.
_WARNING_LENGTH = 250
_UID_LENGTH = 256


class MalformedReviewError(CgagentError):
    """A request that is no AdmissionReview: there is nothing to answer it with but an HTTP error."""


class Answer(Record):
    """What a review is answered with.

    Attributes:
        body: the response, as JSON.
        result: INJECTED, SKIPPED, or REFUSED (its annotations don't fit; it is let in with a warning).
        pod: `namespace/name`, of a pod that has only a prefix yet `namespace/prefix*`.
        summary: how, or why not.
        notes: what a person should know.
    """

    __slots__ = ("body", "notes", "pod", "result", "summary")

    def __init__(self, body: bytes, result: str, pod: str, summary: str, notes: list[str]) -> None:
        self.body = body
        self.result = result
        self.pod = pod
        self.summary = summary
        self.notes = notes


def answer(body: bytes, text_of: Callable[[str], tuple[str, str] | None]) -> Answer:
    """The answer to the AdmissionReview `body`, with the settings' texts from `text_of`.

    Raises:
        MalformedReviewError: it is none.
    """
    request = _request(body)
    uid, pod = str(request["uid"]), as_map(request.get("object"))
    name = _name(request, pod)
    reason = _not_ours(request)
    if reason:
        return Answer(_response(uid), SKIPPED, name, reason, [])
    try:
        found = plan(pod, text_of)
    except SkippedError as error:
        return Answer(_response(uid), SKIPPED, name, error.line(), [])
    except UsageError as error:
        warning = f"cgagent: {error.line()}"[:_WARNING_LENGTH]
        return Answer(_response(uid, warnings=[warning]), REFUSED, name, error.line(), [])
    patch = json.dumps(json_patch(found.additions)).encode()
    more = {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    return Answer(_response(uid, **more), INJECTED, name, found.summary, found.notes)


def _request(body: bytes) -> dict[str, object]:
    try:
        document = as_map(json.loads(body))
    except (ValueError, RecursionError):
        raise MalformedReviewError("the body is not JSON") from None
    if document.get("apiVersion") != API_VERSION or document.get("kind") != KIND:
        raise MalformedReviewError(f"the body is no {KIND} of {API_VERSION}")
    request = as_map(document.get("request"))
    uid = request.get("uid")
    if not isinstance(uid, str) or not 0 < len(uid) <= _UID_LENGTH:
        raise MalformedReviewError("request.uid is missing")
    return request


def _not_ours(request: dict[str, object]) -> str:
    kind = as_map(request.get("kind"))
    if (kind.get("group"), kind.get("version"), kind.get("kind")) != ("", "v1", "Pod") or request.get("subResource"):
        return "it is no pod"
    return "" if request.get("operation") == "CREATE" else "it is there already"


def _name(request: dict[str, object], pod: dict[str, object]) -> str:
    metadata = as_map(pod.get("metadata"))
    prefix = metadata.get("generateName")
    name = request.get("name") or metadata.get("name") or (f"{prefix}*" if prefix else "?")
    return f"{request.get('namespace') or '?'}/{name}"


def _response(uid: str, **more: object) -> bytes:
    review = {"apiVersion": API_VERSION, "kind": KIND, "response": {"uid": uid, "allowed": True, **more}}
    return json.dumps(review).encode()
