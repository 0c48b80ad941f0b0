"""What a change sets off: hooks, counters that outlive the agent, readiness, a config that is read again."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from kernel.cgroups import MIB, Group, read, write
from watch.sidecar import PATIENCE, UNBOUND, Sidecar, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Start = Callable[..., Sidecar]
    RunIn = Callable[..., subprocess.Popen[str]]

# Tells each SIGHUP, and that it is ready for one.
_LISTENER = """
import signal, time
signal.signal(signal.SIGHUP, lambda *_: print("hup", flush=True))
print("ready", flush=True)
while True:
    time.sleep(600)
"""
_HOG = "import time; data = bytearray(200 << 20); time.sleep(600)"


def _config(place: str, text: str) -> str:
    """A config file with this text; one that is there is replaced: written in place, it would be empty for a moment."""
    path = f"{place}/watch.yaml"
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(f"{path}.new", path)
    return path


def test_with_errors_ignored_what_was_known_is_kept_while_it_cannot_be_read(
    top: Group, sidecar: Start, place: str
) -> None:
    """A container that starts is not to be read for some milliseconds: no reason to empty its env file."""
    top.set_memory(64 * MIB)
    garbage = f"{place}/garbage"
    with open(garbage, "w", encoding="ascii") as file:
        file.write("sixty-four\n")
    own = ["unshare", "--mount", "--propagation", "private"]
    agent = sidecar("--on-error", "ignore", group=top, prefix=own).ready()
    inside = ["nsenter", "--mount", "--target", str(agent.pid)]
    subprocess.run([*inside, "mount", "--bind", garbage, top.memory_file], check=True)

    top.set_quota(100_000)

    agent.shows(1, 64 * MIB * 9 // 10)
    agent.says("GOMEMLIMIT: ")
    subprocess.run([*inside, "umount", top.memory_file], check=True)
    top.set_memory(96 * MIB)
    agent.shows(1, 96 * MIB * 9 // 10)


def test_with_errors_ignored_what_was_never_known_is_left_out(top: Group, sidecar: Start, place: str) -> None:
    top.set_quota(100_000)
    garbage = f"{place}/garbage"
    with open(garbage, "w", encoding="ascii") as file:
        file.write("sixty-four\n")
    script = f'mount --bind {garbage} {top.memory_file}; exec "$@"'
    own = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    agent = sidecar("--on-error", "ignore", group=top, prefix=own).ready()
    assert agent.env() == (1, None)


def test_a_signal_reaches_the_target_after_the_env_file_is_written(top: Group, sidecar: Start) -> None:
    top.set_memory(64 * MIB)
    with subprocess.Popen(top.enter([sys.executable, "-c", _LISTENER]), stdout=subprocess.PIPE, text=True) as target:
        try:
            assert target.stdout is not None
            assert target.stdout.readline() == "ready\n"
            agent = sidecar("--target", str(target.pid), "--hook", "signal:HUP").ready()

            top.set_memory(96 * MIB)

            assert target.stdout.readline() == "hup\n"
            assert agent.env() == (UNBOUND, 96 * MIB * 9 // 10)
        finally:
            target.kill()


def test_commands_run_in_order_with_old_and_new_values(top: Group, sidecar: Start, place: str) -> None:
    top.set_memory(64 * MIB)
    top.set_quota(100_000)
    told = f"{place}/told"
    script = f'echo "$0 $CGAGENT_OLD_GOMEMLIMIT $CGAGENT_NEW_GOMEMLIMIT $GOMAXPROCS $CGAGENT_ENV_FILE" >> {told}'
    config = _config(
        place,
        f"""
hooks:
  - name: first
    exec: [sh, -c, 'sleep 0.2; {script}', first]
  - name: fails
    exec: [sh, -c, 'exit 3']
  - name: last
    exec: [sh, -c, '{script}', last]
