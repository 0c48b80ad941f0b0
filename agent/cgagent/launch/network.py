"""A container's network: loopback alone, or a veth pair on a bridge of the host.

What was made is written down in the kernel alone, so that nothing of it can be stale:

- The host's end of a pair is called `cg` and the container's address in hexadecimal. Two launches that pick one
  address pick one name; the kernel lets one of them have it, and the other picks again.
- Both it and the bridge are in a device group of ours. The alias of a pair is the launch that it belongs to, the
  bridge's says what does its NAT (`sweep`).
- A lock on the network namespace itself (flock(2) on its nsfs file) keeps a bridge from being removed under a launch.

A pair goes by itself some 40 ms after the last process of the container's namespace.
"""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from time import sleep

from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.launch import nat
from cgagent.launch.netlink import GROUP, Link, NetlinkError, Rtnetlink
from cgagent.launch.subnet import Subnet, dotted, packed, parse_subnet
from cgagent.launch.syscalls import CLONE_NEWNET, setns
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BRIDGE = "cgagent0"
SUBNET = "10.231.0.0/16"
INSIDE = "eth0"

_LINGER = 0.5  # seconds
_OPEN_MAX = 1 << 20

_EEXIST, _EPERM, _EOPNOTSUPP = 17, 1, 95
_RESOLV_CONF = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


class Plan(Record):
    """The network that a container gets.

    Attributes:
        bridge: the name of the host's bridge; made if it is not there.
        subnet: where addresses are taken from, as in `10.231.0.0/16`; the first is the bridge's.
        rate: bytes a second, each way; None for no limit.
        nat: whether the container reaches the world beyond the host.
        dns: addresses of name servers; empty for the host's.
    """

    __slots__ = ("bridge", "dns", "nat", "rate", "subnet")

    def __init__(
        self,
        bridge: str = BRIDGE,
        subnet: str = SUBNET,
        rate: int | None = None,
        nat: bool = False,
        dns: tuple[str, ...] = (),
    ) -> None:
        self.bridge = bridge
        self.subnet = subnet
        self.rate = rate
        self.nat = nat
        self.dns = dns


class Attached(Record):
    """What `attach` made.

    Attributes:
        name: the host's end of the pair; the container's is `eth0`.
        address: the container's, with the length of its prefix: `10.231.0.7/16`.
        gateway: the bridge's address.
    """

    __slots__ = ("address", "gateway", "name")

    def __init__(self, name: str, address: str, gateway: str) -> None:
        self.name = name
        self.address = address
        self.gateway = gateway


def requirements() -> str:
    """What `--net veth` needs, for those who lack it."""
    return (
        "a veth pair needs CAP_NET_ADMIN in the host's network namespace, which a user namespace does not give; "
        "run as root, or take --net none or --net host"
    )


def attach(pid: int, ident: str, plan: Plan) -> Attached:
    """Connect the network namespace of process `pid` to the bridge of `plan`.

    To be called on the host, where the calling thread comes back to. Afterwards the namespace has `eth0` with an
    address of its own and a default route. `ident` names the launch for `sweep`.

    Raises:
        CgagentError: what was refused, and of which interface. Nothing is left then, but the bridge.
    """
    subnet = parse_subnet(plan.subnet, "subnet")
    own = _open_netns("self")
    try:
        netns = _open_netns(str(pid))
        try:
            if os.path.sameopenfile(own, netns):
                raise CgagentError(f"process {pid} has no network namespace of its own", "", EXIT_RUN_FAILED)
            flock(own, LOCK_SH)
            with Rtnetlink() as host:
                return _connect(host, own, netns, ident, plan, subnet)
        except NetlinkError as error:
            raise _explained(error) from None
        finally:
            os.close(netns)
    finally:
        os.close(own)


def sweep(alive: Callable[[str], bool | None]) -> list[str]:
    """Remove the pairs of launches that `alive` calls dead (False; None is unknown), and our bridges without ports.

    Returns:
        The names of what was removed.
    """
    own = _open_netns("self")
    try:
        try:
            flock(own, LOCK_EX | LOCK_NB)
            alone = True
        except BlockingIOError:
            # A launch is being connected: it needs its bridge, and a pair without an alias may be its.
            alone = False
        with Rtnetlink() as host:
            ours = [link for link in host.links() if (link.kind, link.group) == ("veth", GROUP)]
            dead = [link for link in ours if (alive(link.alias) is False if link.alias else alone)]
            for link in dead:
                host.delete(link)
            return [link.name for link in dead] + (_sweep_bridges(host) if alone else [])
    finally:
        os.close(own)


def release(ident: str) -> None:
    """Take away what the launch `ident` had, and the bridge if nobody came to use it in the next half second.

    Returns at once: the kernel takes 80 ms for it, with all other changes of interfaces waiting. A process of its own
    does it, which holds no file of ours; launches one after the other find the bridge still there.
    """
    if os.fork():
        return
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.closerange(3, _OPEN_MAX)
        sleep(_LINGER)
        sweep(lambda name: False if name == ident else None)
    except (OSError, CgagentError):
        pass  # nobody listens any more; `cgagent run --gc` tries again
    finally:
        os._exit(0)


def resolv_conf(plan: Plan) -> str:
    """The text of the container's /etc/resolv.conf.

    A name server on the host's loopback is out of the container's reach: then systemd-resolved's list of the real
    ones is taken, and what is left may be none.
    """
    lines = [f"nameserver {server}" for server in plan.dns]
    for path in _RESOLV_CONF:
        host = _read(path)
        if not plan.dns:
            lines = [line for line in host if line.split()[0] == "nameserver" and _is_reachable(line.split()[1:])]
        if lines:
            other = [line for line in host if line.split()[0] in ("search", "domain", "options")]
            return "\n".join([*lines, *other, ""])
    return ""


