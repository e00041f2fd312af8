"""The network interfaces."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.network import (
    DEFAULT_EXCLUSIONS,
    NetDev,
    NetworkTraffic,
    NetworkTrafficOptions,
    parse,
)
from belatwist.errors import AbsentError, ParseError, ReadError
from belatwist.log.throttle import REPEAT_AFTER
from belatwist.model import Sample
from tests.collectors import kernel_texts
from tests.fixture_trees import NOW_MS, Board, machine, procfs
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
@settings(deadline=None)
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
    for s in samples:
        assert s.timestamp_ms == NOW_MS
        name = s.series.name.removeprefix("network.").removesuffix("_total")
        assert f"network.{name}_total" == s.series.name
        tags = dict(s.series.tags)
        interface = tags.pop("interface", "")
        assert not tags
        found[interface, name] = float(s.value)
    assert len(found) == len(samples)
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
    assert (interfaces(samples), dropped(samples)) == (UPLINKS - {"wwan0"}, 1)


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
            ["More interfaces than 1, left out: ['b']"],
            [],
            [],
            ["No interface is left out any more"],
            [],
        ]
