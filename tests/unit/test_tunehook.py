"""The hook `tune`: the target's memory limit follows the change; what is refused is a failed hook."""

from __future__ import annotations

import pytest

from cgagent.cgroup.limits import Limits
from cgagent.cgroup.process import Standing
from cgagent.errors import CgagentError
from cgagent.golang.live import Program
from cgagent.host import Host
from cgagent.watch.config import parse
from cgagent.watch.hooks import Change, HookError
from cgagent.watch.kinds import parse_hook
from cgagent.watch.target import Target, find_pid
from cgagent.watch.tunehook import TuneHook
from support import go_program
from support.go_state import MIB, NO_LIMIT, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Start = Callable[..., Target]


@pytest.fixture
def start(public: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Make a program, start it, and take it for the target."""
    monkeypatch.setenv("CGAGENT_STATE_DIR", f"{public}/state")
    processes: list[subprocess.Popen[bytes]] = []
    targets: list[Target] = []

    def run(**changes: object) -> Target:
        processes.append(go_program.start(go_program.build(f"{public}/program{len(processes)}", **changes)))
        targets.append(Target(find_pid(Host(), str(processes[-1].pid)), Host()))
        return targets[-1]

    yield run
    for process, target in zip(processes, targets, strict=True):
        target.release()
        process.kill()
        process.wait()


def change(target: Target | None, size: int | None) -> Change:
    new = {} if size is None else {"GOMEMLIMIT": str(size)}
    return Change({}, new, Limits(Standing()), target, None)


def limit_of(target: Target) -> int:
    program = Program(target.pid)
    try:
        return program.state().memory_limit
    finally:
        program.close()


def test_the_target_follows_each_change(start: Start) -> None:
    target = start()
    hook = parse_hook("tune", "--hook")
    for size in (90 * MIB, 60 * MIB, None):
        hook.run(change(target, size))
        assert limit_of(target) == (size or NO_LIMIT)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"memory_limit": 80 * MIB}, "the program set its memory limit itself"),
        ({"heap_marked": 90 * MIB, "in_use": 92 * MIB, "mapped_ready": 96 * MIB}, "too little"),
        ({"test": 1}, "contradicts itself"),
    ],
)
def test_what_is_refused_is_a_failure_and_writes_nothing(start: Start, fields: dict[str, int], why: str) -> None:
    target = start(controller=state(**fields))
    with pytest.raises(HookError, match=why):
        TuneHook("tune", 10).run(change(target, 90 * MIB))


def test_without_a_running_target_it_fails(start: Start) -> None:
    with pytest.raises(HookError, match="not running"):
        TuneHook("tune", 10).run(change(None, 90 * MIB))
    target = start()
    target._start = -1  # as if its PID had gone to another process since
    with pytest.raises(HookError, match="not running"):
        TuneHook("tune", 10).run(change(target, 90 * MIB))
    assert limit_of(target) == NO_LIMIT


def test_the_config_file_turns_it_on() -> None:
    (hook,) = parse("hooks: [{name: follow, tune: true}]\n", "/c.yaml").hooks
    assert isinstance(hook, TuneHook)
    assert (hook.name, hook.needs_target) == ("follow", True)


@pytest.mark.parametrize(("text", "why"), [("no", "turns nothing on"), ("maybe", "neither yes nor no")])
def test_the_config_file_says_what_is_wrong_with_it(text: str, why: str) -> None:
    with pytest.raises(CgagentError, match=why) as caught:
        parse(f"hooks:\n- tune: {text}\n", "/c.yaml")
    assert caught.value.message.startswith("/c.yaml:2: hooks[0].tune")
