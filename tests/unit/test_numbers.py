"""Numbers, CPU lists and flat keyed files, as strictly as the kernel writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent.cgroup.numbers import cpu_list, flat_keyed, format_cpu_list, one_line, unsigned, whole_lines
from cgagent.errors import MalformedError


@pytest.mark.parametrize("text", ["0", "007", "18446744073709551615"])
def test_a_number_is_ascii_digits_up_to_64_bits(text: str) -> None:
    assert unsigned(text, "memory.max") == int(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1\r",
        "1us",
        "0x1",
        "1_0",
        "1.0",
        "1e3",
        "٣",
        "²",
        "max",
        "\0",
        "\udcff",
        "18446744073709551616",
        "0" * 21,
        "9" * 10000,
    ],
)
def test_anything_else_is_malformed_and_says_where(text: str) -> None:
    with pytest.raises(MalformedError, match=r"^memory\.max is malformed: expected a whole number"):
        unsigned(text, "memory.max")


def test_a_number_may_have_a_bound_of_its_own() -> None:
    assert unsigned("7", "f", most=7) == 7
    with pytest.raises(MalformedError):
        unsigned("8", "f", most=7)


def test_a_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(MalformedError) as caught:
        unsigned("9" * 10000, "f")
    assert len(caught.value.line()) < 200


def test_one_final_newline_is_the_kernels_and_no_more() -> None:
    assert one_line("1\n") == "1"
    assert one_line("1") == "1"
    assert one_line("1\n\n") == "1\n"
    assert one_line("1\r\n") == "1\r"


def test_no_text_has_no_line_and_an_empty_line_stays_one() -> None:
    assert list(whole_lines("")) == []
    assert list(whole_lines("\n")) == [""]
    assert list(whole_lines("a\nb\n")) == list(whole_lines("a\nb")) == ["a", "b"]
    assert list(whole_lines("a\n\nb\n")) == ["a", "", "b"]


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("\n", set()), ("", set()), ("0\n", {0}), ("0-3,8\n", {0, 1, 2, 3, 8}), ("5-5", {5}), ("\t0-1\n", {0, 1})],
)
def test_a_cpu_list_is_numbers_and_ranges(text: str, cpus: set[int]) -> None:
    assert cpu_list(text, "cpuset.cpus") == cpus


@pytest.mark.parametrize(
    "text",
    [",", "0,", ",0", "0-", "-3", "3-1", "0--1", "0-1-2", "a", "0 1", "0-3\n\n", "0-4000000000", "65537"],
)
def test_a_cpu_list_with_rubbish_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match=r"^cpuset\.cpus is malformed"):
        cpu_list(text, "cpuset.cpus")


@given(st.frozensets(st.integers(0, 8191)))
def test_a_cpu_list_round_trips(cpus: frozenset[int]) -> None:
    assert cpu_list(format_cpu_list(cpus) + "\n", "f") == cpus


def test_neighbouring_cpus_are_shown_as_a_range() -> None:
    assert format_cpu_list(frozenset({9, 0, 1, 2, 7, 8})) == "0-2,7-9"
    assert format_cpu_list(frozenset({4})) == "4"
    assert format_cpu_list(frozenset()) == ""


def test_a_flat_keyed_file_keeps_values_as_text_and_skips_other_lines() -> None:
    text = "nr_periods 4\nlonely\n\nnested a=1 b=2\nnr_throttled x\n"
    assert flat_keyed(text) == {"nr_periods": "4", "nested": "a=1 b=2", "nr_throttled": "x"}
