"""Tests of the receiver's parser."""

import gzip
import json
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.receiver import parse
from belatwist.receiver.parse import Line, read_import, read_metrics
from belatwist.receiver.unpack import (
    PIECE_BYTES,
    BadBodyError,
    BodyTooLargeError,
    UnknownEncodingError,
    unpack,
)

NOW = 1_697_040_000_000


def lines(body: bytes, encoding: str = "") -> list[Line]:
    """Read a whole import body."""
    return list(chain.from_iterable(step.lines for step in read_import(body, encoding)))


def metrics(body: bytes | Any, encoding: str = "") -> list[Line]:
    """Read a whole body of the older format, given as bytes or as what to encode."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(chain.from_iterable(step.lines for step in read_metrics(data, encoding)))


def line(
    metric: str = '{"__name__":"a"}', values: str = "[1]", timestamps: str = f"[{NOW}]"
) -> bytes:
    """Write one line, sound unless a part is replaced."""
    return f'{{"metric":{metric},"values":{values},"timestamps":{timestamps}}}'.encode()


def test_the_documented_format_is_read() -> None:
    """Labels become sorted pairs; values and timestamps stay in order."""
    body = line(
        '{"core":"0","__name__":"cpu_usage_percent"}', "[1.5,-2,3e2]", f"[{NOW},1{NOW},2{NOW}]"
    )
    body = body.replace(b"1%d" % NOW, b"%d" % (NOW + 1)).replace(b"2%d" % NOW, b"%d" % (NOW + 2))
    assert lines(body) == [
        Line(
            (("__name__", "cpu_usage_percent"), ("core", "0")),
            [NOW, NOW + 1, NOW + 2],
            [1.5, -2.0, 300.0],
        )
    ]


@pytest.mark.parametrize(
    "body",
    [
        line() + b"\n" + line(),
        line() + b"\n" + line() + b"\n",
        line() + b"\r\n" + line() + b"\r\n",
        b"\n\n" + line() + b"\n \t\r\n" + line() + b"\n\n",
    ],
    ids=["no final newline", "final newline", "CRLF", "blank lines"],
)
def test_line_ends(body: bytes) -> None:
    """Every way to end a line that VictoriaMetrics takes is taken."""
    assert len(lines(body)) == 2


@pytest.mark.parametrize("body", [b"", b"\n", b"\n\n\n", b"\r\n"])
def test_a_body_without_lines_is_no_error(body: bytes) -> None:
    """An empty body is taken, as VictoriaMetrics takes it, compressed or not."""
    assert lines(body) == []
    assert lines(gzip.compress(body), "gzip") == []


LONG_NAME = "n" * 300

BAD_LINES = {
    "no JSON": (b"cpu 1", "malformed"),
    "cut short": (line()[:-1], "truncated"),
    "two objects": (line() + line(), "trailing characters"),
    "gzip taken for plain": (gzip.compress(line()), ""),
    "not UTF-8": (line('{"__name__":"a","b":"\xff"}').replace("\xff".encode(), b"\xff"), "UTF-8"),
    "not UTF-8 in a label's name": (line().replace(b'"a"', b'"a","\xff":"b"'), "UTF-8"),
    "lone surrogate": (line(r'{"__name__":"a","b":"\ud800"}'), "malformed"),
    "array": (b"[]", "Expected `object`"),
    "nested too deeply": (b'{"metric":' + b"[" * 1_000_000, "nested too deeply"),
    "unknown key": (line()[:-1] + b',"x":1}', "unknown field"),
    "no metric": (b'{"values":[1],"timestamps":[%d]}' % NOW, "missing required field `metric`"),
    "no values": (b'{"metric":{"__name__":"a"},"timestamps":[%d]}' % NOW, "`values`"),
    "no timestamps": (b'{"metric":{"__name__":"a"},"values":[1]}', "`timestamps`"),
    "metric no object": (line('"a"'), "Expected `object`"),
    "no labels": (line("{}"), "no __name__"),
    "no name": (line('{"b":"c"}'), "no __name__"),
    "empty name": (line('{"__name__":""}'), "'' is no name of a metric"),
    "dotted name": (line('{"__name__":"cpu.usage"}'), "'cpu.usage' is no name of a metric"),
    "name begins with digit": (line('{"__name__":"0a"}'), "'0a' is no name of a metric"),
    "name ends with newline": (line(r'{"__name__":"a\n"}'), r"'a\n' is no name of a metric"),
    "name of other letters": (line('{"__name__":"ä"}'), "'ä' is no name of a metric"),
    "label number": (line('{"__name__":"a","b":1}'), "Expected `str`, got `int`"),
    "label null": (line('{"__name__":"a","b":null}'), "Expected `str`, got `null`"),
    "label name with colon": (line('{"__name__":"a","b:c":"d"}'), "'b:c' is no name of a label"),
    "label name empty": (line('{"__name__":"a","":"d"}'), "'' is no name of a label"),
    "label name long": (line(f'{{"__name__":"a","{LONG_NAME}-":"d"}}'), "…' is no name of a label"),
    "label twice": (line('{"__name__":"a","b":"c","b":"d"}'), "a label is given twice"),
    "31 labels": (
        line(json.dumps({"__name__": "a"} | {f"l{n}": "x" for n in range(30)})),
        "31 labels, at most 30",
    ),
    "long label value": (
        line(json.dumps({"__name__": "a", "b": "x" * 4097})),
        "the value of 'b' is over 4096 bytes",
    ),
    "long label value in bytes": (
        line(json.dumps({"__name__": "a", "b": "ä" * 2049})),
        "the value of 'b' is over 4096 bytes",
    ),
    "empty arrays": (line(values="[]", timestamps="[]"), "length >= 1 - at `$.values`"),
    "more values": (line(values="[1,2]"), "2 values but 1 timestamp"),
    "more timestamps": (line(timestamps=f"[{NOW},{NOW}]"), "1 value but 2 timestamps"),
    "value no array": (line(values="1"), "Expected `array`, got `int`"),
    "value null": (line(values="[null]"), "got `null`"),
    "value true": (line(values="[true]"), "got `bool`"),
    "value text": (line(values='["1"]'), "got `str`"),
    "value NaN": (line(values="[NaN]"), "malformed"),
    "value Infinity": (line(values="[Infinity]"), "malformed"),
    "value -Infinity": (line(values="[-Infinity]"), "malformed"),
    "value too large": (line(values="[1e400]"), "out of range"),
    "integer value too large": (line(values=f"[{'9' * 400}]"), "out of range"),
    "value hexadecimal": (line(values="[0x10]"), "malformed"),
    "timestamp fraction": (line(timestamps=f"[{NOW}.0]"), "Expected `int`, got `float`"),
    "timestamp text": (line(timestamps=f'["{NOW}"]'), "Expected `int`, got `str`"),
    "timestamp true": (line(timestamps="[true]"), "Expected `int`, got `bool`"),
    "timestamp null": (line(timestamps="[null]"), "Expected `int`, got `null`"),
    "timestamp zero": (line(timestamps="[0]"), ">= 100000000000"),
    "timestamp negative": (line(timestamps=f"[-{NOW}]"), ">= 100000000000"),
    "timestamp seconds": (line(timestamps=f"[{NOW // 1000}]"), ">= 100000000000"),
    "timestamp microseconds": (line(timestamps=f"[{NOW * 1000}]"), "<= 99999999999999"),
    "timestamp beyond 64 bits": (line(timestamps=f"[{NOW}{NOW}]"), "<= 99999999999999"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_refused_with_its_number(bad: bytes, reason: str) -> None:
    """The error names the line, counting blank ones, and says what is wrong in bounded words."""
    with pytest.raises(BadBodyError) as caught:
        lines(line() + b"\n\n" + bad + b"\n" + line())
    error = caught.value
    assert error.status == 400
    assert error.line == 3
    assert reason in error.reason
    assert error.reason.isprintable()
    assert len(error.reason) < 300
    assert str(error) == f"line 3: {error.reason}"


@pytest.mark.parametrize(
    "good",
    [
        line(json.dumps({"__name__": "a"} | {f"l{n}": "x" for n in range(29)})),
        line(json.dumps({"__name__": "a:b_c9", "b": "x" * 4096, "_c": "", "D9": "\n\x00ä"})),
        line(values="[0,-0.0,1e308,5e-324]", timestamps=f"[{10**11},{NOW},{NOW},{10**14 - 1}]"),
    ],
    ids=["30 labels", "label values", "numbers"],
)
def test_the_limits_themselves_are_taken(good: bytes) -> None:
    """A value at a limit is valid."""
    assert len(lines(good)) == 1


def test_a_long_line_is_refused_with_its_number() -> None:
    """A line of the greatest length is read, a byte more is too large, ended or not."""
    padded = line().ljust(parse.MAX_LINE_BYTES)
    assert len(lines(padded + b"\n" + line())) == 2
    for body in (line() + b"\n" + padded + b" \n", line() + b"\n" + padded + b" "):
        with pytest.raises(BodyTooLargeError, match="line 2: longer than 1048576 bytes") as caught:
            lines(body)
        assert caught.value.status == 413


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_the_number_of_lines_is_bounded(encoding: str) -> None:
    """Blank lines count; the first one that is too much is refused, ended or not."""

    def read(body: bytes) -> list[Line]:
        return lines(gzip.compress(body) if encoding else body, encoding)

    blanks = b"\n" * (parse.MAX_LINES - 1)
    assert len(read(blanks + line())) == 1
    assert len(read(blanks + line() + b"\n")) == 1
    for body in (blanks + b"\n\n", blanks + b"\n ", blanks + line() + b"\n" + line()):
        with pytest.raises(
            BodyTooLargeError, match="line 100001: more than 100000 lines"
        ) as caught:
            read(body)
        assert (caught.value.status, caught.value.line) == (413, 100_001)


def test_too_many_lines_are_refused_early() -> None:
    """The rest of a body of newlines is not even unpacked."""
    steps: list[parse.Step] = []
    with pytest.raises(BodyTooLargeError):
        steps.extend(read_import(gzip.compress(b"\n" * 10_000_000), "gzip"))
    assert sum(step.unpacked_bytes for step in steps) <= parse.MAX_LINES


def test_steps_are_short() -> None:
    """No step unpacks more than a piece, so that parsing never takes long at a stretch."""
    body = b"\n".join([line()] * 5000)
    for data, encoding in ((body, ""), (gzip.compress(body), "gzip")):
        steps = list(read_import(data, encoding))
        assert max(step.unpacked_bytes for step in steps) <= PIECE_BYTES
        assert sum(step.unpacked_bytes for step in steps) == len(body)
        assert sum(len(step.lines) for step in steps) == 5000


def test_gzip_of_several_members_is_one_body() -> None:
    """Members follow each other as in RFC 1952; a line may cross from one to the next."""
    body = line() + b"\n" + line()
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    compressed = b"".join(gzip.compress(part) for part in ([b"", *parts, b""]))
    assert lines(compressed, "gzip") == lines(body)


def test_long_gzip_members_follow_each_other() -> None:
    """Also when a member's last piece was held back until there was room for it."""
    body = line() * 3
    for size in (PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 1):
        member = gzip.compress(b" ".ljust(size))
        unpacked = b"".join(unpack(member + gzip.compress(body) + member, "gzip", 10**6))
        assert unpacked == b" " * size + body + b" " * size


