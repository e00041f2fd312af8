"""The network interfaces."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.interfaces import NetworkDevice
from belatwist.collectors.netdev import NetDev, parse
from belatwist.collectors.network import (
    DEFAULT_EXCLUSIONS,
    INFO_EVERY,
    NetworkTraffic,
    NetworkTrafficOptions,
)
from belatwist.errors import AbsentError, HiddenError, ParseError, ReadError
from belatwist.log.throttle import REPEAT_AFTER
from belatwist.model import Sample
from belatwist.procfs.reader import DEFAULT_LIMIT, Reader, TooLargeError
from tests.collectors import kernel_texts
from tests.fixture_trees import NOW_MS, Board, machine, procfs, sysfs
from tests.log_events import shown

BOARD = (kernel_texts.FIXTURES / "orangepi5plus/proc/net/dev").read_bytes()
HEADER = b"".join(BOARD.splitlines(keepends=True)[:2])
GOOD = b"  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
ETH0 = {"eth0": (1, 2, 3, 9, 10, 11)}


def test_the_table_of_the_board() -> None:
    """Bytes, packets and errors come from their columns, in the kernel's order."""
    reading = parse(BOARD)
    assert list(reading.interfaces) == [
        "lo",
        "eth0",
        "eth1",
        "wlan0",
        "usb0",
        "eth2",
        "wwan0",
        "docker0",
        "veth1a2b3c4",
    ]
    assert reading.interfaces["wwan0"] == (44118205, 172009, 0, 950118712, 723110, 3)
    assert reading.skipped == ()


def test_odd_and_malformed_lines() -> None:
    """No space after the colon, the longest name and an alias are read; the rest is named."""
    text = (kernel_texts.FIXTURES / "variants/net-malformed/proc/net/dev").read_bytes()
    reading = parse(text)
    assert reading.interfaces == {
        "lo": (4562118402, 3402117, 0, 4562118402, 3402117, 0),
        "eth0": (12884901888, 96210, 0, 921833014, 701122, 0),
        "enx001122334455": (1745118820, 1329004, 0, 77120994, 301882, 0),
        "eth1:0": (5, 1, 0, 6, 1, 0),
    }
    assert [line.split()[0] for line in reading.skipped] == ["usb0:", "garbage", "wwan0:"]


def test_the_name_ends_at_the_last_colon_before_the_numbers() -> None:
    """An alias keeps its colon, also without a space behind it."""
    line = b"eth1:0:" + GOOD.split(b": ", 1)[1]
    assert list(parse(HEADER + line).interfaces) == ["eth1:0"]


def test_no_interface_is_legal() -> None:
    """A header alone is an empty table."""
    assert parse(HEADER) == NetDev({})


@pytest.mark.parametrize(
    "line",
    [
        GOOD.replace(b"eth0", b"eth1").replace(b" 16", b""),
        GOOD.replace(b"eth0", b"eth1").replace(b" 16", b" 16 17"),
        GOOD.replace(b"eth0", b"eth1").replace(b" 9 ", b" -9 "),
        GOOD.replace(b"eth0", b"eth1").replace(b" 9 ", b" 9_0 "),
        GOOD.replace(b"eth0", b"eth1").replace(b" 9 ", b" \xd9\xa9 "),
        GOOD.replace(b"eth0", b"eth1").replace(b" 9 ", b" 18446744073709551616 "),
        GOOD.replace(b"eth0", b"eth1").replace(b" 16", b" x"),
        GOOD.replace(b"eth0", b"eth\0"),
        GOOD.replace(b"eth0", b"a" * 16),
        GOOD.replace(b"eth0:", b"eth1"),
        GOOD.replace(b"eth0", b""),
        GOOD.replace(b" 1 ", b" 9 "),
        GOOD.replace(b"eth0", b"eth1")[:-1],
    ],
)
def test_a_malformed_or_repeated_interface_is_left_out(line: bytes) -> None:
    """The line is named and the others are kept."""
    reading = parse(HEADER + GOOD + line)
    assert reading.interfaces == ETH0
    assert len(reading.skipped) == 1


