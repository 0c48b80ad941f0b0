"""Links, addresses, routes and queues by rtnetlink(7): what a container's network needs, and no more.

Import budget: `_socket` and `struct`. The public `socket` module costs 5 ms (it makes enums of its constants), a
netlink library 170 ms, an `ip` process 5 ms a call; a request here costs 30 µs beside the kernel's own work.
Message layouts: linux/netlink.h, linux/if_link.h, linux/rtnetlink.h, linux/pkt_sched.h. Addresses are IPv4.
"""

from __future__ import annotations

import os
from _socket import socket as open_socket
from struct import pack, unpack_from

from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

AF_INET = 2
_AF_NETLINK, _SOCK_RAW, _SOCK_CLOEXEC, _NETLINK_ROUTE = 16, 3, 0o2000000, 0
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11

NLMSG_ERROR, NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP, _NLM_F_EXCL, _NLM_F_CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_NLM_F_CAPPED = 0x100
_NLMSGERR_ATTR_MSG = 1
_ENODEV = 19

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_NEWROUTE, RTM_GETROUTE, RTM_NEWQDISC = 20, 24, 26, 36

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS = 1, 3, 10, 18, 20
IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 27, 28, 29, 1, 2, 1
_RTEXT_FILTER_SKIP_STATS = 8
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 3, 0, 1
TCA_KIND, TCA_OPTIONS, TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 2, 1, 4, 6
_TC_H_ROOT, _TC_LINKLAYER_ETHERNET = 0xFFFFFFFF, 1

IFF_UP = 1
# The device group of the links made here: it is there from the start, where an alias takes a second request.
GROUP = 0x6367
# The nesting and byte order flags in an attribute's type.
_NLA_TYPE_MASK = 0x3FFF

# A dump comes in datagrams of at most 32 KiB.
_DATAGRAM = 65536


class NetlinkError(CgagentError):
    """The kernel refused a request.

    Attributes:
        number: its errno.
    """

    def __init__(self, operation: str, number: int, why: str = "") -> None:
        super().__init__(f"{operation}: {os.strerror(number)}", why, EXIT_RUN_FAILED)
        self.number = number


class Link(Record):
    """A network interface.

    Attributes:
        index: its number in its network namespace.
        name: up to 15 bytes.
        kind: the driver's name for virtual ones, such as `veth` or `bridge`; else empty.
        group: its device group; `GROUP` where it was made here.
        master: index of the bridge that it is a port of; 0 if of none.
        alias: free text that somebody gave it.
    """

    __slots__ = ("alias", "group", "index", "kind", "master", "name")

    def __init__(self, index: int, name: str, kind: str, group: int, master: int, alias: str) -> None:
        self.index = index
        self.name = name
        self.kind = kind
        self.group = group
        self.master = master
        self.alias = alias


