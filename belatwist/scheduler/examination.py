"""What a collector has yielded is examined before the store sees it."""

import math
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

from belatwist.model import Sample, Series

MAX_SAMPLES = 10_000
"""Samples of one collection: as many as there may be series."""

_INTEGER_BITS = 63
"""Those of an integer in SQLite, without the sign."""


class Yielded(NamedTuple):
    """The result of a collection.

    :ivar samples: those that can be stored.
    :ivar refused: the number of those that cannot.
    :ivar reason: why the first of these cannot be stored.
    """

    samples: Sequence[Sample]
    refused: int = 0
    reason: str = ""


def examine(yielded: Any, declared: Container[str]) -> Yielded:
    """Part the samples that can be stored from those that cannot; safe on a worker thread.

    :param yielded: what the collector has returned.
    :param declared: the stored names of its source's metrics.
    :raises TypeError: when that is something else than samples.
    """
    samples: list[Sample] = []
    refused, reason = 0, ""
    for number, one in enumerate(yielded):
        if number == MAX_SAMPLES:  # Perhaps it never ends.
            return Yielded(samples, refused + 1, reason or f"more than {MAX_SAMPLES:,} samples")
        objection = _objection(one, declared)
        if objection is None:
            samples.append(one)
        else:
            refused += 1
            reason = reason or objection
    return Yielded(samples, refused, reason)


def _objection(one: object, declared: Container[str]) -> str | None:
    """Say why something cannot be stored; ``None`` if it can."""
    if type(one) is not Sample or type(one.series) is not Series:
        return f"{type(one).__name__} is no sample"
    if one.series.name not in declared:
        return f"{one.series.name} is not declared"
    if type(one.timestamp_ms) is not int:
        return f"{one.series.name} has a time of type {type(one.timestamp_ms).__name__}"
    objection = _objection_to(one.value)
    return objection and f"{one.series.name} {objection}"


def _objection_to(value: object) -> str | None:
    if type(value) is not float and type(value) is not int:
        return f"has a value of type {type(value).__name__}"
    if type(value) is int and value.bit_length() > _INTEGER_BITS:
        return "is an integer of more than 64 bits"
    if not math.isfinite(value):
        return f"is {value}"
    return None