@pytest.mark.parametrize(
    "text",
    [
        b"",
        GOOD,
        HEADER[:-1],
        HEADER.replace(b"errs", b"drop"),
        HEADER.replace(b"|bytes", b"|packets"),
        HEADER.splitlines(keepends=True)[1] + GOOD,
    ],
)
def test_a_text_without_the_known_header_is_an_error(text: bytes) -> None:
    """Columns of unknown meaning are not read."""
    with pytest.raises(ParseError, match=r"^/proc/net/dev: no known header"):
        parse(text)


@given(kernel_texts.damaged(kernel_texts.files("proc/net/dev")))
def test_damage_never_makes_a_number(text: bytes) -> None:
    """Every number that is read is a whole token of a complete line."""
    for content in (text, HEADER + text):
        reading = kernel_texts.attempt(parse, content)
        if reading is not None:
            kernel_texts.assert_skipped(reading.skipped)
            read = {n for c in reading.interfaces.values() for n in c}
            assert kernel_texts.tokens(content) >= read


def test_a_cut_text_gives_no_other_values() -> None:
    """Cut at any byte, every interface that is read reads as in the whole text."""
    whole = parse(BOARD).interfaces
    for end in range(len(BOARD)):
        reading = kernel_texts.attempt(parse, BOARD[:end])
        if reading is not None:
            assert reading.interfaces.items() <= whole.items()


NAMES = {f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errors")}
UPLINKS = {"eth0", "eth1", "wlan0", "usb0", "eth2", "wwan0"}


def values(samples: list[Sample]) -> dict[tuple[str, str], float]:
    """Give the values by interface and short name; the count of dropped interfaces has none."""
    found: dict[tuple[str, str], float] = {}
    counters = [s for s in samples if s.series.name != "network.interface_info"]
    for s in counters:
        assert s.timestamp_ms == NOW_MS
        name = s.series.name.removeprefix("network.").removesuffix("_total")
        assert f"network.{name}_total" == s.series.name
        tags = dict(s.series.tags)
        interface = tags.pop("interface", "")
        assert not tags
        found[interface, name] = float(s.value)
    assert len(found) == len(counters)
    return found


def told(samples: list[Sample]) -> dict[str, tuple[str, str]]:
    """Give the devices and drivers that ``network.interface_info`` says, by interface."""
    found: dict[str, tuple[str, str]] = {}
    for s in samples:
        if s.series.name == "network.interface_info":
            assert (s.value, s.timestamp_ms, s.series.priority) == (1, NOW_MS, 3)
            tags = dict(s.series.tags)
            found[tags.pop("interface")] = (tags.pop("device"), tags.pop("driver"))
            assert not tags
    return found


def reported(collector: NetworkTraffic) -> set[str]:
    """Collect, and give the interfaces; none where it says that there is none."""
    try:
        samples = collector.collect(NOW_MS)
    except AbsentError:
        return set()
    assert samples
    return interfaces(samples)


def interfaces(samples: list[Sample]) -> set[str]:
    """Give the interfaces, each of which must have all metrics."""
    found = values(samples)
    names = {interface for interface, _ in found} - {""}
    expected = {(interface, name) for interface in names for name in NAMES}
    assert found.keys() - {("", "interfaces_dropped")} == expected
    return names


def dropped(samples: list[Sample]) -> float | None:
    """Give the count of interfaces that were left out, if it is reported."""
    return values(samples).get(("", "interfaces_dropped"))


def table(board: Board, **counters: int) -> None:
    """Give the board these interfaces; all counters of an interface have the same value."""
    rows = [b"%s: %s\n" % (n.encode(), b" ".join([b"%d" % c] * 16)) for n, c in counters.items()]
    board.texts["net/dev"] = HEADER + b"".join(rows)


def test_the_board() -> None:
    """Each column goes to its metric; the bond's bitrate is the board's."""
    board = procfs("orangepi5plus")
    collector = NetworkTraffic(machine(board), NetworkTrafficOptions())
    before = collector.collect(NOW_MS)
    assert interfaces(before) == UPLINKS
    assert dropped(before) is None
    first = values(before)
    assert {name: first["wwan0", name] for name in NAMES} == {
        "rx_bytes": 44118205,
        "rx_packets": 172009,
        "rx_errors": 0,
        "tx_bytes": 950118712,
        "tx_packets": 723110,
        "tx_errors": 3,
    }
    board.become("orangepi5plus-t10")
    second = values(collector.collect(NOW_MS))
    sent = {i: second[i, "tx_bytes"] - first[i, "tx_bytes"] for i in UPLINKS}
    assert sent == {
        "wlan0": 712448,
        "usb0": 2381216,
        "eth2": 3012480,
        "wwan0": 1640336,
        "eth1": 148224,
        "eth0": 0,
    }
    bond = sum(sent[i] for i in ("wlan0", "usb0", "eth2", "wwan0"))
    assert bond * 8 / 10 == 6_197_184


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (
            "variants/net-predictable",
            {
                "enP3p49s0",
                "enP4p65s0",
                "wlP2p33s0",
                "enx369c0f1a2b3c",
                "enx0c5b8f279a64",
                "wwp0s20u3i4",
            },
        ),
        (
            "variants/net-hilink-twins",
            {"eth0", "eth1", "wlan0", "eth2", "enx0c5b8f279a64", "wwan0"},
        ),
        ("variants/net-malformed", {"eth0", "enx001122334455", "eth1:0"}),
        ("vm", {"eth0"}),
    ],
)
def test_machines(tree: str, expected: set[str]) -> None:
    """Every uplink is reported by default, whatever its name; loopback and bridges are not."""
    assert (
        interfaces(NetworkTraffic(machine(procfs(tree)), NetworkTrafficOptions()).collect(NOW_MS))
        == expected
    )


