"""Rows of the table ``metrics`` of versions 1 and 2: how to read them, and their meaning."""

import json
import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

from belatwist.model import DEFAULT_PRIORITY, REAL, TEXT, Series

UNKNOWN = "before-migration"
"""The session of rows that name none, and the batch of those that do not say how they were sent."""

_TIME_LIMIT_MS = 1 << 43  # Beyond it, an id of the view does not fit into 64 bits.


class InvalidRowError(Exception):
    """A row that cannot be a sample; the text says why, after "because"."""


class LegacyRow(NamedTuple):
    """A row as it was read: texts as bytes, and ``None`` for a value of the wrong type."""

    rowid: int
    timestamp_ms: int | None
    value: float | None
    value_text: bytes | None
    value_type: int
    uploaded: int | None
    priority: int | None
    chunk_index: int | None
    batch_id: bytes | None
    session_id: bytes | None
    name: bytes | None
    device_id: bytes | None
    tags: bytes | None


def checked(row: LegacyRow, encoding: str) -> tuple[int, float | str]:
    """Return timestamp and value of a row.

    :param encoding: the database's (``UTF-8``).
    :raises InvalidRowError: when they cannot be a sample's.
    """
    if row.timestamp_ms is None or not -_TIME_LIMIT_MS < row.timestamp_ms < _TIME_LIMIT_MS:
        raise InvalidRowError("the timestamp is no time in whole milliseconds")
    if row.value_type == TEXT:
        if row.value_text is None:
            raise InvalidRowError("there is no text")
        return row.timestamp_ms, _decoded(row.value_text, encoding)
    if row.value_type != REAL:
        raise InvalidRowError("the value is of no known type")
    if row.value is None or not math.isfinite(row.value):
        raise InvalidRowError("the value is no finite number")
    return row.timestamp_ms, row.value


def priority(row: LegacyRow) -> int:
    """Return the priority, within the bounds of those that are ever sent."""
    return DEFAULT_PRIORITY if row.priority is None else min(max(row.priority, 0), 3)


# Texts are read as bytes, because a single text that is not UTF-8 would fail the whole query.
# Numbers are read only where they are numbers, because a column of SQLite holds any type.
_INTEGER = "CASE typeof({0}) WHEN 'integer' THEN {0} END"
_BYTES = "CAST({0} AS BLOB)"
_FIELDS = {
    "rowid": "{0}",
    "timestamp_ms": _INTEGER,
    "metric_value": "CASE WHEN typeof({0}) IN ('integer', 'real') THEN {0} END",
    "value_text": _BYTES,
    "value_type": "coalesce(CASE typeof({0}) WHEN 'integer' THEN {0} WHEN 'null' THEN 0 END, -1)",
    "uploaded": _INTEGER,
    "priority": _INTEGER,
    "chunk_index": _INTEGER,
    "batch_id": _BYTES,
    "session_id": _BYTES,
    "metric_name": _BYTES,
    "device_id": _BYTES,
    "tags": _BYTES,
}


def select(table: str, columns: Collection[str]) -> str:
    """Return the query for the next rows of a table, their number to be given.

    :param columns: the columns of the table; a missing column is read as NULL.
    """
    known = {"rowid", *columns}
    fields = [form.format(name if name in known else "NULL") for name, form in _FIELDS.items()]
    return f"SELECT {', '.join(fields)} FROM {table} ORDER BY rowid LIMIT ?"  # noqa: S608


def series(row: LegacyRow, encoding: str) -> Series:
    """Return the series that a row belongs to.

    :param encoding: the database's (``UTF-8``).
    :raises InvalidRowError: when its name, device or tags cannot be a series'.
    """
    if not row.name:
        raise InvalidRowError("the name is empty")
    name = _decoded(row.name, encoding)
    device = _decoded(row.device_id or b"", encoding)
    one = Series.of(
        name, device, _tags(_decoded(row.tags or b"", encoding)), value_type=row.value_type
    )
    try:
        one.tags_json.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair.
        raise InvalidRowError("a text is not valid Unicode") from error
    return one


def _decoded(text: bytes, encoding: str) -> str:
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidRowError("a text is not valid Unicode") from error


def _tags(text: str) -> Mapping[str, str]:
    """Read tags: texts, and numbers and truth values as they are spelled in JSON."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise InvalidRowError("the tags are not JSON") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidRowError("the tags are no JSON object")
    spelled: dict[object, str] = {None: "", True: "true", False: "false"}
    result = {}
    for key, value in found.items():
        if isinstance(value, dict | list):
            raise InvalidRowError("a tag is no text")
        result[key] = value if isinstance(value, str) else spelled[value]
    return result