@pytest.mark.parametrize("read", [read_import, read_metrics])
def test_small_gzip_members_share_a_step(read: parse.BodyParser) -> None:
    """A body of many tiny members takes few steps, and not one very long one."""
    empty = gzip.compress(b"")
    compressed = empty * 10_000 + gzip.compress(b"[]" if read is read_metrics else b"")
    assert 5 < len(list(read(compressed, "gzip"))) < 20


def test_bad_gzip_is_refused_without_a_line_number() -> None:
    """Data that are no gzip, cut short, damaged or followed by other data are a bad body."""
    compressed = gzip.compress(b"\n".join([line()] * 50))
    damaged = compressed[:-8] + bytes([compressed[-8] ^ 1]) + compressed[-7:]
    cases = {
        b"": "cut short",
        line(): "broken",
        compressed[:5]: "cut short",
        compressed[: len(compressed) // 2]: "cut short",
        compressed[:-1]: "cut short",
        damaged: "broken",
        compressed + b"x": "cut short",
        compressed + b"garbage": "broken",
        compressed + compressed[:20]: "cut short",
    }
    for body, reason in cases.items():
        with pytest.raises(BadBodyError, match=reason) as caught:
            lines(body, "gzip")
        assert (caught.value.status, caught.value.line) == (400, None)


@pytest.mark.parametrize("encoding", ["GZIP", "x-gzip", "zstd", "deflate", "br", "gzip,gzip", "\n"])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    """Also the names of gzip that VictoriaMetrics does not know, and would lose the body of."""
    with pytest.raises(UnknownEncodingError, match="Content-Encoding") as caught:
        lines(line(), encoding)
    assert caught.value.status == 415
    assert str(caught.value).isprintable()


def test_a_gzip_bomb_costs_no_more_than_the_limit() -> None:
    """The unpacking stops one piece past the limit."""
    bomb = gzip.compress(bytes(10 * 1024 * 1024))
    limit = 1_000_000
    pieces: list[int] = []
    with pytest.raises(BodyTooLargeError, match="unpacks to more than 1000000 bytes"):
        pieces.extend(map(len, unpack(bomb, "gzip", limit)))
    assert sum(pieces) <= limit
    assert max(pieces) <= PIECE_BYTES
    assert sum(map(len, unpack(gzip.compress(bytes(limit)), "gzip", limit))) == limit


LABEL_NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,20}", fullmatch=True)
METRICS = st.builds(
    lambda labels, name: labels | {"__name__": name},
    st.dictionaries(LABEL_NAMES, st.text(st.characters(codec="utf-8"), max_size=30), max_size=29),
    st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,30}", fullmatch=True),
)
SAMPLES = st.lists(
    st.tuples(st.integers(10**11, 10**14 - 1), st.floats(allow_nan=False, allow_infinity=False)),
    min_size=1,
    max_size=20,
)