def test_a_machine_without_uplinks() -> None:
    """It has no such thing."""
    with pytest.raises(AbsentError, match="no interface that include_ifaces and exclude_ifaces"):
        NetworkTraffic(machine(procfs("container")), NetworkTrafficOptions()).collect(NOW_MS)


@pytest.mark.parametrize(
    ("name", "excluded"),
    [
        ("lo", True),
        ("docker0", True),
        ("veth1a2b3c4", True),
        ("br-0123456789ab", True),
        ("wlan0mon", True),
        ("virbr0", True),
        ("virbr0-nic", True),
        ("l4tbr0", True),
        ("dummy0", True),
        ("ifb0", True),
        ("sit0", True),
        ("wlo1", False),
        ("eth0", False),
        ("br0", False),
        ("wlan0", False),
        ("usb0", False),
        ("wwan0", False),
        ("wwp0s20u3i4", False),
        ("enx0c5b8f279a64", False),
        ("tun0", False),
    ],
)
def test_the_default_exclusions(name: str, excluded: bool) -> None:
    """They match whole names, and no uplink of the bond is among them."""
    board = procfs("vm")
    table(board, **{name: 1})
    found = reported(NetworkTraffic(machine(board), NetworkTrafficOptions()))
    assert found == (set() if excluded else {name})
    assert len(set(DEFAULT_EXCLUSIONS)) == 10


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), UPLINKS | {"lo", "docker0", "veth1a2b3c4"}),
        ((), ("lo",), UPLINKS | {"docker0", "veth1a2b3c4"}),
        ((), ("l",), UPLINKS | {"lo", "docker0", "veth1a2b3c4"}),
        (("eth",), None, set()),
        (("eth.*",), None, {"eth0", "eth1", "eth2"}),
        (("eth.*", "usb0"), ("eth1",), {"eth0", "eth2", "usb0"}),
        (("lo",), None, set()),
        ((".*",), (".*",), set()),
    ],
)
def test_patterns(
    include: tuple[str, ...], exclude: tuple[str, ...] | None, expected: set[str]
) -> None:
    """Exclusions win, inclusions narrow, a given list replaces the default one."""
    board = procfs("orangepi5plus")
    collector = NetworkTraffic(
        machine(board), NetworkTrafficOptions(include_ifaces=include, exclude_ifaces=exclude)
    )
    assert reported(collector) == expected


def test_an_interface_that_is_reported_stays_so() -> None:
    """At the limit newcomers wait, wherever the kernel lists them, until a place is free."""
    board = procfs("vm")
    collector = NetworkTraffic(machine(board), NetworkTrafficOptions(max_interfaces=2))
    table(board, b=1, c=1)
    samples = collector.collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == ({"b", "c"}, None)
    table(board, a=1, b=2, c=2, d=1)
    samples = collector.collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == ({"b", "c"}, 2)
    assert list(collector.left_out) == ["a", "d"]
    table(board, a=2, c=3, d=2)
    samples = collector.collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == ({"a", "c"}, 3)
    table(board, a=3, c=4)
    samples = collector.collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == ({"a", "c"}, 3)
    assert not collector.left_out


