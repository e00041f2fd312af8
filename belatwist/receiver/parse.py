"""Request bodies to samples: strict checks of every line.

The line format is VictoriaMetrics' JSON lines (https://docs.victoriametrics.com, "How to import
data in JSON line format"). VictoriaMetrics drops a malformed line, or one with too many labels or
an implausible timestamp, and still answers 204. This parser refuses each of these, with the line
number.

Everything is a generator of short steps, so that a large body never holds up the reactor. A step
unpacks at most :data:`~belatwist.receiver.unpack.PIECE_BYTES`, and parses the lines that end there.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple, Protocol

import msgspec

from belatwist.receiver.unpack import BadBodyError, BodyTooLargeError, quote, unpack
from belatwist.text import counted, one_line

MAX_UNPACKED_BYTES = 64 * 1024 * 1024
"""The most bytes of an import body after unpacking."""

MAX_LINE_BYTES = 1024 * 1024
"""The longest line; also the longest body of the older format, which is one document."""

MAX_LINES = 100_000
"""The most lines of an import body, blank ones included: each costs time."""

MAX_LABELS = 30
"""The most labels of a series, the name included (VictoriaMetrics' older default limit)."""

MAX_LABEL_VALUE_BYTES = 4096
"""The longest label value, in bytes of UTF-8 (VictoriaMetrics' default limit)."""

_METRICS_PER_STEP = 500
_REASON_CHARACTERS = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_DOTTED_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:.]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

# Milliseconds of 1973 to 5138: seconds, microseconds and an uptime fall outside.
_EARLIEST_MS = 10**11
_END_MS = 10**14
_Milliseconds = Annotated[int, msgspec.Meta(ge=_EARLIEST_MS, lt=_END_MS)]

Labels = tuple[tuple[str, str], ...]
"""``(name, value)`` pairs sorted by name, ``__name__`` among them: the identity of a series."""


class Line(NamedTuple):
    """Samples of one series: as many timestamps (Unix ms) as values (finite), at least one."""

    labels: Labels
    timestamps: list[int]
    values: list[float]


class Step(NamedTuple):
    """The result of one step of a parser."""

    lines: list[Line]
    unpacked_bytes: int


class BodyParser(Protocol):
    """A format: :func:`read_import` or :func:`read_metrics`."""

    def __call__(self, body: bytes, encoding: str) -> Iterator[Step]:
        """Read a body step by step."""


class _ImportLine(msgspec.Struct, forbid_unknown_fields=True):
    metric: msgspec.Raw
    values: Annotated[list[float], msgspec.Meta(min_length=1)]
    timestamps: Annotated[list[_Milliseconds], msgspec.Meta(min_length=1)]


