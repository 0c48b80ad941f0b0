"""The container's network: addresses without collisions, rates that bite, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cgagent.errors import CgagentError, UsageError
from cgagent.launch import network
from cgagent.launch.netlink import GROUP, Rtnetlink
from cgagent.launch.network import Attached, Plan, attach, release, sweep
from cgagent.launch.rates import parse_rate
from cgagent.launch.subnet import Subnet, parse_subnet
from launch.private_namespaces import Container, in_private_namespaces, needs_iproute, needs_root, output

if TYPE_CHECKING:
    from pathlib import Path

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")

# Sends for SECONDS what it can, tells how many bytes a second arrived at the other side.
_SINK = """
import socket, time
server = socket.create_server(("0.0.0.0", 7777))
print("ready", flush=True)
peer, _ = server.accept()
received = len(peer.recv(1 << 16))
start = time.monotonic()
while data := peer.recv(1 << 16):
    received += len(data)
print(received / (time.monotonic() - start))
"""
_SOURCE = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], 7777))
peer.settimeout(10)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    peer.send(bytes(1 << 14))
"""


def names() -> set[str]:
    with Rtnetlink() as route:
        return {link.name for link in route.links()}


def wait_until_only(expected: set[str]) -> None:
    """The kernel takes a dead namespace's interfaces away in the background."""
    for _ in range(1200):
        if names() == expected:
            return
        time.sleep(0.05)
    assert names() == expected


def never(_: str) -> bool:
    return False


def always(_: str) -> bool:
    return True


class TestRates:
    @pytest.mark.parametrize(
        ("text", "rate"),
        [
            ("8000", 1000),
            ("10mbit", 1_250_000),
            ("1.5mbit", 187_500),
            ("1Gbit", 125_000_000),
            ("500KBIT", 62_500),
            ("1mibit", 131_072),
            ("20mbps", 20_000_000),
            ("1kibps", 1024),
            ("4000bps", 4000),
            ("16000bit", 2000),
            ("1tbit", 125_000_000_000),
        ],
    )
    def test_are_read_as_tc_reads_them(self, text: str, rate: int) -> None:
        assert parse_rate(text, "--net-rate") == rate

    @pytest.mark.parametrize(
        "text",
        ["", "mbit", "fast", "10mb", "10MiB/s", "-1mbit", "1e6", "1.mbit", ".5mbit", "1.5.5mbit", "10 mbit", "٣mbit"],
    )
    def test_that_are_none_are_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(UsageError, match=r"^--net-rate: .* is not a rate$") as caught:
            parse_rate(text, "--net-rate")
        assert (caught.value.exit_code, "10mbit" in caught.value.hint) == (2, True)

    @pytest.mark.parametrize("text", ["0", "7999", "1kbit", "9tbit", "99999999999999999999"])
    def test_beyond_reason_are_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="out of range"):
            parse_rate(text, "--net-rate")

    @needs_root
    @needs_iproute
    @in_private_namespaces
    def test_mean_to_tc_what_they_mean_to_us(self) -> None:
        output("ip", "link", "add", "br7", "type", "bridge")
        for text in ("12000", "10mbit", "1.5mbit", "500KBIT", "1mibit", "20mbps", "1kibps", "1gbit"):
            output("tc", "qdisc", "replace", "dev", "br7", "root", "tbf", "rate", text, "burst", "32k", "limit", "64k")
            (seen,) = json.loads(output("tc", "-j", "qdisc", "show", "dev", "br7"))
            assert (text, parse_rate(text, "")) == (text, seen["options"]["rate"])


class TestSubnets:
    def test_are_read_with_their_prefix(self) -> None:
        assert parse_subnet("10.231.0.0/16", "subnet") == Subnet(0x0AE70000, 16)
        assert str(Subnet(0x0AE70000, 16)) == "10.231.0.0/16"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "10.0.0.0",
            "10.0.0.1/24",
            "10.0.0.0/7",
            "10.0.0.0/31",
            "10.0.0.0/x",
            "10.0/16",
            "fd00::/64",
            "1.2.3.4.5/8",
        ],
    )
    def test_that_are_none_or_too_small_are_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match=r"subnet: .* is not an IPv4 network"):
            parse_subnet(text, "subnet")

    def test_overlap_where_they_share_an_address(self) -> None:
        wide, inside, beside = (parse_subnet(text, "") for text in ("10.0.0.0/8", "10.231.0.0/16", "11.0.0.0/8"))
        assert wide.overlaps(inside)
        assert inside.overlaps(wide)
        assert not wide.overlaps(beside)