def test_the_names_of_what_is_left_out_are_bounded() -> None:
    """Twenty names, and how many more there are."""
    board = procfs("vm")
    collector = NetworkTraffic(machine(board), NetworkTrafficOptions(max_interfaces=1))
    table(board, **{f"usb{number:02}": 1 for number in range(31)})
    collector.collect(NOW_MS)
    names = [f"usb{number:02}" for number in range(1, 21)]
    assert collector.left_out == (*names, "… and 10 more")


def test_excluded_interfaces_take_no_place() -> None:
    """The limit counts what is wanted."""
    board = procfs("orangepi5plus")
    samples = NetworkTraffic(machine(board), NetworkTrafficOptions(max_interfaces=6)).collect(
        NOW_MS
    )
    assert (interfaces(samples), dropped(samples)) == (UPLINKS, None)
    samples = NetworkTraffic(machine(board), NetworkTrafficOptions(max_interfaces=5)).collect(
        NOW_MS
    )
    # The one that carries nothing.
    assert (interfaces(samples), dropped(samples)) == (UPLINKS - {"eth0"}, 1)


def test_counters_are_stored_as_the_kernel_has_them() -> None:
    """A counter that fell tells PromQL of a reset; left out, 1.2 MB would read as 0.2 MB."""
    board = procfs("vm")
    collector = NetworkTraffic(machine(board), NetworkTrafficOptions())
    stored = []
    for count in (1_000_000, 200_000, 1_200_000):
        table(board, eth0=count, usb0=7)
        found = values(collector.collect(NOW_MS))
        assert {found["eth0", name] for name in NAMES} == {count}
        assert found["usb0", "rx_bytes"] == 7
        stored.append(found["eth0", "rx_bytes"])
    assert stored == [1_000_000, 200_000, 1_200_000]
    assert increase(stored) == 1_200_000


def increase(stored: list[float]) -> float:
    """Add up as PromQL does: after a fall the whole value is new."""
    return sum(b - a if b >= a else b for a, b in pairwise(stored))


def test_an_interface_that_comes_back_starts_anew() -> None:
    """Seen to be away, it has nothing to be compared with."""
    board = procfs("vm")
    collector = NetworkTraffic(machine(board), NetworkTrafficOptions())
    for counters in ({"usb0": 1000}, {"eth0": 1}, {"usb0": 5}):
        table(board, **counters)
        assert interfaces(collector.collect(NOW_MS)) == counters.keys()


def collector_of(*trees: str, limit: int = 32) -> NetworkTraffic:
    """Make the collector of a machine."""
    options = NetworkTrafficOptions(max_interfaces=limit)
    return NetworkTraffic(machine(procfs(*trees), sysfs(*trees)), options)


def test_what_carries_what_others_carry_is_left_out() -> None:
    """A channel of a modem and a VPN over it: 3 MB were sent, and not 9."""
    samples = collector_of("variants/net-tunnels").collect(NOW_MS)
    assert interfaces(samples) == {"wwan0"}
    assert sum(v for (_, name), v in values(samples).items() if name == "tx_bytes") == 3_000_000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (NetworkTrafficOptions(include_ifaces=("tail.*", "wwan0")), {"wwan0", "tailscale0"}),
        (NetworkTrafficOptions(include_ifaces=("qmimux0",)), {"qmimux0"}),
        (NetworkTrafficOptions(exclude_ifaces=("lo",)), {"wwan0", "qmimux0", "tailscale0"}),
    ],
)
def test_tunnels_that_are_wanted(options: NetworkTrafficOptions, expected: set[str]) -> None:
    """An inclusion that matches, or exclusions of one's own, decide."""
    trees = "variants/net-tunnels"
    collector = NetworkTraffic(machine(procfs(trees), sysfs(trees)), options)
    assert interfaces(collector.collect(NOW_MS)) == expected


