"""Made-up packet loss of an SRT stream, for development without a stream."""

from belatwist.collectors.contract import Machine
from belatwist.model import Sample, Series, sample

_MEAN_PERCENT = 0.5


class SrtPacketLoss:
    """``srt.packet_loss_percent``, tagged ``source="mock"`` so that nobody takes it for real.

    :param machine: the machine that pretends to measure.
    """

    name = "srt.packet_loss"

    def __init__(self, machine: Machine) -> None:
        self._rng = machine.rng
        self._series = Series.of("srt.packet_loss_percent", machine.device_id, {"source": "mock"})

    def collect(self, now_ms: int) -> list[Sample]:
        """Make a number up: mostly next to nothing, now and then a few percent, 100 at most."""
        loss = min(self._rng.expovariate(1 / _MEAN_PERCENT), 100.0)
        return [sample(self._series, now_ms, loss)]
