"""The text of modules and settings, against what Go's runtime/debug.ParseBuildInfo makes of it."""

from __future__ import annotations

import pytest

from cgagent.errors import MalformedError
from cgagent.golang.modinfo import Dependency, parse_modinfo, unquote


class TestLines:
    def test_reads_path_module_dependencies_and_settings(self) -> None:
        modules = parse_modinfo(
            "path\texample.com/a/cmd/b\n"
            "mod\texample.com/a\t(devel)\t\n"
            "dep\texample.com/plain\tv1.2.3\th1:x=\n"
            "dep\texample.com/old\tv0.9.0\n"
            "=>\texample.com/new\tv0.9.1\th1:y=\n"
            "dep\texample.com/local\tv0.0.0\n"
            "=>\t./local\t(devel)\t\n"
            "build\tGOOS=linux\n"
            "build\tCGO_CFLAGS=\n"
        )
        assert modules.path == "example.com/a/cmd/b"
        assert modules.main == Dependency("example.com/a", "(devel)")
        assert modules.dependencies == [
            Dependency("example.com/plain", "v1.2.3", "h1:x="),
            Dependency("example.com/old", "v0.9.0", "", Dependency("example.com/new", "v0.9.1", "h1:y=")),
            Dependency("example.com/local", "v0.0.0", "", Dependency("./local", "(devel)")),
        ]
        assert modules.settings == {"GOOS": "linux", "CGO_CFLAGS": ""}

    def test_skips_lines_of_other_kinds_and_a_last_one_without_its_end(self) -> None:
        modules = parse_modinfo("tool\texample.com/x\n\npath\tfirst\npath\tcut off")
        assert modules.path == "first"

    @pytest.mark.parametrize(
        "line",
        [
            "mod\tonly-a-path",
            "dep\ta\tb\tc\td",
            "=>\ta\tv1\th1:x=",  # replaces nothing
            "build\t",
            "build\t=value",
            "build\tno-sign",
            "build\ta key=value",
            "build\tkey=two words",
            'build\tkey="unfinished',
            'build\t"key"',
            'build\t"key"x=1',
            'build\t"unfinished=1',
        ],
    )
    def test_refuses_a_line_that_go_would_refuse(self, line: str) -> None:
        with pytest.raises(MalformedError):
            parse_modinfo(line + "\n")

    def test_refuses_a_replacement_of_two_fields(self) -> None:
        with pytest.raises(MalformedError):
            parse_modinfo("dep\ta\tv1\n=>\tb\tv2\n")

    def test_a_module_is_replaced_once(self) -> None:
        with pytest.raises(MalformedError):
            parse_modinfo("dep\ta\tv1\n=>\tb\tv2\t\n=>\tc\tv3\t\n")


class TestQuotes:
    @pytest.mark.parametrize(
        ("line", "key", "value"),
        [
            ('-ldflags="-s -w -X \\"main.note=two words\\""', "-ldflags", '-s -w -X "main.note=two words"'),
            ('-gcflags=`a "b" \\n`', "-gcflags", 'a "b" \\n'),
            ('"a key"=plain', "a key", "plain"),
            ('"a\\"=key"="a value"', 'a"=key', "a value"),
            ("CGO_LDFLAGS=-O2=x", "CGO_LDFLAGS", "-O2=x"),
            ('empty=""', "empty", ""),
        ],
    )
    def test_reads_quoted_keys_and_values(self, line: str, key: str, value: str) -> None:
        assert parse_modinfo(f"build\t{line}\n").settings == {key: value}

    @pytest.mark.parametrize(
        ("literal", "text"),
        [
            (r'"\a\b\f\n\r\t\v\\\'\""', "\a\b\f\n\r\t\v\\'\""),
            (r'"\x41\101\u00e9\U0001F600"', "AA\u00e9\U0001f600"),
            (r'"\xc3\xa9"', "\u00e9"),  # two bytes, one character
            (r'"\xff"', "\udcff"),  # a byte that is no UTF-8
            ('"h\u00e9"', "h\u00e9"),
            ("`raw \\x41`", "raw \\x41"),
            ("`a\r\nb`", "a\nb"),
        ],
    )
    def test_undoes_the_escapes_of_a_go_string(self, literal: str, text: str) -> None:
        assert unquote(literal) == text

    @pytest.mark.parametrize(
        "literal",
        [
            "",
            '"',
            "`",
            '"a',
            'a"',
            '"a"b',
            '"a"b"',
            r'"\q"',
            r'"\x4"',
            r'"\xzz"',
            r'"\x+1"',
            r'"\u12"',
            r'"\400"',
            r'"\8"',
            r'"\ud800"',
            r'"\U00110000"',
            r'"\"',
        ],
    )
    def test_what_is_no_go_string_is_none(self, literal: str) -> None:
        assert unquote(literal) is None


class TestRelease:
    @pytest.mark.parametrize(
        ("version", "release"),
        [
            ("v1.6.0", (1, 6, 0)),
            ("v0.7.5-pre.1", (0, 7, 5)),
            ("v1.5.4-0.20230701120000-abcdefabcdef", (1, 5, 4)),
            ("v2.0.0+incompatible", (2, 0, 0)),
            ("v0.0.0-20230701120000-abcdefabcdef", None),
            ("(devel)", None),
            ("", None),
            ("v1", None),
            ("v1." + "9" * 5000 + ".0", None),
        ],
    )
    def test_is_the_numbers_of_the_version(self, version: str, release: tuple[int, ...] | None) -> None:
        assert Dependency("example.com/a", version).release == release

    def test_is_that_of_the_module_that_took_its_place(self) -> None:
        assert Dependency("a", "v1.0.0", "", Dependency("b", "v2.3.4")).release == (2, 3, 4)
