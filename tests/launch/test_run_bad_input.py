"""Wrong words for `cgagent run`: one line each that says what, where and how to mend it, and nothing is started."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from cgagent.cli import main

CGAGENT = os.path.join(os.path.dirname(sys.executable), "cgagent")

ANEW = "name a file that cgagent capture wrote, or the directory that it was unpacked in"

WRONG_WORDS = [
    ("", "COMMAND is missing: write it after --, as in: cgagent run --cpus 1.5 -- ./orders"),
    ("--", "COMMAND is missing: write it after --, as in: cgagent run --cpus 1.5 -- ./orders"),
    ("--cpu 1 -- true", "--cpu is not an option: did you mean --cpus?"),
    ("--memory", "--memory: its value is missing: write --memory SIZE"),
    ("--read-only=yes -- true", "--read-only takes no value: write --read-only alone"),
    ("--cpus two -- true", "--cpus: 'two' is not a CPU count: write 1.5, 1500m or a whole number"),
    ("--cpus -1 -- true", "--cpus: '-1' is not a CPU count: write 1.5, 1500m or a whole number"),
    ("--cpus 0 -- true", "--cpus: '0' is out of range: give 0.001 to 999999"),
    ("--cpus 1 --cpu-quota 5000 -- true", "--cpus does not go with --cpu-quota or --cpu-period: leave one of them out"),
    ("--cpu-quota 999 -- true", "--cpu-quota: 999 is out of range: give 1000 microseconds or more"),
    ("--cpu-quota x -- true", "--cpu-quota: 'x' is not a whole number: give 0 or more"),
    ("--cpu-period 999 -- true", "--cpu-period: 999 is out of range: give 1000 to 1000000 microseconds"),
    ("--cpu-period 1000001 -- true", "--cpu-period: 1000001 is out of range: give 1000 to 1000000 microseconds"),
    ("--cpu-shares 1 -- true", "--cpu-shares: 1 is out of range: give 2 to 262144"),
    ("--cpu-weight 10001 -- true", "--cpu-weight: 10001 is out of range: give 1 to 10000"),
    ("--cpu-shares 2 --cpu-weight 1 -- true", "--cpu-shares does not go with --cpu-weight: leave one of the two out"),
    ("--cpuset-cpus 3-1 -- true", "--cpuset-cpus: '3-1' is not a list: write it as 0-3 or 0,2"),
    ("--cpuset-cpus all -- true", "--cpuset-cpus: 'all' is not a list: write it as 0-3 or 0,2"),
    ("--cpuset-mems , -- true", "--cpuset-mems: ',' is not a list: write it as 0-3 or 0,2"),
    ("--memory 256Mo -- true", "--memory: '256Mo' is not a size: write bytes or a suffix, as in 256Mi"),
    ("--memory 0 -- true", "--memory: '0' is out of range: give a size above 0, such as 256Mi"),
    ("--memory 4Ki -- true", "--memory: '4Ki' is too little to start anything: give 512Ki or more"),
    ("--memory-swap 1Gi -- true", "--memory-swap needs --memory: it is the sum of memory and swap"),
    (
        "--memory 2Gi --memory-swap 1Gi -- true",
        "--memory-swap: '1Gi' is below --memory: it is the sum of memory and swap",
    ),
    ("--memory-high -5 -- true", "--memory-high: '-5' is not a size: write bytes or a suffix, as in 256Mi"),
    ("--pids-limit many -- true", "--pids-limit: 'many' is not a whole number: give 1 or more"),
    (
        "--device-read-bps /dev/sda -- true",
        "--device-read-bps: '/dev/sda' is not a rate: write DEVICE=RATE, as in /dev/sda=10Mi",
    ),
    ("--io-write-iops /dev/sda=0 -- true", "--device-write-iops: '0' is not a whole number: give 1 or more"),
    ("--io-read-bps /dev/sda=0 -- true", "--device-read-bps: '/dev/sda=0' is a rate of nothing: give 1 or more"),
    ("--net bridge -- true", "--net: 'bridge' is not known: choose one of none, host, veth"),
    ("--share all -- true", "--share: 'all' is not known: choose one of pid, net, mnt, uts, ipc, user, cgroup"),
    ("--share net --net veth -- true", "--share net does not go with --net veth: leave one of the two out"),
    ("--net-rate 1mbit -- true", "--net-rate needs --net veth: add it, or leave --net-rate out"),
    ("--net-nat -- true", "--net-nat needs --net veth: add it, or leave --net-nat out"),
    ("--dns 1.1.1.1 -- true", "--dns needs --net veth: add it, or leave --dns out"),
    (
        "--net veth --net-rate fast -- true",
        "--net-rate: 'fast' is not a rate: write bits a second with tc's suffixes, as in 10mbit",
    ),
    (
        "--hostname a/b -- true",
        "--hostname: 'a/b' is not a host name: use up to 64 letters, digits, dots and dashes",
    ),
    ("--hostname a --share uts -- true", "--hostname does not go with --share uts: leave one of the two out"),
    ("--rootfs / --share mnt -- true", "--rootfs does not go with --share mnt: leave one of the two out"),
    ("--read-only --share mnt -- true", "--read-only does not go with --share mnt: leave one of the two out"),
    ("--volume /tmp -- true", "--volume: '/tmp' is not a volume: write SOURCE:TARGET or SOURCE:TARGET:ro"),
    ("--volume /tmp:/a:rx -- true", "--volume: '/tmp:/a:rx' is not a volume: write SOURCE:TARGET or SOURCE:TARGET:ro"),
    ("--volume /tmp:a -- true", "--volume: 'a' is not an absolute path: start it with /"),
    ("--volume /tmp:/ -- true", "--volume: '/' is the root directory: --rootfs gives another one"),
    ("--tmpfs tmp -- true", "--tmpfs: 'tmp' is not an absolute path: start it with /"),
    (
        "--tmpfs /tmp:huge=always -- true",
        "--tmpfs: 'huge=always' is not an option of tmpfs: as in --tmpfs /tmp:size=64m,mode=1777",
    ),
    ("--workdir src -- true", "--workdir: 'src' is not an absolute path: start it with /"),
    ("--user -1 -- true", "--user: '-1' is not a user: write UID, UID:GID or names, as in 1000:1000"),
    ("--user 1000: -- true", "--user: '1000:' is not a user: write UID, UID:GID or names, as in 1000:1000"),
    ("--user 4294967296 -- true", "--user: '4294967296' is not a user: write UID, UID:GID or names, as in 1000:1000"),
    ("--env =1 -- true", "--env: '=1' is not an assignment: write NAME=VALUE"),
    (
        "--env-file /nowhere -- true",
        "--env-file: cannot read /nowhere: no such file or directory: name a file of NAME=VALUE lines",
    ),
    ("--cap-add FLY -- true", "--cap-add: 'FLY' is not a capability: see capabilities(7), as in NET_ADMIN, or ALL"),
    ("--cap-drop cap_ -- true", "--cap-drop: 'cap_' is not a capability: see capabilities(7), as in NET_ADMIN, or ALL"),
    (
        "--security-opt apparmor=off -- true",
        "--security-opt: 'apparmor=off' is not known: choose one of no-new-privileges=false, seccomp=unconfined, "
        "systempaths=unconfined",
    ),
    (
        "--ulimit files=3 -- true",
        "--ulimit: 'files=3' is not a limit: write NAME=SOFT or NAME=SOFT:HARD, as in nofile=1024",
    ),
    (
        "--ulimit nofile=3:2 -- true",
        "--ulimit: 'nofile=3:2': the soft limit is above the hard one: write NAME=SOFT:HARD",
    ),
    ("--stop-timeout soon -- true", "--stop-timeout: 'soon' is not a number of seconds: write 10 or 0.5"),
    ("--stop-timeout -1 -- true", "--stop-timeout: '-1' is below 0: give seconds"),
    ("--time-offset day -- true", "--time-offset: 'day' is not a number of seconds: write 10 or 0.5"),
    ("--host-cpus 0 -- true", "--host-cpus: '0' is not a number of CPUs: give 1 to 1024"),
    ("--host-cpus 1025 -- true", "--host-cpus: '1025' is not a number of CPUs: give 1 to 1024"),
    ("--host-cpus 1.5 -- true", "--host-cpus: '1.5' is not a number of CPUs: give 1 to 1024"),
    ("--host-cpus -4 -- true", "--host-cpus: '-4' is not a number of CPUs: give 1 to 1024"),
    ("--host-cpus 4 --share mnt -- true", "--host-cpus does not go with --share mnt: leave one of the two out"),
    ("--host-memory 1Gi --share mnt -- true", "--host-memory does not go with --share mnt: leave one of the two out"),
    ("--host-memory much -- true", "--host-memory: 'much' is not a size: write bytes or a suffix, as in 256Mi"),
    ("--host-memory 1Mi -- true", "--host-memory: '1Mi' is too little for a machine: give 16Mi or more"),
    (
        "--host-cpus 4 --cpuset-cpus 2-4 -- true",
        "--cpuset-cpus: '2-4' is not within --host-cpus: CPUs 0 to 3 are shown",
    ),
    ("--simulate v3 -- true", "--simulate: 'v3' is not known: choose one of v1, v2, hybrid"),
    ("--simulate= -- true", "--simulate: '' is not known: choose one of v1, v2, hybrid"),
    (
        "--simulate v2 --layout lxc -- true",
        "--layout: 'lxc' is not known: choose one of docker, kubernetes-cgroupfs, kubernetes-systemd, "
        "systemd-service, nested",
    ),
    ("--layout docker -- true", "--layout needs --simulate: add --simulate v2, or leave --layout out"),
    ("--qos burstable -- true", "--qos needs --simulate: add --simulate v2, or leave --qos out"),
    ("--cgroupns host -- true", "--cgroupns needs --simulate: add --simulate v2, or leave --cgroupns out"),
    ("--parent-cpus 1 -- true", "--parent-cpus needs --simulate: add --simulate v2, or leave --parent-cpus out"),
    (
        "--replay /x --parent-memory 1Gi -- true",
        "--parent-memory needs --simulate: add --simulate v2, or leave --parent-memory out",
    ),
    ("--enforce -- true", "--enforce needs --simulate or --replay: other limits bind without it"),
    ("--host-cpus 4 --enforce -- true", "--enforce needs --simulate or --replay: other limits bind without it"),
    (
        "--simulate v2 --qos burstable -- true",
        "--qos does not go with --layout docker: Kubernetes alone has classes of pods",
    ),
    (
        "--simulate v2 --layout kubernetes-systemd --qos gold -- true",
        "--qos: 'gold' is not known: choose one of guaranteed, burstable, besteffort",
    ),
    ("--simulate v2 --cgroupns both -- true", "--cgroupns: 'both' is not known: choose one of private, host"),
    ("--replay= -- true", "--replay: its value is empty: name a file that cgagent capture wrote"),
    ("--simulate v2 --replay /x -- true", "--simulate does not go with --replay: leave one of the two out"),
    (
        "--simulate v2 --parent-cpus none -- true",
        "--parent-cpus: 'none' is not a CPU count: write 1.5, 1500m or a whole number",
    ),
    ("--simulate v2 --parent-cpus 0 -- true", "--parent-cpus: '0' is out of range: give 0.01 or more"),
    ("--simulate v2 --parent-memory 0 -- true", "--parent-memory: '0' is out of range: give a size above 0"),
    (
        "--simulate v2 --parent-memory x -- true",
        "--parent-memory: 'x' is not a size: write bytes or a suffix, as in 256Mi",
    ),
    ("--simulate v2 --share mnt -- true", "--simulate does not go with --share mnt: leave one of the two out"),
    ("--replay /x --share mnt -- true", "--replay does not go with --share mnt: leave one of the two out"),
    (
        "--replay /x --cpus 1 -- true",
        "--cpus does not go with --replay: the capture holds the limits, and --enforce makes them bind",
    ),
    (
        "--replay /x --memory 1Gi -- true",
        "--memory does not go with --replay: the capture holds the limits, and --enforce makes them bind",
    ),
    ("--simulate v2 --cpu-shares 5 -- true", "--cpu-shares is not shown by --simulate: leave --cpu-shares out"),
    ("--simulate v2 --cpu-weight 5 -- true", "--cpu-weight is not shown by --simulate: leave --cpu-weight out"),
    (
        "--simulate v2 --memory 1Gi --memory-swap 2Gi -- true",
        "--memory-swap is not shown by --simulate: leave --memory-swap out",
    ),
    (
        "--simulate v2 --memory-reservation 5Mi -- true",
        "--memory-reservation is not shown by --simulate: leave --memory-reservation out",
    ),
    (
        "--simulate v2 --io-read-bps /dev/sda=10 -- true",
        "--device-read-bps is not shown by --simulate: leave --device-read-bps out",
    ),
    ("--simulate v2 --cpuset-mems 0 -- true", "--cpuset-mems is not shown by --simulate: leave --cpuset-mems out"),
    (
        "--simulate v2 --cpuset-cpus 0 -- true",
        "--cpuset-cpus with --simulate needs --host-cpus: say how many CPUs there are",
    ),
    ("--net veth --dns nobody -- true", "--dns: 'nobody' is not an address: write it as 192.0.2.1 or 2001:db8::1"),
    ("--cgroup-parent a/../.. -- true", "--cgroup-parent: 'a/../..' may lead out of the cgroups: name one without .."),
    ("--gc -- true", "--gc does not go with a COMMAND: leave one of the two out"),
    ("--preserve-fds all -- true", "--preserve-fds: 'all' is not a whole number: give 0 or more"),
]


@pytest.mark.parametrize(("words", "line"), WRONG_WORDS)
def test_wrong_words_are_answered_with_one_line_and_2(
    words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"cgagent run: {line}\n")


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user is refused earlier")

# What only the machine can answer: 125, 126 or 127, and no cgroup left.
REFUSED = [
    (["--rootfs", "/nowhere", "--", "true"], 125, "--rootfs: /nowhere is not a directory: unpack an image there first"),
    (
        ["--volume", "/nowhere:/mnt", "--", "true"],
        125,
        "--volume: /nowhere: no such file or directory: name a directory or file of the host",
    ),
    (
        ["--workdir", "/proc/nowhere", "--", "true"],
        125,
        "cannot start in /proc/nowhere: no such file or directory: give another one with --workdir",
    ),
    (
        ["--user", "nobody-of-us", "--", "true"],
        125,
        "--user: there is no user 'nobody-of-us' in /etc/passwd: give a number",
    ),
    (
        ["--user", "0:none-of-us", "--", "true"],
        125,
        "--user: there is no group 'none-of-us' in /etc/group: give a number",
    ),
    (
        ["--io-read-bps", "/nowhere=1Mi", "--", "true"],
        125,
        "--device-read-bps: /nowhere: no such file or directory: name a block device",
    ),
    (
        ["--io-read-bps", "/dev/null=1Mi", "--", "true"],
        125,
        "--device-read-bps: /dev/null is not a block device: lsblk lists them",
    ),
    (
        ["--stats-file", "/nowhere/stats", "--", "true"],
        125,
        "--stats-file: /nowhere/stats: no such file or directory: name a file that can be written",
    ),
    (
        ["--replay", "/nowhere.tar.gz", "--", "true"],
        125,
        f"cannot read /nowhere.tar.gz: no such file or directory: {ANEW}",
    ),
    (
        ["--replay", "/etc/passwd", "--", "true"],
        125,
        "/etc/passwd: it is no gzip file, or a damaged one: name a file that cgagent capture wrote",
    ),
    (
        ["--replay", "/dev/null", "--", "true"],
        125,
        f"cannot read /dev/null: not a regular file: {ANEW}",
    ),
    (
        ["--replay", "/usr/bin", "--", "true"],
        125,
        f"/usr/bin: it holds no proc/self: {ANEW}",
    ),
    (["--", "no-such-program"], 127, "no-such-program: not found: check the name and PATH inside"),
    (["--", "./no-such-program"], 127, "./no-such-program: not found: check the name and PATH inside"),
    (["--", "/etc/passwd"], 126, "/etc/passwd: permission denied: name a file that this user may execute"),
    (["--", "/tmp"], 126, "/tmp: permission denied: name a file that this user may execute"),
    (["--env", "PATH=/nowhere", "--", "true"], 127, "true: not found: check the name and PATH inside"),
]


@NEEDS_ROOT
@pytest.mark.parametrize(("words", "code", "line"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_what_the_machine_refuses_is_answered_with_one_line(words: list[str], code: int, line: str) -> None:
    done = subprocess.run([CGAGENT, "run", *words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"cgagent run: {line}\n")


@NEEDS_ROOT
def test_a_cpu_that_is_not_there_is_refused_by_the_kernel() -> None:
    done = subprocess.run(
        [CGAGENT, "run", "--cpuset-cpus", "4000", "--", "true"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 125
    assert done.stderr.startswith("cgagent run: cannot write '4000' to ")
    assert re.search(r": the cgroup above has CPUs 0[-,\d]*\n$", done.stderr)
    assert done.stderr.count("\n") == 1


def run_a_file(path: str, text: str) -> tuple[int, str]:
    """How `cgagent run` of an executable file with that text ends, and what it says."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, 0o755)
    done = subprocess.run([CGAGENT, "run", "--", path], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@NEEDS_ROOT
def test_a_format_that_the_kernel_cannot_execute_is_126(tmp_path: object) -> None:
    path = f"{tmp_path}/program"
    hint = "a script starts with a line such as #!/bin/sh, a program is built for this machine"
    line = f"cgagent run: {path}: exec format error: {hint}\n"
    assert run_a_file(path, "neither a script nor ELF\n") == (126, line)


@NEEDS_ROOT
def test_a_script_whose_interpreter_is_missing_is_126(tmp_path: object) -> None:
    path = f"{tmp_path}/script"
    hint = "install the interpreter of its #! line, or the loader that it was linked for"
    line = f"cgagent run: {path}: found, but not what it needs to run: {hint}\n"
    assert run_a_file(path, "#!/nowhere/sh\n") == (126, line)
