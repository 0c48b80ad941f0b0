"""Manifests as text: cgagent put into every object with a pod in it, and taken out again; the rest byte for byte."""

from __future__ import annotations

from cgagent.errors import UsageError
from cgagent.kube.additions import applied
from cgagent.kube.edit import Editor, inserted, removed
from cgagent.kube.inject import plan
from cgagent.kube.settings import INJECTED
from cgagent.kube.targets import SkippedError
from cgagent.kube.workload import as_map, template_path
from cgagent.kube.yamltree import MAP, SCALAR, SEQ, Document, Node, TreeError, documents
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgagent.kube.additions import Addition
    from cgagent.kube.edit import Insertion

    TextOf = Callable[[str], tuple[str, str] | None]

# PyYAML's two parsers count it differently.
_BOM = "\ufeff"
INJECTED_NOW, SKIPPED, UNTOUCHED, REMOVED = "injected", "skipped", "unchanged", "uninjected"


class Outcome(Record):
    """What became of one object.

    Attributes:
        name: `deployment/orders`; of what is no object, the line where it starts.
        state: INJECTED_NOW, SKIPPED, UNTOUCHED (it has no pod) or REMOVED.
        summary: how, or why not.
        notes: what a person should know.
    """

    __slots__ = ("name", "notes", "state", "summary")

    def __init__(self, name: str, state: str, summary: str, notes: list[str]) -> None:
        self.name = name
        self.state = state
        self.summary = summary
        self.notes = notes


class _Resource:
    """An object in a text: its node, and that of its pod template if it has one."""

    def __init__(self, document: Document, node: Node) -> None:
        metadata = node.get("metadata")
        name = (metadata.get("name") or metadata.get("generateName")) if metadata else None
        kind = _text(node.get("kind"))
        path = template_path(_text(node.get("apiVersion")), kind)
        self.document = document
        self.name = f"{kind}/{_text(name) or '?'}".lower() if kind else f"line {node.line + 1}"
        self.has_pod = path is not None
        self.why_no_pod = "no pod in it" if kind else "no object of Kubernetes: it has no kind"
        self.template: Node | None = node if self.has_pod else None
        for step in path or ():
            self.template = self.template.get(step) if self.template else None

    def value(self) -> dict[str, object]:
        """The pod template as plain values.

        Raises:
            SkippedError: there is none.
            TreeError: it has what can't be read.
        """
        if self.template is None or self.template.kind != MAP:
            raise SkippedError("it has no pod template")
        return as_map(self.document.value(self.template))

    def insertions(self, text: str, additions: list[Addition]) -> list[Insertion]:
        """`additions` to the template, as text to be put into `text`.

        Raises:
            TreeError: a place for them can't be edited.
        """
        if self.template is None:
            return []
        return Editor(text, self.template, _list_step(self.template)).insertions(additions)


def inject(text: str, text_of: TextOf) -> tuple[str, list[Outcome]]:
    """`text` with cgagent in every pod of it that wants one, and what became of each object.

    What an earlier run put in is taken out first: twice is the same as once.

    Raises:
        TreeError: it is no YAML.
        UsageError: an option or an annotation does not fit.
    """
    if text.startswith(_BOM):
        result, outcomes = inject(text[1:], text_of)
        return _BOM + result, outcomes
    text = uninject(text)[0]
    refused: set[int] = set()
    while True:
        result, outcomes, meant = _injected(text, text_of, refused)
        wrong = _not_as_meant(result, meant)
        if wrong is None:
            return result, outcomes
        refused.add(wrong)


def _injected(text: str, text_of: TextOf, refused: set[int]) -> tuple[str, list[Outcome], dict[int, object]]:
    """One try, without the `refused` objects: the text, what became of each, and what those changed are meant to be."""
    outcomes: list[Outcome] = []
    insertions: list[Insertion] = []
    meant: dict[int, object] = {}
    for at, resource in enumerate(_resources(text)):
        if not resource.has_pod:
            outcomes.append(Outcome(resource.name, UNTOUCHED, resource.why_no_pod, []))
            continue
        try:
            if at in refused:
                raise TreeError("its layout is not understood")
            value = resource.value()
            found = plan(value, text_of)
            insertions += resource.insertions(text, found.additions)
            meant[at] = applied(value, found.additions)
            outcomes.append(Outcome(resource.name, INJECTED_NOW, found.summary, found.notes))
        except SkippedError as error:
            outcomes.append(Outcome(resource.name, SKIPPED, error.line(), []))
        except TreeError as error:
            outcomes.append(Outcome(resource.name, SKIPPED, f"it can't be edited in place: {error.line()}", []))
        except UsageError as error:
            raise UsageError(f"{resource.name}: {error.message}", error.hint) from None
    return inserted(text, insertions), outcomes, meant


def _not_as_meant(text: str, meant: dict[int, object]) -> int | None:
    """The first object that `text` does not hold as it was `meant`: text was put in, and YAML has its surprises."""
    if not meant:
        return None
    try:
        found = [resource.value() if at in meant else None for at, resource in enumerate(_resources(text))]
    except (TreeError, SkippedError):
        return min(meant)
    return next((at for at, value in meant.items() if at >= len(found) or found[at] != value), None)


def uninject(text: str) -> tuple[str, list[Outcome]]:
    """`text` as it was before `inject`, and what became of each object.

    Raises:
        TreeError: it is no YAML.
    """
    if text.startswith(_BOM):
        result, outcomes = uninject(text[1:])
        return _BOM + result, outcomes
    outcomes = []
    spans: list[tuple[int, int]] = []
    for resource in _resources(text):
        addresses = _addresses(resource.template)
        if not resource.template or not addresses:
            outcomes.append(Outcome(resource.name, UNTOUCHED, "cgagent is not in it", []))
            continue
        paths = [_steps(one) for one in addresses if not one.endswith("/")]
        created = [_steps(one.removesuffix("/")) for one in addresses if one.endswith("/")]
        spans += Editor(text, resource.template, 0).removals(paths, created)
        outcomes.append(Outcome(resource.name, REMOVED, f"{len(paths)} additions", []))
    return removed(text, spans), outcomes


def values(text: str) -> list[object]:
    """The documents of `text` as plain values.

    Raises:
        TreeError: it is no YAML, or has what has no place in JSON.
    """
    return [document.value(document.root) for document in documents(text)]


def _resources(text: str) -> Iterator[_Resource]:
    for document in documents(text):
        yield from _in_lists(document, document.root, 0)


def _in_lists(document: Document, node: Node, depth: int) -> Iterator[_Resource]:
    """The objects in a document: itself, or the items of a `kind: List`."""
    kind, items = node.get("kind"), node.get("items")
    if kind is not None and kind.text == "List" and items is not None and items.kind == SEQ and depth < 3:
        for item in items.items:
            yield from _in_lists(document, item, depth + 1)
    else:
        yield _Resource(document, node)


def _list_step(template: Node) -> int:
    """How many columns the containers' list stands in from its key: 0 or 2."""
    spec = template.get("spec")
    at = spec.entry("containers") if spec else None
    if spec is None or at is None or spec.items[at].flow:
        return 2
    return max(0, spec.items[at].column - spec.keys[at].column)


def _addresses(template: Node | None) -> list[str]:
    """Where things were added to `template`, as its annotation says."""
    metadata = template.get("metadata") if template else None
    annotations = metadata.get("annotations") if metadata else None
    return _text(annotations.get(INJECTED) if annotations else None).split()[1:]


def _steps(address: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in address.split("/")]


def _text(node: Node | None) -> str:
    return node.text if node is not None and node.kind == SCALAR else ""