@needs_root
@needs_iproute
class TestAttach:
    @in_private_namespaces
    def test_gives_the_container_an_address_and_a_way_out(self) -> None:
        with Container() as container:
            attached = attach(container.pid, "cgagent-1-2-3", Plan())
            (link,) = json.loads(container.run("ip", "-j", "addr", "show", "eth0"))
            (address,) = [each for each in link["addr_info"] if each["family"] == "inet"]
            assert f"{address['local']}/{address['prefixlen']}" == attached.address
            assert "default via 10.231.0.1 dev eth0" in container.run("ip", "route")
            assert attached.gateway == "10.231.0.1"
            assert len(attached.name) <= 15
            assert names() == {"lo", "cgagent0", attached.name}

    @in_private_namespaces
    def test_connects_host_and_containers_with_each_other(self) -> None:
        with Container() as one, Container() as two:
            first, second = (attach(each.pid, "cgagent-1-2-3", Plan()) for each in (one, two))
            for server, address, client in ((two, second, one), (one, first, None)):
                assert transfer(server, client, address.address.partition("/")[0], seconds=0.1) > 0

    @in_private_namespaces
    def test_works_with_a_container_in_its_own_user_namespace(self) -> None:
        with Container(user=True) as container:
            attached = attach(container.pid, "cgagent-1-2-3", Plan())
            assert attached.address.partition("/")[0] in container.run("ip", "addr")

    @in_private_namespaces
    def test_takes_every_free_address_and_then_says_that_none_is_left(self) -> None:
        # A prefix of 29 leaves eight addresses: network, bridge and broadcast are not for containers.
        containers = [Container() for _ in range(6)]
        plan = Plan(subnet="10.9.0.0/29")
        addresses = {attach(each.pid, "cgagent-1-2-3", plan).address for each in containers[:5]}
        assert addresses == {f"10.9.0.{last}/29" for last in range(2, 7)}
        with pytest.raises(CgagentError, match=r"no free address in 10\.9\.0\.0/29 on bridge cgagent0") as caught:
            attach(containers[5].pid, "cgagent-1-2-3", plan)
        assert caught.value.exit_code == 125
        for each in containers:
            each.end()

    @in_private_namespaces
    def test_twenty_at_once_get_twenty_addresses_while_others_sweep(self) -> None:
        containers = [Container() for _ in range(20)]
        go_reader, go_writer = os.pipe()
        reader, writer = os.pipe()
        children = []
        for container in containers:
            children.append(os.fork())
            if children[-1] == 0:
                os.close(go_writer)
                os.read(go_reader, 1)
                sweep(always)
                os.write(writer, attach(container.pid, "cgagent-1-2-3", Plan()).address.encode() + b"\n")
                sweep(always)
                os._exit(0)
        os.close(go_writer)
        os.close(writer)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 20
        with os.fdopen(reader) as file:
            assert len(set(file.read().split())) == 20
        with Rtnetlink() as route:
            bridge = route.link("cgagent0")
            assert bridge is not None
            assert [link.master for link in route.links() if link.kind == "veth"] == [bridge.index] * 20
        for container in containers:
            container.end()

    @in_private_namespaces
    def test_uses_a_bridge_that_is_there_and_leaves_it_to_its_owner(self) -> None:
        output("ip", "link", "add", "lab", "type", "bridge")
        with Container() as container:
            attach(container.pid, "cgagent-1-2-3", Plan(bridge="lab", subnet="10.9.0.0/24"))
            with pytest.raises(CgagentError, match="bridge lab is not cgagent's own"):
                attach(container.pid, "cgagent-1-2-3", Plan(bridge="lab", subnet="10.9.0.0/24", nat=True))
        wait_until_only({"lo", "lab"})
        assert sweep(never) == []
        assert names() == {"lo", "lab"}


