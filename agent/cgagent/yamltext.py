"""YAML, written and read: the one home of PyYAML, imported when it is needed."""

from __future__ import annotations


def dump(value: object) -> str:
    """`value` (dicts, lists, strings, numbers, None) as a YAML document; keys keep their order."""
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    return text