@given(st.lists(st.tuples(METRICS, SAMPLES), max_size=10), st.booleans(), st.booleans())
def test_a_sound_batch_comes_back(
    batch: list[tuple[dict[str, str], list[tuple[int, float]]]], ascii_only: bool, compressed: bool
) -> None:
    """Samples in the documented format are read back exactly."""
    body = b"".join(
        json.dumps(
            {
                "metric": metric,
                "values": [v for _, v in pairs],
                "timestamps": [t for t, _ in pairs],
            },
            ensure_ascii=ascii_only,
        ).encode()
        + b"\n"
        for metric, pairs in batch
    )
    read = lines(gzip.compress(body), "gzip") if compressed else lines(body)
    assert read == [
        Line(tuple(sorted(metric.items())), [t for t, _ in pairs], [v for _, v in pairs])
        for metric, pairs in batch
    ]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["a", str(NOW), "2023-10-11T16:53:20Z"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["metric", "metrics", "name", "value", "values", "timestamp", "timestamps", "tags"]
            )
            | st.sampled_from(["__name__", "device_id"])
            | st.text(),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda at, put, body: body[:at] + put + body[at:],
        st.integers(0, 80),
        st.binary(max_size=5),
        st.just(line() + b"\n" + line()),
    ),
)


def refusal(body: bytes, encoding: str, read: parse.BodyParser) -> BadBodyError | None:
    """Read a body to its end; return the documented error if it is refused."""
    try:
        for step in read(body, encoding):
            for parsed in step.lines:
                json.dumps(parsed, allow_nan=False, ensure_ascii=False).encode()
    except BadBodyError as error:
        return error
    return None


