"""The network interfaces."""

from collections.abc import Sequence

import pytest
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.network import DEFAULT_EXCLUSIONS, NetworkTraffic
from belatwist.errors import ParseError, ReadError
from belatwist.model import Sample
from tests.fixture_trees import FIXTURES, NOW_MS, Board, procfs

NAMES = {f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errors")}
HEADER = b"".join((FIXTURES / "vm/proc/net/dev").read_bytes().splitlines(keepends=True)[:2])
UPLINKS = {"eth0", "eth1", "wlan0", "usb0", "eth2", "wwan0"}


def values(samples: list[Sample]) -> dict[tuple[str, str], float]:
    """Give the values by interface and short name; the count of dropped ones has no interface."""
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
    """Let the board have these interfaces, all counters of each being one number."""
    rows = [b"%s: %s\n" % (n.encode(), b" ".join([b"%d" % c] * 16)) for n, c in counters.items()]
    board.texts["net/dev"] = HEADER + b"".join(rows)


def test_the_board() -> None:
    """Each column goes to its metric; the bond's bitrate is the board's."""
    board = procfs("orangepi5plus")
    collector = NetworkTraffic("box", board)
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
        ("container", set()),
    ],
)
def test_machines(tree: str, expected: set[str]) -> None:
    """Every uplink is reported by default, whatever its name; loopback and bridges are not."""
    assert interfaces(NetworkTraffic("box", procfs(tree)).collect(NOW_MS)) == expected


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
    found = interfaces(NetworkTraffic("box", board).collect(NOW_MS))
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
    include: Sequence[str], exclude: Sequence[str] | None, expected: set[str]
) -> None:
    """Exclusions win, inclusions narrow, a given list replaces the default one."""
    board = procfs("orangepi5plus")
    collector = NetworkTraffic("box", board, include=include, exclude=exclude)
    assert interfaces(collector.collect(NOW_MS)) == expected


def test_an_interface_that_is_reported_stays_so() -> None:
    """At the limit newcomers wait, wherever the kernel lists them, until a place is free."""
    board = procfs("vm")
    collector = NetworkTraffic("box", board, max_interfaces=2)
    table(board, b=1, c=1)
    samples = collector.collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == ({"b", "c"}, None)
    table(board, a=1, b=2, c=2, d=1)
    samples = collector.collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == ({"b", "c"}, 2)
    table(board, a=2, c=3, d=2)
    samples = collector.collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == ({"a", "c"}, 3)
    table(board, a=3, c=4)
    samples = collector.collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == ({"a", "c"}, 3)


def test_excluded_interfaces_take_no_place() -> None:
    """The limit counts what is wanted."""
    board = procfs("orangepi5plus")
    samples = NetworkTraffic("box", board, max_interfaces=6).collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == (UPLINKS, None)
    samples = NetworkTraffic("box", board, max_interfaces=5).collect(NOW_MS)
    assert (interfaces(samples), dropped(samples)) == (UPLINKS - {"wwan0"}, 1)


def test_counters_that_went_backwards_are_left_out_once() -> None:
    """A replugged modem starts at nothing: one sample is missing, the others are not touched."""
    board = procfs("vm")
    collector = NetworkTraffic("box", board)
    table(board, eth0=100, usb0=1000)
    collector.collect(NOW_MS)
    table(board, eth0=101, usb0=5)
    assert interfaces(collector.collect(NOW_MS)) == {"eth0"}
    table(board, eth0=102, usb0=6)
    found = values(collector.collect(NOW_MS))
    assert found["usb0", "tx_bytes"] == 6
    assert found["eth0", "tx_bytes"] == 102


def test_an_interface_that_comes_back_starts_anew() -> None:
    """Seen to be away, it has nothing to be compared with."""
    board = procfs("vm")
    collector = NetworkTraffic("box", board)
    for counters in ({"usb0": 1000}, {"eth0": 1}, {"usb0": 5}):
        table(board, **counters)
        assert interfaces(collector.collect(NOW_MS)) == counters.keys()


def test_a_table_that_cannot_be_read_is_an_error() -> None:
    """An unreadable or unknown table says nothing about interfaces."""
    board = procfs("vm")
    board.faults["net/dev"] = ReadError("net/dev: Input/output error (EIO)")
    with pytest.raises(ReadError, match="EIO"):
        NetworkTraffic("box", board).collect(NOW_MS)
    board.faults.clear()
    board.texts["net/dev"] = b"garbage\n"
    with pytest.raises(ParseError):
        NetworkTraffic("box", board).collect(NOW_MS)


class Log(SynchronousTestCase):
    def test_a_reset_is_logged(self) -> None:
        """The warning names the interface and by how much it fell; a repetition is not news."""
        board = procfs("vm")
        collector = NetworkTraffic("box", board)
        texts = []
        for count in (100, 40, 30, 31, 7):
            table(board, usb0=count)
            with capturedLogs() as events:
                collector.collect(NOW_MS)
            texts.append([formatEvent(event) for event in events])
        message = (
            "Counters of usb0 went backwards, its samples are left out once"
            " (bytes received: {0}, sent: {0})"
        )
        assert texts == [[], [message.format(-60)], [], [], [message.format(-24)]]

    def test_the_limit_is_logged_when_it_begins_and_ends(self) -> None:
        """Not at every tick."""
        board = procfs("vm")
        collector = NetworkTraffic("box", board, max_interfaces=1)
        texts = []
        for names in ("a", "ab", "ab", "abc", "a", "a"):
            table(board, **dict.fromkeys(names, 1))
            with capturedLogs() as events:
                collector.collect(NOW_MS)
            texts.append([formatEvent(event) for event in events])
        assert texts == [
            [],
            ["More interfaces than 1, left out: ['b']"],
            [],
            [],
            ["No interface is left out any more"],
            [],
        ]
