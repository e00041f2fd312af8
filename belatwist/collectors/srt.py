"""Made-up packet loss of an SRT stream, for development without a stream."""

from belatwist.collectors.contract import GAUGE, Machine, Metric, Source
from belatwist.model import Sample, sample

PACKET_LOSS = Metric(
    "srt.packet_loss_percent",
    GAUGE,
    "percent",
    "Packets lost by an SRT stream; made up where source is mock.",
    tags=("source",),
)

_MEAN_PERCENT = 0.5


class SrtPacketLoss:
    """``srt.packet_loss_percent``, tagged ``source="mock"`` so that nobody takes it for real.

    :param machine: the machine that pretends to measure.
    """

    def __init__(self, machine: Machine) -> None:
        self._rng = machine.rng
        self._series = machine.series(PACKET_LOSS, source="mock")

    def collect(self, now_ms: int) -> list[Sample]:
        """Make a number up: mostly next to nothing, now and then a few percent, 100 at most."""
        loss = min(self._rng.expovariate(1 / _MEAN_PERCENT), 100.0)
        return [sample(self._series, now_ms, loss)]


SOURCE = Source(
    "srt.packet_loss",
    5.0,
    lambda machine, _: SrtPacketLoss(machine),
    (PACKET_LOSS,),
    default=False,
    why_off="made-up numbers, for development",
)