class _OldMetric(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    value: float
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | _Milliseconds
    device_id: str = ""
    tags: dict[str, str] = {}


class _OldBatch(msgspec.Struct, forbid_unknown_fields=True):
    device_id: str
    metrics: list[_OldMetric]
    timestamp: str = ""


_IMPORT_LINE = msgspec.json.Decoder(_ImportLine)
_METRIC = msgspec.json.Decoder(dict[str, str])
_OLD_BODY = msgspec.json.Decoder(_OldBatch | list[_OldMetric])
# Counts the members of a flat object; a dict would have only the distinct ones.
_MEMBERS = json.JSONDecoder(object_pairs_hook=len)


def read_import(body: bytes, encoding: str) -> Iterator[Step]:
    r"""Read the body of ``POST /api/v1/import``: one object a line.

    .. code-block:: json

        {"metric": {"__name__": "a", "core": "0"}, "values": [1.5], "timestamps": [1697040000000]}

    Blank lines are skipped; ``\r\n`` and a missing final newline are accepted.

    :param body: as the client sent it.
    :param encoding: its ``Content-Encoding``, empty for none.
    :return: the steps; a step may have no line.
    :raises BadBodyError: at the step that meets the first fault.
    """
    number = 1
    buffer = bytearray()
    for piece in unpack(body, encoding, MAX_UNPACKED_BYTES):
        # The line that the last byte belongs to; counting is far cheaper than splitting.
        if piece and number + piece.count(b"\n", 0, -1) > MAX_LINES:
            raise BodyTooLargeError(f"more than {MAX_LINES} lines", MAX_LINES + 1)
        *ends, rest = piece.split(b"\n")
        lines = []
        for end in ends:
            buffer += end
            line = _parse_line(buffer, number)
            if line is not None:
                lines.append(line)
            buffer.clear()
            number += 1
        buffer += rest
        _check_length(buffer, number)
        yield Step(lines, len(piece))
    line = _parse_line(buffer, number)
    if line is not None:
        yield Step([line], 0)


def read_metrics(body: bytes, encoding: str) -> Iterator[Step]:
    """Read the body of ``POST /api/metrics``, the format of the agent's predecessor in Go.

    The predecessor sent an object, with RFC 3339 texts as timestamps (``MetricsPayload`` in
    taniwha3/tidewatch, internal/uploader/uploader.go, at its first milestone):

    .. code-block:: json

        {"device_id": "belabox-001", "timestamp": "2023-10-11T16:53:20Z",
         "metrics": [{"name": "cpu.temperature", "value": 52.3,
                      "timestamp": "2023-10-11T16:53:20.123Z"}]}

    The bare array of metrics is accepted as well. In both, a metric may have its own ``device_id``
    and ``tags`` (an object of texts), and integer milliseconds as its timestamp. Names may have
    dots. The device and the tags become labels.

    :param body: as the client sent it.
    :param encoding: its ``Content-Encoding``, empty for none.
    :return: the steps, with one line for each metric.
    :raises BadBodyError: at the step that meets the first fault. It has no line number; its text
        names the metric.
    """
    document = bytearray()
    for piece in unpack(body, encoding, MAX_LINE_BYTES):
        document += piece
        yield Step([], len(piece))
    try:
        batch = _OLD_BODY.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBodyError(_reason(error)) from error
    if isinstance(batch, list):
        batch = _OldBatch("", batch)
    yield Step([], 0)
    for start in range(0, len(batch.metrics), _METRICS_PER_STEP):
        metrics = batch.metrics[start : start + _METRICS_PER_STEP]
        yield Step([_old_line(m, batch.device_id, n) for n, m in enumerate(metrics, start)], 0)


def _check_length(line: bytearray, number: int) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise BodyTooLargeError(f"longer than {MAX_LINE_BYTES} bytes", number)


def _parse_line(text: bytearray, number: int) -> Line | None:
    _check_length(text, number)
    raw = text.strip(b" \t\r")
    if not raw:
        return None
    try:
        # A copy, because Raw keeps a view of the buffer that it was decoded from.
        sent = _IMPORT_LINE.decode(bytes(raw))
        metric = _METRIC.decode(sent.metric)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBodyError(_reason(error), number) from error
    if len(sent.values) != len(sent.timestamps):
        lengths = (
            f"{counted(len(sent.values), 'value')} but {counted(len(sent.timestamps), 'timestamp')}"
        )
        raise BadBodyError(lengths, number)
    if _MEMBERS.decode(str(sent.metric, "utf-8")) != len(metric):
        raise BadBodyError("a label is given twice", number)
    try:
        labels = _labels(metric, _NAME)
    except ValueError as error:
        raise BadBodyError(str(error), number) from error
    return Line(labels, sent.timestamps, sent.values)


def _old_line(metric: _OldMetric, device_id: str, number: int) -> Line:
    metric_labels = {**metric.tags, "__name__": metric.name}
    if device := metric.device_id or device_id:
        metric_labels["device_id"] = device
    try:
        labels = _labels(metric_labels, _DOTTED_NAME)
    except ValueError as error:
        raise BadBodyError(f"metric {number}: {error}") from error
    at = metric.timestamp
    if isinstance(at, datetime):
        at = (at - _EPOCH) // timedelta(milliseconds=1)
        if not _EARLIEST_MS <= at < _END_MS:
            raise BadBodyError(f"metric {number}: {metric.timestamp} is no plausible time")
    return Line(labels, [at], [metric.value])


def _labels(metric: Mapping[str, str], name_pattern: re.Pattern[str]) -> Labels:
    """Check the labels of a series and put them in canonical order.

    :raises ValueError: with the fault in words.
    """
    name = metric.get("__name__")
    if name is None:
        raise ValueError("the metric has no __name__")
    if not name_pattern.fullmatch(name):
        raise ValueError(f"{quote(name)} is no name of a metric")
    if len(metric) > MAX_LABELS:
        raise ValueError(f"{len(metric)} labels, at most {MAX_LABELS} are kept")
    for label, value in metric.items():
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{quote(label)} is no name of a label")
        if len(value.encode()) > MAX_LABEL_VALUE_BYTES:
            raise ValueError(f"the value of {quote(label)} is over {MAX_LABEL_VALUE_BYTES} bytes")
    return tuple(sorted(metric.items()))


def _reason(error: Exception) -> str:
    """Return a decoder's error as one bounded and printable line."""
    if isinstance(error, UnicodeDecodeError):
        return f"not valid UTF-8: {error.reason}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return one_line(str(error), _REASON_CHARACTERS)
