"""Computes how far the local clock is from a server's, from an HTTP ``Date``."""

from datetime import UTC
from email.utils import parsedate_to_datetime

# The header is cut to whole seconds: half a second is missing on average.
_CUT_MS = 500


def skew_ms(date: str | None, sent_ms: int, round_trip_ms: float) -> int | None:
    """Compare a server's clock with the local clock.

    :param date: the ``Date`` header (RFC 9110, section 6.6.1).
    :param sent_ms: the local wall clock when the request was sent, in milliseconds.
    :param round_trip_ms: how long the answer took, on a monotonic clock; half of it is the
        uncertainty of the result.
    :return: milliseconds, positive when the local clock is ahead; ``None`` without a readable date.
    """
    if date is None:
        return None
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        server_ms = moment.timestamp() * 1000 + _CUT_MS
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return round(sent_ms + round_trip_ms / 2 - server_ms)
