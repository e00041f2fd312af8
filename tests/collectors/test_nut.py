"""What a UPS says through NUT: the protocol, bad servers, and a real ``upsd``."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from belatwist.collectors.nut import (
    BATTERY,
    LOW,
    MAX_LINE,
    MAX_LINES,
    ONLINE,
    VOLTAGE,
    ListAnswer,
    Nut,
    NutOptions,
    RefusedError,
    parse_supplies,
    parse_variables,
    values_of,
)
from belatwist.errors import AbsentError, BelaError, HiddenError, ParseError, ReadError
from belatwist.model import Sample
from tests.collectors.upsd import Upsd
from tests.fixture_trees import NOW_MS, machine
from tests.log_events import Captured, shown
from tests.process import TIMEOUT, free_port

Reply = Callable[[bytes], bytes]
Values = Mapping[tuple[str, str], float]

BAG = b'BEGIN LIST UPS\nUPS bag "The bag\'s battery"\nEND LIST UPS\n'
ON_BATTERY = (
    b'BEGIN LIST VAR bag\nVAR bag ups.status "OB DISCHRG"\nVAR bag battery.charge "37"\n'
    b'VAR bag battery.voltage "7.41"\nEND LIST VAR bag\n'
)


def replies(**lists: bytes) -> Reply:
    """Answer each request by its last word."""
    return lambda line: lists.get(line.split()[-1].decode(), b"ERR UNKNOWN-COMMAND\n")


def server(protocol: type[Protocol]) -> Any:
    """Make the factory of a server."""
    return Factory.forProtocol(protocol)


@contextmanager
def serving(reply: Reply) -> Iterator[int]:
    """Run a server that replies to each line; gives its port."""

    class Server(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            for line in data.splitlines():
                self.transport.write(reply(line))

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            lost.append(reason)

    lost: list[Failure] = []
    port: Any = reactor.listenTCP(0, server(Server), interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        port.stopListening()


def nut(port: int, *supplies: str) -> Nut:
    """Make the collector."""
    return Nut(machine(reactor=reactor), NutOptions(port=port, supplies=supplies))


def collecting(collector: Nut) -> "Deferred[list[Sample]]":
    """Collect once, within a time that nothing here needs."""
    asked = Deferred.fromCoroutine(collector.collect(NOW_MS))
    return asked.addTimeout(TIMEOUT, reactor)


def values(samples: list[Sample]) -> Values:
    """Return the values by UPS and short name."""
    return {
        (s.series.tags[0][1], s.series.name.removeprefix("power.")): float(s.value) for s in samples
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("OL", (1, 0)),
        ("OL CHRG", (1, 0)),
        ("OB DISCHRG", (0, 0)),
        ("OB LB", (0, 1)),
        ("OB DISCHRG LB RB", (0, 1)),
        ("OL LB", (1, 1)),
        ("OL OB", (0, 0)),
        ("ALARM OL", (1, 0)),
        ("", None),
        ("WAIT", None),
        ("OLD", None),
        ("ol", None),
    ],
)
def test_the_words_of_the_status(status: str, expected: tuple[int, int] | None) -> None:
    """A status without a word about the mains says nothing about it."""
    values = values_of({"ups.status": status})
    found = (values[ONLINE], values[LOW]) if values else None
    assert found == expected


@pytest.mark.parametrize(
    ("charge", "expected"),
    [
        ("37", 37.0),
        ("100.0", 100.0),
        ("0", 0.0),
        ("", None),
        ("-1", None),
        ("101", None),
        ("nan", None),
        ("inf", None),
        ("1e2", None),
        ("37 %", None),
        ("\u0663\u0667", None),
    ],
)
def test_a_number(charge: str, expected: float | None) -> None:
    """What a battery cannot have is absent."""
    assert values_of({"battery.charge": charge}).get(BATTERY) == expected


def test_variables() -> None:
    """Quotes and backslashes are decoded; another UPS' lines and odd ones are left out."""
    lines = [
        rb'VAR bag device.model "A \"quoted\" \\ name"',
        b'VAR bag battery.voltage "7.41"',
        b'VAR bag battery.voltage "9"',
        b'VAR box battery.charge "1"',
        b'VAR bag broken "x',
        b"VAR bag battery.charge 37",
        b'NUMBER bag battery.charge "37"',
    ]
    assert parse_variables(lines, "bag") == {
        "device.model": 'A "quoted" \\ name',
        "battery.voltage": "7.41",
    }
    assert values_of(parse_variables(lines, "bag")) == {VOLTAGE: 7.41}


