"""Sizes, CPU counts, counts and ratios as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent.errors import UsageError
from cgagent.units import Ratio, format_cores, format_size, parse_count, parse_cpus, parse_ratio, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096b", 4096),
        ("4096B", 4096),
        ("1Ki", 1024),
        ("256Mi", 256 << 20),
        ("256MiB", 256 << 20),
        ("1.5Gi", 3 << 29),
        ("2Ti", 2 << 40),
        ("1Pi", 1 << 50),
        ("7Ei", 7 << 60),
    ],
)
def test_a_size_may_have_kubernetes_binary_suffixes(text: str, size: int) -> None:
    assert parse_size(text, "--x") == size


@pytest.mark.parametrize(("text", "size"), [("1k", 1 << 10), ("512m", 512 << 20), ("2g", 2 << 30), ("1t", 1 << 40)])
def test_a_small_letter_is_dockers_power_of_1024(text: str, size: int) -> None:
    assert parse_size(text, "--x") == size


@pytest.mark.parametrize(("text", "size"), [("1K", 1000), ("1G", 10**9), ("1.5M", 1500000), ("2T", 2 * 10**12)])
def test_a_capital_letter_alone_is_a_power_of_1000(text: str, size: int) -> None:
    assert parse_size(text, "--x") == size


def test_a_size_is_rounded_down_to_a_whole_byte() -> None:
    assert parse_size("1.9", "--x") == 1
    assert parse_size("0.3Ki", "--x") == 307


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mi",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1 Mi",
        "1,5Gi",
        "1e3",
        "0x10",
        "1.",
        ".5",
        "1.2.3",
        "1Xi",
        "1iB",
        "1Mib",
        "1mm",
        "٣",
        "1_000",
        "1\n",
        "inf",
        "nan",
        "1" * 21,
        "1Mi\0",
        "\udc80",
    ],
)
def test_what_is_no_size_is_refused_by_the_options_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--memory-reserve: ") as caught:
        parse_size(text, "--memory-reserve")
    assert caught.value.exit_code == 2


def test_a_size_that_go_could_not_hold_is_refused() -> None:
    assert parse_size("9223372036854775807", "--x") == 2**63 - 1
    for text in ("9223372036854775808", "8Ei", "16Ei"):
        with pytest.raises(UsageError, match="more than any machine has"):
            parse_size(text, "--x")


@pytest.mark.parametrize(
    ("text", "millicores"), [("1.5", 1500), ("1500m", 1500), ("2", 2000), ("0", 0), ("0.001", 1), ("250m", 250)]
)
def test_cpus_are_cores_or_millicores(text: str, millicores: int) -> None:
    assert parse_cpus(text, "--x") == millicores


def test_cpus_are_rounded_up_to_a_whole_millicore() -> None:
    assert parse_cpus("0.0001", "--x") == 1
    assert parse_cpus("1.0005", "--x") == 1001
    assert parse_cpus("0.5m", "--x") == 1


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5.0", "1500M", "1 m", "two", "1e3", "1" * 21])
def test_what_is_no_cpu_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--cpu-limit: .* is not a CPU count"):
        parse_cpus(text, "--cpu-limit")


def test_a_count_is_a_whole_number_of_at_least_the_least() -> None:
    assert parse_count("3", "--x", least=3) == 3
    for text in ("2", "", "3.0", "-3", "+3", "three", "٣", "9" * 21):
        with pytest.raises(UsageError, match="give 3 or more"):
            _line_of(text)


def _line_of(text: str) -> None:
    try:
        parse_count(text, "--x", least=3)
    except UsageError as error:
        raise UsageError(error.line()) from None


@pytest.mark.parametrize(("text", "share"), [("0.9", 900), ("90%", 900), ("1", 1000), ("100%", 1000), ("0.001", 1)])
def test_a_ratio_is_a_decimal_or_a_percentage(text: str, share: int) -> None:
    assert parse_ratio(text, "--x").of(1000) == share


@pytest.mark.parametrize("text", ["", "0", "0%", "1.01", "101%", "-0.5", "%", "90 %", ".9", "nine", "0.9%%"])
def test_a_ratio_is_above_zero_and_at_most_one(text: str) -> None:
    with pytest.raises(UsageError, match="is not a ratio"):
        parse_ratio(text, "--memory-ratio")


def test_a_ratio_is_exact_where_a_float_is_not() -> None:
    # 0.9 as a float is 0.90000000000000002; of 10 that rounds down to 9 alike, of 10**18 it does not.
    assert Ratio(9, 10).of(10**18) == 9 * 10**17
    assert parse_ratio("0.29", "--x").of(100) == 29
    assert int(100 * 0.29) == 28


@given(st.integers(0, 2**63 - 1), st.integers(1, 10**6))
def test_a_share_is_the_floor_of_the_exact_product(amount: int, millionth: int) -> None:
    share = Ratio(millionth, 10**6).of(amount)
    assert share * 10**6 <= amount * millionth < (share + 1) * 10**6


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1536, "1.5Ki"), (256 << 20, "256Mi"), (241591910, "230.4Mi")],
)
def test_a_size_is_shown_in_the_largest_binary_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(("cores", "text"), [(1.5, "1.5"), (2.0, "2"), (0.25, "0.25"), (1 / 3, "0.333"), (10.0, "10")])
def test_cores_are_shown_without_needless_digits(cores: float, text: str) -> None:
    assert format_cores(cores) == text


@given(st.integers(0, 2**63 - 1))
def test_plain_bytes_mean_themselves(size: int) -> None:
    assert parse_size(str(size), "--x") == size
