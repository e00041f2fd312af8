"""The time since boot."""

from belatwist.model import Sample, Series, sample
from belatwist.procfs import uptime
from belatwist.procfs.reader import Reader


class SystemUptime:
    """``system.uptime_seconds``.

    :param device_id: the device that measures.
    :param procfs: the reader of ``/proc``.
    """

    name = "system.uptime"

    def __init__(self, device_id: str, procfs: Reader) -> None:
        self._procfs = procfs
        self._series = Series.of("system.uptime_seconds", device_id)

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/uptime``.

        :raises BelaError: when it cannot be read.
        """
        return [sample(self._series, now_ms, uptime.parse(self._procfs.read("uptime")))]