def test_a_container_without_hardware() -> None:
    """Its only interface, one end of a pair, leads out of it."""
    assert interfaces(collector_of("variants/net-container").collect(NOW_MS)) == {"eth0"}


def test_an_interface_whose_device_may_not_be_read_is_hardware() -> None:
    """What cannot be known must not cost an uplink."""
    board = sysfs("variants/net-tunnels")
    board.faults["class/net/wwan0/device/uevent"] = HiddenError("uevent is denied", "a group")
    proc = procfs("variants/net-tunnels")
    samples = NetworkTraffic(machine(proc, board), NetworkTrafficOptions()).collect(NOW_MS)
    assert interfaces(samples) == {"wwan0"}
    assert told(samples) == {"wwan0": ("5-1:1.4", "unknown")}


def test_an_interface_that_shows_what_others_carry() -> None:
    """A monitor of a radio has a device, and counts all that its neighbours carry."""
    board = sysfs("orangepi5plus")
    board.texts["class/net/eth0/type"] = b"803\n"
    proc = procfs("orangepi5plus")
    samples = NetworkTraffic(machine(proc, board), NetworkTrafficOptions()).collect(NOW_MS)
    assert interfaces(samples) == UPLINKS - {"eth0"}


@pytest.mark.parametrize("with_sysfs", [True, False])
def test_uplinks_come_before_idle_tunnels(with_sysfs: bool) -> None:
    """18 idle tunnels, listed first, take the place of no modem."""
    tree = "variants/net-idle-tunnels"
    sys = sysfs(tree) if with_sysfs else None
    options = NetworkTrafficOptions(max_interfaces=16)
    collector = NetworkTraffic(machine(procfs(tree), sys), options)
    samples = collector.collect(NOW_MS)
    assert interfaces(samples) >= {"wwan0", "wwan1"}
    if with_sysfs:
        assert interfaces(samples) == {"wwan0", "wwan1"}
        assert collector.left_out == ()
    else:
        assert len(interfaces(samples)) == 16
        assert collector.left_out == ("wg14", "wg15", "wg16", "wg17")


def test_a_modem_that_comes_later_takes_an_idle_place() -> None:
    """What is reported stays before its equals only."""
    board = procfs("vm")
    collector = NetworkTraffic(machine(board), NetworkTrafficOptions(max_interfaces=2))
    table(board, wg0=0, wg1=0)
    assert interfaces(collector.collect(NOW_MS)) == {"wg0", "wg1"}
    table(board, wg0=0, wg1=0, wwan0=5)
    assert interfaces(collector.collect(NOW_MS)) == {"wg0", "wwan0"}
    table(board, wg0=0, wg1=7, wwan0=9)
    assert interfaces(collector.collect(NOW_MS)) == {"wg1", "wwan0"}


def test_idle_hardware_comes_after_hardware_that_carries_traffic() -> None:
    """Hardware before the rest, and of each what has carried traffic."""
    proc, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
    table(proc, eth0=0, eth1=0, docker0=9, wlan0=5, wwan0=7)
    options = NetworkTrafficOptions(exclude_ifaces=(), max_interfaces=3)
    collector = NetworkTraffic(machine(proc, sys), options)
    assert interfaces(collector.collect(NOW_MS)) == {"wlan0", "wwan0", "eth0"}
    assert collector.left_out == ("eth1", "docker0")


def test_the_devices_of_the_board() -> None:
    """Each by its place and its maker's number; no address is in it."""
    assert told(collector_of("orangepi5plus").collect(NOW_MS)) == {
        "eth0": ("0003:31:00.0 10ec:8125", "r8125"),
        "eth1": ("0004:41:00.0 10ec:8125", "r8125"),
        "wlan0": ("0002:21:00.0 10ec:b852", "rtl8852be"),
        "usb0": ("1-1.1:1.0 18d1:4eeb", "rndis_host"),
        "eth2": ("1-1.2:1.0 12d1:14dc", "cdc_ether"),
        "wwan0": ("5-1:1.4 2c7c:0125", "qmi_wwan"),
    }
    assert told(collector_of("vm").collect(NOW_MS)) == {"eth0": ("virtio2", "virtio_net")}