@needs_root
@needs_iproute
class TestRefusals:
    @in_private_namespaces
    def test_an_interface_of_that_name_which_is_no_bridge(self) -> None:
        with Container() as container, pytest.raises(CgagentError, match="interface lo is not a bridge"):
            attach(container.pid, "cgagent-1-2-3", Plan(bridge="lo"))

    @in_private_namespaces
    def test_a_subnet_that_the_host_already_has_a_route_to(self) -> None:
        output("ip", "link", "add", "lab", "type", "bridge")
        output("ip", "addr", "add", "10.231.7.1/24", "dev", "lab")
        output("ip", "link", "set", "lab", "up")
        with (
            Container() as container,
            pytest.raises(
                CgagentError, match=r"subnet 10\.231\.0\.0/16 overlaps the route 10\.231\.7\.0/24 of lab"
            ) as caught,
        ):
            attach(container.pid, "cgagent-1-2-3", Plan())
        assert caught.value.hint == "give another subnet"
        assert names() == {"lo", "lab"}

    @in_private_namespaces
    def test_a_process_in_our_own_namespace(self) -> None:
        with pytest.raises(CgagentError, match="no network namespace of its own"):
            attach(os.getpid(), "cgagent-1-2-3", Plan())
        assert names() == {"lo"}

    @in_private_namespaces
    def test_a_process_that_is_gone(self) -> None:
        with pytest.raises(CgagentError, match="open /proc/4194305/ns/net: No such file or directory"):
            attach(4194305, "cgagent-1-2-3", Plan())

    @in_private_namespaces
    def test_a_second_time_and_leaves_the_first_as_it_was(self) -> None:
        with Container() as container:
            attached = attach(container.pid, "cgagent-1-2-3", Plan())
            with pytest.raises(CgagentError, match=r"create veth .*: File exists"):
                attach(container.pid, "cgagent-1-2-3", Plan())
            assert names() == {"lo", "cgagent0", attached.name}

    @in_private_namespaces
    def test_without_the_capability_and_says_what_it_needs(self) -> None:
        os.setresuid(65534, 65534, 65534)
        # A process that changed its user is not dumpable: its own /proc/PID/ns would be root's.
        from cgagent.launch import syscalls

        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        with Container(user=True) as container, pytest.raises(CgagentError, match="create bridge cgagent0") as caught:
            attach(container.pid, "cgagent-1-2-3", Plan())
        assert "CAP_NET_ADMIN in the host's network namespace" in caught.value.line()
        assert "\n" not in caught.value.line()

    @in_private_namespaces
    def test_when_a_step_inside_fails_the_pair_is_taken_back(self) -> None:
        with Container() as container:
            container.run("ip", "link", "add", "br7", "type", "bridge")
            container.run("ip", "addr", "add", "10.9.0.1/24", "dev", "br7")
            container.run("ip", "link", "set", "br7", "up")
            container.run("ip", "route", "add", "default", "via", "10.9.0.9")
            with pytest.raises(CgagentError, match="add default route: File exists"):
                attach(container.pid, "cgagent-1-2-3", Plan())
            assert names() == {"lo", "cgagent0"}
            # And the thread is back where it was.
            assert sweep(always) == ["cgagent0"]


@needs_root
@needs_iproute
class TestSweep:
    @in_private_namespaces
    def test_a_dead_containers_pair_goes_and_the_last_takes_the_bridge_with_it(self) -> None:
        containers = [Container() for _ in range(3)]
        for each in containers:
            attach(each.pid, "cgagent-1-2-3", Plan())
        containers[0].end()
        containers[1].end()
        for _ in range(1200):
            if len(names()) == 3:
                break
            time.sleep(0.05)
        assert sweep(always) == []
        containers[2].end()
        wait_until_only({"lo", "cgagent0"})
        assert sweep(always) == ["cgagent0"]
        assert names() == {"lo"}

    @in_private_namespaces
    def test_takes_the_pairs_of_dead_launches_and_no_others(self) -> None:
        # Their namespaces live on: a process has escaped its launch.
        with Container() as dead, Container() as living, Container() as unknown:
            fates: dict[str, bool | None] = {"cgagent-1-1-1": False, "cgagent-1-2-1": True, "cgagent-9-1-1": None}
            pairs = [attach(c.pid, i, Plan()).name for c, i in zip((dead, living, unknown), fates, strict=True)]
            assert sweep(fates.get) == pairs[:1]
            assert names() == {"lo", "cgagent0", *pairs[1:]}

    @in_private_namespaces
    def test_leaves_what_only_looks_like_ours(self) -> None:
        output("ip", "link", "add", "cg0ae70002", "type", "veth", "peer", "name", "other")
        output("ip", "link", "add", "cgagent0", "type", "bridge")
        output("ip", "link", "set", "cg0ae70002", "alias", "cgagent-1-1-1")
        assert sweep(never) == []
        assert names() == {"lo", "cg0ae70002", "other", "cgagent0"}

    @in_private_namespaces
    def test_takes_a_pair_whose_launch_died_before_it_was_named(self) -> None:
        output("ip", "link", "add", "cg0ae70002", "group", str(GROUP), "type", "veth", "peer", "name", "other")
        assert sweep(always) == ["cg0ae70002"]

    @in_private_namespaces
    def test_with_nothing_there_does_nothing(self) -> None:
        assert sweep(never) == []


