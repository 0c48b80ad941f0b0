"""Where systemd is PID 1, `cgagent run` asks it for a scope; a systemd of the tests' own says what it gave.

It is PID 1 of a container, on cgroup v2 alone, with nothing of the machine's to write: the host's tree is read-only to
it, /tmp, /var and /run are its own, and of the units that would set up a machine it has none.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from launch.behaviour import CGAGENT, V1, needs_root

if TYPE_CHECKING:
    from pathlib import Path

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = ("/lib/systemd/systemd", "/usr/bin/busctl", "/usr/bin/dbus-daemon", "/usr/bin/setpriv")
NOBODY = 65534
AS_NOBODY = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"

pytestmark = [
    needs_root,
    pytest.mark.skipif(V1, reason="v1 cgroups here; make test-launch-v2 boots a machine with v2 alone"),
    pytest.mark.skipif(
        not all(map(os.path.exists, PROGRAMS)), reason="systemd, dbus-daemon and util-linux are not all installed"
    ),
]


def bus(kind: str, address: str) -> dict[str, str]:
    """A manager's D-Bus: complete units, with no sysinit.target behind them, which would set up a machine."""
    return {
        "dbus.socket": f"""
[Unit]
DefaultDependencies=no
[Socket]
ListenStream={address}
""",
        "dbus.service": f"""
[Unit]
DefaultDependencies=no
Requires=dbus.socket
After=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --{kind} --address=systemd: --nofork --nopidfile --systemd-activation
""",
    }


UNITS = {
    "probe.service": """
[Unit]
DefaultDependencies=no
Requires=dbus.service user.service
After=dbus.service user.service
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
Environment=PATH=/usr/bin:/bin:/usr/sbin:/sbin
ExecStart=/bin/bash /results/probe
StandardOutput=append:/results/log
StandardError=append:/results/log
""",
    **bus("system", "/run/dbus/system_bus_socket"),
    "user.service": f"""
[Unit]
DefaultDependencies=no
[Service]
Type=notify
User={NOBODY}
Delegate=yes
Environment=XDG_RUNTIME_DIR=/run/user/{NOBODY} PATH=/usr/bin:/bin
ExecStart=/lib/systemd/systemd --user --unit=dbus.service
StandardError=append:/results/log
""",
    **dict.fromkeys(("sysinit.target", "basic.target", "shutdown.target"), ""),
}
USER_UNITS = {
    **bus("session", "%t/bus"),
    **dict.fromkeys(("basic.target", "shutdown.target"), ""),
}

BOOT = f"""
mkdir -p /run/dbus /run/user/{NOBODY}/systemd/user /run/systemd/system /run/systemd/system.conf.d
cp /results/units/* /run/systemd/system
cp /results/user-units/* /run/user/{NOBODY}/systemd/user
chown -R {NOBODY}:{NOBODY} /run/user/{NOBODY}
printf '[Manager]\\nDefaultTimeoutStopSec=5s\\n' > /run/systemd/system.conf.d/patience.conf
: > /results/console
ln -s /results/console /dev/console
exec env -i container=cgagent PATH=/usr/bin:/bin /lib/systemd/systemd --unit=probe.service --log-target=console
"""

# Each container says its limits, and waits until it has been looked at from outside.
INSIDE = (
    "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; "
    ": > /tmp/NAME-up; until test -e /tmp/NAME-seen; do sleep 0.1; done"
)
PROBE = f"""
cd /
run() {{ # NAME PREFIX...
    name=$1; shift
    "$@" {CGAGENT} run --memory 64Mi --pids-limit 50 -- sh -c "$(cat /results/inside | sed "s/NAME/$name/g")" \\
        > /results/$name.out 2> /results/$name.err &
    pid=$!
    for i in $(seq 300); do test -e /tmp/$name-up && break; kill -0 $pid || break; sleep 0.1; done
    cat /proc/$pid/cgroup > /results/$name.cgroup
    scope=$(sed 's|.*/\\(cgagent-[^/]*\\.scope\\).*|\\1|' /results/$name.cgroup)
    manager $name show -p ActiveState -p Delegate -p Transient "$scope" > /results/$name.during
    : > /tmp/$name-seen
    wait $pid; echo $? > /results/$name.code
    for i in $(seq 100); do
        manager $name show -p LoadState "$scope" > /results/$name.after
        grep -q not-found /results/$name.after && break
        sleep 0.1
    done
    find /sys/fs/cgroup -name 'cgagent-*' > /results/$name.left
}}
manager() {{
    kind=$1; shift
    if test $kind = system; then systemctl "$@"; return; fi
    XDG_RUNTIME_DIR=/run/user/{NOBODY} {AS_NOBODY} systemctl --user "$@"
}}
run system env
{CGAGENT} run --memory 64Mi -- python3 -c 'bytearray(200 << 20)' 2> /results/oom.err; echo $? > /results/oom.code
run user {AS_NOBODY}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the probe has left, one file for each thing that it looked at."""
    place = tmp_path_factory.mktemp("systemd")
    place.chmod(0o777)
    for name, units in (("units", UNITS), ("user-units", USER_UNITS)):
        (place / name).mkdir()
        for unit, text in units.items():
            (place / name / unit).write_text(text or "[Unit]\nDefaultDependencies=no\n")
    (place / "probe").write_text(PROBE)
    (place / "inside").write_text(INSIDE)
    options = "--privileged --no-init --read-only --memory 1Gi --pids-limit 2000 --workdir /"
    words = [*options.split(), *(word for name in ("tmp", "var", "run") for word in ("--tmpfs", f"/{name}:mode=755"))]
    words[words.index("/tmp:mode=755")] = "/tmp:mode=1777"
    words += ["-v", f"{TOP}:{TOP}:ro", "-v", f"{place}:/results"]
    done = subprocess.run(
        [CGAGENT, "run", *words, "--", "sh", "-c", BOOT],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd="/",
    )
    if not (place / "system.code").exists():
        told = [(place / name).read_text() for name in ("console", "log") if (place / name).exists()]
        pytest.fail("\n".join(["systemd did not run the probe:", done.stderr, *told]))
    return place


class TestTheSystemManager:
    name = "system"

    def test_gives_a_delegated_scope(self, results: Path) -> None:
        shown = set((results / f"{self.name}.during").read_text().split())
        assert shown >= {"ActiveState=active", "Delegate=yes", "Transient=yes"}

    def test_has_the_launcher_in_it(self, results: Path) -> None:
        assert re.search(r"/cgagent-\d+-\d+-\d+\.scope/", (results / f"{self.name}.cgroup").read_text())

    def test_limits_hold_in_it(self, results: Path) -> None:
        assert (results / f"{self.name}.out").read_text() == f"{64 << 20}\n50\n"
        assert (results / f"{self.name}.err").read_text() == ""
        assert (results / f"{self.name}.code").read_text() == "0\n"

    def test_loses_it_when_the_container_ends(self, results: Path) -> None:
        assert (results / f"{self.name}.after").read_text() == "LoadState=not-found\n"
        assert (results / f"{self.name}.left").read_text() == ""


class TestTheUserManager(TestTheSystemManager):
    name = "user"


def test_an_allocation_past_the_limit_is_killed_in_the_scope_and_told(results: Path) -> None:
    assert (results / "oom.code").read_text() == "137\n"
    assert "the memory limit of 64Mi was reached" in (results / "oom.err").read_text()