@given(
    st.sampled_from([read_import, read_metrics]),
    BODIES,
    st.sampled_from(["", "identity", "gzip", "compressed", "x"]),
)
def test_no_body_raises_anything_else(read: parse.BodyParser, body: bytes, encoding: str) -> None:
    """Any body is read, or refused with the documented error in printable words."""
    if encoding == "compressed":
        body, encoding = gzip.compress(body), "gzip"
    error = refusal(body, encoding, read)
    assert error is None or (error.reason.isprintable() and len(error.reason) < 300)


def test_the_format_of_the_go_program_is_read() -> None:
    """Its batch carries the device once and RFC 3339 timestamps with up to nine decimals."""
    body = {
        "device_id": "belabox-001",
        "timestamp": "2023-10-11T16:53:21Z",
        "metrics": [
            {"name": "cpu.temperature", "value": 52.3, "timestamp": "2023-10-11T16:53:20.123Z"},
            {"name": "a", "value": 1, "timestamp": "2023-10-11T18:53:20.123456789+02:00"},
        ],
    }
    ms = 1_697_043_200_123
    assert metrics(body) == [
        Line((("__name__", "cpu.temperature"), ("device_id", "belabox-001")), [ms], [52.3]),
        Line((("__name__", "a"), ("device_id", "belabox-001")), [ms], [1.0]),
    ]


