"""The arithmetic of a comparison with a server's clock."""

import time
from email.utils import formatdate
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from belatwist.clock.skew import skew_ms

TRUE_MS = 1_800_000_000_000


class SkewTests(SynchronousTestCase):
    """The arithmetic of a comparison."""

    def test_sign_and_correction(self) -> None:
        """Positive is ahead; the header's cut is made up for; half the round trip is the way."""
        date = formatdate(1_800_000_000, usegmt=True)
        self.assertEqual(skew_ms(date, TRUE_MS + 500, 0.0), 0)
        self.assertEqual(skew_ms(date, TRUE_MS + 7200_500, 0.0), 7_200_000)
        self.assertEqual(skew_ms(date, TRUE_MS - 10_000, 0.0), -10_500)
        self.assertEqual(skew_ms(date, TRUE_MS + 400, 200.0), 0)

    def test_headers_without_a_date(self) -> None:
        """No header, or an unreadable one, has no skew."""
        for header in (None, "yesterday", ""):
            self.assertIsNone(skew_ms(header, TRUE_MS, 0.0))

    def test_dates_are_utc_wherever_the_device_is(self) -> None:
        """Also in the format that names no zone (RFC 9110, section 5.6.7)."""
        with mock.patch.dict("os.environ", TZ="UTC-5:30"):
            time.tzset()
            self.assertEqual(skew_ms("Fri Jan 15 08:00:00 2027", TRUE_MS + 500, 0.0), 0)
        time.tzset()

    @given(st.text(), st.integers(0, 10**15), st.floats(0, 5000))
    def test_any_header(self, header: str, sent: int, trip: float) -> None:
        """For any header, the result is a number or ``None``."""
        self.assertIsInstance(skew_ms(header, sent, trip), int | None)