""",
    )
    agent = sidecar("--config", config, group=top).ready()

    top.set_memory(96 * MIB)

    values = f"{64 * MIB * 9 // 10} {96 * MIB * 9 // 10} 1 {agent.env_file}"
    agent.until(lambda: os.path.exists(told) and read(told).count("\n") == 1, "both hooks")
    assert read(told) == f"first {values}\nlast {values}"
    assert 'msg="hook failed" hook=fails reason="ended with 3"' in agent.log


def test_a_hook_that_hangs_is_killed_and_holds_up_neither_the_file_nor_sigterm(
    top: Group, sidecar: Start, place: str
) -> None:
    top.set_memory(64 * MIB)
    config = _config(place, "hooks:\n  - {name: hangs, exec: [sh, -c, 'sleep 600 & wait'], timeout: 15s}\n")
    agent = sidecar("--config", config, group=top).ready()

    top.set_memory(96 * MIB)
    agent.shows(UNBOUND, 96 * MIB * 9 // 10)
    top.set_memory(80 * MIB)
    agent.shows(UNBOUND, 80 * MIB * 9 // 10)
    assert "killed after" not in agent.log, "the file did not wait for the hook"

    agent.says('hook=hangs reason="killed after 15 s"')
    top.set_memory(64 * MIB)
    agent.shows(UNBOUND, 64 * MIB * 9 // 10)
    start = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - start < 30
    wait_until(lambda: not top.pids(), "nothing that a hook started is left")


def test_what_changed_between_two_lives_is_a_change(top: Group, sidecar: Start, place: str) -> None:
    top.set_memory(64 * MIB)
    told = f"{place}/told"
    config = _config(place, f"hooks:\n  - exec: [sh, -c, 'echo $CGAGENT_OLD_GOMEMLIMIT > {told}']\n")
    agent = sidecar("--config", config, group=top).ready()
    assert agent.stop() == 0
    assert not os.path.exists(told), "the first file is no change"

    top.set_memory(96 * MIB)
    again = sidecar("--config", config, group=top)

    again.until(lambda: os.path.exists(told) and read(told), "the hook")
    assert read(told) == str(64 * MIB * 9 // 10)


@pytest.fixture
def listener() -> Iterator[tuple[str, list[Any]]]:
    """A server on loopback that takes POSTs: its URL and the documents that it got."""
    got: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 as the base class has it
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_change_is_posted(top: Group, sidecar: Start, listener: tuple[str, list[Any]]) -> None:
    url, got = listener
    top.set_memory(64 * MIB)
    agent = sidecar("--hook", f"{url}/limits", "--hook", f"{url}/broken", group=top).ready()

    top.set_memory(96 * MIB)

    agent.says('reason="' + url + '/broken: status 500"')
    procs = {} if UNBOUND is None else {"GOMAXPROCS": str(UNBOUND)}
    assert got[0] == {
        "schema": "cgagent.change/1",
        "old": {**procs, "GOMEMLIMIT": str(64 * MIB * 9 // 10)},
        "new": {**procs, "GOMEMLIMIT": str(96 * MIB * 9 // 10)},
        "limits": {"cpu_cores": None, "memory_bytes": 96 * MIB},
        "target_pid": None,
        "env_file": agent.env_file,
    }


def test_a_server_that_never_answers_costs_its_time_and_no_more(top: Group, sidecar: Start, place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config = _config(place, f"hooks:\n  - {{http: 'http://127.0.0.1:{port}/', timeout: 500ms}}\n")
        top.set_memory(64 * MIB)
        agent = sidecar("--config", config, group=top).ready()
        top.set_memory(96 * MIB)
        agent.says("hook failed")
        threads = agent.at_rest()[1]
        top.set_memory(64 * MIB)
        agent.until(lambda: agent.log.count("hook failed") == 2, "the second failure")
    assert agent.at_rest()[1] <= threads


def test_a_new_config_takes_effect_and_a_bad_one_does_not(top: Group, sidecar: Start, place: str) -> None:
    top.set_memory(100 * MIB)
    config = _config(place, "policy: {memory_ratio: 0.9}\n")
    agent = sidecar("--config", config, group=top).ready()
    assert agent.env() == (UNBOUND, 90 * MIB)

    with open(config, "w", encoding="utf-8") as file:  # in place, as some editors do
        file.write("policy: {memory_ratio: 0.5}\n")
    agent.shows(UNBOUND, 50 * MIB)
    _config(place, "policy: {memory_ration: 0.8}\n")
    agent.says("policy.memory_ration is not a key: did you mean memory_ratio?")
    assert agent.env() == (UNBOUND, 50 * MIB)
    _config(place, "policy: {memory_ratio: 0.8}\n")
    agent.shows(UNBOUND, 80 * MIB)
    assert agent.stop() == 0


def test_sighup_reads_the_config_again(top: Group, sidecar: Start, place: str) -> None:
    top.set_memory(100 * MIB)
    agent = sidecar("--config", _config(place, "policy: {memory_ratio: 0.9}\n"), group=top).ready()

    agent.send(signal.SIGHUP)

    agent.says("config reloaded")
    assert agent.stop() == 0


def test_a_config_map_that_is_swapped_is_read_again(top: Group, sidecar: Start, place: str) -> None:
    top.set_memory(100 * MIB)
    volume = f"{place}/volume"
    for number, ratio in enumerate(("0.9", "0.5")):
        os.makedirs(f"{volume}/..{number}")
        with open(f"{volume}/..{number}/watch.yaml", "w", encoding="ascii") as file:
            file.write(f"policy: {{memory_ratio: {ratio}}}\n")
    os.symlink("..0", f"{volume}/..data")
    os.symlink("..data/watch.yaml", f"{volume}/watch.yaml")
    agent = sidecar("--config", f"{volume}/watch.yaml", group=top).ready()
    assert agent.env() == (UNBOUND, 90 * MIB)

    os.symlink("..1", f"{volume}/..data_tmp")
    os.rename(f"{volume}/..data_tmp", f"{volume}/..data")

    agent.shows(UNBOUND, 50 * MIB)


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


def _sample(page: str, name: str) -> float | None:
    found = [line.rpartition(" ")[2] for line in page.split("\n") if line.startswith(f"{name} ")]
    return float(found[0]) if found else None


def test_it_is_ready_once_the_env_file_is_written_and_counts_what_it_does(
    top: Group, sidecar: Start, run_in: RunIn
) -> None:
    name = f"served{os.getpid()}"
    top.set_memory(64 * MIB)
    agent = sidecar(
        "--target", "auto", "--target-name", name, "--hook", "signal:CONT", "--web.listen-address", "127.0.0.1:0"
    )
    agent.says("about=target")
    port = agent.port()
    assert _get(port, "/healthz")[0] == 200
    assert _get(port, "/readyz")[0] == 503
    run_in(top, name)
    agent.ready()
    agent.until(lambda: _get(port, "/readyz")[0] == 200, "readiness")

    top.set_memory(96 * MIB)
    agent.says("hook run")

    page = _get(port, "/metrics")[1]
    assert _sample(page, "cgagent_memory_limit_bytes") == 96 * MIB
    assert _sample(page, "cgagent_gomemlimit_bytes") == 96 * MIB * 9 // 10
    assert _sample(page, "cgagent_env_file_writes_total") == 2
    assert _sample(page, 'cgagent_limit_changes_total{resource="memory"}') == 1
    assert _sample(page, 'cgagent_limit_changes_total{resource="cpu"}') == 0
    assert _sample(page, 'cgagent_hook_runs_total{hook="signal:CONT"}') == 1


def _kill_by_oom(group: Group) -> None:
    """Have the kernel kill a child in the cgroup for want of memory."""
    with subprocess.Popen(group.enter([sys.executable, "-c", _HOG]), stderr=subprocess.DEVNULL) as hog:
        assert hog.wait(60) == -signal.SIGKILL


def test_oom_kills_and_limit_changes_outlive_the_agent_and_the_cgroup(
    top: Group, sidecar: Start, run_in: RunIn, place: str
) -> None:
    name, state = f"oom{os.getpid()}", f"{place}/state"
    os.mkdir(state)
    options = ["--target", "auto", "--target-name", name, "--state-dir", state]
    options += ["--web.listen-address", "127.0.0.1:0"]
    first, second = top.child("first", ("cpu", "memory")), top.child("second", ("cpu", "memory"))
    first.set_memory(80 * MIB)
    second.set_memory(64 * MIB)
    target = run_in(first, name)
    agent = sidecar(*options, poll="500ms").ready()
    first.set_memory(72 * MIB)
    agent.shows(UNBOUND, 72 * MIB * 9 // 10)
    _kill_by_oom(first)
    agent.says("killed for want of memory")
    agent.stop()
    target.kill()
    target.wait()
    first.remove()

    run_in(second, name)
    again = sidecar(*options, poll="500ms")
    again.shows(UNBOUND, 64 * MIB * 9 // 10)

    def counted(name: str) -> float | None:
        return _sample(_get(again.port(), "/metrics")[1], name)

    kills = 'cgagent_memory_events_total{event="oom_kill"}'
    again.until(lambda: counted(kills) == 1, "the kill of the life before")
    _kill_by_oom(second)
    again.until(lambda: counted(kills) == 2, "both kills")
    # 80 to 72 MiB in the first life; what the second life found at its start is no change that it has seen.
    assert counted('cgagent_limit_changes_total{resource="memory"}') == 1


@pytest.mark.parametrize("how", ["moved", "restarted"])
def test_usage_is_that_of_the_cgroup_that_the_target_is_in_now(
    top: Group, sidecar: Start, run_in: RunIn, how: str
) -> None:
    first, second = top.child("first"), top.child("second")
    if "pids" not in first.directories:
        pytest.skip("no cgroup mount here has the pids controller")
    for group, most in ((first, 111), (second, 222)):
        write(f"{group.directories['pids']}/pids.max", most)
        group.set_memory(most * MIB)
    name = f"user{os.getpid()}"
    target = run_in(first, name)
    options = ["--target", "auto", "--target-name", name, "--web.listen-address", "127.0.0.1:0"]
    agent = sidecar(*options, poll="500ms").ready()
    port = agent.port()
    assert _sample(_get(port, "/metrics")[1], "cgagent_pids_limit") == 111

    if how == "moved":
        second.move(target.pid)
    else:
        target.kill()
        target.wait()
        run_in(second, name)
    agent.shows(UNBOUND, 222 * MIB * 9 // 10)

    assert _sample(_get(port, "/metrics")[1], "cgagent_pids_limit") == 222
