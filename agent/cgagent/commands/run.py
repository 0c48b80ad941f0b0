"""`cgagent run`: a command in new namespaces and a cgroup with limits, as in a container."""

from __future__ import annotations

import os

from cgagent.errors import UsageError
from cgagent.units import CPU_HELP, RATE_HELP, SIZE_HELP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments, Parser

DESCRIPTION = (
    "Run COMMAND in its own namespaces and under a container's limits, with no image, daemon or Docker. "
    "Options bear docker run's names. The environment and the file system are the caller's unless told otherwise."
)
EPILOG = f"""\
sizes: {SIZE_HELP}.
cpus: {CPU_HELP}.
rates: {RATE_HELP}.

examples:
  cgagent run --cpus 1.5 --memory 256Mi -- cgagent explain       a container's limits on this machine
  cgagent run --cpus 0.5 --memory 64Mi --go-env -- ./orders      with the values that cgagent decides
  cgagent run --rootfs ./root --read-only --user 1000 -- /bin/app
  cgagent run --privileged -- cgagent run --memory 64Mi -- true  one inside another
  cgagent run --host-cpus 64 --cpus 1.5 -- ./orders              on a node of 64 CPUs, under a real quota
  cgagent run --simulate v2 --layout kubernetes-systemd --cgroupns host --cpus 1.5 --parent-cpus 1 -- cgagent explain
  cgagent run --replay orders.tar.gz -- ./orders                 what cgagent capture took on another machine
  cgagent run --gc                                               remove what killed launchers left behind

exit codes: those of COMMAND; 128+N if signal N ended it; 125 the container could not be set up;
126 COMMAND found but not executable; 127 not found; 2 wrong usage.
A SIGTERM is passed on; one more after --stop-timeout becomes SIGKILL.
"""

