"""An upload cycle: what it has done so far."""

from dataclasses import dataclass, field
from uuid import uuid4

from belatwist.store import Row


@dataclass(slots=True)
class Cycle:
    """What a cycle has done so far, and where it stands.

    :ivar number: counts the cycles of this process.
    :ivar began: seconds on the reactor's clock.
    :ivar batch_id: a UUID; with a chunk's index it names the chunk.
    :ivar chunks: requests that were accepted.
    :ivar samples: samples that were accepted.
    :ivar bytes: of the accepted bodies, as they went over the wire.
    :ivar rejected: samples that were marked as rejected.
    :ivar incomplete: whether there were samples that the server has not taken, or would not take.
    :ivar newest_at: seconds on the reactor's clock when the newest samples last went first.
    :ivar quarantined: samples of suspected series, by series: they wait for the others.
    :ivar steps: the clock's steps when the samples in hand were read.
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
    steps: int = 0
