"""The systemd units: well formed, hardened, and where they put the file a service looks for it."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from deploy.conftest import CHECKOUT

UNITS = os.path.join(CHECKOUT, "deploy", "systemd")
INSTANCES = ("cgagent-env@orders.service", "cgagent-watch@orders.service")

pytestmark = pytest.mark.skipif(
    not shutil.which("systemd-analyze") or os.geteuid() != 0, reason="needs systemd-analyze, and root for a mount"
)


@pytest.fixture
def units(tmp_path: object) -> str:
    """A directory with the units as an administrator has them."""
    directory = f"{tmp_path}/units"
    shutil.copytree(UNITS, directory)
    for name in INSTANCES:
        shutil.copy(f"{directory}/{name.replace('orders', '')}", f"{directory}/{name}")
    os.makedirs(f"{directory}/alone.service.d")
    shutil.move(f"{directory}/exec-start-pre.conf", f"{directory}/alone.service.d/cgagent.conf")
    with open(f"{directory}/alone.service", "w") as file:
        file.write("[Service]\nExecStart=/usr/local/bin/orders\nCPUQuota=150%\nMemoryMax=256M\n")
    return directory


def analyze(units: str, *words: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, where the units' programs are in their places."""
    inside = (
        "mount -t tmpfs tmpfs /usr/local/bin && "
        'for name in cgagent orders; do cp /bin/true /usr/local/bin/$name; done && exec systemd-analyze "$@"'
    )
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_LOG_LEVEL": "notice", "SYSTEMD_EMOJI": "0"}
    words = ("unshare", "--mount", "sh", "-c", inside, "sh", *words)
    return subprocess.run(words, env=environ, capture_output=True, text=True, check=False, cwd=units)


def test_systemd_finds_nothing_wrong_with_them(units: str) -> None:
    done = analyze(units, "verify", "--man=no", *INSTANCES, "orders.service", "orders.slice", "alone.service")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_key_would_be_found(units: str) -> None:
    with open(f"{units}/{INSTANCES[0]}", "a") as file:
        file.write("ProtectSistem=strict\n")
    assert "ProtectSistem" in analyze(units, "verify", "--man=no", INSTANCES[0]).stderr


@pytest.mark.parametrize("unit", INSTANCES)
def test_their_exposure_is_what_systemd_calls_ok_at_most(units: str, unit: str) -> None:
    done = analyze(units, "security", "--offline=true", "--threshold=20", unit)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_file_is_where_the_service_looks_for_it() -> None:
    texts = {}
    for name in ("cgagent-env@.service", "cgagent-watch@.service", "orders.service"):
        with open(os.path.join(UNITS, name)) as file:
            texts[name] = file.read().replace("%i", "orders")
    assert "EnvironmentFile=/run/cgagent/orders/go.env\n" in texts["orders.service"]
    for name in ("cgagent-env@.service", "cgagent-watch@.service"):
        assert "--env-file /run/cgagent/orders/go.env" in texts[name]
        assert "RuntimeDirectory=cgagent/orders\nRuntimeDirectoryPreserve=yes\n" in texts[name]
        assert "Slice=orders.slice\n" in texts[name]
