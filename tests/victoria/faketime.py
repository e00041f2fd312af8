"""A wall clock for one process alone, which a test may set (Debian's ``faketime``)."""

import os
from pathlib import Path

import pytest


def environment(said: Path) -> dict[str, str]:
    """Return what gives a process the wall clock that a file says; timers are left alone.

    Skip where the library is not installed; fail where ``BELA_REQUIRE_VICTORIA=1`` demands it.

    :param said: a file with an offset such as ``-2h``; it is read each time the clock is.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        reason = "libfaketime is not installed (Debian: apt-get install faketime)"
        if os.environ.get("BELA_REQUIRE_VICTORIA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(said),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # CPython waits by the monotonic clock; a work-around for C libraries of old, which is on
        # unless told otherwise, has such waits end at once, again and again.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
