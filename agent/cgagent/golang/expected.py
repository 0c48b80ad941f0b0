"""What a program is expected to set without help, and the libraries in it that do so."""

from __future__ import annotations

from cgagent.record import Record

# Who sets a value; else the library's module path.
RUNTIME = "runtime"
ENVIRONMENT = "environment"


class Expected(Record):
    """The value of GOMAXPROCS, or of the memory limit in bytes, that a program has once it runs.

    Attributes:
        value: the number; None where it is not known.
        reason: why, in words.
        setter: RUNTIME, ENVIRONMENT, or the module path of the library that sets it.
        follows: whether it comes to follow a change of the cgroup's limit while the program runs.
    """

    __slots__ = ("follows", "reason", "setter", "value")

    def __init__(self, value: int | None, reason: str, setter: str = RUNTIME, *, follows: bool = False) -> None:
        self.value = value
        self.reason = reason
        self.setter = setter
        self.follows = follows


class Library(Record):
    """A module in the program that is there to set one of the variables.

    Attributes:
        name: its module path.
        version: the version that is linked in; empty for a directory on the builder's disk.
        sets: GOMAXPROCS or GOMEMLIMIT.
        notes: what this version does not do, each a sentence without a subject.
    """

    __slots__ = ("name", "notes", "sets", "version")

    def __init__(self, name: str, version: str, sets: str, notes: tuple[str, ...]) -> None:
        self.name = name
        self.version = version
        self.sets = sets
        self.notes = notes

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()
