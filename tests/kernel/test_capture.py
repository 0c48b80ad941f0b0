"""Captures of real cgroups: what `explain --root` tells of one is what `explain` told of the process itself."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from cgagent.capture import load
from kernel import agent, cgroups
from kernel.cgroups import MIB, Group
from kernel.test_namespaces import CONTAINER, POD, bound, container, namespaced, private, waiting
from support.accounts import NOBODY, runs_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["container"]

BINDING = (CONTAINER[0] / 100_000, POD[1])  # CPUs, bytes
VIEWS = {"bare": lambda group: group.enter([]), "private": private, "bound": bound, "namespaced": namespaced}


def alike(explained: dict[str, Any]) -> dict[str, Any]:
    """A document without paths of roots, and of numbers that pass as time does whether there is one.

    How much was throttled is such a number, and with it the level of what it is a finding of, or whether it is one.
    """
    told = json.loads(json.dumps(explained))
    told.pop("capture", None)
    del told["process"], told["running"], told["go"]
    told["usage"] = _counted(told["usage"])
    told["findings"] = [(one["id"], one["level"]) for one in told["findings"] if one["id"] != "cpu-throttled"]
    same: dict[str, Any] = told
    return same


def _counted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _counted(one) for name, one in value.items()}
    return value is not None


@pytest.mark.parametrize("view", VIEWS)
def test_a_capture_from_inside_explains_as_the_container_itself_does(
    container: Group, view: str, tmp_path: object
) -> None:
    prefix = VIEWS[view](container)
    live = agent.document(agent.succeed([*prefix, *agent.CGAGENT, "explain", "-o", "json"]).stdout)
    archive = subprocess.run([*prefix, *agent.CGAGENT, "capture", "-"], capture_output=True, check=True).stdout
    path = f"{tmp_path}/c.tar.gz"
    with open(path, "wb") as file:
        file.write(archive)

    captured = agent.explain("--root", path)

    assert captured["process"]["root"] == path
    assert alike(captured) == alike(live)
    assert captured["limits"]["cpu"]["cores"] in (CONTAINER[0] / 100_000, POD[0] / 100_000, None)
    if view == "bare":
        assert (captured["limits"]["cpu"]["cores"], captured["limits"]["memory"]["bytes"]) == BINDING
        assert load(path).meta.affinity is not None


@pytest.mark.parametrize("view", VIEWS)
def test_a_capture_from_outside_shows_the_container_as_it_sees_itself(
    container: Group, view: str, tmp_path: object, start: Callable[..., subprocess.Popen[str]]
) -> None:
    prefix = VIEWS[view](container)
    live = agent.document(agent.succeed([*prefix, *agent.CGAGENT, "explain", "-o", "json"]).stdout)
    path = f"{tmp_path}/c.tar.gz"

    agent.succeed([*agent.CGAGENT, "capture", "--pid", waiting(start, prefix), path])

    assert load(path).meta.view == "inside"
    assert alike(agent.explain("--root", path)) == alike(live)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.skipif(not runs_python(), reason="needs root, and an interpreter that nobody reaches")
def test_somebody_else_captures_what_he_may_see_and_no_other_cgroup(
    container: Group, view: str, start: Callable[..., subprocess.Popen[str]], tmp_path: object
) -> None:
    """Its root is closed to him: what our own mounts show of its cgroups is captured, as `explain --pid` reads it."""
    pid = waiting(start, VIEWS[view](container))
    path = f"{tmp_path}/c.tar.gz"
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *agent.CGAGENT]
    live = agent.document(agent.succeed([*as_nobody, "explain", "--pid", pid, "-o", "json"]).stdout)

    with open(path, "wb") as file:
        subprocess.run([*as_nobody, "capture", "--quiet", "--pid", pid, "-"], stdout=file, check=True)

    captured = agent.explain("--root", path)
    assert captured["limits"] == live["limits"]
    assert (captured["limits"]["cpu"]["cores"], captured["limits"]["memory"]["bytes"]) == BINDING
    if view != "bare":
        assert load(path).meta.view == "outside"


def test_a_capture_of_a_process_here_explains_as_its_pid_does(
    container: Group, sleeper: Callable[..., int], tmp_path: object
) -> None:
    pid, path = str(sleeper(container)), f"{tmp_path}/c.tar.gz"
    agent.succeed([*agent.CGAGENT, "capture", "--pid", pid, "--blank-paths", path])

    assert alike(agent.explain("--root", path)) == alike(agent.explain("--pid", pid))
    assert load(path).meta.pid == int(pid)


def test_it_holds_each_level_and_no_file_that_lists_processes(container: Group, tmp_path: object) -> None:
    path = f"{tmp_path}/c.tar.gz"
    agent.succeed([*agent.CGAGENT, "capture", path], container)

    files = load(path).files
    for group in (container, container.parent):
        assert group is not None
        assert files[group.quota_file].decode() == cgroups.read(group.quota_file) + "\n"
        assert files[group.memory_file].decode() == cgroups.read(group.memory_file) + "\n"
    assert not [name for name in files if name.endswith(("cgroup.procs", "tasks", "cgroup.threads"))]
    assert os.path.getsize(path) < 64 << 10


def test_a_cgroup_that_is_removed_meanwhile_leaves_a_capture_all_the_same(
    top: Group, sleeper: Callable[..., int], tmp_path: object
) -> None:
    """Processes that end, and cgroups that go, while captures are taken of them."""
    for number in range(10):
        child = top.child(f"c{number}")
        pid = sleeper(child)
        words = [*agent.CGAGENT, "capture", "--quiet", "--force", "--pid", str(pid), f"{tmp_path}/{number}.tar.gz"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as taking:
            child.remove()
            _, told = taking.communicate()
        assert "Traceback" not in told
        assert told.count("\n") <= 1
        if taking.returncode == 0:
            agent.explain("--root", f"{tmp_path}/{number}.tar.gz")
        else:
            assert (taking.returncode, "there is no process" in told) == (1, True)


def test_a_tree_of_64_levels_is_captured_whole(top: Group, tmp_path: object) -> None:
    deepest = top
    for level in range(60):
        deepest = deepest.child(f"level-{level}")
    top.set_memory(64 * MIB)
    path = f"{tmp_path}/c.tar.gz"
    agent.succeed([*agent.CGAGENT, "capture", path], deepest)

    explained = agent.explain("--root", path)

    assert explained["limits"]["memory"]["bytes"] == 64 * MIB
    assert len({link["path"] for link in explained["limits"]["cpu"]["chain"]}) >= 61


LAUNCHED = [*agent.CGAGENT, "run", "--cpus", "1.5", "--memory", "96Mi", "--"]


def _descendant(pid: int, name: str) -> str:
    """The PID of the program called `name` below `pid`, once it is there."""
    for _ in range(1200):
        queue = [str(pid)]
        for one in queue:
            try:
                with (
                    open(f"/proc/{one}/comm", encoding="ascii") as comm,
                    open(f"/proc/{one}/task/{one}/children") as kids,
                ):
                    if comm.read().strip() == name:
                        return one
                    queue += kids.read().split()
            except OSError:
                pass  # it ended meanwhile
        time.sleep(0.05)
    raise AssertionError(f"no {name} below {pid}")


def test_a_program_under_cgagent_run_is_captured_as_it_sees_itself(
    writable: None,  # noqa: ARG001 asked for its effect
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: object,
) -> None:
    live = agent.document(agent.succeed([*LAUNCHED, *agent.CGAGENT, "explain", "-o", "json"]).stdout)
    assert (live["limits"]["cpu"]["cores"], live["limits"]["memory"]["bytes"]) == (1.5, 96 * MIB)
    within, outside = f"{tmp_path}/within.tar.gz", f"{tmp_path}/outside.tar.gz"
    with open(within, "wb") as file:
        subprocess.run([*LAUNCHED, *agent.CGAGENT, "capture", "--quiet", "-"], stdout=file, check=True)
    pid = _descendant(start([*LAUNCHED, "sleep", "600"]).pid, "sleep")

    agent.succeed([*agent.CGAGENT, "capture", "--pid", pid, outside])

    assert alike(agent.explain("--root", within)) == alike(live)
    assert alike(agent.explain("--root", outside)) == alike(live)


def test_what_replay_shows_of_a_capture_explains_as_the_live_container_did(container: Group, tmp_path: object) -> None:
    live = agent.explain(group=container)
    path = f"{tmp_path}/c.tar.gz"
    agent.succeed([*agent.CGAGENT, "capture", path], container)

    shown = agent.succeed([*agent.CGAGENT, "run", "--replay", path, "--", *agent.CGAGENT, "explain", "-o", "json"])

    assert alike(agent.document(shown.stdout)) == alike(live)
