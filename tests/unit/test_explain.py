"""`cgagent explain`: the document that scripts rely on, the text that people read, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgagent.cli import main

MOUNTINFO = (
    "21 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"
    "25 21 0:22 / /sys/fs/cgroup rw,nosuid,nodev,noexec - cgroup2 cgroup2 rw,nsdelegate\n"
)

# A pod of 1 CPU on a node of 8: its container may use 1.5 CPUs and 256 MiB, of which 130 MiB are in use.
POD = {
    "proc/self/cgroup": "0::/pod/app\n",
    "proc/self/mountinfo": MOUNTINFO,
    "proc/self/status": "Name:\tapp\nCpus_allowed_list:\t0-7\n",
    "proc/self/environ": "PATH=/bin\0",
    "proc/meminfo": "MemTotal:       65536000 kB\n",
    "sys/devices/system/cpu/online": "0-7\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n",
    "sys/fs/cgroup/pod/cpu.max": "100000 100000\n",
    "sys/fs/cgroup/pod/memory.max": "max\n",
    "sys/fs/cgroup/pod/cpu.stat": "usage_usec 9\nnr_periods 200\nnr_throttled 60\nthrottled_usec 3500000\n",
    "sys/fs/cgroup/pod/app/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/pod/app/cpu.weight": "59\n",
    "sys/fs/cgroup/pod/app/cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"
    "nr_periods 200\nnr_throttled 0\nthrottled_usec 0\n",
    "sys/fs/cgroup/pod/app/memory.max": "268435456\n",
    "sys/fs/cgroup/pod/app/memory.high": "max\n",
    "sys/fs/cgroup/pod/app/memory.current": "136314880\n",
    "sys/fs/cgroup/pod/app/memory.peak": "201326592\n",
    "sys/fs/cgroup/pod/app/memory.stat": "anon 104857600\nfile 31457280\ninactive_file 20971520\n",
    "sys/fs/cgroup/pod/app/memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n",
    "sys/fs/cgroup/pod/app/memory.swap.max": "0\n",
    "sys/fs/cgroup/pod/app/memory.swap.current": "0\n",
    "sys/fs/cgroup/pod/app/pids.current": "12\n",
    "sys/fs/cgroup/pod/app/pids.max": "100\n",
    "sys/fs/cgroup/pod/app/cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., str]:
    """Makes a captured tree of POD with some files changed, or taken away (None); returns its root."""

    def make(**changes: str | None) -> str:
        for name, text in (POD | changes).items():
            if text is not None:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        return str(tmp_path)

    return make


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs `explain -o json` and returns the document; it must end with 0 and say nothing on stderr."""

    def run(*words: str) -> dict[str, Any]:
        assert main(["explain", "-o", "json", *words]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        document: dict[str, Any] = json.loads(out)
        return document

    return run


Tree = Callable[..., str]
Explain = Callable[..., dict[str, Any]]


class TestDocument:
    def test_has_the_keys_that_scripts_rely_on(self, tree: Tree, explain: Explain) -> None:
        document = explain("--root", tree())

        assert document["schema"] == "cgagent.explain/1"
        assert document["cgroup"]["mode"] == "v2"
        hierarchy = document["cgroup"]["hierarchies"][0]
        assert (hierarchy["version"], hierarchy["controllers"]) == (2, [])
        assert (hierarchy["mount"], hierarchy["path"]) == ("/sys/fs/cgroup", "/pod/app")
        assert document["env"] == {"GOMAXPROCS": "1", "GOMEMLIMIT": "241591910"}
        assert document["decision"]["GOMAXPROCS"]["value"] == 1
        assert document["decision"]["GOMEMLIMIT"]["value"] == 241591910
        assert document["go"] is None
        assert document["running"] is None

    def test_every_number_names_its_file_and_text(self, tree: Tree, explain: Explain) -> None:
        limits = explain("--root", tree())["limits"]

        cpu = limits["cpu"]
        assert (cpu["cores"], cpu["quota_us"], cpu["period_us"]) == (1.0, 100000, 100000)
        assert cpu["source"] == "/sys/fs/cgroup/pod/cpu.max"
        assert [(link["path"], link["raw"], link["cores"]) for link in cpu["chain"]] == [
            ("/pod/app", "150000 100000", 1.5),
            ("/pod", "100000 100000", 1.0),
        ]
        memory = limits["memory"]
        assert memory["bytes"] == 268435456
        assert memory["source"] == "/sys/fs/cgroup/pod/app/memory.max"
        assert {(link["path"], link["raw"], link["bytes"]) for link in memory["chain"]} == {
            ("/pod/app", "268435456", 268435456),
            ("/pod/app", "max", None),
            ("/pod", "max", None),
        }

    def test_the_level_that_binds_is_named(self, tree: Tree, explain: Explain) -> None:
        limits = explain("--root", tree())["limits"]

        assert limits["cpu"]["binding"] == "/pod"
        assert limits["memory"]["binding"] == "/pod/app"

    def test_usage_is_in_seconds_and_bytes(self, tree: Tree, explain: Explain) -> None:
        usage = explain("--root", tree())["usage"]

        assert usage["cpu"]["usage_seconds"] == 2.5
        assert (usage["cpu"]["user_seconds"], usage["cpu"]["system_seconds"]) == (2.0, 0.5)
        assert usage["cpu"]["weight"] == 59
        assert usage["cpu"]["throttling_by_path"]["/pod"] == {
            "periods": 200,
            "throttled_periods": 60,
            "throttled_seconds": 3.5,
        }
        assert usage["memory"]["usage_bytes"] == 136314880
        assert usage["memory"]["working_set_bytes"] == 136314880 - 20971520
        assert usage["memory"]["peak_bytes"] == 201326592
        assert usage["memory"]["swap_limit_bytes"] == 0
        assert usage["memory"]["events"]["oom_kill"] == 1
        assert usage["pids"] == {"current": 12, "limit": 100}
        assert usage["pressure"]["cpu"] == {"some_seconds": 1.5, "full_seconds": 0.5}

    def test_cpuset_and_affinity_are_kept_apart_from_the_quota(self, tree: Tree, explain: Explain) -> None:
        root = tree(**{"sys/fs/cgroup/pod/app/cpuset.cpus.effective": "2-3\n"})

        cpu = explain("--root", root)["limits"]["cpu"]

        assert cpu["cores"] == 1.0
        assert cpu["allowed_cpus"] == 2
        assert cpu["cpuset"] == {"source": "/sys/fs/cgroup/pod/app/cpuset.cpus.effective", "cpus": "2-3"}
        assert (cpu["affinity"], cpu["online_cpus"]) == ("0-7", 8)

    def test_what_is_not_known_is_null(self, tree: Tree, explain: Explain) -> None:
        gone = (
            "proc/meminfo",
            "proc/self/status",
            "sys/devices/system/cpu/online",
            "sys/fs/cgroup/pod/app/memory.peak",
        )

        document = explain("--root", tree(**dict.fromkeys(gone)))

        assert document["limits"]["memory"]["total_bytes"] is None
        assert document["limits"]["cpu"]["allowed_cpus"] is None
        assert document["limits"]["cpu"]["online_cpus"] is None
        assert document["usage"]["memory"]["peak_bytes"] is None

    def test_a_malformed_limit_is_null_and_told(self, tree: Tree, explain: Explain) -> None:
        document = explain("--root", tree(**{"sys/fs/cgroup/pod/app/memory.max": "lots\n"}))

        assert document["limits"]["memory"]["bytes"] is None
        assert "GOMEMLIMIT" not in document["env"]
        assert document["env"]["GOMAXPROCS"] == "1"
        finding = document["findings"][0]
        assert (finding["id"], finding["level"]) == ("malformed-file", "critical")
        assert "/sys/fs/cgroup/pod/app/memory.max" in finding["message"]
        assert "lots" in finding["message"]

    def test_variables_that_the_environment_has_are_kept_and_not_in_env(self, tree: Tree, explain: Explain) -> None:
        root = tree(**{"proc/self/environ": "GOMAXPROCS=3\0"})

        document = explain("--root", root)

        assert document["decision"]["GOMAXPROCS"]["kept"] == "3"
        assert document["decision"]["GOMAXPROCS"]["value"] == 1
        assert document["env"] == {"GOMEMLIMIT": "241591910"}

    def test_yaml_is_the_same_document(self, tree: Tree, explain: Explain, capsys: pytest.CaptureFixture[str]) -> None:
        import yaml

        root = tree()
        document = explain("--root", root)

        assert main(["explain", "-o", "yaml", "--root", root]) == 0

        assert yaml.safe_load(capsys.readouterr().out) == document

    def test_a_tree_without_cgroups_has_mode_none(self, tree: Tree, explain: Explain) -> None:
        root = tree(**{"proc/self/mountinfo": "21 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"})

        document = explain("--root", root)

        assert document["cgroup"]["mode"] == "none"
        assert document["limits"]["cpu"]["cores"] is None

    def test_a_process_of_a_captured_tree_is_chosen_by_pid(self, tree: Tree, explain: Explain) -> None:
        other = {name.replace("self", "42"): text for name, text in POD.items() if "/self/" in name}

        document = explain("--root", tree(**other | {"proc/42/cgroup": "0::/pod\n"}), "--pid", "42")

        assert document["process"]["pid"] == "42"
        assert document["limits"]["memory"]["bytes"] is None

    def test_reads_nothing_of_the_live_machine(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", "--root", str(tmp_path)]) == 1
        assert capsys.readouterr().err == (
            f"cgagent explain: {tmp_path} holds no proc/self: give the root of a captured or mounted tree\n"
        )


class TestExitCode:
    def test_is_0_whatever_was_found(self, tree: Tree, explain: Explain) -> None:
        explain("--root", tree(**{"sys/fs/cgroup/pod/cpu.max": "rubbish\n"}))

    def test_is_3_without_limits_where_they_are_required(self, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
        root = tree(**{name: None for name in POD if name.endswith(("cpu.max", "memory.max"))})

        assert main(["explain", "--root", root, "--require-limits"]) == 3
        assert "decision" in capsys.readouterr().out


class TestText:
    def test_tells_where_what_and_why(self, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
        root = tree()

        assert main(["explain", "--root", root]) == 0

        expected = (Path(__file__).parent / "golden" / "explain-pod.txt").read_text()
        assert capsys.readouterr().out.replace(root, "ROOT") == expected

    def test_of_a_long_path_nothing_stands_to_the_right(self, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
        path = "/kubepods.slice/" + "x" * 150
        own = {"proc/self/cgroup": f"0::{path}\n", f"sys/fs/cgroup{path}/cpu.max": "150000 100000\n"}
        parent = {"sys/fs/cgroup/kubepods.slice/cpu.max": "max 100000\n"}
        root = tree(**own | parent)

        main(["explain", "--root", root])

        table = [line for line in capsys.readouterr().out.split("\n") if path in line and "ceil" not in line]
        assert all(len(line.partition(path)[0]) < 80 for line in table)
        assert [line for line in table if line.endswith(f"  <- binds  {path}")]

    def test_has_no_colour_when_it_is_no_terminal(self, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
        main(["explain", "--root", tree()])

        assert "\x1b" not in capsys.readouterr().out

    def test_makes_control_characters_of_files_visible(self, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
        root = tree(
            **{
                "proc/self/cgroup": "0::/pod/app\x1b[2J\n",
                "sys/fs/cgroup/pod/app/memory.max": "\x1b]0;owned\x07\n",
                "proc/self/environ": "GOMAXPROCS=\x1b[31m7\0",
            }
        )

        main(["explain", "--root", root])

        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\x07" not in out
        assert "\\x1b[2J" in out


class TestTerminal:
    """Colour and bars, on a real pseudo-terminal."""

    @staticmethod
    def run(root: str, **environ: str) -> str:
        import os
        import pty
        import sys

        pid, fd = pty.fork()
        if pid == 0:
            os.environ.update({"TERM": "xterm", "LANG": "C.UTF-8", "PYTHONUTF8": "1"} | environ)
            os.execv(sys.executable, [sys.executable, "-m", "cgagent", "explain", "--root", root])
        out = b""
        try:
            while piece := os.read(fd, 65536):
                out += piece
        except OSError:
            pass  # EIO: the terminal's other end is closed
        os.close(fd)
        os.waitpid(pid, 0)
        return out.decode()

    def test_has_colour_and_bars(self, tree: Tree) -> None:
        out = self.run(tree())

        assert "\x1b[31;1mcritical\x1b[0m" in out
        assert "█" in out

    def test_honours_no_color(self, tree: Tree) -> None:
        out = self.run(tree(), NO_COLOR="1")

        assert "\x1b" not in out
        assert "critical" in out
