"""Plain values as YAML text: in lines, to stand in a block, or in brackets, to stand in a line or in JSON."""

from __future__ import annotations

from cgagent.kube.yamltree import resolve

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=-:@")
_STARTS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-")


def flow(value: object) -> str:
    """`value` on one line. JSON is YAML too."""
    import json

    text = json.dumps(value, ensure_ascii=False)
    # What JSON takes as it is, and YAML for the end of a line, or not at all.
    return "".join(char if char.isprintable() or char > "\uffff" else f"\\u{ord(char):04x}" for char in text)


def document(value: object) -> str:
    """`value` as a whole document."""
    if not value or not isinstance(value, (dict, list)):
        return f"{_scalar(value)}\n"
    return "".join(f"{line}\n" for line in block(value, 0, 0))


def block(value: object, indent: int, step: int) -> list[str]:
    """The lines of a mapping or list that is not empty; `step`: columns that lists stand in from their key."""
    if isinstance(value, dict):
        return [line for key, one in value.items() for line in _entry(_scalar(key), one, indent, step)]
    if isinstance(value, list):
        return [line for one in value for line in _item(one, indent, step)]
    raise TypeError(f"no block can be made of {value!r}")


def _entry(key: str, value: object, indent: int, step: int) -> list[str]:
    margin = " " * indent
    if not value or not isinstance(value, (dict, list)):
        return _leaf(f"{margin}{key}: ", value, indent)
    return [f"{margin}{key}:", *block(value, indent + (step if isinstance(value, list) else 2), step)]


def _item(value: object, indent: int, step: int) -> list[str]:
    margin = " " * indent
    if not value or not isinstance(value, (dict, list)):
        return _leaf(f"{margin}- ", value, indent)
    first, *rest = block(value, indent + 2, step)
    return [f"{margin}- {first[indent + 2 :]}", *rest]


def _leaf(start: str, value: object, indent: int) -> list[str]:
    """A scalar behind `start`; of several lines it is a literal."""
    if not isinstance(value, str) or not _is_literal(value):
        return [f"{start}{_scalar(value)}"]
    newlines = len(value) - len(value.rstrip("\n"))
    keeping = {0: "-", 1: ""}.get(newlines, "+")
    margin = " " * (indent + 2)
    lines = value.removesuffix("\n").split("\n")
    return [f"{start}|{keeping}", *(f"{margin}{line}" if line else "" for line in lines)]


def _is_literal(text: str) -> bool:
    """Whether `text` has several lines that can stand as they are."""
    shown = text.replace("\n", "").replace("\t", "").isprintable()
    return shown and "\n" in text and not text[0].isspace()


def _scalar(value: object) -> str:
    return value if isinstance(value, str) and _is_plain(value) else flow(value)


def _is_plain(text: str) -> bool:
    """Whether every reader of YAML takes `text` without quotes for just that text."""
    if not text or not _SAFE.issuperset(text) or text[0] not in _STARTS or text.endswith(":"):
        return False
    if text[0].isdigit():  # `1:30` and `1_000` are numbers to some; `100m` and `64Mi` to none
        number = text.rstrip("kmMGTi")
        return number.isdigit() and number != text
    if text == "-" or text.lower() in (".inf", "-.inf", ".nan") or text.startswith(("---", "...")):
        return False
    return resolve(text) == text
