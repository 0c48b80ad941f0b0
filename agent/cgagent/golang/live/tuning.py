"""A memory limit brought to a running program from beginning to end: looked into, checked, noted, written."""

from __future__ import annotations

from cgagent.golang import libraries
from cgagent.golang.live.errors import OWN_CHOICE, LiveError
from cgagent.golang.live.ledger import Ledger
from cgagent.golang.live.retune import Change, apply_limit, plan_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.golang.live.program import Program


class Done(Change):
    """A change that was made, or would be.

    Attributes:
        noted: whether the next change will know this one's value to be ours.
    """

    __slots__ = ("noted",)

    def __init__(self, change: Change, noted: bool) -> None:
        super().__init__(change.old, change.new)
        self.noted = noted


def tune_limit(
    program: Program, size: int, started_with: set[int], *, force: bool = False, dry_run: bool = False
) -> Done:
    """Bring a memory limit of `size` bytes to `program`, unless it has it already.

    `started_with` holds the limit that its environment gave it, or nothing where that is not known.

    Raises:
        LiveError: refused, and why; or the process has ended; or its state is not beyond doubt.
    """
    ledger = Ledger(program.pid)
    try:
        change = plan_limit(program, size, started_with | ledger.known(), force=force)
    except LiveError as error:
        setters = [str(one) for one in libraries.find(program.build.dependencies) if one.sets == "GOMEMLIMIT"]
        if error.kind != OWN_CHOICE or not setters:
            raise
        raise LiveError(f"{error.message} ({', '.join(setters)} is linked in)", OWN_CHOICE, error.hint) from None
    if dry_run or change.old == change.new:
        return Done(change, noted=True)
    # Before the first byte: whatever is left when we are killed has to be known for ours.
    noted = ledger.note(change)
    apply_limit(program, change)
    return Done(change, noted)