def test_supplies() -> None:
    """Only names that a request can hold are taken, once each."""
    lines = [b'UPS bag "a"', b'UPS bag "b"', b'UPS a b "c"', b'UPS x\ty "d"', b'UPS box-2 ""']
    assert parse_supplies(lines) == ("bag", "box-2")


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_any_lines(lines: list[bytes]) -> None:
    """Every text is values, or the announced error."""
    assert isinstance(parse_supplies(lines), tuple)
    assert set(values_of(parse_variables(lines, "bag"))) <= {ONLINE, LOW, BATTERY, VOLTAGE}
    answer = ListAnswer("UPS")
    with suppress(RefusedError, ParseError):
        for line in lines:
            answer.take(line)


def test_an_answer_is_bounded() -> None:
    """A server that never ends one is refused."""
    answer = ListAnswer("UPS")
    assert not answer.take(b"BEGIN LIST UPS")
    for _ in range(MAX_LINES):
        assert not answer.take(b"x")
    with pytest.raises(ParseError, match="more than 2000 lines"):
        answer.take(b"x")


def test_a_refusal() -> None:
    """Its word is the error's code, also with more behind it."""
    for line, code in ((b"ERR DATA-STALE", "DATA-STALE"), (b"ERR UNKNOWN-UPS x", "UNKNOWN-UPS")):
        with pytest.raises(RefusedError) as refused:
            ListAnswer("VAR bag").take(line)
        assert refused.value.code == code


@pytest_twisted.inlineCallbacks
def test_a_ups() -> "Generator[Deferred[Any], Any, None]":
    """All its values, under its name, with the tick's time."""
    with serving(replies(UPS=BAG, bag=ON_BATTERY)) as port:
        samples = yield collecting(nut(port))
    assert values(samples) == {
        ("bag", "online"): 0,
        ("bag", "low"): 0,
        ("bag", "battery_percent"): 37,
        ("bag", "voltage_volts"): 7.41,
    }
    assert {one.timestamp_ms for one in samples} == {NOW_MS}
    assert {one.series.name: one.series.priority for one in samples}["power.online"] == 0


