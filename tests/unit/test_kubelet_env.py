"""The tests' own reader of the kubelet's env-file grammar, held to the grammar's rules one by one."""

from __future__ import annotations

import pytest

from support.kubelet_env import KubeletError, lookup


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A='1'\n", "1"),
        ("A='1'", "1"),
        ("A=''\n", ""),
        (" \t A='1'\n", "1"),
        ("\n \t\n# a comment\n  # another\nA='1'\n", "1"),
        ("A='1'  \n", "1"),
        ("A='1' # why\n", "1"),
        ("A='1'\r\n", "1"),
        ("B='x'\nA='1'\n", "1"),
        ("A='1'\nA='2'\n", "1"),
        ("A='1'\nrubbish\n", "1"),
        ("A='$HOME `id` \\n \"q\"'\n", '$HOME `id` \\n "q"'),
        ("A='a=b#c'\n", "a=b#c"),
        ("A='one\ntwo'\n", "one\ntwo"),
        ("B='spans\nA=lines'\nA='1'\n", "1"),
        ("A= '1'\n", ""),
        ("A=\n", ""),
        ("B='1'\n", ""),
        ("", ""),
        ("export A='1'\n", ""),
        ("\ufeffA='1'\n", ""),
    ],
)
def test_it_accepts_what_the_kubelet_accepts(text: str, value: str) -> None:
    assert lookup(text.encode(), "A") == value


@pytest.mark.parametrize(
    "text",
    [
        "A=1\n",
        'A="1"\n',
        "A='1\n",
        "A='1''2'\n",
        "A='1'2\n",
        "A='1'\\''2'\n",
        "A='1'#why\n",
        "A ='1'\n",
        "A\t='1'\n",
        "='1'\n",
        "rubbish\nA='1'\n",
        "B=1\nA='1'\n",
        "export B\nA='1'\n",
        "B='" + "x" * 70000 + "'\nA='1'\n",
    ],
)
def test_it_refuses_what_the_kubelet_refuses(text: str) -> None:
    with pytest.raises(KubeletError):
        lookup(text.encode(), "A")
