"""The container's walls, held against those that runc builds from its default spec and docker from its own."""

from __future__ import annotations

import pytest

from launch.behaviour import RUNC, Result, Runc, busybox_root, needs_root, run

pytestmark = [needs_root, pytest.mark.skipif(RUNC is None, reason="runc is not installed")]

# moby, daemon/pkg/oci/caps/defaults.go: what `docker run` keeps.
DOCKER = {
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
}
NUMBERS = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
# docker's and the OCI's: what must not be seen, and what must not be written.
MASKED = (*("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"),)
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")


@pytest.fixture(scope="module")
def both() -> tuple[Result, Result]:
    """Status, mounts and devices of a process here and in runc, in one root file system."""
    return look("cat /proc/self/status; echo ==; cat /proc/mounts; echo ==; ls -lL /dev; ls -l /dev/pts /dev/shm")


def look(command: str) -> tuple[Result, Result]:
    ours = run(["--rootfs", busybox_root()], "sh", "-c", command)
    theirs = Runc({}, "sh", "-c", command).run()
    assert (ours.code, theirs.code) == (0, 0), (ours, theirs)
    return ours, theirs


def status(result: Result) -> dict[str, str]:
    lines = result.stdout.split("==\n")[0].splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mounts(result: Result) -> dict[str, tuple[str, set[str]]]:
    """By mount point: file system and options."""
    lines = result.stdout.split("==\n")[1].splitlines()
    return {point: (kind, set(options.split(","))) for _, point, kind, options, *_ in map(str.split, lines)}


class TestStatus:
    def test_holds_no_capability_beyond_dockers(self, both: tuple[Result, Result]) -> None:
        allowed = sum(1 << NUMBERS[name] for name in DOCKER)
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status(both[0])[name], 16) == allowed
        for name in ("CapInh", "CapAmb"):
            assert int(status(both[0])[name], 16) == 0

    def test_has_exactly_runcs_capabilities_when_asked_for_them(self) -> None:
        command = ("grep", "-E", "^Cap(Prm|Eff|Bnd)", "/proc/self/status")
        words = ["--cap-drop", "ALL", "--cap-add", "AUDIT_WRITE", "--cap-add", "KILL", "--cap-add", "NET_BIND_SERVICE"]
        ours = run(["--rootfs", busybox_root(), *words], *command)
        assert ours.stdout == Runc({}, *command).run().stdout

    def test_is_as_strict_as_runcs_elsewhere(self, both: tuple[Result, Result]) -> None:
        ours, theirs = map(status, both)
        assert ours["NoNewPrivs"] == theirs["NoNewPrivs"] == "1"
        # 0: none, 2: a filter. runc's default spec has none, docker's has.
        assert (ours["Seccomp"], ours["Seccomp_filters"]) == ("2", "1")
        for name in ("Uid", "Gid", "Groups", "SigBlk", "Threads", "TracerPid"):
            assert (name, ours[name]) == (name, theirs[name])
        # 32 and 33 are glibc's own; its posix_spawn, by which make starts commands, hands them on ignored.
        ignored = [int(one["SigIgn"], 16) & ~(0b11 << 31) for one in (ours, theirs)]
        assert ignored[0] == ignored[1]


class TestMounts:
    def test_are_those_of_runc_with_the_same_file_systems(self, both: tuple[Result, Result]) -> None:
        ours, theirs = map(mounts, both)
        for point, (kind, _) in theirs.items():
            if point != "/" and not point.startswith(("/proc/", "/sys/fs/cgroup")):
                assert (point, ours.get(point, ("none",))[0]) == (point, kind)

    def test_are_at_least_as_restricted(self, both: tuple[Result, Result]) -> None:
        ours, theirs = map(mounts, both)
        loose = {
            (point, flag)
            for point, (_, options) in theirs.items()
            for flag in options & {"ro", "nosuid", "nodev", "noexec"}
            # What lies over a masked file is /dev/null, here the host's and there the container's.
            if point in ours and point != "/" and not point.startswith("/proc/") and flag not in ours[point][1]
        }
        assert loose == set()

    def test_of_cgroups_are_read_only_as_in_runc(self, both: tuple[Result, Result]) -> None:
        ours, theirs = map(mounts, both)
        of_ours, of_theirs = (
            {point for point, (kind, _) in each.items() if kind in ("cgroup", "cgroup2")} for each in (ours, theirs)
        )
        # runc leaves out the v2 tree of a hybrid host.
        assert of_ours - {"/sys/fs/cgroup/unified"} == of_theirs
        assert all("ro" in ours[point][1] for point in of_ours)

    @pytest.mark.parametrize("name", MASKED)
    def test_hide_what_docker_masks(self, name: str) -> None:
        # A file gives nothing, a directory holds nothing; where the kernel has neither there is nothing to hide.
        shown = f"[ -f /proc/{name} ] && cat /proc/{name}; [ -d /proc/{name} ] && ls /proc/{name}; :"
        assert run(["--rootfs", busybox_root()], "sh", "-c", shown).stdout == ""

    @pytest.mark.parametrize("name", READ_ONLY)
    def test_write_protect_what_docker_does(self, name: str) -> None:
        shown = f'[ -e /proc/{name} ] || exit 0; grep -o " /proc/{name} ro" /proc/self/mountinfo'
        assert run(["--rootfs", busybox_root()], "sh", "-c", shown).code == 0

    def test_do_not_propagate(self) -> None:
        ours, theirs = look("grep -c -E 'shared:|master:' /proc/self/mountinfo || :")
        assert ours.stdout == theirs.stdout == "0\n"


class TestDevices:
    def test_are_runcs(self, both: tuple[Result, Result]) -> None:
        ours, theirs = (devices(result) for result in both)
        assert ours == theirs

    def test_are_all_that_can_be_opened(self) -> None:
        # Whoever keeps CAP_MKNOD makes a node for the disk; it opens for nobody.
        make = "mknod /dev/shm/disk b 254 0 2>/dev/null; head -c 1 /dev/shm/disk 2>/dev/null | wc -c"
        ours, theirs = look(make)
        assert ours.stdout == theirs.stdout == "0\n"


def devices(result: Result) -> set[tuple[str, str, str]]:
    """Kind and mode, number and name of the device nodes."""
    lines = result.stdout.split("==\n")[2].splitlines()
    nodes = [line.split() for line in lines if line[:1] in ("c", "b")]
    # runc's `core` is a link to the kernel's memory in /proc, where a kernel has that, and masked there.
    return {(node[0], "".join(node[4:6]), node[-1]) for node in nodes if node[-1] != "core"}