# group, then rows of (names, metavar or None for a switch, repeatable, help)
_OPTIONS: tuple[tuple[str, tuple[tuple[str, str | None, bool, str], ...]], ...] = (
    (
        "limits",
        (
            ("--cpus", "N", False, "CPU time: 1.5 is one and a half CPUs"),
            ("--cpu-quota", "US", False, "CPU time in each period, microseconds"),
            ("--cpu-period", "US", False, "length of the period, microseconds (100000)"),
            ("--cpu-shares -c", "N", False, "CPU weight in v1's unit, 2 to 262144 (1024)"),
            ("--cpu-weight", "N", False, "CPU weight in v2's unit, 1 to 10000 (100)"),
            ("--cpuset-cpus --cpuset", "LIST", False, "the CPUs that may be used, as in 0-3"),
            ("--cpuset-mems", "LIST", False, "the memory nodes that may be used"),
            ("--memory -m", "SIZE", False, "memory; beyond it the OOM killer"),
            ("--memory-swap", "SIZE", False, "memory and swap together, -1 for no limit (default: no swap)"),
            ("--memory-high", "SIZE", False, "memory beyond which the kernel reclaims and throttles (v2)"),
            ("--memory-reservation", "SIZE", False, "memory that reclaim leaves alone while it can"),
            ("--pids-limit --pids", "N", False, "processes and threads"),
            ("--device-read-bps --io-read-bps", "DEV=SIZE", True, "bytes read from a block device a second"),
            ("--device-write-bps --io-write-bps", "DEV=SIZE", True, "bytes written to it a second"),
            ("--device-read-iops --io-read-iops", "DEV=N", True, "read operations a second"),
            ("--device-write-iops --io-write-iops", "DEV=N", True, "write operations a second"),
            ("--ulimit", "NAME=SOFT[:HARD]", True, "a limit of setrlimit(2), as in nofile=1024:2048"),
            ("--cgroup-parent", "PATH", False, "the cgroup to be in, instead of the caller's"),
            ("--best-effort", None, False, "go on without the limits that this machine cannot set, and say which"),
        ),
    ),
    (
        "another machine",
        (
            ("--host-cpus", "N", False, "show a machine of N CPUs, 1 to 1024, whatever the limits"),
            ("--host-memory", "SIZE", False, "show a machine with this much memory"),
            ("--simulate", "v1|v2|hybrid", False, "show cgroups in which the limits stand, and enforce none"),
            (
                "--layout",
                "NAME",
                False,
                "whose: docker (default), kubernetes-cgroupfs, kubernetes-systemd, systemd-service, nested",
            ),
            ("--qos", "CLASS", False, "class of the Kubernetes pod: guaranteed, burstable (default) or besteffort"),
            ("--cgroupns", "private|host", False, "with a cgroup namespace or without (default: as the runtime does)"),
            ("--parent-cpus", "N", False, "CPU limit of the cgroup above: pod, slice or outer container"),
            ("--parent-memory", "SIZE", False, "its memory limit"),
            ("--replay", "FILE", False, "show what cgagent capture took: its cgroups, CPUs and memory"),
            ("--enforce", None, False, "let what --simulate or --replay shows bind as well"),
        ),
    ),
    (
        "namespaces and network",
        (
            ("--share", "NAME", True, "keep the caller's pid, net, mnt, uts, ipc, user or cgroup namespace"),
            ("--hostname", "NAME", False, "host name inside"),
            ("--time-offset", "SECONDS", False, "a time namespace whose monotonic and boot clocks differ by this"),
            ("--net --network", "none|host|veth", False, "none (default: loopback alone), host, or a veth pair"),
            ("--net-rate", "RATE", False, "network rate in both directions, as in 10mbit"),
            ("--net-nat", None, False, "let the container reach what the host reaches"),
            ("--dns", "ADDRESS", True, "a name server for the container"),
        ),
    ),
    (
        "files",
        (
            ("--rootfs", "DIR", False, "the root directory inside (default: the host's)"),
            (
                "--read-only",
                None,
                False,
                "a root that can't be written; of the host's tree all but the working directory",
            ),
            ("--volume -v", "SRC:DST[:ro]", True, "show a directory or file of the host inside"),
            ("--tmpfs", "DST[:OPTIONS]", True, "an empty file system in memory, as in /tmp:size=64m"),
            ("--workdir -w", "DIR", False, "the directory to start in"),
        ),
    ),
    (
        "process",
        (
            ("--user -u", "UID[:GID]", False, "user and group inside, numbers or names"),
            ("--env -e", "NAME=VALUE", True, "set a variable"),
            ("--env-file", "FILE", True, "set the variables of a file"),
            ("--go-env", None, False, "set the GOMAXPROCS and GOMEMLIMIT that cgagent decides from inside"),
            ("--tty -t", None, False, "give it a terminal of its own"),
            ("--no-init", None, False, "let COMMAND be PID 1 (default: a small init reaps and forwards signals)"),
            ("--stop-timeout", "SECONDS", False, "how long after a SIGTERM a second one becomes SIGKILL (10)"),
            ("--preserve-fds", "N", False, "pass N file descriptors from 3 on (default: 0 to 2 alone)"),
        ),
    ),
    (
        "security",
        (
            ("--cap-add", "CAP", True, "keep a capability beside docker's 14, or ALL"),
            ("--cap-drop", "CAP", True, "drop a capability, or ALL"),
            (
                "--security-opt",
                "OPTION",
                True,
                "no-new-privileges=false, seccomp=unconfined or systempaths=unconfined",
            ),
            (
                "--privileged",
                None,
                False,
                "all capabilities of the user namespace, no seccomp filter, nothing masked, cgroups writable",
            ),
        ),
    ),
    (
        "report",
        (
            ("--stats", None, False, "print what it used, and what held it back, at its end"),
            ("--stats-file", "FILE", False, "write the same as JSON"),
            ("--gc", None, False, "remove what killed launchers left behind, and end"),
        ),
    ),
)


def configure(parser: Parser) -> None:
    """Declare the command's options."""
    for title, rows in _OPTIONS:
        group = parser.add_argument_group(title)
        for names, metavar, repeatable, text in rows:
            if metavar is None:
                group.add_argument(*names.split(), action="store_true", help=text)
            elif repeatable:
                group.add_argument(*names.split(), action="append", metavar=metavar, help=text)
            else:
                group.add_argument(*names.split(), metavar=metavar, help=text)
    parser.add_argument("--init", action="store_true", help="the default")
    parser.add_argument("--interactive", "-i", action="store_true", help="always so: stdin is the caller's")
    parser.add_argument("--rm", action="store_true", help="always so: nothing is left behind")
    parser.add_argument("command", nargs="...", metavar="-- COMMAND", help="what to run, with its arguments")


def run(arguments: Arguments) -> int:
    """Run the command; return its exit code."""
    if arguments.gc:
        if arguments.command:
            raise UsageError("--gc does not go with a COMMAND", "leave one of the two out")
        from cgagent.launch.gc import collect

        return collect()
    import gc

    # Three processes of a few milliseconds each: collecting only makes them copy each other's pages.
    gc.disable()
    from cgagent.launch.launcher import launch
    from cgagent.launch.spec import Spec

    code = launch(Spec(arguments, os.environ))
    # Nothing is buffered or left to finalize, and the interpreter takes a millisecond for that.
    os._exit(code)