def attribute(kind: int, *payload: bytes) -> bytes:
    """One attribute, padded to four bytes; `payload` may be other attributes."""
    body = b"".join(payload)
    return pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data`, by type."""
    found = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & _NLA_TYPE_MASK] = data[at + 4 : at + length]
        at += length + -length % 4
    return found


def link_message(*parts: bytes, index: int = 0, up: bool = False) -> bytes:
    """A struct ifinfomsg and the attributes `parts`. Without an index the kernel goes by IFLA_IFNAME."""
    return pack("=BxHiII", 0, 0, index, IFF_UP if up else 0, IFF_UP if up else 0) + b"".join(parts)


def veth_message(name: str, master: int, peer: str, netns: int) -> bytes:
    """A new pair: `name`, up and a port of the bridge `master`; `peer`, made in the namespace open as `netns`."""
    other = link_message(_text(IFLA_IFNAME, peer), attribute(IFLA_NET_NS_FD, pack("=I", netns)))
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other))
    info = attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "veth"), data)
    return link_message(_text(IFLA_IFNAME, name), attribute(IFLA_MASTER, pack("=I", master)), _OURS, info, up=True)


def tbf_message(index: int, rate: int) -> bytes:
    """A token bucket of `rate` bytes a second as the root queue of a link; see tc-tbf(8).

    The bucket holds 10 ms, the queue behind it 50 ms, and neither less than a few packets.
    """
    burst = max(rate // 100, 4096)
    limit = burst + max(rate // 20, 65536)
    # struct tc_ratespec, of which the link layer and the rate count; the rest serves tables of older kernels.
    ratespec = pack("=BBHhHI", 0, _TC_LINKLAYER_ETHERNET, 0, 0, 0, min(rate, 0xFFFFFFFF))
    params = ratespec + bytes(12) + pack("=III", min(limit, 0xFFFFFFFF), 0, 0)
    options = attribute(TCA_TBF_PARMS, params) + attribute(TCA_TBF_BURST, pack("=I", min(burst, 0xFFFFFFFF)))
    if rate > 0xFFFFFFFF:
        options += attribute(TCA_TBF_RATE64, pack("=Q", rate))
    head = pack("=BxxxiIII", 0, index, 0x10000, _TC_H_ROOT, 0)
    return head + _text(TCA_KIND, "tbf") + attribute(TCA_OPTIONS, options)


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


class Rtnetlink:
    """A route socket; it stays in the network namespace that it was opened in."""

    def __init__(self) -> None:
        self._socket = open_socket(_AF_NETLINK, _SOCK_RAW | _SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._sequence = 0
        # The kernel's own words on errors, without our message sent back.
        for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, operation: str, kind: int, body: bytes, flags: int = _NLM_F_ACK) -> list[bytes]:
        """Send one message, return the bodies of the answers.

        Raises:
            NetlinkError: refused; it begins with `operation`.
        """
        self._sequence += 1
        try:
            self._socket.send(pack("=IHHII", 16 + len(body), kind, flags | _NLM_F_REQUEST, self._sequence, 0) + body)
            return self._answers(operation)
        except OSError as error:
            raise NetlinkError(operation, error.errno or 0) from None

    def _answers(self, operation: str) -> list[bytes]:
        answers: list[bytes] = []
        while True:
            for answer, answer_flags, sequence, content in _messages(self._socket.recv(_DATAGRAM)):
                if sequence != self._sequence:
                    continue  # of a request whose answer could not be received
                if answer == NLMSG_ERROR:
                    _check(operation, answer_flags, content)
                    return answers
                if answer == NLMSG_DONE:
                    return answers
                answers.append(content)

    def link(self, name: str) -> Link | None:
        """The link of that name; None if there is none."""
        try:
            answers = self.request(
                f"find interface {name}", RTM_GETLINK, link_message(_text(IFLA_IFNAME, name), _BRIEF)
            )
        except NetlinkError as error:
            if error.number == _ENODEV:
                return None
            raise
        return _link(answers[0])

    def links(self) -> list[Link]:
        """All links of the namespace."""
        answers = self.request("list interfaces", RTM_GETLINK, link_message(_BRIEF), _NLM_F_DUMP)
        return [_link(answer) for answer in answers]

    def add_bridge(self, name: str, mac: bytes) -> None:
        """A new bridge, up. A fixed `mac`: else it changes as ports come and go, and neighbours remember the old."""
        info = attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "bridge"))
        body = link_message(_text(IFLA_IFNAME, name), attribute(IFLA_ADDRESS, mac), _OURS, info, up=True)
        self.request(f"create bridge {name}", RTM_NEWLINK, body, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL)

    def add_veth(self, name: str, master: int, peer: str, netns: int) -> None:
        """A new pair as `veth_message` describes it; EEXIST where a name is taken."""
        body = veth_message(name, master, peer, netns)
        self.request(f"create veth {name}", RTM_NEWLINK, body, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL)

    def set_up(self, name: str) -> None:
        """Bring a link up."""
        self.request(f"bring up {name}", RTM_NEWLINK, link_message(_text(IFLA_IFNAME, name), up=True))

    def set_alias(self, name: str, alias: str) -> None:
        """Give a link a text of up to 255 bytes."""
        body = link_message(_text(IFLA_IFNAME, name), _text(IFLA_IFALIAS, alias))
        self.request(f"set alias of {name}", RTM_NEWLINK, body)

    def delete(self, link: Link) -> None:
        """Remove a link, if it is still there; it takes 15 ms (the kernel waits for its readers)."""
        try:
            self.request(f"delete interface {link.name}", RTM_DELLINK, link_message(index=link.index))
        except NetlinkError as error:
            if error.number != _ENODEV:
                raise

    def add_address(self, link: Link, address: bytes, prefix: int) -> None:
        """Add an IPv4 address with the length of its network's prefix; fine if it is there."""
        body = pack("=BBBBi", AF_INET, prefix, 0, _RT_SCOPE_UNIVERSE, link.index)
        body += attribute(IFA_LOCAL, address) + attribute(IFA_ADDRESS, address)
        self.request(f"add address to {link.name}", RTM_NEWADDR, body, _NLM_F_ACK | _NLM_F_CREATE)

    def add_default_route(self, gateway: bytes) -> None:
        """Send what is for elsewhere to `gateway`."""
        head = (AF_INET, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
        body = pack("=BBBBBBBBI", *head) + attribute(RTA_GATEWAY, gateway)
        self.request("add default route", RTM_NEWROUTE, body, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL)

    def routes(self) -> list[tuple[bytes, int, int]]:
        """IPv4 routes of the main table that have a destination: address, prefix length, index of the link."""
        answers = self.request("list routes", RTM_GETROUTE, pack("=BBBBBBBBI", AF_INET, *[0] * 8), _NLM_F_DUMP)
        found = []
        for answer in answers:
            prefix, table, parts = answer[1], answer[4], attributes(answer[12:])
            if table == _RT_TABLE_MAIN and RTA_DST in parts and RTA_OIF in parts:
                found.append((parts[RTA_DST], prefix, _number(parts[RTA_OIF])))
        return found

    def shape(self, link: Link, rate: int) -> None:
        """Let a link send at most `rate` bytes a second."""
        operation = f"limit the rate of {link.name} by tbf"
        self.request(operation, RTM_NEWQDISC, tbf_message(link.index, rate), _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL)


_OURS = attribute(IFLA_GROUP, pack("=I", GROUP))
_BRIEF = attribute(IFLA_EXT_MASK, pack("=I", _RTEXT_FILTER_SKIP_STATS))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message in a datagram."""
    at = 0
    while at + 16 <= len(data):
        length, kind, flags, sequence = unpack_from("=IHHI", data, at)
        yield kind, flags, sequence, data[at + 16 : at + length]
        at += length + -length % 4


def _check(operation: str, flags: int, content: bytes) -> None:
    """Raise what a struct nlmsgerr tells."""
    number, length = unpack_from("=iI", content)
    if number == 0:
        return
    # Behind the error comes the header of our message, or, uncapped, all of it; then attributes.
    details = attributes(content[4 + (16 if flags & _NLM_F_CAPPED else length) :])
    why = details.get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("ascii", "replace")
    raise NetlinkError(operation, -number, why)


def _link(body: bytes) -> Link:
    (index,) = unpack_from("=i", body, 4)
    parts = attributes(body[16:])
    kind = attributes(parts.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")
    name, driver, alias = (
        text.rstrip(b"\0").decode(errors="replace") for text in (parts[IFLA_IFNAME], kind, parts.get(IFLA_IFALIAS, b""))
    )
    group, master = (_number(parts.get(key, bytes(4))) for key in (IFLA_GROUP, IFLA_MASTER))
    return Link(index, name, driver, group, master, alias)


def _number(data: bytes) -> int:
    return int(unpack_from("=I", data)[0])