def test_only_what_names_a_kind_is_told() -> None:
    """Whatever else a driver writes, such as an address, stays on the machine."""
    board = sysfs("orangepi5plus")
    board.texts["class/net/usb0/device/uevent"] = (
        b"DRIVER=ipheth\nPRODUCT=5ac/12a8/d03\nMAC=0c:5b:8f:27:9a:64\nSERIAL=860922042123456\n"
        b"HID_UNIQ=0c:5b:8f:27:9a:64\nMODALIAS=usb:v05ACp12A8\n"
    )
    board.faults["class/net/usb0/device"] = ReadError("device: (EINVAL)", "EINVAL")
    proc = procfs("orangepi5plus")
    samples = NetworkTraffic(machine(proc, board), NetworkTrafficOptions()).collect(NOW_MS)
    assert told(samples)["usb0"] == ("05ac:12a8", "ipheth")


def test_a_device_in_another_place(tmp_path: Path) -> None:
    """A modem of the same kind in another port is another one; no uevent is needed."""
    interface = tmp_path / "class/net/wwan0"
    interface.mkdir(parents=True)
    for place in ("1-1.2:1.4", "1-1.3:1.4"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "driver").symlink_to("../drivers/qmi_wwan")
    proc = procfs("vm")
    table(proc, wwan0=1, tailscale0=1)
    collector = NetworkTraffic(machine(proc, Reader(str(tmp_path))), NetworkTrafficOptions())
    for place in ("1-1.2:1.4", "1-1.3:1.4"):
        (interface / "device").unlink(missing_ok=True)
        (interface / "device").symlink_to(f"../../../{place}")
        samples = collector.collect(NOW_MS)
        assert interfaces(samples) == {"wwan0"}
        assert told(samples) == {"wwan0": (place, "qmi_wwan")}


def test_devices_are_told_when_they_change_and_once_an_hour() -> None:
    """Not at each tick: a device changes a few times a day."""
    clock = Clock()
    proc, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
    collector = NetworkTraffic(machine(proc, sys, seconds=clock.seconds), NetworkTrafficOptions())
    assert len(told(collector.collect(NOW_MS))) == 6
    for _ in range(359):
        clock.advance(10)
        assert told(collector.collect(NOW_MS)) == {}
    clock.advance(10)
    assert clock.seconds() == INFO_EVERY
    assert len(told(collector.collect(NOW_MS))) == 6
    sys.become("variants/net-other-modem", "orangepi5plus")
    clock.advance(10)
    other = {"usb0": ("1-1.1:1.0 1e0e:9001", "cdc_ncm")}
    assert told(collector.collect(NOW_MS)) == other
    assert told(collector.collect(NOW_MS)) == {}


def test_the_table_of_a_machine_with_thousands_of_interfaces() -> None:
    """The lines that the reader lets through are read; health and the log say that there are more.

    The next tables are read whole.
    """
    rows = b"".join(b"veth%d: %s\n" % (n, b" ".join([b"1234567"] * 16)) for n in range(8400))
    board = procfs("vm")
    whole = HEADER + GOOD + rows
    assert len(whole) > DEFAULT_LIMIT
    beginning = whole[:DEFAULT_LIMIT]
    board.faults["net/dev"] = TooLargeError("dev: larger than allowed", beginning)
    collector = NetworkTraffic(machine(board), NetworkTrafficOptions())
    with capturedLogs() as events:
        for _ in range(3):
            assert interfaces(collector.collect(NOW_MS)) == {"eth0"}
            assert collector.left_out == ("all that /proc/net/dev lists later",)
        board.faults.clear()
        table(board, eth0=20)
        collector.collect(NOW_MS)
    assert collector.left_out == ()
    assert shown(events) == [
        f"Interfaces behind the first {len(parse(beginning).interfaces)} are left out:"
        " dev: larger than allowed",
        "All interfaces are read again",
    ]


def test_a_table_that_cannot_be_read_is_an_error() -> None:
    """An unreadable or unknown table says nothing about interfaces."""
    board = procfs("vm")
    board.faults["net/dev"] = ReadError("net/dev: Input/output error (EIO)")
    with pytest.raises(ReadError, match="EIO"):
        NetworkTraffic(machine(board), NetworkTrafficOptions()).collect(NOW_MS)
    board.faults.clear()
    board.texts["net/dev"] = b"garbage\n"
    with pytest.raises(ParseError):
        NetworkTraffic(machine(board), NetworkTrafficOptions()).collect(NOW_MS)