def test_the_bare_array_of_metrics_is_read() -> None:
    """A metric may carry its device, its tags and integer milliseconds itself."""
    body = [
        {"name": "a", "value": 1, "timestamp": NOW, "device_id": "d", "tags": {"core": "0"}},
        {"name": "b", "value": 2, "timestamp": NOW},
    ]
    assert metrics(json.dumps(body).encode()) == [
        Line((("__name__", "a"), ("core", "0"), ("device_id", "d")), [NOW], [1.0]),
        Line((("__name__", "b"),), [NOW], [2.0]),
    ]
    assert metrics(gzip.compress(b"[]"), "gzip") == []


GOOD_METRIC = {"name": "a", "value": 1, "timestamp": NOW}
BAD_METRICS = {
    "no JSON": (b"x", "malformed"),
    "not UTF-8": (b'[{"name":"\xff","value":1,"timestamp":%d}]' % NOW, "UTF-8"),
    "nested too deeply": (b'{"metrics":' + b"[" * 100_000, "Expected"),
    "no array": ({"device_id": "d"}, "missing required field `metrics`"),
    "unknown key": ([GOOD_METRIC, GOOD_METRIC | {"x": 1}], "unknown field `x` - at `$[1]`"),
    "bad name": ([GOOD_METRIC, GOOD_METRIC | {"name": "a b"}], "metric 1: 'a b' is no name"),
    "bad label": ([GOOD_METRIC | {"tags": {"a.b": ""}}], "metric 0: 'a.b' is no name of a label"),
    "value text": ([GOOD_METRIC | {"value": "1"}], "`$[0].value`"),
    "value NaN": ([GOOD_METRIC | {"value": float("nan")}], "malformed"),
    "seconds": ([GOOD_METRIC | {"timestamp": 1_697_040_000}], ">= 100000000000 - at `$[0]"),
    "no time zone": ([GOOD_METRIC | {"timestamp": "2023-10-11T16:53:20"}], "timezone"),
    "year of an unset clock": (
        [GOOD_METRIC | {"timestamp": "1970-01-01T00:01:00Z"}],
        "metric 0: 1970-01-01 00:01:00+00:00 is no plausible time",
    ),
}


@pytest.mark.parametrize(("body", "reason"), BAD_METRICS.values(), ids=BAD_METRICS)
def test_a_bad_metric_of_the_older_format_is_refused(body: Any, reason: str) -> None:
    """The error says which metric it is; a document has no line numbers."""
    with pytest.raises(BadBodyError) as caught:
        metrics(body)
    assert reason in caught.value.reason
    assert (caught.value.status, caught.value.line) == (400, None)


def test_a_document_of_the_older_format_is_as_short_as_a_line() -> None:
    """It cannot be read in steps, so its length is bounded like a line's, before it is parsed."""
    assert metrics(b"[]".ljust(parse.MAX_LINE_BYTES)) == []
    with pytest.raises(BodyTooLargeError):
        metrics(gzip.compress(b"[]".ljust(parse.MAX_LINE_BYTES + 1)), "gzip")
