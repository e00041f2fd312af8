"""The data that flow through the program: series and their samples.

All samples of a series share one :class:`Series`. So the costly steps (sorting and encoding tags,
finding the series in the database) happen once per series, not once per sample.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from belatwist.errors import NonFiniteValueError

REAL = 0
"""``value_type`` of a number."""

TEXT = 1
"""``value_type`` of a text, which stays in the database: VictoriaMetrics stores only numbers."""

PRIORITIES = range(4)
"""0 is sent first and deleted last; 3 is sent last and deleted first."""

DEFAULT_PRIORITY = 2

_ESCAPES = str.maketrans({c: f"\\{c}" for c in "\\|,="})


@dataclass(frozen=True)
class Series:
    """One time series: the identity that its samples share.

    :ivar name: the stored, dotted name (``cpu.usage_percent``).
    :ivar device_id: the device that measures it.
    :ivar tags: ``(key, value)`` pairs, sorted by key, without empty values. Use :meth:`of`.
    :ivar value_type: :data:`REAL` or :data:`TEXT`.
    :ivar priority: one of :data:`PRIORITIES`; not part of the identity.
    """

    name: str
    device_id: str
    tags: tuple[tuple[str, str], ...] = ()
    value_type: int = REAL
    priority: int = field(default=DEFAULT_PRIORITY, compare=False)

    @classmethod
    def of(
        cls,
        name: str,
        device_id: str,
        tags: Mapping[str, str] | None = None,
        *,
        value_type: int = REAL,
        priority: int = DEFAULT_PRIORITY,
    ) -> "Series":
        """Make a series with its tags in canonical form.

        Tags with an empty value are left out, because PromQL treats them as missing.
        """
        pairs = tuple(sorted((k, v) for k, v in (tags or {}).items() if v != ""))
        return cls(name, device_id, pairs, value_type, priority)

    @cached_property
    def tags_json(self) -> str:
        """The tags as minified JSON with sorted keys; ``{}`` if there are none."""
        return json.dumps(dict(self.tags), ensure_ascii=False, separators=(",", ":"))

    def __hash__(self) -> int:
        """Return the hash of the identity, computed once: each sample looks its series up."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.device_id, self.tags, self.value_type))


class Sample(NamedTuple):
    """One measurement. Use :func:`sample`, which refuses values that must not be stored."""

    series: Series
    timestamp_ms: int
    """Unix time in milliseconds."""
    value: float | str

    @property
    def dedup_key(self) -> str:
        r"""A text that is equal for samples of the same identity, and for no others.

        It is the SHA-256 of ``name|timestamp_ms|device_id[|tags]|value_type``, with the tags as
        sorted ``k=v`` joined by commas. Within a part a backslash escapes ``\``, ``|``, ``,`` and
        ``=``, so that no two identities have the same spelling.

        :return: 64 hexadecimal digits.
        """
        series = self.series
        parts = [_escape(series.name), str(self.timestamp_ms), _escape(series.device_id)]
        if series.tags:
            parts.append(",".join(f"{_escape(k)}={_escape(v)}" for k, v in series.tags))
        parts.append(str(series.value_type))
        return hashlib.sha256("|".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def plausible_ms(given_ms: int, now_ms: int) -> int:
    """Return a sample's own timestamp, or the present time if that cannot be true.

    This is for sources that stamp their samples. A clock that is wildly wrong would give them times
    at which nobody looks for them. Samples in the store never change.

    :param given_ms: the source's Unix time in milliseconds.
    :param now_ms: the present Unix time in milliseconds.
    :return: ``given_ms``, unless it is more than 5 minutes ahead or more than an hour behind.
    """
    return given_ms if -3_600_000 <= given_ms - now_ms <= 300_000 else now_ms


def _escape(part: str) -> str:
    return part.translate(_ESCAPES)


def sample(series: Series, timestamp_ms: int, value: float) -> Sample:
    """Make a numeric sample.

    :raises NonFiniteValueError: for NaN and the infinities.
    """
    try:
        number = float(value)
    except OverflowError:  # An integer beyond the range of a float.
        number = math.inf
    if not math.isfinite(number):
        raise NonFiniteValueError(
            f"{series.name} {series.tags_json}: {number} is not a finite number"
        )
    return Sample(series, timestamp_ms, number)
