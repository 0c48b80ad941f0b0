"""A running Go program, read and retuned from outside: no symbols, no library in it."""

from cgagent.golang.live.errors import DENIED, FOREIGN, GONE, LiveError
from cgagent.golang.live.program import Program, Running

__all__ = ["DENIED", "FOREIGN", "GONE", "LiveError", "Program", "Running"]
