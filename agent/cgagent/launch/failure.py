"""The launcher's own failures: one line each, exit code 125."""

from __future__ import annotations

from cgagent.errors import EXIT_RUN_FAILED, CgagentError


def failure(message: str, hint: str = "") -> CgagentError:
    """The container cannot be set up."""
    return CgagentError(message, hint, EXIT_RUN_FAILED)


def reason(error: OSError) -> str:
    """The kernel's words for an error, as the end of a line."""
    return (error.strerror or str(error)).lower()


def refused(error: OSError) -> CgagentError:
    """A system call of the set-up that failed, named by what it was to do."""
    what = error.filename2 or error.filename
    text = what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)
    return failure(f"cannot set up the container: {text if what is not None else 'a system call'}: {reason(error)}")
