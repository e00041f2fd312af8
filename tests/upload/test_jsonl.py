"""Samples to the lines of /api/v1/import."""

import gzip
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.metrics.names import labels, metric_name
from belatwist.model import Series
from belatwist.store import Row
from belatwist.upload.jsonl import (
    MAX_LABEL_NAME_BYTES,
    MAX_LABEL_VALUE_BYTES,
    MAX_LABELS,
    Encoder,
    compress,
    unsendable,
)
from tests import strategies

LOAD = Series.of("system.load_1m", "box")
CORE_0 = Series.of("cpu.usage_percent", "box", {"core": "0"})
CORE_1 = Series.of("cpu.usage_percent", "box", {"core": "1"})

Line = tuple[dict[str, str], list[int], list[str]]
Batch = tuple[list[Row], dict[int, Series]]


def parsed(body: bytes) -> list[Line]:
    """Read lines back: labels, timestamps, and values as texts of ``repr``."""
    *lines, rest = body.decode("utf-8").split("\n")
    assert rest == ""
    found = []
    for line in map(json.loads, lines):
        assert list(line) == ["metric", "values", "timestamps"]
        found.append((line["metric"], line["timestamps"], [repr(v) for v in line["values"]]))
    return found


def by_labels(lines: list[Line]) -> list[Line]:
    """Sort lines by their labels, so that their order does not count."""
    return sorted(lines, key=lambda line: (sorted(line[0].items()), *line[1:]))


def test_golden() -> None:
    """A line for each series, sorted; points by time; in VictoriaMetrics' documented shape."""
    rows: list[Row] = [
        (1697040010000, 3, 12.5),
        (1697040000000, 3, 100),
        (1697040000000, 1, 0.1),
        (1697040000000, 2, 3),
    ]
    body = Encoder().encode(rows, {1: LOAD, 2: CORE_1, 3: CORE_0})
    assert body == (
        b'{"metric":{"__name__":"cpu_usage_percent","device_id":"box","core":"0"},'
        b'"values":[100,12.5],"timestamps":[1697040000000,1697040010000]}\n'
        b'{"metric":{"__name__":"cpu_usage_percent","device_id":"box","core":"1"},'
        b'"values":[3],"timestamps":[1697040000000]}\n'
        b'{"metric":{"__name__":"system_load_1m","device_id":"box"},'
        b'"values":[0.1],"timestamps":[1697040000000]}\n'
    )


def test_golden_of_awkward_texts() -> None:
    """Names are made safe, values are not: quotes, newlines and umlauts arrive as they are."""
    series = Series.of("cpu.temperature", "b\u00f6x", {"a.b": 'q"\\\n\x00', "device_id": "\u20ac"})
    assert Encoder().encode([(1, 1, 2)], {1: series}) == (
        b'{"metric":{"__name__":"cpu_temperature_celsius","device_id":"b\xc3\xb6x",'
        b'"a_b":"q\\"\\\\\\n\\u0000","exported_device_id":"\xe2\x82\xac"},'
        b'"values":[2],"timestamps":[1]}\n'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, b"0.0"),
        (-0.0, b"-0.0"),
        (0, b"0"),
        (0.1, b"0.1"),
        (1e300, b"1e+300"),
        (5e-324, b"5e-324"),
        (1e16, b"1e+16"),
        (2**53 + 1, b"9007199254740993"),
        (2**63 - 1, b"9223372036854775807"),
        (-(2**63), b"-9223372036854775808"),
    ],
)
def test_values(value: float, text: bytes) -> None:
    """A value is written with as many digits as it takes to read it back exactly, and no more."""
    assert b'"values":[' + text + b"]" in Encoder().encode([(1, 1, value)], {1: LOAD})


@given(strategies.batches())
def test_reading_back_gives_the_rows(batch: Batch) -> None:
    """The lines have every series, timestamp and value of the rows, bit for bit."""
    rows, series = batch
    expected = []
    for number in {row[1] for row in rows}:
        one = series[number]
        points = sorted((t, v) for t, i, v in rows if i == number)
        named = {"__name__": metric_name(one.name)} | labels(one.device_id, one.tags)
        expected.append((named, [t for t, _ in points], [repr(v) for _, v in points]))
    assert by_labels(parsed(Encoder().encode(rows, series))) == by_labels(expected)


@given(strategies.batches())
def test_lines_are_well_formed(batch: Batch) -> None:
    """A line for each series, with as many values as ascending timestamps, and a safe name."""
    rows, series = batch
    lines = parsed(Encoder().encode(rows, series))
    assert len(lines) == len({row[1] for row in rows})
    for named, timestamps, values in lines:
        assert timestamps == sorted(set(timestamps))
        assert len(timestamps) == len(values)
        assert "." not in named["__name__"]
        assert all(isinstance(v, str) for v in named.values())


@given(strategies.batches(), st.randoms(use_true_random=False))
def test_the_same_rows_give_the_same_bytes(batch: Batch, rng: random.Random) -> None:
    """A chunk that is sent again is the same bytes, in whichever order its rows are read.

    Nor does it matter what the encoder has encoded before, or that another one does it.
    """
    rows, series = batch
    encoder = Encoder()
    first = encoder.encode(rows, series)
    shuffled = rng.sample(rows, len(rows))
    encoder.encode(shuffled[:1], series)
    assert encoder.encode(shuffled, series) == first
    assert Encoder().encode(shuffled, dict(reversed(series.items()))) == first


