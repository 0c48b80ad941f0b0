"""The bundle: one static program that says and does what the installed package does, where nothing else is."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

from deploy.conftest import make
from support import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
GOAL = 15_000_000  # bytes
PACKAGE = [sys.executable, "-m", "cgagent"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot(2) needs root")


def run(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command with an environment that holds nothing but PATH."""
    options = {"env": {"PATH": os.environ["PATH"]}, "capture_output": True, "text": True, "check": False, **options}
    return subprocess.run(words, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def tree(tmp_path: object) -> str:
    """A captured v2 pod of 1.5 CPUs and 256 MiB."""
    files = {"/cpu.max": "150000 100000\n", "/memory.max": f"{256 * MIB}\n", "/memory.high": "max\n"}
    files |= {"/cgroup.controllers": "cpu memory\n", "/memory.current": "1048576\n"}
    return trees.build(f"{tmp_path}/tree", trees.v2(files))


@pytest.fixture
def empty_root(tmp_path: object, bundle: str, service: str) -> str:
    """A root with the bundle, a static Go program, and nothing else."""
    root = f"{tmp_path}/root"
    os.makedirs(f"{root}/bundle")
    shutil.copy(bundle, f"{root}/bundle/cgagent")
    shutil.copy(service, f"{root}/orders")
    return root


def test_it_is_static_and_below_the_goal(bundle: str) -> None:
    headers = run(["readelf", "--program-headers", "--dynamic", "--wide", bundle]).stdout
    assert "INTERP" not in headers
    assert "NEEDED" not in headers
    assert "GNU_STACK" in headers
    assert os.path.getsize(bundle) < GOAL


def test_builds_are_the_same_bit_for_bit(artefacts: str, checkout: str, tmp_path: object) -> None:
    """Another directory, cache, locale, time zone, umask and hash seed; mtimes are fixed."""
    copy, cache = f"{tmp_path}/elsewhere/checkout", f"{tmp_path}/cache"
    shutil.copytree(checkout, copy)
    os.mkdir(cache)
    mine = os.environ.get("CGAGENT_BUILD_CACHE") or os.path.expanduser("~/.cache/cgagent-build")
    for downloaded in ("debian", "wheels"):  # what is made from it is made anew
        os.symlink(f"{mine}/{downloaded}", f"{cache}/{downloaded}")
    environ = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Pacific/Auckland", "LC_ALL": "C", "PYTHONUTF8": "0"}
    environ["CGAGENT_BUILD_CACHE"] = cache
    for script, name in (("bundle", "bundle.tar"), ("image", "image.tar")):
        words = [sys.executable, f"{copy}/deploy/{script}", "--output", f"{tmp_path}/{name}"]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, umask=0o077)
        assert done.returncode == 0, done.stderr
        with open(f"{artefacts}/{name}", "rb") as one, open(f"{tmp_path}/{name}", "rb") as other:
            assert one.read() == other.read()


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["explain", "--root", "TREE"],
        ["explain", "--root", "TREE", "-o", "json"],
        ["explain", "--root", "TREE", "-o", "yaml"],
        ["explain", "--root", "TREE", "--binary", "SERVICE"],
        ["explain", "--root", "/nowhere"],
        ["explain", "--help"],
        ["write", "--help"],
        ["help", "exec"],
        ["write", "--root", "TREE", "--env-file", "-"],
        ["write", "--root", "TREE", "--env-file", "-", "--format", "json"],
        ["write", "--root", "TREE", "--env-file", "-", "--format", "shell", "--memory-reserve", "64Mi"],
        ["write", "--root", "TREE", "--env-file", "/nowhere/go.env"],
        ["write", "--cpu-limit", "many", "--env-file", "-"],
        ["write", "--env-fiel", "-"],
        ["exec", "--cpu-limit", "1500m", "--memory-limit", "256Mi", "--", "/usr/bin/env"],
        ["exec", "--cpu-limit", "1", "--", "/nowhere"],
        ["exec"],
        ["wrte"],
    ],
    ids=" ".join,
)
def test_it_says_what_the_package_says(bundle: str, service: str, tree: str, words: list[str]) -> None:
    names = {"TREE": tree, "SERVICE": service}
    given = [names.get(word, word) for word in words]
    ours, theirs = run([bundle, *given]), run([*PACKAGE, *given])
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)
    assert ours.stdout == theirs.stdout


