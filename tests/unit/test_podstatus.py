"""From a pod's document to what is granted: only what the kubelet says of the very limit that is asked for counts."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent.errors import CgagentError
from cgagent.kube.podstatus import CPU, MEMORY, Resize, parse
from support.api_server import condition, pod_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MI = 1 << 20
SMALL, LARGE = {"cpu": "1500m", "memory": "256Mi"}, {"cpu": "2", "memory": "320Mi"}
PENDING, PROGRESS = "PodResizePending", "PodResizeInProgress"


def read(document: object, container: str = "app") -> Resize:
    return parse(json.dumps(document).encode(), container)


def granted(document: object) -> tuple[bool, bool]:
    """Whether 2 CPUs and 320 Mi are."""
    found = read(document)
    return found.is_granted(CPU, 2000), found.is_granted(MEMORY, 320 * MI)


def pod(actual: dict[str, str] | None = SMALL, *conditions: dict[str, object], **more: Any) -> dict[str, Any]:
    return pod_document(LARGE, actual, conditions=list(conditions), **more)


def test_what_is_asked_for_and_what_is_in_force_are_read_in_millicores_and_bytes() -> None:
    found = read(pod())
    assert (found.asked, found.in_force) == ({CPU: 2000, MEMORY: 320 * MI}, {CPU: 1500, MEMORY: 256 * MI})


def test_a_raise_that_is_in_force_is_granted() -> None:
    assert granted(pod(LARGE)) == (True, True)


def test_one_of_two_may_be_in_force() -> None:
    assert granted(pod({"cpu": "1500m", "memory": "320Mi"})) == (False, True)


@pytest.mark.parametrize("reason", ["Deferred", "Infeasible", ""])
def test_what_the_kubelet_has_put_off_or_refused_is_not_granted(reason: str) -> None:
    assert granted(pod(SMALL, condition(PENDING, reason, "no room"))) == (False, False)
    # Of an earlier resize the status may still say what no longer is.
    assert granted(pod(LARGE, condition(PENDING, reason, "no room"))) == (False, False)


def test_what_is_under_way_is_not_in_force_yet() -> None:
    assert granted(pod(SMALL, condition(PROGRESS))) == (False, False)
    assert granted(pod(LARGE, condition(PROGRESS))) == (False, False), "the kubelet may still see what was before"


def test_a_container_that_is_about_to_be_restarted_has_it_all_at_its_start() -> None:
    assert granted(pod(SMALL, condition(PROGRESS), restarting=("memory",))) == (True, True)


def test_no_restart_comes_of_a_resource_that_stays_as_it_is() -> None:
    document = pod({"cpu": "1500m", "memory": "320Mi"}, condition(PROGRESS), restarting=("memory",))
    assert granted(document) == (False, False)


def test_a_request_alone_restarts_the_container_too() -> None:
    document = pod({"cpu": "1500m", "memory": "320Mi"}, condition(PROGRESS), restarting=("memory",))
    document["status"]["containerStatuses"][1]["resources"]["requests"]["memory"] = "128Mi"
    assert granted(document) == (True, True)


@pytest.mark.parametrize(
    "conditions",
    [
        [condition(PROGRESS, "Error", "usage is above it")],
        [condition(PENDING, "Deferred", "no room"), condition(PROGRESS)],
        [condition(PROGRESS, generation=1)],  # of an earlier resize, which this one came after
    ],
    ids=["held back", "another resize", "earlier"],
)
def test_a_restart_is_not_about_to_come_where_something_is_in_its_way(conditions: list[dict[str, object]]) -> None:
    assert granted(pod(SMALL, *conditions, restarting=("memory",))) == (False, False)


@pytest.mark.parametrize(("generation", "observed"), [(3, 2), (2, None), (None, 2), (None, None), ("2", "2")], ids=str)
def test_before_the_kubelet_has_answered_to_it_nothing_is_granted(generation: Any, observed: Any) -> None:
    """A kubelet before 1.34 says nothing of generations."""
    document = pod(LARGE, generation=generation, observed=observed)
    assert granted(document) == (False, False)
    assert read(document).reason() == "the kubelet has not answered to it yet"


def test_a_limit_that_is_not_the_one_asked_for_is_not_granted() -> None:
    assert not read(pod(LARGE)).is_granted(MEMORY, 319 * MI)
    assert not read(pod(LARGE)).is_granted(MEMORY, 321 * MI)


def test_what_the_kernel_has_rounded_is_the_limit_that_was_asked_for() -> None:
    document = pod_document({"memory": "345000001"}, {"memory": "344997888"})
    assert read(document).is_granted(MEMORY, 345000001)


@pytest.mark.parametrize("actual", [None, {}, {"cpu": "2"}], ids=str)
def test_what_the_status_does_not_show_is_not_granted(actual: dict[str, str] | None) -> None:
    assert granted(pod(actual))[1] is False


def test_no_status_and_no_limits_are_no_grant() -> None:
    assert granted({"spec": {"containers": [{"name": "app"}]}}) == (False, False)
    assert granted({"spec": {"containers": [{"name": "app"}]}, "status": None, "metadata": []}) == (False, False)


def test_another_containers_limits_are_nothing_to_this_one() -> None:
    document = pod()
    document["status"]["containerStatuses"] = [{"name": "other", "resources": {"limits": LARGE}}]
    assert granted(document) == (False, False)


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ([condition(PENDING, "Deferred", "no room")], "Deferred: no room"),
        ([condition(PENDING, "Infeasible")], "Infeasible"),
        ([condition(PENDING)], "Pending"),
        ([condition(PROGRESS, "Error", "usage is above it")], "Error: usage is above it"),
        ([condition(PROGRESS)], "the kubelet is at it"),
        ([], "the kubelet is at it"),
    ],
)
def test_the_reason_is_the_kubelets(conditions: list[dict[str, object]], reason: str) -> None:
    assert read(pod(SMALL, *conditions)).reason() == reason


def test_a_condition_that_is_false_is_none() -> None:
    assert granted(pod(LARGE, {**condition(PENDING, "Deferred"), "status": "False"})) == (True, True)


def test_the_kubelets_words_are_bounded_and_made_printable() -> None:
    said = read(pod(SMALL, condition(PENDING, "Deferred", "\x1b[31mno\nroom" + "x" * 100_000))).reason()
    assert said.startswith("Deferred: \\x1b[31mno\\nroom")
    assert len(said) < 220


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "is no JSON"),
        (b"<html>", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is no JSON"),
        (b"null", "no container app"),
        (b"[]", "no container app"),
        (b'{"spec": {"containers": {"name": "app"}}}', "no container app"),
        (b'{"kind": "Status", "code": 200}', "no container app"),
        (
            b'{"spec": {"containers": [{"name": "app", "resources": {"limits": {"cpu": "x"}}}]}}',
            "'x' is not a quantity",
        ),
        (b'{"spec": {"containers": [{"name": "app", "resources": {"limits": {"cpu": null}}}]}}', "is not a quantity"),
    ],
)
def test_what_is_no_such_document_is_told(text: bytes, told: str) -> None:
    with pytest.raises(CgagentError, match=told) as caught:
        parse(text, "app")
    assert len(caught.value.line()) < 300


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("256Mi"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_whatever_stands_in_the_place_of_a_value_it_is_told_or_not_granted(data: st.DataObject) -> None:
    document = pod_document(LARGE, SMALL, conditions=[condition(PENDING, "Deferred", "no room")])
    at: Any = document
    path = data.draw(
        st.sampled_from(
            [
                ("metadata",),
                ("spec",),
                ("status",),
                ("spec", "containers"),
                ("status", "conditions"),
                ("status", "containerStatuses"),
                ("status", "observedGeneration"),
                ("metadata", "generation"),
            ]
        )
    )
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = data.draw(_JSON)
    with contextlib.suppress(CgagentError):
        assert granted(document) == (False, False)
