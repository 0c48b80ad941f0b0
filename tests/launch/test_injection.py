"""Every system call of the set-up, made to fail in its turn.

Whatever the kernel refuses, the launch ends with one clear line and 125, or goes on as if nothing had been: then the
command finds inside what it finds in a launch without a failure. Nothing hangs, nothing is left.

CGAGENT_INJECT says how many calls of each launch are taken, at random (40); `all` takes every one with every error.
"""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import random
import re
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, NamedTuple

import pytest

import cgagent.launch
from cgagent.cli import main
from cgagent.launch import names, network
from cgagent.launch.syscalls import PR_SET_DUMPABLE, prctl
from launch import leftovers
from launch.behaviour import needs_root
from launch.private_namespaces import in_private_namespaces
from launch.tracer import HEADER, Call, Ended, Tracer

if TYPE_CHECKING:
    from collections.abc import Iterator

INJECT = os.environ.get("CGAGENT_INJECT", "40")
NOBODY = 65534

pytestmark = [
    needs_root,
    pytest.mark.skipif(
        os.uname().machine != "x86_64" or not os.path.exists(HEADER),
        reason="the tracer knows x86-64, by linux-libc-dev",
    ),
]

LIMITS = "--cpus 1 --memory 64Mi --pids-limit 50"
LAUNCHES = {
    "limits": LIMITS,
    "veth": "--net veth --net-rate 100mbit --dns 10.0.0.1 --pids-limit 50",
    "user": "--user 1000:1000 --cap-add NET_RAW --cpus 1 --tmpfs /mnt --hostname box --ulimit nofile=50:60",
    "no-init": f"--no-init --read-only {LIMITS}",
    "tty": "--tty --pids-limit 50",
    "after-a-death": LIMITS,
    "rootless": "",
}
# What needs which v1 controller; the cgroups of the others are shown, and are none of the limits' business.
CONTROLLERS = {"--cpus": "cpu", "--memory": "memory", "--pids-limit": "pids"}
# Calls whose failure says nothing of the launcher.
EXCLUDED = {
    "brk": "the interpreter's memory",
    "mmap": "the interpreter's memory",
    "munmap": "the interpreter's memory",
    "mremap": "the interpreter's memory",
    "madvise": "the interpreter's memory",
    "lseek": "the interpreter's streams",
    "futex": "the interpreter's locks",
    "close_range": "the interpreter then closes files one by one, a million calls",
    "rt_sigreturn": "never fails",
    "exit_group": "never fails",
    "getpid": "never fails",
    "gettid": "never fails",
    "geteuid": "never fails",
    "getegid": "never fails",
    "getuid": "never fails",
    "umask": "never fails",
    "uname": "never fails",
}
# What such a call fails with in life; the others with EPERM and ENOMEM.
ERRORS = {
    "read": (errno.EIO,),
    "write": (errno.EIO, errno.EPERM),
    "openat": (errno.EMFILE, errno.EACCES),
    "poll": (errno.ENOMEM,),
    "pipe2": (errno.EMFILE,),
    "socket": (errno.EMFILE, errno.EPERM),
    "mkdir": (errno.ENOSPC, errno.EACCES),
    "execve": (errno.ENOMEM, errno.EACCES),
    "clone": (errno.EAGAIN, errno.EPERM),
    "clone3": (errno.EAGAIN, errno.EPERM),
    "vfork": (errno.EAGAIN,),
    "close": (errno.EIO,),
    "kill": (errno.EPERM,),
}
# All that a command can see of its container; not all of it is there on v1 or v2.
PROBE = (
    "/proc/self/status /proc/self/mountinfo /proc/self/limits /proc/self/cgroup /proc/self/uid_map /proc/self/gid_map "
    "/proc/sys/kernel/hostname /proc/net/route /sys/class/net/lo/flags /etc/resolv.conf "
)
SHOWN = {
    "cpu": "/sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max ",
    "memory": "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max ",
    "pids": "/sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max ",
}
VOLATILE = re.compile(r"Pid|PPid|NSt?g?pid|NSpgid|NSsid|Vm\w+|Rss\w+|Hugetlb\w+|\w*voluntary_ctxt_switches|FDSize")


class Outcome(NamedTuple):
    ended: Ended
    stdout: str
    stderr: str


