"""The state of an upload cycle."""

from dataclasses import dataclass, field
from uuid import uuid4

from belatwist.model import Series
from belatwist.store import Row


@dataclass(slots=True)
class Cycle:
    """What an upload cycle has done so far.

    :ivar number: of the cycle, counted from the start of the process.
    :ivar began: when it began, in seconds on the reactor's clock.
    :ivar batch_id: a UUID; with a chunk's index it names the chunk.
    :ivar chunks: requests that were accepted.
    :ivar samples: samples that were accepted.
    :ivar bytes: of the accepted bodies, as they went over the wire.
    :ivar rejected: samples that were marked as rejected.
    :ivar incomplete: whether the server has not accepted some of the samples.
    :ivar newest_at: when the newest samples last went first, in seconds on the reactor's clock.
    :ivar quarantined: samples of quarantined series, by series. They are sent after all others.
    :ivar series: the series of ``quarantined``, by their ids.
    :ivar steps: how often the clock had been stepped when the samples of the batch were read.
    """

    number: int
    began: float
    batch_id: str = field(default_factory=lambda: str(uuid4()))
    chunks: int = 0
    samples: int = 0
    bytes: int = 0
    rejected: int = 0
    incomplete: bool = False
    newest_at: float = 0.0
    quarantined: dict[int, list[Row]] = field(default_factory=dict)
    series: dict[int, Series] = field(default_factory=dict)
    steps: int = 0