def _open_netns(process: str) -> int:
    path = f"/proc/{process}/ns/net"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CgagentError(f"open {path}: {error.strerror}", "", EXIT_RUN_FAILED) from None


def _connect(host: Rtnetlink, own: int, netns: int, ident: str, plan: Plan, subnet: Subnet) -> Attached:
    gateway = subnet.base + 1
    bridge = _bridge(host, plan, subnet)
    name, address = _pair(host, bridge, subnet, netns)
    try:
        host.set_alias(name, ident)
        # A socket stays in the namespace it was opened in: 30 µs, where a child to enter it costs 3 ms.
        setns(netns, CLONE_NEWNET)
        try:
            inside = Rtnetlink()
        finally:
            setns(own, CLONE_NEWNET)
        with inside:
            end = _found(inside, INSIDE)
            inside.add_address(end, packed(address), subnet.prefix)
            inside.set_up(INSIDE)
            inside.add_default_route(packed(gateway))
            if plan.rate is not None:
                inside.shape(end, plan.rate)
                host.shape(_found(host, name), plan.rate)
    except BaseException:
        left = host.link(name)
        if left is not None:
            host.delete(left)
        raise
    return Attached(name, f"{dotted(address)}/{subnet.prefix}", dotted(gateway))


def _pair(host: Rtnetlink, bridge: Link, subnet: Subnet, netns: int) -> tuple[str, int]:
    """A pair whose address nobody else has: its name and the address. The network's ends and the bridge's are taken."""
    free = subnet.size - 3
    start = int.from_bytes(os.urandom(4), "big") % free
    for step in range(free):
        address = subnet.base + 2 + (start + step) % free
        name = f"cg{address:08x}"
        try:
            host.add_veth(name, bridge.index, INSIDE, netns)
            return name, address
        except NetlinkError as error:
            # Of the two names, the container's may be the one that is taken.
            if error.number != _EEXIST or host.link(name) is None:
                raise
    raise CgagentError(f"no free address in {subnet} on bridge {bridge.name}", "give a larger subnet", EXIT_RUN_FAILED)


def _bridge(host: Rtnetlink, plan: Plan, subnet: Subnet) -> Link:
    """The bridge of `plan`, made if need be, with its address and NAT."""
    gateway = packed(subnet.base + 1)
    bridge = host.link(plan.bridge)
    if bridge is None:
        _refuse_overlap(host, plan, subnet)
        try:
            # 02: an address that is locally administered; the rest is the bridge's IP address.
            host.add_bridge(plan.bridge, b"\x02\xc6" + gateway)
        except NetlinkError as error:
            # Another launch was faster.
            if error.number != _EEXIST:
                raise
        bridge = _found(host, plan.bridge)
    if bridge.kind != "bridge":
        raise CgagentError(f"interface {plan.bridge} is not a bridge", "give another name", EXIT_RUN_FAILED)
    try:
        host.add_address(bridge, gateway, subnet.prefix)
    except NetlinkError as error:
        if error.number != _EEXIST:
            raise
    if plan.nat and not bridge.alias:
        _translate(host, bridge, subnet)
    return bridge


def _refuse_overlap(host: Rtnetlink, plan: Plan, subnet: Subnet) -> None:
    """A second route to part of `subnet` would take the host's way to its neighbours, or ours to the containers."""
    for destination, prefix, index in host.routes():
        other = Subnet(int.from_bytes(destination, "big"), prefix)
        if subnet.overlaps(other):
            device = next((link.name for link in host.links() if link.index == index), str(index))
            if device != plan.bridge:
                raise CgagentError(
                    f"subnet {subnet} overlaps the route {other} of {device}", "give another subnet", EXIT_RUN_FAILED
                )


def _found(route: Rtnetlink, name: str) -> Link:
    link = route.link(name)
    if link is None:
        raise CgagentError(f"interface {name} is gone", "", EXIT_RUN_FAILED)
    return link


def _translate(host: Rtnetlink, bridge: Link, subnet: Subnet) -> None:
    if bridge.group != GROUP:
        raise CgagentError(
            f"bridge {bridge.name} is not cgagent's own", "leave NAT on it to its owner", EXIT_RUN_FAILED
        )
    program = nat.tool()
    # Written down first: whatever happens then, sweep knows what to undo.
    host.set_alias(bridge.name, f"{program} {subnet}")
    try:
        nat.add(program, bridge.name, str(subnet))
    except CgagentError:
        host.set_alias(bridge.name, "")
        raise


def _sweep_bridges(host: Rtnetlink) -> list[str]:
    links = host.links()
    used = {link.master for link in links}
    idle = [link for link in links if (link.kind, link.group) == ("bridge", GROUP) and link.index not in used]
    for link in idle:
        program, _, subnet = link.alias.partition(" ")
        if program in nat.TOOLS:
            nat.remove(program, link.name, subnet)
        host.delete(link)
    return [link.name for link in idle]


def _explained(error: NetlinkError) -> CgagentError:
    """`error` with the way out, where there is a known one."""
    hints = {
        _EPERM: requirements(),
        _EOPNOTSUPP: "this kernel lacks a driver: load the modules veth, bridge and sch_tbf",
    }
    hint = hints.get(error.number, error.hint)
    return CgagentError(error.message, hint, EXIT_RUN_FAILED)


def _read(path: str) -> list[str]:
    """The lines of a text file that hold something; none if it can't be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return [line for line in file.read(65536).decode(errors="replace").splitlines() if line.split()]
    except OSError:
        return []


def _is_reachable(words: list[str]) -> bool:
    return bool(words) and not words[0].startswith("127.") and words[0] != "::1"