class Launch:
    """A launch to be done over and over."""

    def __init__(self, name: str) -> None:
        options = LAUNCHES[name].split()
        self._limited = {CONTROLLERS[word] for word in options if word in CONTROLLERS}
        shown = PROBE + "".join(SHOWN[one] for one in sorted(self._limited))
        self.words = ["run", *options, "--", "sh", "-c", f"cat {shown} 2>/dev/null; :"]
        self._uid = NOBODY if name == "rootless" else 0
        # As left by a launcher that was killed: a name with a PID that no process can have.
        place = os.path.dirname(own_cgroups()[0])
        self._dead = f"{place}/cgagent-{names.pid_namespace()}-4194305-1" if name == "after-a-death" else ""
        self._tracer = Tracer()
        self._parents = {os.path.dirname(path) for path in own_cgroups()}
        self._mark = f"cgagent-test-{os.getpid()}"
        self._places = leftovers.places()

    def __call__(self, fail: Call | None = None, error: int = errno.EPERM) -> Outcome:
        if self._dead:
            os.makedirs(self._dead, exist_ok=True)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:

            def child() -> int:
                null = os.open(os.devnull, os.O_RDWR)
                for source, target in ((null, 0), (out.fileno(), 1), (err.fileno(), 2)):
                    os.dup2(source, target)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                # As in an interpreter of its own: pytest's would import, and meet the failure.
                sys.unraisablehook = sys.__unraisablehook__
                warnings.simplefilter("ignore", ResourceWarning)
                os.environ["MARK"] = self._mark
                network._LINGER = 0.0  # else each launch takes half a second
                os.chdir("/")
                os.setgroups(())
                os.setresgid(self._uid, self._uid, self._uid)
                os.setresuid(self._uid, self._uid, self._uid)
                prctl(PR_SET_DUMPABLE, 1)  # or /proc/self would stay root's
                os.sched_yield()
                return main(self.words)

            ended = self._tracer.launch(child, fail, error)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace").replace("\r\n", "\n"))
        return Outcome(ended, self._steady(texts[0]), texts[1])

    def left(self, outcome: Outcome) -> list[str]:
        """All that this launch has left behind; removed."""
        found = list(outcome.ended.left)
        for parent in self._parents:
            for name in os.listdir(parent):
                known = names.owner(name)
                if known and known[1] == outcome.ended.pid:
                    found.append(f"{parent}/{name}")
        found += leftovers.places() - self._places
        found += [f"process {pid}" for pid in leftovers.processes(self._mark)]
        if found:
            leftovers.collect()
        return found

    def _steady(self, text: str) -> str:
        """The probe's output without what differs from launch to launch, or is not asked for."""
        lines = []
        for line in text.splitlines():
            fields = line.split()
            is_cgroup_mount = fields[-3:-1] in (["cgroup", "cgroup"], ["cgroup2", "cgroup2"])
            if VOLATILE.match(line) or (is_cgroup_mount and not self._shows_limits(fields[-1])):
                continue
            if len(fields) > 8 and fields[0].isdigit() and ":" in fields[2]:
                if f"{fields[4]}/".startswith(("/root/", "/run/", "/srv/", "/tmp/", "/var/")):
                    continue  # the host's, which come and go, and change places as they do
                line = " ".join(fields[3:])  # mountinfo: IDs and device numbers
            lines.append(re.sub(r"\bcgagent-\d+", "cgagent-PID", line))
        return "\n".join(lines)

    def _shows_limits(self, options: str) -> bool:
        return not self._limited.isdisjoint(options.split(","))


def own_cgroups() -> list[str]:
    from cgagent.launch.cgroups import own_hierarchies, own_mountinfo

    return [
        f"{level.directories[0][1].rstrip('/')}/x" for one in own_hierarchies(own_mountinfo()) for level in one.levels
    ]


def fault(outcome: Outcome, call: Call, reference: Outcome) -> str:
    """What is wrong with how a launch took the failure of `call`; empty if nothing is."""
    code, stdout, stderr = outcome.ended.code, outcome.stdout, outcome.stderr
    if code is None:
        return "hangs"
    if code == 0:
        if stderr:
            return f"ends well, and says {stderr!r}"
        return (
            ""
            if stdout == reference.stdout
            else f"ends well, with another container:\n{difference(reference, outcome)}"
        )
    allowed = (125, 126, 127) if call.name == "execve" else (125,)
    if code not in allowed:
        return f"ends with {code}: {stderr}"
    if stderr.count("\n") != 1 or not stderr.startswith("cgagent run: "):
        return f"says {stderr!r}"
    return ""


def difference(reference: Outcome, outcome: Outcome) -> str:
    import difflib

    lines = difflib.unified_diff(reference.stdout.split("\n"), outcome.stdout.split("\n"), n=0, lineterm="")
    return "\n".join(line[:200] for line in list(lines)[2:12])


def chosen(calls: list[Call], seed: int) -> Iterator[tuple[Call, int]]:
    # The terminal's relay: that a terminal has ended is EIO too, and how often it reads and writes is chance.
    relay = {call.process for call in calls if call.name == "poll" and call.process != "launcher"}
    picked = [call for call in calls if call.name not in EXCLUDED and call.process not in relay]
    chance = random.Random(seed)
    if INJECT != "all":
        picked = [picked[place] for place in sorted(chance.sample(range(len(picked)), min(int(INJECT), len(picked))))]
    for call in picked:
        errors = ERRORS.get(call.name, (errno.EPERM, errno.ENOMEM))
        for error in errors if INJECT == "all" else (chance.choice(errors),):
            yield call, error


@pytest.mark.parametrize("name", LAUNCHES)
@in_private_namespaces
def test_each_call_of_the_set_up_may_fail(name: str) -> None:
    for module in pkgutil.iter_modules(cgagent.launch.__path__):
        importlib.import_module(f"cgagent.launch.{module.name}")
    importlib.import_module("cgagent.commands.run")
    launch = Launch(name)
    reference = launch()
    if name == "rootless" and reference.ended.code == 125 and "namespaces" in reference.stderr:
        pytest.skip(f"no user namespaces for an ordinary user: {reference.stderr}")
    assert (reference.ended.code, reference.stderr, launch.left(reference)) == (0, "", []), reference
    seed = random.randrange(1 << 32)
    wrong: list[str] = []
    tried = missed = 0
    for call, error in chosen(reference.ended.calls, seed):
        outcome = launch(call, error)
        # Another's launch at the same time is a directory more, or less, to look at.
        tried += 1
        missed += not outcome.ended.injected
        said = [fault(outcome, call, reference), *(f"leaves {one}" for one in launch.left(outcome))]
        wrong += [f"{call} {errno.errorcode[error]} {text}" for text in said if text]
    assert missed <= tried / 4
    if wrong:
        pytest.fail("\n".join([f"{len(wrong)} failures are not taken well (seed {seed}):", *wrong]))
