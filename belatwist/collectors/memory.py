"""How much memory and swap there is, and how much of it is used."""

from twisted.logger import Logger

from belatwist.collectors.skipped import SkippedLines
from belatwist.model import Sample, Series, sample
from belatwist.procfs import meminfo
from belatwist.procfs.reader import Reader

_KIB = 1024


class MemoryUsage:
    """``memory.*_bytes``; used is what is not available, as the kernel's documentation counts it.

    What the kernel does not say is absent, and so is a difference that would be negative.

    :param device_id: the device that measures.
    :param procfs: the reader of ``/proc``.
    """

    name = "memory.usage"
    _log = Logger()

    def __init__(self, device_id: str, procfs: Reader) -> None:
        self._procfs = procfs
        self._used = Series.of("memory.used_bytes", device_id)
        self._available = Series.of("memory.available_bytes", device_id)
        self._total = Series.of("memory.total_bytes", device_id)
        self._swap_used = Series.of("memory.swap_used_bytes", device_id)
        self._swap_total = Series.of("memory.swap_total_bytes", device_id)
        self._skipped = SkippedLines(self._log)

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/meminfo``.

        :raises BelaError: when it cannot be read.
        """
        info = meminfo.parse(self._procfs.read("meminfo"))
        self._skipped.report(info.skipped)
        amounts = (
            (self._used, _difference(info.total, info.available)),
            (self._available, info.available),
            (self._total, info.total),
            (self._swap_used, _difference(info.swap_total, info.swap_free)),
            (self._swap_total, info.swap_total),
        )
        return [sample(series, now_ms, kib * _KIB) for series, kib in amounts if kib is not None]


def _difference(total: int | None, free: int | None) -> int | None:
    if total is None or free is None or free > total:
        return None
    return total - free
