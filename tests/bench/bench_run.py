"""What `cgagent run` costs beside runc, crun, bubblewrap and unshare: time, memory, and many at once.

    python tests/bench/bench_run.py [ROUNDS]

All start `true` in a root file system of busybox with the same limits of CPU and memory, where they have limits.
Needs root. crun refuses hybrid hosts, so it runs in a mount namespace without the v2 tree, entered by `nsenter`;
what that costs is a row of its own. The benchmark has a network namespace of its own: veth makes its bridge there.
`cgagent run` is the installed package's, and the bundle's where deploy/bundle can build it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from cgagent.launch.syscalls import CLONE_NEWNET, unshare

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from bench import floor
from bench.measure import Case, measure, rounds_wanted, table

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MEMORY = 64 << 20
AT_ONCE, LAUNCHES, REPEATS = 20, 100, 3
CGAGENT = os.path.join(os.path.dirname(sys.executable), "cgagent")
LIMITS = ["--cpus", "0.5", "--memory", "64Mi"]
# What a launch loads, beside what Python itself does.
MODULES = "cgagent.cli, cgagent.commands.run, cgagent.launch.launcher, cgagent.launch.spec, cgagent.launch.seccomp"


def busybox_root(place: str) -> str:
    """A root file system of busybox alone."""
    root = os.path.join(place, "rootfs")
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        os.makedirs(os.path.join(root, name))
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("bench_run: busybox-static is not installed")
    shutil.copy(busybox, os.path.join(root, "bin", "busybox"))
    for name in ("true", "sleep", "sh"):
        os.symlink("busybox", os.path.join(root, "bin", name))
    return root


def bundle(place: str, root: str, name: str, command: list[str]) -> str:
    """An OCI bundle with runc's default spec, the root and the limits; the directory."""
    directory = os.path.join(place, name)
    os.makedirs(directory)
    subprocess.run(["runc", "spec"], cwd=directory, check=True)
    path = os.path.join(directory, "config.json")
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    spec["root"]["path"] = root
    spec["process"].update(terminal=False, args=command)
    spec["linux"]["resources"].update(cpu={"quota": 50000, "period": 100000}, memory={"limit": MEMORY, "swap": MEMORY})
    with open(path, "w", encoding="utf-8") as file:
        json.dump(spec, file)
    return directory


