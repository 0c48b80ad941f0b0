"""The behaviour table: what a command finds inside, line by line; runc gives the same where it can do the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from launch.behaviour import Append, Row, check, needs_root

if TYPE_CHECKING:
    from pathlib import Path

SAME: dict[str, object] = {}
BIND = {"type": "bind", "source": "{dir}", "destination": "/mnt"}
TMPFS = {"type": "tmpfs", "source": "tmpfs", "destination": "/data", "options": ["size=1m"]}
MASKED = "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi"
READ_ONLY = "bus fs irq sys"
# A user namespace may make no device nodes: the host's are mounted, by us and by runc alike.
DEVICES = "full|null|random|tty|urandom|zero"

NAMESPACES = (
    Row("its host name", "--rootfs {root} --hostname box", "hostname", "box\n", runc={"hostname": "box"}),
    Row(
        "no process but its own",
        "--rootfs {root}",
        "test $(ls -d /proc/[0-9]* | wc -l) -lt 8 && echo few",
        "few\n",
    ),
    Row("loopback alone on the network", "--rootfs {root}", "ls /sys/class/net", "lo\n", runc=SAME),
    Row(
        "loopback that is up",
        "--rootfs {root}",
        "ip addr show lo | grep -o 'inet 127[^ ]*'",
        "inet 127.0.0.1/8\n",
        runc=SAME,
    ),
    Row(
        "a service of its own on loopback",
        "",
        "nc -l -p 80 -e echo hi & sleep 0.2; nc 127.0.0.1 80 </dev/null 2>/dev/null || true",
    ),
    Row("no way to the outside", "--rootfs {root}", "ip route | wc -l", "0\n", runc=SAME),
    Row("itself as the root of every cgroup", "", "cut -d: -f3 /proc/self/cgroup | sort -u", "/\n"),
    Row(
        "no cgroup that it may change",
        "--rootfs {root}",
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo $d; done; :",
        runc=SAME,
    ),
    Row(
        "no cgroup file that it may write",
        "",
        "echo 1 2>/dev/null > /sys/fs/cgroup/cpu/cpu.shares || echo refused",
        "refused\n",
    ),
    Row(
        "a clock shifted as asked",
        "--time-offset 1000000",
        "test $(cut -d. -f1 /proc/uptime) -gt 1000000 && echo later",
        "later\n",
    ),
    Row("a System V memory segment of nobody else", "--rootfs {root}", "ipcs -m | grep -c '^0x'", "0\n", 1, runc=SAME),
)

FILES = (
    Row(
        "the devices of a container",
        "--rootfs {root}",
        "ls /dev | grep -v -e console -e core",
        runc=SAME,
        stdout=("fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"),
    ),
    Row(
        "devices of the right kind",
        "--rootfs {root}",
        "cd /dev; stat -c '%n %F %t:%T' full null random tty urandom zero",
        "".join(
            f"{name} character special file {device}\n"
            for name, device in (
                ("full", "1:7"),
                ("null", "1:3"),
                ("random", "1:8"),
                ("tty", "5:0"),
                ("urandom", "1:9"),
                ("zero", "1:5"),
            )
        ),
        runc=SAME,
    ),
    Row("a null that swallows", "--rootfs {root}", "echo x > /dev/null; wc -c < /dev/null", "0\n", runc=SAME),
    Row("a zero that gives", "--rootfs {root}", "head -c 3 /dev/zero | od -An -tx1", " 00 00 00\n", runc=SAME),
    Row(
        "a full that is full",
        "--rootfs {root}",
        "echo x 2>&1 > /dev/full || :",
        "sh: write error: No space left on device\n",
        runc=SAME,
    ),
    Row("randomness", "--rootfs {root}", "head -c 8 /dev/urandom | wc -c", "8\n", runc=SAME),
    Row(
        "no terminal where it has none",
        "--rootfs {root}",
        "exec 2>&1; : < /dev/tty",
        "sh: can't open /dev/tty: No such device or address\n",
        1,
    ),
    Row(
        "shared memory for all",
        "--rootfs {root}",
        "stat -c %a /dev/shm; stat -f -c %T /dev/shm",
        "1777\ntmpfs\n",
        runc=SAME,
    ),
    Row("pseudo terminals of its own", "--rootfs {root}", "ls /dev/pts", "ptmx\n", runc=SAME),
    Row("no disk among its devices", "", "find /dev -type b | wc -l", "0\n"),
    Row(
        "the root that was given",
        "--rootfs {root}",
        "ls -d /bin /data /mnt; ls / | wc -l",
        "/bin\n/data\n/mnt\n9\n",
        runc=SAME,
    ),
    Row(
        "nothing of the host's root behind it",
        "--rootfs {root}",
        "ls -d /../work /proc/1/root/../work 2>/dev/null; :",
        runc=SAME,
    ),
    Row("the host's tree without a root", "", "test -x /bin/bash && echo here", "here\n"),
    Row("a root that it may write", "--rootfs {root}", "touch /tmp/x && rm /tmp/x && echo done", "done\n", runc=SAME),
    Row(
        "a root that it may not write",
        "--rootfs {root} --read-only",
        "touch /tmp/x 2>&1",
        "touch: /tmp/x: Read-only file system\n",
        1,
        runc={"root.readonly": True},
    ),
    Row(
        "a host's tree that it may not write", "--read-only", "touch /etc/x /usr/x /root/x 2>/dev/null; echo $?", "1\n"
    ),
    Row(
        "devices that stay writable on a read-only root",
        "--rootfs {root} --read-only",
        "echo x > /dev/null && touch /dev/shm/x && echo done",
        "done\n",
        runc={"root.readonly": True},
    ),
    Row(
        "a volume it may write",
        "--rootfs {root} -v {dir}:/mnt",
        "echo x > /mnt/new; cat /mnt/given; rm /mnt/new",
        "given\n",
        runc={"mounts": Append([{**BIND, "options": ["rbind"]}])},
    ),
    Row(
        "a volume it may only read",
        "--rootfs {root} -v {dir}:/mnt:ro",
        "cat /mnt/given; touch /mnt/new 2>&1",
        "given\ntouch: /mnt/new: Read-only file system\n",
        1,
        runc={"mounts": Append([{**BIND, "options": ["rbind", "ro"]}])},
    ),
    Row("a volume that is one file", "--rootfs {root} -v {dir}/given:/mnt/file:ro", "cat /mnt/file", "given\n"),
    Row(
        "a volume at a place that is not there yet",
        "--rootfs {root} -v {dir}:/tmp/deep/er",
        "cat /tmp/deep/er/given",
        "given\n",
    ),
    Row(
        "a file system in memory of the size asked for",
        "--rootfs {root} --tmpfs /data:size=1m",
        "stat -f -c %T /data; head -c 2000000 /dev/zero > /data/x 2>/dev/null; wc -c < /data/x",
        "tmpfs\n1048576\n",
        runc={"mounts": Append([TMPFS])},
    ),
    Row("its working directory", "--rootfs {root} --workdir /tmp", "pwd", "/tmp\n", runc={"process.cwd": "/tmp"}),
    Row(
        "a working directory that is made for it",
        "--rootfs {root} -w /tmp/new/dir",
        "pwd; rmdir -p tmp/new/dir 2>/dev/null; :",
        "/tmp/new/dir\n",
        runc={"process.cwd": "/tmp/new/dir"},
    ),
    Row(
        "nothing to read in masked files",
        "--rootfs {root}",
        f"for f in {MASKED}; do cd /proc; [ -f $f ] && cat $f; [ -d $f ] && ls $f; done; ls /sys/firmware; :",
        runc=SAME,
    ),
    Row(
        "kernel settings that it may only read",
        "--rootfs {root}",
        "exec 2>&1; echo 0 > /proc/sys/vm/swappiness; :",
        "sh: can't create /proc/sys/vm/swappiness: Read-only file system\n",
        runc=SAME,
    ),
    Row(
        "read-only mounts over the kernel's directories",
        "--rootfs {root}",
        f'cd /proc; for d in {READ_ONLY}; do [ -e $d ] && ! grep -q " /proc/$d ro," self/mountinfo && echo $d; done; :',
        runc=SAME,
    ),
    Row(
        "a /sys that it may only read",
        "--rootfs {root}",
        "grep -o '^sysfs /sys sysfs ro' /proc/mounts",
        "sysfs /sys sysfs ro\n",
        runc=SAME,
    ),
    Row(
        "the mounts of a container and no more",
        "--rootfs {root}",
        f"grep -v /sys/fs/cgroup /proc/mounts | cut -d' ' -f2 | grep -v -E '^/(proc|sys)/|^/dev/({DEVICES})$' | sort",
        "/\n/dev\n/dev/mqueue\n/dev/pts\n/dev/shm\n/proc\n/sys\n",
    ),
)

PROCESS = (
    *(
        Row(f"the exit code {code}", "--rootfs {root}", f"exit {code}", code=code, runc=SAME)
        for code in (0, 1, 42, 125, 255)
    ),
    *(
        Row(f"the end by signal {number} as {128 + number}", "--rootfs {root}", f"kill -{number} $$", code=128 + number)
        for number in (1, 2, 6, 9, 11, 15)
    ),
    Row(
        "arguments byte for byte",
        "--rootfs {root}",
        "",
        "a b|$HOME|'\"|\u00e9|\n|*|",
        runc=SAME,
        direct=("printf", "%s|", "a b", "$HOME", "'\"", "\u00e9", "\n", "*"),
    ),
    Row("an empty argument", "--rootfs {root}", "", "<>\n", runc=SAME, direct=("printf", "<%s>\\n", "")),
    Row(
        "an option of the command left to the command",
        "--rootfs {root}",
        "",
        "--cpus\n",
        runc=SAME,
        direct=("echo", "--cpus"),
    ),
    Row("a command found on PATH", "--rootfs {root}", "", "x\n", runc=SAME, direct=("echo", "x")),
    Row("an init as PID 1 and itself as its child", "--rootfs {root}", "cut -d' ' -f4 /proc/$$/stat", "1\n"),
    Row("PID 1 where no init is wanted", "--rootfs {root} --no-init", "echo $$", "1\n", runc=SAME),
    Row(
        "no zombies of orphans",
        "--rootfs {root}",
        "for i in 1 2 3; do (sh -c 'sleep 0.1 &' &); done; sleep 0.5; cat /proc/[0-9]*/stat | grep -c ') Z'",
        "0\n",
        1,
    ),
    Row(
        "orphans that become children of init",
        "--rootfs {root}",
        "sh -c 'sleep 0.5 & echo $! > /tmp/orphan'; cut -d' ' -f4 /proc/$(cat /tmp/orphan)/stat; rm /tmp/orphan",
        "1\n",
    ),
    Row("an end that takes its children along", "", "sleep 1000 & echo done", "done\n"),
    Row(
        "a variable that was set",
        "--rootfs {root} --env A=1=2",
        "echo $A",
        "1=2\n",
        runc={"process.env": Append(["A=1=2"])},
    ),
    Row(
        "an empty variable",
        "--rootfs {root} -e A=",
        "echo ${{A-unset}}".replace("{{", "{").replace("}}", "}"),
        "\n",
        runc={"process.env": Append(["A="])},
    ),
    Row("the variables of a file", "--env-file {dir}/env", "echo $GOMAXPROCS $B", "2 b c\n"),
    Row(
        "its user and group",
        "--rootfs {root} --user 1000:1001",
        "id -u; id -g",
        "1000\n1001\n",
        runc={"process.user": {"uid": 1000, "gid": 1001}},
    ),
    Row(
        "its user by name, with the groups",
        "--rootfs {root} --user app",
        "id -u; id -g; id -G",
        "1000\n1001\n1001 1002\n",
        runc={"process.user": {"uid": 1000, "gid": 1001, "additionalGids": [1002]}},
    ),
    Row("its user's home", "--rootfs {root} --user app", "echo $HOME", "/tmp\n"),
    Row("no supplementary groups", "--rootfs {root}", "grep ^Groups: /proc/self/status", "Groups:\t \n", runc=SAME),
    Row(
        "files that belong to its user",
        "--rootfs {root} --user 1000:1001",
        "touch /tmp/own; stat -c %u:%g /tmp/own; rm /tmp/own",
        "1000:1001\n",
        runc={"process.user": {"uid": 1000, "gid": 1001}},
    ),
    Row(
        "a limit of open files",
        "--rootfs {root} --ulimit nofile=100:200",
        "ulimit -Sn; ulimit -Hn",
        "100\n200\n",
        runc={"process.rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]},
    ),
    Row(
        "no core files where told so",
        "--rootfs {root} --ulimit core=0",
        "ulimit -c",
        "0\n",
        runc={"process.rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]},
    ),
    Row(
        "three open files", "--rootfs {root}", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 ", runc=SAME
    ),  # 3 is ls' own
)

SECURITY = (
    Row(
        "docker's fourteen capabilities",
        "--rootfs {root}",
        "grep ^Cap /proc/self/status | cut -f2 | tr '\\n' ' '",
        "0000000000000000 00000000a80425fb 00000000a80425fb 00000000a80425fb 0000000000000000 ",
    ),
    Row(
        "no capability when all are dropped",
        "--rootfs {root} --cap-drop ALL",
        "grep ^Cap /proc/self/status | cut -f2 | sort -u",
        "0000000000000000\n",
        runc={"process.capabilities": {}},
    ),
    Row(
        "one more that was asked for",
        "--rootfs {root} --cap-drop ALL --cap-add NET_ADMIN",
        "grep ^CapEff /proc/self/status",
        "CapEff:\t0000000000001000\n",
        runc={"process.capabilities": {kind: ["CAP_NET_ADMIN"] for kind in ("bounding", "effective", "permitted")}},
    ),
    Row(
        "no capability for a user other than root",
        "--rootfs {root} --user 1000",
        "grep -E '^Cap(Eff|Prm|Amb)' /proc/self/status | cut -f2 | sort -u",
        "0000000000000000\n",
    ),
    Row(
        "an ambient capability for a user who was given it by name",
        "--rootfs {root} --user 1000 --cap-drop ALL --cap-add NET_RAW",
        "grep -E '^Cap(Eff|Amb)' /proc/self/status | cut -f2 | sort -u",
        "0000000000002000\n",
        runc={
            "process.user": {"uid": 1000, "gid": 0},
            "process.capabilities": {
                kind: ["CAP_NET_RAW"] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
            },
        },
    ),
    Row("no new privileges", "--rootfs {root}", "grep ^NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", runc=SAME),
    Row("a seccomp filter", "--rootfs {root}", "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"),
    Row(
        "no seccomp filter where told so",
        "--rootfs {root} --security-opt seccomp=unconfined",
        "grep ^Seccomp: /proc/self/status",
        "Seccomp:\t0\n",
        runc=SAME,
    ),
    Row(
        "no mount",
        "--rootfs {root}",
        "mount -t tmpfs x /mnt 2>/dev/null || echo refused",
        "refused\n",
    ),
    Row("no new namespace", "--rootfs {root}", "unshare -U true 2>/dev/null || echo refused", "refused\n"),
    Row(
        "no host name of its own making",
        "--rootfs {root}",
        "hostname other 2>/dev/null || echo refused",
        "refused\n",
        runc=SAME,
    ),
    Row(
        "no device made that works",
        "--rootfs {root}",
        "mknod /tmp/d b 254 0 2>/dev/null && cat /tmp/d 2>/dev/null >/dev/null && echo open; rm -f /tmp/d; :",
        runc=SAME,
    ),
    Row("no kernel log", "--rootfs {root}", "dmesg >/dev/null 2>&1 || echo refused", "refused\n", runc=SAME),
    Row(
        "no clock to set",
        "--rootfs {root}",
        "date -s 2001-01-01 2>&1 >/dev/null",
        "date: can't set date: Operation not permitted\n",
        runc=SAME,
    ),
    Row("no other root", "--rootfs {root}", "pivot_root /mnt /mnt 2>/dev/null || echo refused", "refused\n"),
)

TABLE = {
    f"{title}: {row.name}": row
    for title, rows in (("namespaces", NAMESPACES), ("files", FILES), ("process", PROCESS), ("security", SECURITY))
    for row in rows
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What a row may use as {dir}."""
    (tmp_path / "given").write_text("given\n")
    (tmp_path / "env").write_text("# written by cgagent\nGOMAXPROCS='2'\nB=b c\n")
    return tmp_path


@needs_root
@pytest.mark.parametrize("name", TABLE)
def test_inside_there_is(name: str, directory: Path) -> None:
    check(TABLE[name], str(directory))
