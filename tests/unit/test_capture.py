"""`cgagent capture` on this machine, whatever its cgroups are: what is in it, what is not, and how it is written."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cgagent.capture import CaptureError, load
from cgagent.capture.archive import pack
from cgagent.capture.blanking import blanked, shortened
from cgagent.capture.take import take
from cgagent.cgroup.mounts import parse_mountinfo
from cgagent.cli import main
from cgagent.commands.capture import _as_it_reads_them
from cgagent.host import FILE_LIMIT, Host, ReadError
from support import tar
from support.accounts import NOBODY, runs_python
from support.trees import V2_MOUNT, build, machine, v2

if TYPE_CHECKING:
    from collections.abc import Iterator

CGAGENT = [sys.executable, "-m", "cgagent"]
SECRET = "hunter2-of-orders"


def members(data: bytes) -> dict[str, bytes]:
    """What Python's own tarfile finds in an archive."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for one in archive:
            assert one.isfile() or one.isdir()
            file = archive.extractfile(one)
            found[one.name] = file.read() if file else b""
    return found


@pytest.fixture
def taken(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> str:
    """A capture of this process."""
    path = f"{tmp_path}/here.tar.gz"
    assert main(["capture", "--quiet", path]) == 0
    assert capsys.readouterr() == ("", "")
    return path


def test_any_tar_program_finds_the_members_that_the_format_names(taken: str) -> None:
    with open(taken, "rb") as file:
        found = members(file.read())
    with open("/proc/self/cgroup", "rb") as own:
        assert found["root/proc/self/cgroup"] == own.read()
    with open("/sys/devices/system/cpu/online", "rb") as online:
        assert found["root/sys/devices/system/cpu/online"] == online.read()
    assert {"root/proc/self/mountinfo", "root/proc/self/status", "root/proc/meminfo", "root/proc/stat"} <= set(found)
    document = json.loads(found["cgagent-capture.json"])
    assert document["schema"] == "cgagent.capture/1"
    assert document["kernel"] == os.uname().release
    assert document["cpus"]["count"] == os.cpu_count()


def test_the_capture_unpacked_is_a_tree_that_explain_reads_the_same(
    taken: str, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkdir(f"{tmp_path}/tree")
    subprocess.run(["tar", "-xzf", taken, "-C", f"{tmp_path}/tree"], check=True)
    documents = []
    for root in (taken, f"{tmp_path}/tree", f"{tmp_path}/tree/root"):
        assert main(["explain", "--root", root, "-o", "json"]) == 0
        document = json.loads(capsys.readouterr().out)
        del document["process"]
        document.pop("capture", None)  # which the bare tree has not
        documents.append(document)
    assert documents[0] == documents[1] == documents[2]


def test_explain_says_when_and_where_it_was_taken(taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    meta = load(taken).meta
    assert main(["explain", "--root", taken]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line == f"  captured: taken {meta.taken}, on Linux {os.uname().release}, as process {os.getpid()}"
    assert main(["explain", "--root", taken, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["capture"] == meta.document()


def test_environment_command_line_name_and_neighbours_are_not_in_it() -> None:
    program = "import time; print(flush=True); time.sleep(600)"
    environ = {"PATH": os.environ["PATH"], "PASSWORD": SECRET}
    words = [sys.executable, "-c", program, SECRET]
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with open(f"/proc/{process.pid}/environ", "rb") as own:
                assert SECRET.encode() in own.read()
            capture = take(str(process.pid))
        finally:
            process.kill()
    everything = b"".join(capture.files.values()) + json.dumps(capture.meta.document()).encode()
    assert SECRET.encode() not in everything
    assert b"Name:" not in capture.files["/proc/self/status"]
    assert not [path for path in capture.files if path.endswith(("procs", "tasks", "cgroup.threads"))]
    assert capture.meta.pid == process.pid


def test_standard_output_gets_the_archive_and_nothing_else() -> None:
    done = subprocess.run([*CGAGENT, "capture", "-"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "root/proc/self/cgroup" in members(done.stdout)
    assert done.stderr.decode().startswith("cgagent capture: standard output: ")


@pytest.mark.skipif(not runs_python(), reason="needs root, and an interpreter that nobody reaches")
def test_a_user_without_rights_takes_the_same_of_itself(taken: str) -> None:
    done = subprocess.run(
        [*CGAGENT, "capture", "-"], user=NOBODY, group=NOBODY, cwd="/", capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    with open(taken, "rb") as file:
        wanted = set(members(file.read()))
    # What the kernel shows to root alone is named in the meta document, and lost nowhere.
    got = members(done.stdout)
    missing = {f"root{one['path']}" for one in json.loads(got["cgagent-capture.json"])["missing"]}
    assert wanted == set(got) | missing


def test_a_file_that_is_there_is_kept_unless_told(taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open(taken, "wb") as file:
        file.write(b"mine")
    assert main(["capture", taken]) == 1
    says = f"{taken} is there already: name another file, or replace it with --force"
    assert capsys.readouterr().err == f"cgagent capture: {says}\n"
    with open(taken, "rb") as file:
        assert file.read() == b"mine"
    assert main(["capture", "--force", "--quiet", taken]) == 0
    assert load(taken).meta.pid == os.getpid()
    assert os.listdir(os.path.dirname(taken)) == [os.path.basename(taken)]


def test_a_process_that_ends_meanwhile_is_told(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", "--pid", "4194304", f"{tmp_path}/x.tar.gz"]) == 1
    says = "there is no process 4194304: give the PID of a running process"
    assert capsys.readouterr().err == f"cgagent capture: {says}\n"
    assert os.listdir(str(tmp_path)) == []


def test_what_could_not_be_read_stays_unknown_in_the_capture(
    capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    files = [("root/proc/self/cgroup", b"0::/\n"), ("root/proc/self/mountinfo", V2_MOUNT.encode())]
    missing = [{"path": "/sys/fs/cgroup/cpu.max", "kind": "not permitted", "why": "permission denied"}]
    meta = json.dumps({"schema": "cgagent.capture/1", "missing": missing}).encode()
    path = f"{tmp_path}/x.tar.gz"
    with open(path, "wb") as file:
        packed = [tar.member(name.encode(), content) for name, content in files]
        file.write(tar.archive(*packed, tar.member(b"root/sys/fs/cgroup", kind=tar.DIRECTORY), meta=meta))
    assert main(["explain", "--root", path, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    unreadable = [one["message"] for one in document["findings"] if one["id"] == "unreadable"]
    assert unreadable == ["cannot read /sys/fs/cgroup/cpu.max: permission denied"]
    assert main(["write", "--root", path, "--env-file", "-"]) == 1


def test_a_file_that_vanishes_meanwhile_is_named_and_the_rest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """kernfs says ENODEV for a file whose cgroup goes between opening and reading it: no test can time that."""
    read = Host.read

    def vanishing(self: Host, path: str, limit: int = FILE_LIMIT) -> str:
        if path.endswith(("memory.stat", "cpu.stat")):
            raise ReadError.of(path, OSError(errno.ENODEV, os.strerror(errno.ENODEV)))
        return read(self, path, limit)

    monkeypatch.setattr(Host, "read", vanishing)
    capture = take("self")
    assert "/proc/self/cgroup" in capture.files
    assert not [path for path in capture.files if path.endswith(("memory.stat", "cpu.stat"))]
    assert set(capture.meta.missing.values()) <= {("vanished", "no such device")}


MOUNTS = """\
22 1 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/secret-store/l1,upperdir=/x
20 22 0:19 / /proc rw,nosuid - proc proc rw
21 22 0:20 / /sys rw,nosuid - sysfs sysfs rw
30 21 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:29 /docker/c1 /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 22 8:1 /home/alice/keys /etc/keys\\040of\\040alice rw shared:5 - ext4 /dev/disk/by-label/alice rw,errors=continue
33 21 0:33 / /sys/kernel/debug rw - debugfs  rw
"""


def test_blanking_takes_out_what_names_others_and_keeps_how_mounts_stand() -> None:
    assert blanked(MOUNTS).splitlines() == [
        "22 1 0:50 / / rw,relatime - overlay overlay rw",
        "20 22 0:19 / /proc rw,nosuid - proc proc rw",
        "21 22 0:20 / /sys rw,nosuid - sysfs sysfs rw",
        "30 21 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
        "31 30 0:29 /docker/c1 /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
        "32 22 8:1 / /blanked/5 rw shared:5 - ext4 ext4 rw",
        "33 21 0:33 / /sys/kernel/debug rw - debugfs  rw",
    ]
    assert parse_mountinfo(blanked(MOUNTS)) == parse_mountinfo(MOUNTS)


def test_a_mount_that_covers_a_cgroup_mount_still_covers_it_when_blanked_or_shortened() -> None:
    covered = MOUNTS + "40 30 0:60 / /sys/fs/cgroup/cpu rw - tmpfs tmpfs rw\n"
    assert parse_mountinfo(covered) == []
    assert parse_mountinfo(blanked(covered)) == []
    assert parse_mountinfo(shortened(covered)) == []


def test_ten_thousand_mounts_leave_those_that_matter() -> None:
    many = "".join(f"{n} 22 0:{n} / /var/lib/x/{n} rw - overlay overlay rw\n" for n in range(100, 10_100))
    assert shortened(MOUNTS + many).splitlines() == MOUNTS.splitlines()[:1] + MOUNTS.splitlines()[2:5]


def test_a_layout_over_the_bounds_is_not_packed() -> None:
    capture = take("self")
    capture.add_file("/proc/x", bytes(17 << 20))
    with pytest.raises(CaptureError, match="the layout is over 10000 files or 16 MiB"):
        pack(capture)


class Bad(NamedTuple):
    """Words for `cgagent`, its one line after `cgagent COMMAND: `, its exit code."""

    words: str
    says: str
    code: int = 2


ROOT = "give a file of cgagent capture, or the root of a captured or mounted tree"
FIFO = "not a regular file: name a file that cgagent capture wrote, or the directory that it was unpacked in"
PID = "is not a process ID: give a number, such as 1"
LARGE = "more than 16777216 bytes: name a file that cgagent capture wrote, or the directory that it was unpacked in"
BAD = [
    Bad("capture", "FILE.tar.gz is missing: see 'cgagent capture --help'"),
    Bad("capture ''", "FILE.tar.gz is empty: name the file to write, or - for standard output"),
    Bad("capture a b", "'b' is one word too many: see 'cgagent capture --help'"),
    Bad("capture directory", "directory is a directory: name a file in it"),
    Bad("capture junk", "junk is there already: name another file, or replace it with --force", 1),
    Bad("capture dangling", "dangling is there already: name another file, or replace it with --force", 1),
    Bad("capture absent/x", "cannot write absent/x: no such file or directory: create the directory first", 1),
    Bad("capture junk/x", "cannot write junk/x: not a directory: name a file in a directory", 1),
    Bad(f"capture {'x' * 300}", f"cannot write {'x' * 300}: file name too long: give a shorter name", 1),
    Bad("capture /dev/null", "/dev/null is there already: name another file, or replace it with --force", 1),
    Bad("capture --force /dev/null", "cannot write /dev/null: it is no file to replace: name a file, or - to print", 1),
    *(
        Bad(f"capture --pid '{text}' x", f"--pid: '{text}' {PID}")
        for text in ("", "0", "self", "1.5", "-1", "99999999", "12x", "\u0663")
    ),
    Bad("capture --pid", "--pid: its value is missing: write --pid N"),
    Bad("capture --pid --force x", "--pid: its value is missing: write --pid N"),
    Bad("capture --pid 4194304 x", "there is no process 4194304: give the PID of a running process", 1),
    Bad("capture --blank-path x", "--blank-path is not an option: did you mean --blank-paths?"),
    Bad("capture --blank-paths=yes x", "--blank-paths takes no value: write --blank-paths alone"),
    Bad("capture --force=1 x", "--force takes no value: write --force alone"),
    Bad("capture --root / x", "--root is not an option: see 'cgagent capture --help'"),
    Bad("captrue x", "'captrue' is not a command: did you mean capture?"),
    Bad("explain --root ''", f"--root: its value is empty: {ROOT}"),
    Bad("explain --root", "--root: its value is missing: write --root DIR|FILE"),
    Bad("explain --root absent.tar.gz", f"--root: there is no absent.tar.gz: {ROOT}", 1),
    Bad("explain --root dangling", f"--root: there is no dangling: {ROOT}", 1),
    Bad("explain --root junk", "junk: it is no gzip file, or a damaged one: name a file that cgagent capture wrote", 1),
    Bad("explain --root fifo", f"cannot read fifo: {FIFO}", 1),
    Bad("explain --root large", f"cannot read large: {LARGE}", 1),
    Bad("explain --root /dev/zero", f"cannot read /dev/zero: {FIFO}", 1),
    Bad(
        "explain --root here.tar.gz --pid 7", "--pid does not go with a capture: it holds one process: leave --pid out"
    ),
    Bad("explain --root here.tar.gz --pid x", f"--pid: 'x' {PID}"),
    Bad("write --root absent.tar.gz --env-file -", f"--root: there is no absent.tar.gz: {ROOT}", 1),
    Bad(
        "write --root plain.tar --env-file out",
        "plain.tar: it is no gzip file, or a damaged one: name a file that cgagent capture wrote",
        1,
    ),
    Bad(
        "explain --root other.tar.gz",
        "other.tar.gz: the member 'pod/proc/' belongs to no capture: take the capture anew with cgagent capture",
        1,
    ),
    Bad(
        "explain --root broken",
        "broken: cgagent-capture.json is no JSON in UTF-8: take the capture anew with cgagent capture",
        1,
    ),
]


@pytest.fixture
def place(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A directory of things that are no captures, and one that is; it is the working directory."""
    top = str(tmp_path)
    monkeypatch.chdir(top)
    os.mkdir("directory")
    with open("junk", "w") as junk:
        junk.write("junk")
    os.symlink("nowhere", "dangling")
    os.mkfifo("fifo")
    with open("large", "wb") as large:
        large.truncate(17 << 20)
    build(f"{top}/pod", v2({"/cpu.max": "max 100000\n"}))
    subprocess.run(["tar", "-cf", "plain.tar", "pod"], check=True)
    subprocess.run(["tar", "-czf", "other.tar.gz", "pod/proc"], check=True)
    build(f"{top}/broken/root", machine("0::/\n", V2_MOUNT))
    with open("broken/cgagent-capture.json", "w") as file:
        file.write("{")
    assert main(["capture", "--quiet", "here.tar.gz"]) == 0
    before = set(os.listdir(top))
    yield top
    assert set(os.listdir(top)) == before


@pytest.mark.parametrize("bad", BAD, ids=[bad.words[:60] for bad in BAD])
def test_wrong_input_is_told_in_one_line(bad: Bad, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(bad.words)
    code = main(words)
    captured: Any = capsys.readouterr()
    name = "cgagent" if words[0] == "captrue" else f"cgagent {words[0]}"
    assert (code, captured.out, captured.err) == (bad.code, "", f"{name}: {bad.says.replace('{tmp}', place)}\n")


def test_a_directory_that_may_not_be_written_to_is_told(public: str) -> None:
    if not runs_python():
        pytest.skip("needs root, and an interpreter that nobody reaches")
    words = [*CGAGENT, "capture", f"{public}/x"]
    done = subprocess.run(words, user=NOBODY, group=NOBODY, cwd="/", capture_output=True, text=True, check=False)
    says = f"cgagent capture: cannot write {public}/x: permission denied: let this user write to the directory\n"
    assert (done.returncode, done.stderr) == (1, says)


def test_a_standard_output_that_is_full_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*CGAGENT, "capture", "-"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    says = "cannot write to standard output: no space left on device: send it to where it can be written"
    assert (done.returncode, done.stderr) == (1, f"cgagent capture: {says}\n")


def test_a_standard_output_that_is_closed_is_told() -> None:
    words = ["sh", "-c", 'exec "$@" >&-', "sh", *CGAGENT, "capture", "-"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    says = "cannot write to standard output: not writable: send it to where it can be written"
    assert (done.returncode, done.stderr) == (1, f"cgagent capture: {says}\n")


def test_a_terminal_gets_no_archive() -> None:
    words = ["script", "--quiet", "--return", "--command", shlex.join([*CGAGENT, "capture", "-"]), "/dev/null"]
    done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    says = "cgagent capture: standard output is a terminal: send it to a file: cgagent capture - > FILE.tar.gz"
    assert (done.returncode, done.stdout.decode().strip()) == (2, says)


def test_what_another_namespace_reads_is_had_where_our_parent_ignores_the_end_of_children() -> None:
    """An ignored SIGCHLD outlives exec(2), and the kernel then reaps every child itself."""
    usually = _as_it_reads_them(str(os.getpid()))
    if usually is None:
        pytest.skip("no cgroup namespace may be entered here")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        found = _as_it_reads_them(str(os.getpid()))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert found is not None
    assert found[0] == usually[0]