@pytest_twisted.inlineCallbacks
def test_a_ups_among_others() -> "Generator[Deferred[Any], Any, None]":
    """One that fails costs itself; the option chooses."""
    listed = b'BEGIN LIST UPS\nUPS dead "x"\nUPS bag "y"\nEND LIST UPS\n'
    lists = replies(UPS=listed, bag=ON_BATTERY, dead=b"ERR DRIVER-NOT-CONNECTED\n")
    with serving(lists) as port:
        samples = yield collecting(nut(port))
        assert {supply for supply, _ in values(samples)} == {"bag"}
        samples = yield collecting(nut(port, "bag"))
        assert {supply for supply, _ in values(samples)} == {"bag"}
        with pytest.raises(ReadError, match="dead: ERR DRIVER-NOT-CONNECTED"):
            yield collecting(nut(port, "dead"))
        with pytest.raises(ReadError, match="other: ERR UNKNOWN-UPS"):
            yield collecting(nut(port, "other"))


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (replies(UPS=BAG, bag=b"ERR DATA-STALE\n"), AbsentError, "bag: ERR DATA-STALE"),
        (replies(UPS=b"BEGIN LIST UPS\nEND LIST UPS\n"), AbsentError, "knows no UPS"),
        (replies(UPS=b"ERR ACCESS-DENIED\n"), HiddenError, "denies access"),
        (replies(UPS=BAG, bag=b"ERR ACCESS-DENIED\n"), HiddenError, "denies access"),
        (replies(UPS=b"ERR \x1b[2J\n"), ReadError, r"upsd at 127.0.0.1:"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", ParseError, "'HTTP/1.1 400 Bad Request'"),
        (lambda _: b"\x1b[31m\xff\n", ParseError, r"'\x1b[31m\xff'"),
        (lambda _: b"x" * (MAX_LINE + 2), ParseError, "a line of more than 1024 bytes"),
        (lambda _: b"BEGIN LIST UPS\n" + b"x\n" * 3000, ParseError, "more than 2000 lines"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_other_answers(
    reply: Reply, kind: type[BelaError], text: str
) -> "Generator[Deferred[Any], Any, None]":
    """Each is one line, of its own kind."""
    with serving(reply) as port, pytest.raises(kind) as raised:
        yield collecting(nut(port))
    assert text in str(raised.value)
    assert str(raised.value).isprintable()


@pytest_twisted.inlineCallbacks
def test_the_log_of_a_server_that_answers_something_else_each_time() -> (
    "Generator[Deferred[Any], Any, None]"
):
    """It is one line: unknown refusals are one kind, and Twisted does not log each connection."""
    codes = iter(range(1000))

    def reply(line: bytes) -> bytes:
        known = replies(UPS=BAG, bag=b"ERR E%d\n" % next(codes))
        return known(line)

    with serving(reply) as port, Captured() as captured:
        collector = nut(port)
        for _ in range(5):
            with pytest.raises(ReadError):
                yield collecting(collector)
    assert shown(captured.events) == ["Power supply bag has no values: ERR E1"]


@pytest_twisted.inlineCallbacks
def test_nothing_listens() -> "Generator[Deferred[Any], Any, None]":
    """It is a failure: somebody has enabled the source."""
    port = free_port()
    with pytest.raises(ReadError, match=f"^upsd at 127.0.0.1:{port}: .*refused"):
        yield collecting(nut(port))


@pytest_twisted.inlineCallbacks
def test_a_server_that_hangs_up() -> "Generator[Deferred[Any], Any, None]":
    """In the middle of an answer, which is dropped."""

    class Rude(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(b"BEGIN LIST UPS\n")
            self.transport.loseConnection()

    port: Any = reactor.listenTCP(0, server(Rude), interface="127.0.0.1")
    with pytest.raises(ReadError, match="the connection ended before the answer did"):
        yield collecting(nut(port.getHost().port))
    yield port.stopListening()


@pytest_twisted.inlineCallbacks
def test_a_server_that_does_not_answer() -> "Generator[Deferred[Any], Any, None]":
    """The scheduler cancels the collection, which closes the connection."""
    asked: Deferred[None] = Deferred()
    lost: Deferred[None] = Deferred()

    class Silent(Protocol):
        def dataReceived(self, data: bytes) -> None:
            asked.callback(None)

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            lost.callback(None)

    port: Any = reactor.listenTCP(0, server(Silent), interface="127.0.0.1")
    collection = Deferred.fromCoroutine(nut(port.getHost().port).collect(NOW_MS))
    collection.addErrback(lambda failure: failure.trap(BelaError, Exception) and None)
    yield asked
    collection.cancel()
    yield lost.addTimeout(TIMEOUT, reactor)
    yield collection
    yield port.stopListening()


@pytest.mark.process
@pytest.mark.victoria
@pytest_twisted.inlineCallbacks
def test_a_real_upsd(tmp_path: Path) -> "Generator[Deferred[Any], Any, None]":
    """On line, on battery, nearly empty, stale, and back after a restart of the server."""
    with Upsd(tmp_path) as upsd:
        collector = nut(upsd.port)

        def until(wanted: Callable[[Any], bool]) -> "Deferred[Any]":
            async def ask() -> Any:
                deadline = time.monotonic() + TIMEOUT
                while True:
                    try:
                        found: Any = values(await collector.collect(NOW_MS))
                    except BelaError as error:
                        found = error
                    if wanted(found):
                        return found
                    assert time.monotonic() < deadline, found
                    await deferLater(reactor, 0.1)

            return Deferred.fromCoroutine(ask())

        def online(value: int, low: int) -> Callable[[Any], bool]:
            expected = {("bag", "online"): value, ("bag", "low"): low}.items()
            return lambda found: isinstance(found, dict) and expected <= found.items()

        found = yield until(online(1, 0))
        assert found == {
            ("bag", "online"): 1,
            ("bag", "low"): 0,
            ("bag", "battery_percent"): 100,
            ("bag", "voltage_volts"): 7.41,
        }
        upsd.say("OB DISCHRG", 37)
        found = yield until(online(0, 0))
        assert found["bag", "battery_percent"] == 37
        upsd.say("OB LB", 4)
        yield until(online(0, 1))
        upsd.stop()
        yield until(lambda found: isinstance(found, ReadError))
        upsd.start()
        yield until(online(0, 1))
        upsd.freeze()
        error = yield until(lambda found: isinstance(found, AbsentError))
        assert "ERR DATA-STALE" in str(error)
