"""The one error type of the project. The command line prints it, nothing else does."""

from __future__ import annotations

import errno

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_NO_LIMITS = 3
EXIT_CONFIG = 78
EXIT_RUN_FAILED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127

_NOT_EXECUTABLE_HINTS = {
    errno.EACCES: "name a file that this user may execute",
    errno.ENOEXEC: "a script starts with a line such as #!/bin/sh, a program is built for this machine",
    errno.E2BIG: "give it fewer or shorter arguments",
}


class CgagentError(Exception):
    """A failure that a person can act on, told in one line.

    Attributes:
        message: what went wrong and where.
        hint: how to mend it; may be empty.
        exit_code: what the process ends with (design: 1 run time, 2 usage, 3 no limits, 78 config,
            125 to 127 for commands that could not be started).
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def line(self) -> str:
        """The message and its hint as one printable line, whatever text went into them."""
        text = f"{self.message}: {self.hint}" if self.hint else self.message
        return printable(text)


class UsageError(CgagentError):
    """The caller's words are off: an option, an argument or an environment twin of one."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, EXIT_USAGE)


def not_started(name: str, error: OSError, *, found: bool, where: str = "PATH") -> CgagentError:
    """Why execve(2) refuses the program `name`, looked for in `where`; `found` is whether there is such a file."""
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        reason = (error.strerror or str(error)).lower()
        return CgagentError(f"{name}: {reason}", _NOT_EXECUTABLE_HINTS.get(error.errno or 0, ""), EXIT_NOT_EXECUTABLE)
    if found:
        # The kernel says ENOENT for the file that the #! line or the ELF header names, too.
        hint = "install the interpreter of its #! line, or the loader that it was linked for"
        return CgagentError(f"{name}: found, but not what it needs to run", hint, EXIT_NOT_EXECUTABLE)
    return CgagentError(f"{name}: not found", f"check the name and {where}", EXIT_NOT_FOUND)


def printable(text: str) -> str:
    """`text` with control characters and undecodable bytes escaped: what we read is untrusted."""
    if text.isprintable():
        return text
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


class MalformedError(CgagentError):
    """A kernel file that does not hold what the kernel writes there.

    Attributes:
        file: its name or path.
        text: the offending piece of it.
        why: what was expected.
    """

    def __init__(self, file: str, text: str, why: str) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"{file} is malformed: {why}, got '{shown}'")
        self.file = file
        self.text = text
        self.why = why

    def at(self, file: str) -> MalformedError:
        """The same about `file`, where only the caller knows the whole path."""
        return MalformedError(file, self.text, self.why)
