"""Services that are killed at random moments, one after the other, on one database."""

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from tests.faults.proxy import Action, Answer, Cut, Forward, Hang, Proxy, Request, Reset, Rule
from tests.faults.scenario import World
from tests.process import TIMEOUT, Twistd

MOMENTS = ("line", "arrived", "taken", "answered", "time")
"""The moments of a kill, in this order:

- a line of the log appears;
- the service has sent a body, which the server then never gets;
- the server has taken a body;
- the service has received the answer;
- a random time has passed.
"""

REMOTE = {"timeout": "300ms", "chunk_size": 10, "batch_size": 200}
"""Small chunks: much of a life is spent between the first and the last one of a cycle."""

FAULTS: Sequence[Action] = (Reset(), Hang(), Cut(), Cut(0), Answer(503), Answer(429), Answer(400))


class Kills:
    """Starts the service again and again, and kills it.

    :ivar moments: how often it was killed at each.
    :ivar stored: what the logs say was stored, by session.
    """

    def __init__(self, world: World, proxy: Proxy, seed: int) -> None:
        self.moments: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self._world = world
        self._proxy = proxy
        self._random = Random(seed)

    def live(self, *, bad_network: bool = False) -> None:
        """Start the service, and kill it at a random moment."""
        away = bad_network and self._random.random() < 0.25
        moment = self._random.choice(("line", "time") if away else MOMENTS)
        self.moments[moment] += 1
        self._proxy.heal()
        if away:
            self._proxy.refuse()
        if bad_network:
            self._proxy.rule(self._bad)
        with self._world.run() as service:
            self._wait(moment, service, self._bad if bad_network else _good)
            service.process.kill()
            service.process.wait()
            self._read(service.log.rest())

    def check(self) -> None:
        """Check that all that was committed is in the database, however the service ended."""
        query = "SELECT session_id, count(*) FROM metrics GROUP BY session_id"
        found = dict(self._world.query(query))
        missing = {one: count for one, count in self.stored.items() if found.get(one, 0) < count}
        assert missing == {}

    def _wait(self, moment: str, service: Twistd, network: Rule) -> None:
        count = self._random.randint(1, 8)

        def last(request: Request) -> Action:
            nonlocal count
            count -= 1
            if count:
                return network(request)
            if moment == "arrived":
                service.process.kill()
                return Reset()
            return Forward(taken=service.process.kill)

        match moment:
            case "line":
                for _ in range(count * 10):
                    service.log.until(bool, "a line")
            case "time":
                with suppress(subprocess.TimeoutExpired):
                    service.process.wait(self._random.uniform(0.2, 2.0))
            case "answered":
                self._proxy.wait_over(count)
            case _:
                self._proxy.rule(last)
                service.process.wait(TIMEOUT)

    def _bad(self, _request: Request) -> Action:
        return self._random.choice(FAULTS) if self._random.random() < 0.4 else Forward()

    def _read(self, lines: Sequence[str]) -> None:
        session = ""
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # The one in which it was killed.
            session = event.get("session_id", session)
            self.stored[session] += event.get("stored", 0)


def _good(_request: Request) -> Action:
    return Forward()