@needs_root
@needs_iproute
class TestRelease:
    @in_private_namespaces
    def test_returns_at_once_and_takes_pair_and_bridge_a_little_later(self) -> None:
        with Container() as container:
            attach(container.pid, "cgagent-1-2-3", Plan())
            reader, writer = os.pipe()
            release("cgagent-1-2-3")
            assert "cgagent0" in names()
            # The process that does it holds no file of ours: the pipe's end is seen before it is done.
            os.close(writer)
            assert os.read(reader, 1) == b""
            wait_until_only({"lo"})

    @in_private_namespaces
    def test_leaves_the_bridge_to_a_launch_that_came_meanwhile(self) -> None:
        with Container() as first, Container() as second:
            attach(first.pid, "cgagent-1-1-1", Plan())
            release("cgagent-1-1-1")
            attached = attach(second.pid, "cgagent-1-2-1", Plan())
            wait_until_only({"lo", "cgagent0", attached.name})


def transfer(server: Container, client: Container | None, address: str, seconds: float) -> float:
    """Bytes a second that arrive in `server` from `client` (None: from the host)."""
    sink = subprocess.Popen(server.command(sys.executable, "-c", _SINK), stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    assert sink.stdout.readline() == "ready\n"
    source = [sys.executable, "-c", _SOURCE, address, str(seconds)]
    output(*(client.command(*source) if client else source))
    try:
        return float(sink.communicate(timeout=60)[0])
    finally:
        sink.kill()


@needs_root
@needs_iproute
class TestTheRate:
    @in_private_namespaces
    def test_bites_both_ways_within_a_fifth(self) -> None:
        rate = parse_rate("16mbit", "")
        with Container() as slow, Container() as free:
            inside = attach(slow.pid, "cgagent-1-2-3", Plan(rate=rate))
            outside = attach(free.pid, "cgagent-1-2-4", Plan())
            into = transfer(slow, free, host_part(inside), seconds=2)
            out_of = transfer(free, slow, host_part(outside), seconds=2)
        assert 0.8 * rate <= into <= 1.2 * rate
        assert 0.8 * rate <= out_of <= 1.2 * rate

    @in_private_namespaces
    def test_without_one_no_queue_is_set_up(self) -> None:
        with Container() as container:
            attach(container.pid, "cgagent-1-2-3", Plan())
            assert "tbf" not in container.run("tc", "qdisc") + output("tc", "qdisc")


def host_part(attached: Attached) -> str:
    return attached.address.partition("/")[0]


@needs_root
@needs_iproute
class TestNat:
    def beyond(self) -> tuple[Container, str]:
        """A second host behind ours, which has no route to the containers."""
        world = Container()
        output("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        output("ip", "link", "set", "up1", "netns", str(world.pid))
        output("ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
        output("ip", "link", "set", "up0", "up")
        world.run("ip", "addr", "add", "192.0.2.2/24", "dev", "up1")
        world.run("ip", "link", "set", "up1", "up")
        return world, "192.0.2.2"

    @needs_nft
    @in_private_namespaces
    def test_by_nftables_lets_a_container_reach_the_world(self) -> None:
        world, address = self.beyond()
        with Container() as container:
            attach(container.pid, "cgagent-1-2-3", Plan(nat=True))
            assert transfer(world, container, address, seconds=0.1) > 0
        wait_until_only({"lo", "cgagent0", "up0"})
        assert sweep(always) == ["cgagent0"]
        assert output("nft", "list", "ruleset") == ""
        world.end()

    @needs_nft
    @in_private_namespaces
    def test_is_one_rule_however_many_launch(self) -> None:
        containers = [Container() for _ in range(3)]
        for each in containers:
            attach(each.pid, "cgagent-1-2-3", Plan(nat=True))
            # As if the launch before had died before it could note what it did.
            with Rtnetlink() as route:
                route.set_alias("cgagent0", "")
        assert output("nft", "list", "ruleset").count("masquerade") == 1
        for each in containers:
            each.end()

    @pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
    @in_private_namespaces
    def test_falls_back_to_iptables(self, tmp_path: Path) -> None:
        # A PATH without nft, which the fallback directories must not bring back.
        (tmp_path / "iptables").symlink_to(shutil.which("iptables") or "")
        os.environ["PATH"] = str(tmp_path)
        from cgagent.launch import nat

        assert nat._add_command("iptables", "cgagent0", "10.231.0.0/16")[0] == "iptables"
        nat.add("iptables", "cgagent0", "10.231.0.0/16")
        nat.add("iptables", "cgagent0", "10.231.0.0/16")
        os.environ["PATH"] = os.defpath + ":/usr/sbin"
        assert output("iptables", "-t", "nat", "-S", "POSTROUTING").count("MASQUERADE") == 2
        nat.remove("iptables", "cgagent0", "10.231.0.0/16")
        assert "MASQUERADE" not in output("iptables", "-t", "nat", "-S", "POSTROUTING")


class TestResolvConf:
    @pytest.fixture
    def host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(network, "_RESOLV_CONF", (str(tmp_path / "resolv.conf"), str(tmp_path / "systemd.conf")))
        return tmp_path

    def test_is_the_hosts(self, host: Path) -> None:
        (host / "resolv.conf").write_text("# by hand\nnameserver 192.0.2.53\nsearch example.org\noptions ndots:2\n")
        assert network.resolv_conf(Plan()) == "nameserver 192.0.2.53\nsearch example.org\noptions ndots:2\n"

    def test_asks_systemd_for_the_servers_behind_a_stub_on_loopback(self, host: Path) -> None:
        (host / "resolv.conf").write_text("nameserver 127.0.0.53\nsearch example.org\n")
        (host / "systemd.conf").write_text("nameserver 192.0.2.53\nnameserver 192.0.2.54\n")
        assert network.resolv_conf(Plan()) == "nameserver 192.0.2.53\nnameserver 192.0.2.54\n"

    def test_takes_the_servers_that_were_asked_for_and_the_hosts_search_list(self, host: Path) -> None:
        (host / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch example.org\n")
        assert network.resolv_conf(Plan(dns=("9.9.9.9", "1.1.1.1"))) == (
            "nameserver 9.9.9.9\nnameserver 1.1.1.1\nsearch example.org\n"
        )

    @pytest.mark.parametrize("text", ["", "nameserver\n", "nameserver 127.0.0.1\n", "nameserver ::1\n", "\xff\xfe\n"])
    def test_is_empty_where_no_server_can_be_reached(self, host: Path, text: str) -> None:
        (host / "resolv.conf").write_text(text, encoding="latin-1")
        assert network.resolv_conf(Plan()) == ""

    def test_needs_no_file(self, host: Path) -> None:
        assert not any(host.iterdir())
        assert network.resolv_conf(Plan()) == ""


@needs_root
@needs_iproute
@in_private_namespaces
def test_a_launch_killed_while_it_attaches_leaves_nothing_that_sweep_does_not_take() -> None:
    for delay in (0, 0.0003, 0.0006, 0.001, 0.0015, 0.002, 0.003):
        with Container() as container:
            launch = os.fork()
            if launch == 0:
                attach(container.pid, "cgagent-1-1-1", Plan())
                signal.pause()
            time.sleep(delay)
            os.kill(launch, signal.SIGKILL)
            os.waitpid(launch, 0)
        sweep(never)
        wait_until_only({"lo"})
