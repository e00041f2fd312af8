"""Reads the clocks, and whether the kernel keeps the wall clock synchronised.

Timers run on the reactor's clock, which is monotonic. Samples carry the wall clock's time, which is
wrong after the boot of a device without a battery, until NTP sets it. ``CLOCK_BOOTTIME`` counts
from the boot and never jumps. So the difference of the two moves only when the wall clock is
stepped.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WallClock = Callable[[], int]
"""Returns Unix time in milliseconds."""

STEP_MS = 500
"""A smaller move of the wall clock against the boot clock is no step, because reading both takes
time."""

_STA_UNSYNC = 0x0040  # linux/timex.h


def wall_ms() -> int:
    """Return Unix time in milliseconds, from the system's clock."""
    return time.time_ns() // 1_000_000


def boot_ms() -> int:
    """Return milliseconds since the boot, suspension included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return the identifier of this boot; empty where it cannot be read."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex`` (linux/timex.h); the rest is padding."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


_adjtimex = ctypes.CDLL(None).adjtimex


def kernel_synchronised() -> bool | None:
    """Return whether the kernel's clock is synchronised by NTP or PTP (adjtimex(2), read only).

    :return: ``None`` where the call is not allowed, as in some containers.
    """
    timex = _Timex()
    if _adjtimex(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & _STA_UNSYNC


@dataclass(frozen=True, slots=True)
class Clocks:
    """The sources of time.

    :ivar wall_ms: Unix time in milliseconds.
    :ivar boot_ms: milliseconds since the boot.
    :ivar synchronised: whether the kernel's clock is synchronised; ``None`` for unknown.
    :ivar boot_id: the identifier of this boot.
    """

    wall_ms: WallClock = wall_ms
    boot_ms: Callable[[], int] = boot_ms
    synchronised: Callable[[], bool | None] = kernel_synchronised
    boot_id: Callable[[], str] = boot_id

    def read(self) -> tuple[int, int]:
        """Read the wall clock, and its offset from the boot clock.

        :return: Unix time and offset, in milliseconds. The boot clock is read before and after. If
            the process was held up in between, both are read again.
        """
        for _ in range(10):
            before = self.boot_ms()
            wall = self.wall_ms()
            after = self.boot_ms()
            if after - before < STEP_MS // 10:
                break
        return wall, wall - (before + after) // 2
