"""Network address translation for the containers of a bridge: by nft, or by iptables where that is missing."""

from __future__ import annotations

import os

from cgagent.errors import EXIT_RUN_FAILED, CgagentError

TOOLS = ("nft", "iptables")
_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


def tool() -> str:
    """The program that will do it.

    Raises:
        CgagentError: there is none.
    """
    for name in TOOLS:
        if any(os.access(f"{folder}/{name}", os.X_OK) for folder in [*os.get_exec_path(), "/usr/sbin", "/sbin"]):
            return name
    raise CgagentError("NAT: neither nft nor iptables is on PATH", "install nftables", EXIT_RUN_FAILED)


def add(program: str, bridge: str, subnet: str) -> None:
    """Let the host forward, and what leaves it for elsewhere carry its own address.

    Forwarding stays on afterwards: others may rely on it by then.

    Raises:
        CgagentError: refused.
    """
    try:
        with open(_IP_FORWARD, "r+b", buffering=0) as switch:
            if switch.read(1) != b"1":
                switch.seek(0)  # the kernel ignores what is written further on
                switch.write(b"1")
    except OSError as error:
        raise CgagentError(f"NAT: {_IP_FORWARD}: {error.strerror}", "turn forwarding on", EXIT_RUN_FAILED) from None
    words = _run(_add_command(program, bridge, subnet))
    if words is not None:
        raise CgagentError(f"NAT by {program}: {words}", "", EXIT_RUN_FAILED)


def remove(program: str, bridge: str, subnet: str) -> None:
    """Take away what `add` made, if it is there."""
    # Launches side by side may each have added the rule of iptables.
    for _ in range(100):
        if _run(_remove_command(program, bridge, subnet)) is not None:
            break


def _add_command(program: str, bridge: str, subnet: str) -> list[str]:
    if program == "iptables":
        return ["iptables", "-w", "-t", "nat", "-A", *_iptables_rule(bridge, subnet)]
    # One transaction, and the same however often it runs: launches side by side leave one rule.
    table = _table(bridge)
    chain = f"{table} postrouting"
    transaction = (
        f"add table {table}",
        f"flush table {table}",
        f"add chain {chain} {{ type nat hook postrouting priority 100; }}",
        f'add rule {chain} ip saddr {subnet} oifname != "{bridge}" masquerade',
    )
    return ["nft", "; ".join(transaction)]


def _remove_command(program: str, bridge: str, subnet: str) -> list[str]:
    if program == "iptables":
        return ["iptables", "-w", "-t", "nat", "-D", *_iptables_rule(bridge, subnet)]
    return ["nft", f"delete table {_table(bridge)}"]


def _iptables_rule(bridge: str, subnet: str) -> list[str]:
    return ["POSTROUTING", "-s", subnet, "!", "-o", bridge, "-j", "MASQUERADE"]


def _table(bridge: str) -> str:
    # A bridge's name may hold what a table's may not.
    return f"ip cgagent_{bridge.encode().hex()}"


def _run(command: list[str]) -> str | None:
    """What `command` complains of; None if it did its work."""
    import subprocess

    environment = {"PATH": os.pathsep.join([*os.get_exec_path(), "/usr/sbin", "/sbin"])}
    try:
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
    except OSError as error:
        return error.strerror
    if done.returncode == 0:
        return None
    return done.stderr.decode(errors="replace").strip().partition("\n")[0][:200]
