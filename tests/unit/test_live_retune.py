"""A limit goes from one value to another so that nobody ever sees less than the smaller of both; what may harm is
refused. The program is made by hand; what real ones do with it is specified in tests/live."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgagent.golang.live import LiveError, Program
from cgagent.golang.live.errors import OWN_CHOICE, REFUSED
from cgagent.golang.live.ledger import Ledger
from cgagent.golang.live.retune import Change, apply_follow, apply_limit, plan_follow, plan_limit, steps
from support import go_program
from support.go_state import MIB, NO_LIMIT, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Open = Callable[..., Program]

LIMITS = st.integers(0, NO_LIMIT)


@pytest.fixture
def opened(public: str) -> Iterator[Open]:
    """Make a program, start it, and look into it for writing."""
    processes: list[subprocess.Popen[bytes]] = []
    programs: list[Program] = []

    def run(**changes: object) -> Program:
        processes.append(go_program.start(go_program.build(f"{public}/program{len(processes)}", **changes)))
        programs.append(Program(str(processes[-1].pid), write=True))
        return programs[-1]

    yield run
    for program in programs:
        program.close()
    for process in processes:
        process.kill()
        process.wait()


@given(LIMITS, LIMITS)
@example(0x10000100, 0x0FFFFFF0)
@example(NO_LIMIT, 1)
@example(1, NO_LIMIT)
@example(0, 0)
def test_no_value_on_the_way_is_below_the_smaller_of_both(old: int, new: int) -> None:
    data = bytearray(old.to_bytes(8, "little"))
    for offset, byte, value in steps(old, new):
        assert data[offset] != byte, "a byte that does not change is not written"
        data[offset] = byte
        assert int.from_bytes(data, "little") == value
        assert min(old, new) <= value <= NO_LIMIT
    assert int.from_bytes(data, "little") == new


@pytest.mark.parametrize(("old", "new"), [(NO_LIMIT, 90 * MIB), (90 * MIB, 400 * MIB + 1), (400 * MIB, NO_LIMIT)])
def test_a_limit_is_written_and_read_back(opened: Open, old: int, new: int) -> None:
    program = opened(controller=state(memory_limit=old))
    change = plan_limit(program, new, {old})
    assert change == Change(old, new)
    assert program.state().memory_limit == old, "planning writes nothing"
    apply_limit(program, change)
    assert program.state().memory_limit == new


def test_nothing_but_the_limits_bytes_is_written(opened: Open) -> None:
    program = opened()
    before = program.image.read_all(go_program.DATA, go_program.END - go_program.DATA)
    apply_limit(program, plan_limit(program, 90 * MIB, {NO_LIMIT}))
    after = program.image.read_all(go_program.DATA, go_program.END - go_program.DATA)
    limit = go_program.CONTROLLER + 8 - go_program.DATA
    assert after == before[:limit] + (90 * MIB).to_bytes(8, "little") + before[limit + 8 :]


@pytest.mark.parametrize("size", [24 * MIB, 28 * MIB, 1])
def test_a_limit_below_what_is_live_with_a_margin_is_refused(opened: Open, size: int) -> None:
    # 20 MiB of live heap, 4 beside the heap, and a margin of 4
    program = opened()
    with pytest.raises(LiveError, match="too little for what the program keeps") as caught:
        plan_limit(program, size, {NO_LIMIT}, force=True)
    assert caught.value.kind == REFUSED
    assert "give more than 28Mi" in caught.value.hint
    plan_limit(program, 28 * MIB + 1, {NO_LIMIT})


def test_the_margin_grows_with_what_is_live(opened: Open) -> None:
    program = opened(controller=state(heap_marked=196 * MIB, in_use=200 * MIB, mapped_ready=206 * MIB))
    with pytest.raises(LiveError) as caught:
        plan_limit(program, 220 * MIB, {NO_LIMIT})
    assert "give more than 220Mi" in caught.value.hint


def test_a_limit_that_is_too_low_already_may_be_raised(opened: Open) -> None:
    program = opened(controller=state(memory_limit=10 * MIB))
    assert plan_limit(program, 20 * MIB, {10 * MIB}).new == 20 * MIB


@pytest.mark.parametrize("size", [0, -1, NO_LIMIT + 1])
def test_what_is_no_limit_is_refused(opened: Open, size: int) -> None:
    with pytest.raises(LiveError, match="no memory limit"):
        plan_limit(opened(), size, {NO_LIMIT})


def test_a_limit_that_the_program_set_itself_is_left_alone_unless_forced(opened: Open) -> None:
    program = opened(controller=state(memory_limit=80 * MIB))
    with pytest.raises(LiveError, match="set its memory limit itself") as caught:
        plan_limit(program, 90 * MIB, {NO_LIMIT, 90 * MIB})
    assert caught.value.kind == OWN_CHOICE
    assert plan_limit(program, 90 * MIB, {NO_LIMIT}, force=True).old == 80 * MIB


def follow(program: Program, **words: bool) -> bool:
    return plan_follow(program, set_by_environment=words.get("env", True), force=words.get("force", False))


def test_gomaxprocs_is_handed_back_by_the_one_byte(opened: Open) -> None:
    program = opened()
    before = program.image.read_all(go_program.DATA, go_program.END - go_program.DATA)
    assert follow(program)
    apply_follow(program)
    after = program.image.read_all(go_program.DATA, go_program.END - go_program.DATA)
    custom = go_program.CUSTOM - go_program.DATA
    assert after == before[:custom] + b"\0" + before[custom + 1 :]
    assert not follow(program), "it follows already"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "go1.24.11"}, "no Go before 1.25 follows its quota"),
        ({"cgroup_ok": 0}, "found no quota file"),
        ({"cgroup_ok": 0, "custom": 0}, "found no quota file"),
        ({"idle": 0}, "takes no updates"),
        ({"custom": 2}, "not found beyond doubt"),
        ({"idle": 255}, "not found beyond doubt"),
        ({"cgroup_ok": 7}, "not found beyond doubt"),
    ],
)
def test_gomaxprocs_is_not_handed_back_where_the_runtime_would_not_follow(
    opened: Open, changes: dict[str, object], why: str
) -> None:
    program = opened(**changes)
    with pytest.raises(LiveError, match=why) as caught:
        follow(program, force=True)
    assert caught.value.kind == REFUSED


def test_a_gomaxprocs_that_the_program_set_itself_is_left_alone_unless_forced(opened: Open) -> None:
    program = opened()
    with pytest.raises(LiveError, match="set GOMAXPROCS itself") as caught:
        follow(program, env=False)
    assert caught.value.kind == OWN_CHOICE
    assert follow(program, env=False, force=True)


def test_nothing_is_written_on_another_machine(opened: Open) -> None:
    program = opened()
    program.image.machine = 183
    for plan in (lambda: plan_limit(program, 90 * MIB, {NO_LIMIT}), lambda: follow(program)):
        with pytest.raises(LiveError, match="amd64 alone"):
            plan()


def test_without_write_access_nothing_can_be_written(opened: Open) -> None:
    reading = Program(opened().pid)
    try:
        with pytest.raises(LiveError):
            apply_limit(reading, Change(NO_LIMIT, 90 * MIB))
        assert reading.state().memory_limit == NO_LIMIT
    finally:
        reading.close()


def test_what_was_written_is_remembered_for_the_life_of_the_process(opened: Open, tmp_path: object) -> None:
    environ = {"CGAGENT_STATE_DIR": f"{tmp_path}/state"}
    first, second = opened(), opened()
    assert Ledger(first.pid, environ).note(Change(NO_LIMIT, 90 * MIB))
    known = Ledger(first.pid, environ).known()
    # An interrupted change may have left any value on the way.
    assert known == {NO_LIMIT, 90 * MIB, *(value for *_, value in steps(NO_LIMIT, 90 * MIB))}
    assert Ledger(second.pid, environ).known() == set()


def test_what_was_written_to_processes_that_ended_is_forgotten(opened: Open, tmp_path: object) -> None:
    directory = f"{tmp_path}/state"
    os.mkdir(directory, 0o700)
    for name in ("tuned-4194304-12", "tuned-1-0", "other"):
        with open(f"{directory}/{name}", "w", encoding="ascii"):
            pass
    program = opened()
    Ledger(program.pid, {"CGAGENT_STATE_DIR": directory}).note(Change(1, 2))
    names = os.listdir(directory)
    assert len(names) == 2
    assert "other" in names


@pytest.mark.parametrize("text", ["", "12", "a b\n", "1 2 3", "-1 5", f"1 {1 << 70}"])
def test_a_damaged_note_is_none(opened: Open, tmp_path: object, text: str) -> None:
    ledger = Ledger(opened().pid, {"CGAGENT_STATE_DIR": f"{tmp_path}/state"})
    assert ledger.path is not None
    with open(ledger.path, "w", encoding="ascii") as file:
        file.write(text)
    assert ledger.known() == set()


def test_a_directory_that_others_can_write_to_is_not_trusted(tmp_path: object) -> None:
    directory = f"{tmp_path}/state"
    os.mkdir(directory)
    os.chmod(directory, 0o777)
    path = Ledger(str(os.getpid()), {"CGAGENT_STATE_DIR": directory}).path
    assert path is not None
    assert not path.startswith(directory)
    assert not stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) & 0o022


def test_a_link_is_no_directory_of_ours(tmp_path: object) -> None:
    os.mkdir(f"{tmp_path}/real", 0o700)
    os.symlink(f"{tmp_path}/real", f"{tmp_path}/link")
    path = Ledger(str(os.getpid()), {"CGAGENT_STATE_DIR": f"{tmp_path}/link"}).path
    assert path is not None
    assert not path.startswith(f"{tmp_path}/link")