class Log(SynchronousTestCase):
    def test_a_reset_is_logged(self) -> None:
        """The warning names the interface and by how much it fell; a repetition is not news."""
        board, clock = procfs("vm"), Clock()
        collector = NetworkTraffic(machine(board, seconds=clock.seconds), NetworkTrafficOptions())
        texts = []
        for count in (100, 40, 30, 31, 7):
            table(board, usb0=count)
            with capturedLogs() as events:
                collector.collect(NOW_MS)
            texts.append(shown(events))
            clock.advance(REPEAT_AFTER / 2)
        message = "Counters of usb0 went backwards (bytes received: {0}, sent: {0})"
        assert texts == [[], [message.format(-60)], [], [], [message.format(-24)]]

    def test_counters_that_fall_again_and_again(self) -> None:
        """A day of it has one line in ten minutes, and not 4,320; another interface its own."""
        board, clock = procfs("vm"), Clock()
        collector = NetworkTraffic(machine(board, seconds=clock.seconds), NetworkTrafficOptions())
        with capturedLogs() as events:
            for tick in range(8640):
                table(board, usb0=tick % 2, eth0=tick if tick < 8639 else 0)
                collector.collect(NOW_MS)
                clock.advance(10)
        lines = shown(events)
        assert len(lines) == 1 + 86400 // 600 - 1 + 1
        assert lines[1].endswith("sent: -1); it failed and recovered 29 times meanwhile")
        assert lines[-1].startswith("Counters of eth0 went backwards")

    def test_the_limit_is_logged_when_it_begins_and_ends(self) -> None:
        """Not at every tick."""
        board = procfs("vm")
        collector = NetworkTraffic(machine(board), NetworkTrafficOptions(max_interfaces=1))
        texts = []
        for names in ("a", "ab", "ab", "abc", "a", "a"):
            table(board, **dict.fromkeys(names, 1))
            with capturedLogs() as events:
                collector.collect(NOW_MS)
            texts.append(shown(events))
        assert texts == [
            [],
            ["More interfaces than 1, left out: b"],
            [],
            [],
            ["No interface is left out any more"],
            [],
        ]

    def test_another_device_under_a_name_is_logged(self) -> None:
        """One line, also where the interface was away, and none that its counters fell."""
        for away in (False, True):
            proc, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
            collector = NetworkTraffic(machine(proc, sys), NetworkTrafficOptions())
            table(proc, usb0=1000, eth0=1)
            collector.collect(NOW_MS)
            if away:
                table(proc, eth0=2)
                collector.collect(NOW_MS)
            table(proc, usb0=10, eth0=3)
            sys.become("variants/net-other-modem", "orangepi5plus")
            with capturedLogs() as events:
                found = collector.collect(NOW_MS)
                collector.collect(NOW_MS)
            assert values(found)["usb0", "rx_bytes"] == 10
            assert shown(events) == [
                "Interface usb0 is another device: 1-1.1:1.0 1e0e:9001 (cdc_ncm)"
                " instead of 1-1.1:1.0 18d1:4eeb (rndis_host)"
            ]

    def test_devices_that_change_places_for_a_day(self) -> None:
        """One line in ten minutes, with the number of changes."""
        clock = Clock()
        proc, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
        collector = NetworkTraffic(
            machine(proc, sys, seconds=clock.seconds), NetworkTrafficOptions()
        )
        with capturedLogs() as events:
            for tick in range(8640):
                sys.become(*(["variants/net-other-modem"] * (tick // 2 % 2)), "orangepi5plus")
                collector.collect(NOW_MS)
                clock.advance(10)
        assert len(shown(events)) == 86400 // 600


def test_names_that_are_gone_are_forgotten_in_the_end() -> None:
    """A machine that makes interfaces for ever costs no more than some hundred names."""
    proc, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
    collector = NetworkTraffic(machine(proc, sys), NetworkTrafficOptions())
    device = NetworkDevice("1-1.1:1.0", "rndis_host")
    for number in range(1000):
        collector._inform(f"usb{number}", device, NOW_MS, [])
    assert len(collector._announced) == 256
