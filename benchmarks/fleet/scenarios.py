"""The scenarios: how devices start, how they wait, and how the proxy answers meanwhile."""

from dataclasses import dataclass

from benchmarks.fleet.proxy import Down

WARM = 300.0
"""Seconds of the steady state before the proxy goes down."""

OUTAGE = 3600.0
"""Seconds for which it is down. They are whole upload intervals, so that a fleet in step returns at
the same point of an interval.
"""

AFTERWARDS = 600.0
"""Seconds for which devices continue to collect after the proxy's return."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run.

    :ivar about: its special feature, for the table.
    :ivar apart: seconds over which the devices' starts are spread, at random.
    :ivar offset: whether a device's first upload cycle begins at a random moment of an interval, as
        the agent has it; otherwise a whole interval after its start.
    :ivar phase: seconds after the beginning of the first device's upload interval at which the
        proxy goes down, and comes back. A series of attempts begins at 0 and continues after about
        5 and 20 seconds.
    :ivar jitter: of the retries; ``None`` for the default. With 0 the
        reconnect probe has none either.
    :ivar answer: how the proxy behaves while it is down.
    :ivar spread_asked: whether a ``Retry-After`` is jittered as well, which is a proposal.
    :ivar rate: samples that the proxy lets through in a second, for each device of the fleet;
        ``None`` for no limit.
    :ivar on_disk: whether the store is the real one.
    """

    name: str
    about: str
    apart: float = 1.0
    offset: bool = False
    phase: float = 12.0
    jitter: float | None = None
    answer: Down = "refuses"
    spread_asked: bool = False
    rate: float | None = None
    on_disk: bool = False

    @property
    def down(self) -> tuple[float, float]:
        """When the proxy goes down and when it returns, in seconds of simulated time."""
        return WARM + self.phase, WARM + self.phase + OUTAGE


SCENARIOS = (
    Scenario("in step, no jitter", "powered up within 1 s, jitter off", jitter=0.0),
    Scenario("in step", "powered up within 1 s"),
    Scenario("in step, at a cycle", "the same, back just before a cycle begins", phase=24.0),
    Scenario(
        "in step, offset", "the same, first cycle at a random moment", phase=24.0, offset=True
    ),
    Scenario("apart", "powered up within 30 s", apart=30.0),
    Scenario("asked, in step", "503, Retry-After: 300", answer="seconds"),
    Scenario(
        "asked, in step, offset",
        "the same, first cycle at a random moment",
        offset=True,
        answer="seconds",
    ),
    Scenario(
        "asked, a date", "apart, 503, Retry-After: when it is back", apart=30.0, answer="date"
    ),
    Scenario(
        "asked, a date, spread",
        "the same, up to 12 s more at random",
        apart=30.0,
        answer="date",
        spread_asked=True,
    ),
    Scenario("overload", "apart, 50 samples/s a device are let through", apart=30.0, rate=50.0),
    Scenario("on disk", "apart, the store is the real one", apart=30.0, on_disk=True),
)
"""All of them, in the order of running."""
