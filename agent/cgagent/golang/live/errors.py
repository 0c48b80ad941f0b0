"""Why a running program can't be looked into."""

from __future__ import annotations

from cgagent.errors import CgagentError

GONE = "gone"
DENIED = "denied"
FOREIGN = "foreign"
UNKNOWN = "unknown"
UNSETTLED = "unsettled"
REFUSED = "refused"
OWN_CHOICE = "own choice"


class LiveError(CgagentError):
    """A process whose Go runtime is not read, or not written to.

    Attributes:
        kind: GONE (it ended, or runs another program now), DENIED (the kernel refuses), FOREIGN (no Go program),
            UNKNOWN (a Go program of a kind, or in a state, that is not understood), UNSETTLED (it is being changed
            at this moment: worth another try), REFUSED (what was asked for might do harm),
            OWN_CHOICE (the program set it itself).
    """

    def __init__(self, message: str, kind: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.kind = kind
