"""What flows through the program: series (who is measured) and samples (what was measured, when).

A :class:`Series` is made once and shared by all of its samples, so that what is costly about an
identity (sorting and encoding its tags, resolving it in the database) is paid once per series and
not once per sample.
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
"""``value_type`` of a text; kept locally, never sent: VictoriaMetrics stores numbers only."""

PRIORITIES = range(4)
"""From 0, sent first and deleted last, to 3."""

DEFAULT_PRIORITY = 2

_ESCAPES = str.maketrans({c: f"\\{c}" for c in "\\|,="})


@dataclass(frozen=True)
class Series:
    """One time series: the identity that its samples share.

    :ivar name: the stored, dotted name (``cpu.usage_percent``).
    :ivar device_id: the device that measured.
    :ivar tags: ``(key, value)`` pairs, sorted by key, no empty value among them. Use :meth:`of`.
    :ivar value_type: :data:`REAL` or :data:`TEXT`.
    :ivar priority: 0 to 3; says when to send, is no part of the identity.
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

        A tag with an empty value is left out: to PromQL it is the same as no tag at all.
        """
        pairs = tuple(sorted((k, v) for k, v in (tags or {}).items() if v != ""))
        return cls(name, device_id, pairs, value_type, priority)

    @cached_property
    def tags_json(self) -> str:
        """The tags as minified JSON with sorted keys; ``{}`` when there are none."""
        return json.dumps(dict(self.tags), ensure_ascii=False, separators=(",", ":"))

    def __hash__(self) -> int:
        """Hash the identity, once: a series is looked up for each of its samples."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.device_id, self.tags, self.value_type))


class Sample(NamedTuple):
    """One measurement. Use :func:`sample`, which refuses what must not be stored."""

    series: Series
    timestamp_ms: int
    """Unix time in milliseconds."""
    value: float | str

    @property
    def dedup_key(self) -> str:
        r"""The identity as a text: equal for equal ones, different for different ones.

        SHA-256 over ``name|timestamp_ms|device_id[|tags]|value_type``, tags as sorted ``k=v``
        joined by commas. Where a part itself holds ``\``, ``|``, ``,`` or ``=``, that character
        is escaped with a backslash, so that no two identities are spelled alike.

        :return: 64 hexadecimal digits.
        """
        series = self.series
        parts = [_escape(series.name), str(self.timestamp_ms), _escape(series.device_id)]
        if series.tags:
            parts.append(",".join(f"{_escape(k)}={_escape(v)}" for k, v in series.tags))
        parts.append(str(series.value_type))
        return hashlib.sha256("|".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def plausible_ms(given_ms: int, now_ms: int) -> int:
    """Return a sample's own timestamp, or now where it cannot be true.

    For sources that stamp what they report. A clock that is wildly wrong would put their samples
    where nobody looks for them; what is in the store already is never touched.

    :param given_ms: Unix time in milliseconds, as the source says.
    :param now_ms: Unix time in milliseconds.
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
    except OverflowError:  # An integer beyond what a float can hold.
        number = math.inf
    if not math.isfinite(number):
        raise NonFiniteValueError(
            f"{series.name} {series.tags_json}: {number} is not a finite number"
        )
    return Sample(series, timestamp_ms, number)