class WithoutV2:
    """A mount namespace without the v2 tree of a hybrid host, held by a process."""

    def __init__(self) -> None:
        # A tmpfs of its own with the v1 mounts: crun leaves directories there for controllers that are not mounted.
        hide = """
            copy=$(mktemp -d) && mount -t tmpfs copy "$copy"
            for mount in /sys/fs/cgroup/*/; do
                name=$(basename "$mount")
                mountpoint -q "$mount" && [ "$name" != unified ] || continue
                mkdir "$copy/$name" && mount --bind "$mount" "$copy/$name"
            done
            mount --rbind "$copy" /sys/fs/cgroup && umount -R "$copy" && rmdir "$copy"
            echo ready; exec sleep infinity
        """
        self.process = subprocess.Popen(["unshare", "-m", "sh", "-c", hide], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def words(self, *command: str) -> list[str]:
        return [found("nsenter"), f"--mount=/proc/{self.process.pid}/ns/mnt", "--", *command]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def found(program: str) -> str:
    """The path of a program; the benchmark ends without it."""
    path = shutil.which(program)
    if path is None:
        sys.exit(f"bench_run: {program} is not installed")
    return path


def build(place: str) -> str:
    """The bundle's program; empty where it can't be built."""
    script = os.path.join(TESTS, "..", "deploy", "bundle")
    done = subprocess.run([script, "--output", f"{place}/bundle.tar"], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"no bundle: {done.stderr.strip()}")
        return ""
    subprocess.run(["tar", "-C", place, "-xf", f"{place}/bundle.tar", "cgagent"], check=True)
    return f"{place}/cgagent"


def peers(place: str, root: str, hidden: WithoutV2, program: str, command: list[str]) -> dict[str, list[str]]:
    """How each launcher starts `command` in `root`, by name; those that are there, the bundle's `program` too."""
    words = ["run", *LIMITS, "--rootfs", root, "--", *command]
    ready = {"cgagent run": [CGAGENT, *words]}
    if program:
        ready["cgagent run, of the bundle"] = [program, *words]
    if shutil.which("runc"):
        directory = bundle(place, root, f"bundle-{command[0]}", command)
        name = f"cgagent-test-{os.getpid()}-{command[0]}"
        ready["runc run"] = [found("runc"), "run", "--bundle", directory, name]
        if shutil.which("crun"):
            ready["crun run, by nsenter"] = hidden.words(found("crun"), "run", "--bundle", directory, name)
    if shutil.which("bwrap"):
        ready["bwrap --unshare-all"] = [
            found("bwrap"),
            "--unshare-all",
            "--bind",
            root,
            "/",
            "--proc",
            "/proc",
            *command,
        ]
    return ready


def by_a_script(root: str) -> list[Case]:
    """A script that makes the launcher's system calls and no more; then with the launcher's modules loaded."""
    if not all(os.path.isdir(f"{floor.BASE}/{name}") for name in (*floor.HIERARCHIES, "unified")):
        return []  # it knows the hierarchies of this kind of machine alone
    script = f"import sys; sys.path.append({TESTS!r}); from bench.floor import main; main({root!r})"
    return [
        Case("its system calls, by a script", [sys.executable, "-c", script]),
        Case("that, and its modules loaded", [sys.executable, "-c", f"import {MODULES}; {script}"]),
    ]


def times(place: str, root: str, hidden: WithoutV2, program: str, rounds: int) -> None:
    """From start to exit of `true`."""
    bare = Case("python -I -S -c pass", [sys.executable, "-I", "-S", "-c", "pass"])
    launchers = peers(place, root, hidden, program, ["true"])
    run = launchers["cgagent run"]
    cases = [bare, *(Case(name, words) for name, words in launchers.items())]
    cases += [
        Case("cgagent run, the host's root", [CGAGENT, "run", *LIMITS, "--", "/bin/true"]),
        Case("cgagent run, no limits", [CGAGENT, "run", "--rootfs", root, "--", "true"]),
        Case("cgagent run --net veth", [*run[:2], "--net", "veth", *run[2:]]),
        Case("nsenter alone", hidden.words("/bin/true")),
        Case("unshare -fpmuinC", [found("unshare"), "-fpmuinC", "/bin/true"]),
    ]
    if docker_runs():
        words = [found("docker"), "run", "--rm", "--cpus", "0.5", "--memory", "64m", "busybox", "true"]
        cases.append(Case("docker run", words))
    cases += by_a_script(root)
    measure(cases, rounds)
    print(f"start to exit of true, {rounds} rounds\n{table(cases, bare)}\n")
    entering = next(case for case in cases if case.name == "nsenter alone")
    for ours in cases[1 : 3 if program else 2]:
        above = (ours.median - bare.median, min(ours.wall) - min(bare.wall))
        print(f"{ours.name}: {above[0] * 1e3:.1f} ms above the bare interpreter (minimum {above[1] * 1e3:.1f})")
        for case in cases:
            if case.name in ("runc run", "crun run, by nsenter"):
                others = [entering] if "nsenter" in case.name else []
                median = case.median - sum(other.median for other in others)
                least = min(case.wall) - sum(min(other.wall) for other in others)
                print(
                    f"    to {case.name.split(',')[0]} ({median * 1e3:.1f} ms, minimum {least * 1e3:.1f}): "
                    f"{ours.median / median:.2f}, of the minima {min(ours.wall) / least:.2f}"
                )


def docker_runs() -> bool:
    """Whether a docker daemon answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def memory(place: str, root: str, hidden: WithoutV2, program: str) -> None:
    """Proportional set size of all that a launcher keeps while its command sleeps."""
    print("\nmemory while the command runs, KiB (PSS), the command left out")
    for name, words in peers(place, root, hidden, program, ["sleep", "1000"]).items():
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
        time.sleep(0.5)
        parts = sorted(family(process.pid))
        sizes = [(pss(pid), label(pid)) for pid in [process.pid, *parts]]
        kept = [(size, text) for size, text in sizes if not text.startswith("sleep")]
        details = ", ".join(f"{text} {size}" for size, text in kept)
        print(f"{name:<34}{sum(size for size, _ in kept):>8}   {len(kept)} processes: {details}")
        os.killpg(process.pid, signal.SIGTERM)
        for pid in parts:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()


def family(pid: int) -> set[int]:
    """All descendants."""
    children: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children.update(int(word) for word in file.read().split())
    except OSError:
        return children
    return children.union(*(family(child) for child in children))


def pss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def label(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()


def at_once(place: str, root: str, hidden: WithoutV2, program: str) -> None:
    """Many launches, side by side."""
    print(f"\n{LAUNCHES} launches of true, {AT_ONCE} at once, seconds (median of {REPEATS})")
    launchers = peers(os.path.join(place, "many"), root, hidden, program, ["true"])
    # Names of containers must differ: the last word is the one that xargs fills in.
    for name, words in launchers.items():
        if name.startswith(("runc", "crun")):
            launchers[name] = [*words[:-1], f"{words[-1]}-N"]
    wall: dict[str, list[float]] = {name: [] for name in launchers}
    cpu: dict[str, list[float]] = {name: [] for name in launchers}
    for _ in range(REPEATS):
        for name, words in launchers.items():
            xargs = ["xargs", "-P", str(AT_ONCE), "-I", "N", *words]
            numbers = "\n".join(map(str, range(LAUNCHES)))
            before, start = os.times(), time.perf_counter()
            subprocess.run(xargs, input=numbers, text=True, check=True, stderr=subprocess.DEVNULL)
            wall[name].append(time.perf_counter() - start)
            after = os.times()
            cpu[name].append(sum(after[2:4]) - sum(before[2:4]))
    ours = statistics.median(wall["cgagent run"])
    for name, seconds in wall.items():
        median = statistics.median(seconds)
        print(f"{name:<34}{median:>8.2f}{statistics.median(cpu[name]):>8.2f} of CPU   cgagent: {ours / median:.2f} x")


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bench_run: needs root")
    unshare(CLONE_NEWNET)
    place = tempfile.mkdtemp(prefix="cgagent-test-bench-")
    hidden = WithoutV2()
    try:
        root = busybox_root(place)
        program = build(place)
        times(place, root, hidden, program, rounds_wanted(40))
        memory(os.path.join(place, "memory"), root, hidden, program)
        at_once(place, root, hidden, program)
    finally:
        hidden.end()
        shutil.rmtree(place)
        subprocess.run([CGAGENT, "run", "--gc"], stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