@given(strategies.batches(strategies.series(strategies.anything)))
def test_any_text_gives_valid_lines(batch: Batch) -> None:
    """A text that UTF-8 cannot hold does not raise: the body is still UTF-8 and JSON."""
    rows, series = batch
    good, bad = Encoder().partition(rows, series)
    assert (good, bad) == (rows, {})
    assert len(parsed(Encoder().encode(rows, series))) == len({row[1] for row in rows})


def test_a_lone_surrogate_becomes_an_escape() -> None:
    """A character that UTF-8 cannot hold is sent as JSON's escape for it."""
    series = Series.of("m", "box", {"t": "a\udcff"})
    assert b'"t":"a\\udcff"' in Encoder().encode([(1, 1, 1)], {1: series})


@given(st.binary(max_size=2000), st.integers(1, 9))
def test_compress(body: bytes, level: int) -> None:
    """The same body gives the same bytes, without a time in them, and they unpack to it."""
    packed = compress(body, level)
    assert packed == compress(body, level)
    assert packed[4:8] == bytes(4)  # MTIME (RFC 1952, section 2.3.1)
    assert gzip.decompress(packed) == body


def test_level_6_is_smaller_than_level_1() -> None:
    """The level is handed on: on a real chunk 6 saves bytes."""
    rows: list[Row] = [(1697040000000 + n * 10_000, n % 50 + 1, n * 0.37 % 7) for n in range(2000)]
    series = {i: Series.of("cpu.usage_percent", "box", {"core": str(i)}) for i in range(1, 51)}
    body = Encoder().encode(rows, series)
    assert len(compress(body, 6)) < len(compress(body, 1))


def tagged(count: int) -> Series:
    """A series with so many tags."""
    return Series.of("m", "box", {f"t{n}": "x" for n in range(count)})


@pytest.mark.parametrize(
    "series",
    [
        pytest.param(LOAD, id="ordinary"),
        pytest.param(tagged(MAX_LABELS - 2), id="30 labels with name and device"),
        pytest.param(Series.of("m", "box", {"t": "x" * MAX_LABEL_VALUE_BYTES}), id="long value"),
        pytest.param(Series.of("m", "box", {"t": "é" * 2048}), id="4096 bytes of 2 each"),
        pytest.param(Series.of("m", "b" * MAX_LABEL_VALUE_BYTES), id="long device"),
        pytest.param(Series.of("m" * MAX_LABEL_VALUE_BYTES, "box"), id="long name"),
        pytest.param(Series.of("m", "box", {"t" * MAX_LABEL_NAME_BYTES: "x"}), id="long tag name"),
        pytest.param(Series.of("m", ""), id="no device"),
        pytest.param(Series.of(".", "box"), id="a name of nothing safe"),
    ],
)
def test_sendable(series: Series) -> None:
    """A series within the server's limits, to the last byte, is sent."""
    assert unsendable(series) is None


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (Series.of("", "box"), "the metric has no name"),
        (tagged(MAX_LABELS - 1), "31 labels, the server keeps 30"),
        (
            Series.of("m", "box", {"t": "x" * 4097}),
            "label t is 4097 bytes long, the server takes 4096",
        ),
        (
            Series.of("m", "box", {"a.b": "é" * 2048 + "x"}),
            "label a_b is 4097 bytes long, the server takes 4096",
        ),
        (Series.of("m", "€" * 1366), "label device_id is 4098 bytes long, the server takes 4096"),
        (
            Series.of("m" * 4097, "box"),
            "label __name__ is 4097 bytes long, the server takes 4096",
        ),
        (
            Series.of("m", "box", {"t" * 257: "x"}),
            "a label name of 257 bytes, the server takes 256",
        ),
        (
            Series.of("m", "box", {"t": "\ud800" * 4097}),
            "label t is 24582 bytes long, the server takes 4096",
        ),
    ],
)
def test_unsendable(series: Series, reason: str) -> None:
    """A series that the server would acknowledge and drop or alter is not sent, for a reason."""
    assert unsendable(series) == reason
    assert Encoder().partition([(1, 1, 1.0)], {1: series}) == ([], {reason: [(1, 1, 1.0)]})


@pytest.mark.parametrize("timestamp_ms", [0, -1])
def test_times_before_1970_are_not_sent(timestamp_ms: int) -> None:
    """The server drops samples that are not after 1970: only such a sample is kept back."""
    rows: list[Row] = [(timestamp_ms, 1, 1.0), (1, 1, 1.0)]
    assert Encoder().partition(rows, {1: LOAD}) == (
        rows[1:],
        {"the timestamp is not after 1970": rows[:1]},
    )


@given(
    st.lists(
        st.tuples(st.integers(-1, 3), st.sampled_from([1, 2, 3, 4]), st.just(1.0)), max_size=20
    )
)
def test_partition_loses_nothing(rows: list[Row]) -> None:
    """Every row is either sent or has one reason; both keep the rows' order."""
    series = {1: LOAD, 2: tagged(40), 3: Series.of("", "box"), 4: CORE_0}
    good, bad = Encoder().partition(rows, series)
    kept = [row for row in rows if row[0] > 0 and row[1] in {1, 4}]
    assert list(good) == kept
    for reason, some in bad.items():
        assert reason
        assert some == [row for row in rows if row in some]
    assert sorted([*good, *(row for some in bad.values() for row in some)]) == sorted(rows)
