"""The load averages."""

from belatwist.model import Sample, Series, sample
from belatwist.procfs import loadavg
from belatwist.procfs.reader import Reader


class SystemLoad:
    """``system.load_1m``, ``system.load_5m`` and ``system.load_15m``.

    :param device_id: the device that measures.
    :param procfs: the reader of ``/proc``.
    """

    name = "system.load"

    def __init__(self, device_id: str, procfs: Reader) -> None:
        self._procfs = procfs
        self._series = [Series.of(f"system.load_{m}m", device_id) for m in (1, 5, 15)]

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/loadavg``.

        :raises BelaError: when it cannot be read.
        """
        averages = loadavg.parse(self._procfs.read("loadavg"))
        return [
            sample(series, now_ms, average)
            for series, average in zip(self._series, averages, strict=True)
        ]