@needs_root
def test_in_an_empty_root_it_starts_a_static_go_program_with_the_values(empty_root: str) -> None:
    environ = {"CGAGENT_CPU_LIMIT_MILLICORES": "1500", "CGAGENT_MEMORY_LIMIT_BYTES": str(256 * MIB)}
    inside = ["/bundle/cgagent", "exec", "--", "/orders", "-listen", "127.0.0.1:0"]
    # /proc and the cgroups are what a container has at least.
    script = 'mkdir -p "$0/proc" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, empty_root, *inside]
    service = subprocess.Popen(words, env=environ | {"PATH": os.environ["PATH"]}, stderr=subprocess.PIPE, text=True)
    try:
        assert service.stderr is not None
        line = service.stderr.readline()
        assert "serving " in line, line
        address = line.split("serving ")[1].split()[0]
        with urllib.request.urlopen(f"http://{address}/debug/limits", timeout=60) as answer:
            page = json.load(answer)
    finally:
        service.kill()
        service.communicate()
    assert (page["gomaxprocs"], page["gomemlimit"]) == (2, 256 * MIB * 9 // 10)
    assert page["pid"] == 1  # cgagent became it


@needs_root
def test_without_proc_it_still_prints_its_version(empty_root: str) -> None:
    done = run(["chroot", empty_root, "/bundle/cgagent", "--version"])
    assert (done.returncode, done.stdout[:8]) == (0, "cgagent ")


def test_the_commands_environment_is_as_it_was(bundle: str) -> None:
    """No locale is set, none is coerced (PEP 538), and no loader's variable is added."""
    words = [bundle, "exec", "--cpu-limit", "1", "--limits-from", "given", "--", "/usr/bin/env"]
    with_bytes = subprocess.run(words, env={"A": "1", "B": "\udcff"}, capture_output=True, check=True).stdout
    assert with_bytes.splitlines() == [b"A=1", b"B=\xff", b"GOMAXPROCS=1"]


def test_the_command_has_the_signals_that_programs_expect(bundle: str) -> None:
    signals = ["grep", "^Sig[^Q]", "/proc/self/status"]
    words = [bundle, "exec", "--cpu-limit", "1", "--limits-from", "given", "--", *signals]
    assert run(words).stdout == run(signals).stdout


def test_it_takes_a_capture_and_reads_it(bundle: str, tmp_path: object) -> None:
    path = f"{tmp_path}/x.tar.gz"
    assert run([bundle, "capture", "--quiet", path]).stderr == ""
    captured, live = (
        json.loads(run([bundle, "explain", "-o", "json", *more]).stdout) for more in (["--root", path], [])
    )
    assert captured["limits"] == live["limits"]


@needs_root
@pytest.mark.parametrize(
    "options",
    [
        ["--cpus", "0.5", "--memory", "64Mi", "--ulimit", "nofile=50:60", "--hostname", "box"],
        ["--user", "1000:1000", "--cap-add", "NET_RAW", "--net", "veth", "--tmpfs", "/mnt"],
        ["--tty", "--pids-limit", "50"],
        ["--host-cpus", "4", "--host-memory", "8Gi"],
        ["--simulate", "v2", "--cpus", "0.5"],
    ],
    ids=lambda options: options[0],
)
def test_it_launches_as_the_package_does(bundle: str, options: list[str]) -> None:
    look = """
        grep -E '^(Uid|Cap|NoNewPrivs|Seccomp)' /proc/self/status
        grep -E ' /(proc|sys|dev)' /proc/self/mountinfo | cut -d ' ' -f 4-
        cat /proc/self/cgroup; ulimit -Hn; nproc; tty; hostname | grep -v cgagent-; exit 7
    """
    words = ["run", *options, "--", "sh", "-c", look]
    theirs, ours = run([*PACKAGE, *words]), run([bundle, *words])
    assert theirs.returncode == 7, theirs.stderr
    assert (ours.returncode, ours.stdout, ours.stderr) == (7, theirs.stdout, theirs.stderr)


@pytest.mark.parametrize("command", ["watch", "tune"])
def test_what_it_has_not_got_is_one_line(bundle: str, command: str) -> None:
    done = run([bundle, command])
    assert done.returncode == 2
    assert done.stderr.startswith(f"cgagent: '{command}' is not in this bundle, which has explain, write, exec")
    assert len(done.stderr.splitlines()) == 1


def test_it_installs_itself_for_any_user(bundle: str, tmp_path: object) -> None:
    done = run(["sh", "-c", f"umask 077; '{bundle}' install-bundle '{tmp_path}'"])
    assert done.returncode == 0
    assert os.listdir(str(tmp_path)) == ["cgagent"]
    installed = f"{tmp_path}/cgagent"
    assert os.stat(installed).st_mode & 0o7777 == 0o755
    assert run([installed, "--version"]).stdout == run([bundle, "--version"]).stdout
    with open(bundle, "rb") as one, open(installed, "rb") as other:
        assert one.read() == other.read()


def test_installing_replaces_a_program_that_is_running(bundle: str, tmp_path: object) -> None:
    assert run([bundle, "install-bundle", str(tmp_path)]).returncode == 0
    installed = f"{tmp_path}/cgagent"
    # It waits for an answer that does not come: its file is in use.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        running = subprocess.Popen([installed, "healthcheck", f"127.0.0.1:{silent.getsockname()[1]}"])
        try:
            with silent.accept()[0]:
                assert run([bundle, "install-bundle", str(tmp_path)]).returncode == 0
        finally:
            running.kill()
            running.wait()


@pytest.mark.parametrize(("target", "reason"), [("nowhere", "no such file or directory"), ("file", "not a directory")])
def test_where_it_cannot_be_installed_is_one_line(bundle: str, tmp_path: object, target: str, reason: str) -> None:
    open(f"{tmp_path}/file", "w").close()
    done = run([bundle, "install-bundle", f"{tmp_path}/{target}"])
    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_full_volume_is_one_line_and_leaves_nothing(bundle: str, tmp_path: object) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && "$0" install-bundle "$1"; code=$?; ls -A "$1"; exit $code'
    done = run(["unshare", "--mount", "sh", "-c", script, bundle, str(tmp_path)])
    assert (done.returncode, done.stdout) == (1, "")
    assert "no space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@contextlib.contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers everything with `status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_is_what_the_sidecar_answers(bundle: str, status: int, code: int) -> None:
    with answering(status) as address:
        by_argument = run([bundle, "healthcheck", address])
        by_twin = run([bundle, "healthcheck"], env={"CGAGENT_WEB_LISTEN_ADDRESS": f"{address}, :9"})
    assert by_argument.returncode == by_twin.returncode == code
    assert str(status) in by_argument.stderr


def test_nobody_there_is_not_well(bundle: str) -> None:
    done = run([bundle, "healthcheck", "127.0.0.1:9"])
    assert done.returncode == 1
    assert "connection refused" in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", ":http", ":70000", "host:"])
def test_an_address_without_a_port_is_wrong_usage(bundle: str, address: str) -> None:
    assert run([bundle, "healthcheck", address]).returncode == 2


def test_for_arm64_it_decides_the_same(checkout: str, tree: str, tmp_path: object) -> None:
    if not shutil.which("qemu-aarch64-static") or not shutil.which("aarch64-linux-gnu-gcc"):
        pytest.skip("needs gcc-aarch64-linux-gnu and qemu-user-static")
    make(checkout, "bundle", "--arch", "arm64", "--output", f"{tmp_path}/bundle.tar")
    subprocess.run(["tar", "-C", str(tmp_path), "-xf", f"{tmp_path}/bundle.tar", "cgagent"], check=True)
    words = ["explain", "--root", tree, "-o", "json"]
    done = run(["qemu-aarch64-static", f"{tmp_path}/cgagent", *words])
    assert json.loads(done.stdout) == json.loads(run([*PACKAGE, *words]).stdout)
    done = run(["qemu-aarch64-static", f"{tmp_path}/cgagent", "exec", "--cpu-limit", "1500m", "--", "/usr/bin/env"])
    assert "GOMAXPROCS=2" in done.stdout


def test_the_image_for_arm64_has_a_python_that_runs(checkout: str, tree: str, tmp_path: object) -> None:
    if not shutil.which("qemu-aarch64-static") or not shutil.which("aarch64-linux-gnu-gcc"):
        pytest.skip("needs gcc-aarch64-linux-gnu and qemu-user-static")
    make(checkout, "image", "--arch", "arm64", "--tree", str(tmp_path))
    # What the static program hands on to: without binfmt_misc the emulator has to be named.
    loader = [f"{tmp_path}/lib/ld.so", "--argv0", f"{tmp_path}/cgagent", "--library-path", f"{tmp_path}/lib"]
    python = [f"{tmp_path}/lib/python3", "-I", "-S", "-B", f"{tmp_path}/lib/entry.pyc"]
    words = ["write", "--root", tree, "--env-file", "-"]
    done = run(["qemu-aarch64-static", *loader, *python, *words])
    assert done.stdout == run([*PACKAGE, *words]).stdout
    assert run(["qemu-aarch64-static", *loader, *python, "config", "example"]).returncode == 0
