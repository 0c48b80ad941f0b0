"""rtnetlink: what the kernel and iproute2 make of our messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cgagent.launch.netlink import Link, NetlinkError, Rtnetlink, attribute, attributes, tbf_message
from launch.private_namespaces import Container, in_private_namespaces, needs_iproute, needs_root, output


class TestAttributes:
    def test_are_padded_to_four_bytes_and_say_their_own_length(self) -> None:
        assert attribute(3, b"lo\0") == b"\x07\x00\x03\x00lo\x00\x00"
        assert attribute(10, b"\x01\x00\x00\x00") == b"\x08\x00\x0a\x00\x01\x00\x00\x00"

    def test_are_read_back_without_padding(self) -> None:
        assert attributes(attribute(3, b"lo\0") + attribute(10, b"1234")) == {3: b"lo\0", 10: b"1234"}

    def test_lose_the_flag_that_says_they_are_nested(self) -> None:
        assert attributes(attribute(18 | 0x8000, b"1234")) == {18: b"1234"}

    @pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0", b"\x02\x00\x01\x00", b"\xff\xff\x01\x00ab"])
    def test_end_where_the_data_makes_no_sense(self, data: bytes) -> None:
        assert attributes(data) in ({}, {1: b"ab"})


class TestTheTokenBucket:
    def bucket(self, rate: int) -> dict[int, bytes]:
        return attributes(attributes(tbf_message(7, rate)[20:])[2])

    def test_holds_ten_milliseconds_and_never_less_than_a_few_packets(self) -> None:
        assert int.from_bytes(self.bucket(10_000_000)[6], "little") == 100_000
        assert int.from_bytes(self.bucket(1000)[6], "little") >= 2 * 1514

    def test_says_rates_above_32_bits_in_64(self) -> None:
        assert 4 not in self.bucket(0xFFFFFFFF)
        assert int.from_bytes(self.bucket(5_000_000_000)[4], "little") == 5_000_000_000


@needs_root
@needs_iproute
class TestWithTheKernel:
    @in_private_namespaces
    def test_lists_what_iproute2_made(self) -> None:
        output("ip", "link", "add", "br7", "type", "bridge")
        output("ip", "link", "add", "v7", "master", "br7", "type", "veth", "peer", "name", "w7")
        output("ip", "link", "set", "v7", "group", "5", "alias", "some text")
        with Rtnetlink() as route:
            links = {link.name: link for link in route.links()}
            bridge = links["br7"].index
            assert set(links) == {"lo", "br7", "v7", "w7"}
            assert links["v7"] == route.link("v7") == Link(links["v7"].index, "v7", "veth", 5, bridge, "some text")
            assert (links["br7"].kind, links["br7"].master, links["lo"].kind) == ("bridge", 0, "")

    @in_private_namespaces
    def test_lists_more_links_than_one_datagram_holds(self) -> None:
        for number in range(60):
            output("ip", "link", "add", f"br{number}", "type", "bridge")
        with Rtnetlink() as route:
            assert {link.name for link in route.links()} == {"lo", *(f"br{number}" for number in range(60))}

    @in_private_namespaces
    def test_a_link_that_is_not_there_is_none(self) -> None:
        with Rtnetlink() as route:
            assert route.link("nosuch") is None

    @in_private_namespaces
    def test_makes_a_bridge_that_is_up_and_has_the_given_hardware_address(self) -> None:
        with Rtnetlink() as route:
            route.add_bridge("br7", bytes.fromhex("02c60a000001"))
        (seen,) = json.loads(output("ip", "-j", "-d", "link", "show", "br7"))
        assert seen["linkinfo"]["info_kind"] == "bridge"
        assert seen["address"] == "02:c6:0a:00:00:01"
        assert "UP" in seen["flags"]

    @in_private_namespaces
    def test_makes_a_pair_with_one_end_on_the_bridge_and_the_other_elsewhere(self) -> None:
        with Container() as container, Rtnetlink() as route:
            route.add_bridge("br7", bytes.fromhex("02c60a000001"))
            bridge = route.link("br7")
            assert bridge is not None
            netns = os.open(f"/proc/{container.pid}/ns/net", os.O_RDONLY)
            route.add_veth("v7", bridge.index, "eth0", netns)
            end = route.link("v7")
            assert end is not None
            assert (end.kind, end.master) == ("veth", bridge.index)
            assert "eth0" in container.run("ip", "-br", "link")
            os.close(netns)

    @in_private_namespaces
    def test_adds_addresses_and_a_default_route(self) -> None:
        with Rtnetlink() as route:
            route.add_bridge("br7", bytes.fromhex("02c60a000001"))
            bridge = route.link("br7")
            assert bridge is not None
            route.add_address(bridge, bytes([10, 9, 0, 1]), 24)
            assert route.routes() == [(bytes([10, 9, 0, 0]), 24, bridge.index)]
            route.add_default_route(bytes([10, 9, 0, 200]))
        (seen,) = json.loads(output("ip", "-j", "addr", "show", "br7"))
        (address,) = [each for each in seen["addr_info"] if each["family"] == "inet"]
        assert (address["local"], address["prefixlen"]) == ("10.9.0.1", 24)
        assert "default via 10.9.0.200 dev br7" in output("ip", "route")

    @in_private_namespaces
    @pytest.mark.parametrize(("rate", "said"), [(1_250_000, 1_250_000), (1000, 1000), (5_000_000_000, 5_000_000_000)])
    def test_tc_reads_back_the_rate_that_was_set(self, rate: int, said: int) -> None:
        with Rtnetlink() as route:
            route.add_bridge("br7", bytes.fromhex("02c60a000001"))
            bridge = route.link("br7")
            assert bridge is not None
            route.shape(bridge, rate)
        (seen,) = json.loads(output("tc", "-j", "qdisc", "show", "dev", "br7"))
        assert (seen["kind"], seen["options"]["rate"]) == ("tbf", said)

    @in_private_namespaces
    def test_deleting_what_is_gone_is_no_error(self) -> None:
        with Rtnetlink() as route:
            route.add_bridge("br7", bytes.fromhex("02c60a000001"))
            bridge = route.link("br7")
            assert bridge is not None
            route.delete(bridge)
            route.delete(bridge)
            assert [link.name for link in route.links()] == ["lo"]

    @in_private_namespaces
    def test_a_refusal_names_operation_interface_and_errno(self) -> None:
        with Rtnetlink() as route:
            route.add_bridge("br7", bytes.fromhex("02c60a000001"))
            with pytest.raises(NetlinkError, match=r"^create bridge br7: File exists$") as caught:
                route.add_bridge("br7", bytes.fromhex("02c60a000001"))
            assert (caught.value.number, caught.value.exit_code) == (17, 125)

    @in_private_namespaces
    def test_the_kernels_own_words_become_the_hint(self) -> None:
        with Rtnetlink() as route, pytest.raises(NetlinkError, match=r"^add default route: ") as caught:
            route.add_default_route(bytes([10, 9, 0, 200]))
        assert caught.value.hint == "Nexthop has invalid gateway"

    @in_private_namespaces
    def test_without_the_capability_everything_that_changes_is_refused(self) -> None:
        os.setresuid(65534, 65534, 65534)
        with Rtnetlink() as route, pytest.raises(NetlinkError, match="create bridge br7: Operation not permitted"):
            route.add_bridge("br7", bytes.fromhex("02c60a000001"))


def test_imports_neither_the_socket_module_nor_ctypes() -> None:
    code = "import sys, cgagent.launch.netlink; print(sorted({'socket', 'ctypes', 'enum', 're'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "agent"},
    )
    assert done.stdout == "[]\n"
