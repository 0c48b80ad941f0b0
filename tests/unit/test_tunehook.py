"""The hook `tune`: the target's memory limit follows the change; what is refused is a failed hook."""

from __future__ import annotations

import subprocess

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


def unchanged(target: Target | None, size: int | None) -> Change:
    """A look that has shown the decision to be what it was."""
    new = {} if size is None else {"GOMEMLIMIT": str(size)}
    return Change(new, new, Limits(Standing()), target, None)


def test_it_is_due_where_the_target_holds_something_else_than_was_decided(start: Start) -> None:
    target = start()
    hook = TuneHook("tune", 10)
    assert hook.is_due(unchanged(target, 90 * MIB))
    hook.run(unchanged(target, 90 * MIB))
    assert limit_of(target) == 90 * MIB
    assert not hook.is_due(unchanged(target, 90 * MIB))
    hook.close()


def test_what_the_program_set_itself_is_tried_once(start: Start) -> None:
    target, restarted = (start(controller=state(memory_limit=80 * MIB)) for _ in range(2))
    hook = TuneHook("tune", 10)
    for one in (target, restarted):
        assert hook.is_due(unchanged(one, 90 * MIB))
        with pytest.raises(HookError, match="set its memory limit itself"):
            hook.run(unchanged(one, 90 * MIB))
        assert not hook.is_due(unchanged(one, 90 * MIB))
        assert limit_of(one) == 80 * MIB
    hook.close()


def test_what_was_refused_for_another_reason_is_tried_again(start: Start) -> None:
    fields = {"heap_marked": 90 * MIB, "in_use": 92 * MIB, "mapped_ready": 96 * MIB}
    target = start(controller=state(**fields))
    hook = TuneHook("tune", 10)
    with pytest.raises(HookError, match="too little"):
        hook.run(unchanged(target, 90 * MIB))
    assert hook.is_due(unchanged(target, 90 * MIB))
    hook.close()


def test_where_nothing_is_decided_only_a_limit_of_ours_is_taken_away(start: Start) -> None:
    target = start(controller=state(memory_limit=80 * MIB))
    hook = TuneHook("tune", 10)
    assert not hook.is_due(unchanged(target, None))
    hook.is_due(unchanged(None, 80 * MIB))  # decided once, while another process was the target
    assert hook.is_due(unchanged(target, None))
    hook.close()


def test_it_is_not_due_where_only_something_else_has_changed(start: Start) -> None:
    target = start(controller=state(memory_limit=80 * MIB))
    only_procs = Change({"GOMAXPROCS": "1"}, {"GOMAXPROCS": "2"}, Limits(Standing()), target, None)
    hook = TuneHook("tune", 10)
    assert not hook.is_due(only_procs)
    hook.close()


def test_a_target_that_is_no_go_program_is_passed_over() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        target = Target(find_pid(Host(), str(process.pid)), Host())
        hook = TuneHook("tune", 10)
        assert not hook.is_due(unchanged(target, 90 * MIB))
        assert not hook.is_due(unchanged(None, 90 * MIB))
        hook.close()
        target.release()
        process.kill()


def test_the_config_file_turns_it_on() -> None:
    (hook,) = parse("hooks: [{name: follow, tune: true}]\n", "/c.yaml").hooks
    assert isinstance(hook, TuneHook)
    assert (hook.name, hook.needs_target) == ("follow", True)


@pytest.mark.parametrize(("text", "why"), [("no", "turns nothing on"), ("maybe", "neither yes nor no")])
def test_the_config_file_says_what_is_wrong_with_it(text: str, why: str) -> None:
    with pytest.raises(CgagentError, match=why) as caught:
        parse(f"hooks:\n- tune: {text}\n", "/c.yaml")
    assert caught.value.message.startswith("/c.yaml:2: hooks[0].tune")
