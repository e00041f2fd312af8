"""Collection does not wait for a browser: the real store, with its thread."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.web.test.requesthelper import DummyRequest

from belatwist.model import Series, sample
from belatwist.store.sql.ranges import ROWS
from belatwist.web.page.resource import Page
from tests.store.stores import threaded

SERIES = [Series.of("cpu.usage_percent", "box", {"core": str(n)}) for n in range(60)]
COUNTERS = [Series.of("network.tx_bytes_total", "box", {"interface": str(n)}) for n in range(20)]
SAMPLES = 1_000_000
END_MS = 1_767_225_600_000

_FILL = """
WITH RECURSIVE tick (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM tick WHERE n + 1 < ?)
INSERT INTO samples (timestamp_ms, series_id, value, priority, session_number)
SELECT ? - 7000 * n, s.id, 1000 * s.id - n, 2, 1 FROM tick, series s
"""


@pytest_twisted.inlineCallbacks
def test_ticks_are_stored_while_a_day_is_read(tmp_path: Path) -> Generator[Any, Any, None]:
    """A tick waits for one piece at the most, however long the query; none waits for its end."""
    store = threaded(tmp_path / "metrics.db")
    yield Deferred.fromCoroutine(store.open("s1", 1000))
    try:
        yield store.add([sample(one, 1, 0) for one in (*SERIES, *COUNTERS)])
        yield store.database.transact(lambda cursor: cursor.execute(_FILL, (SAMPLES // 80, END_MS)))
        happened: list[str] = []

        ticks: list[Deferred[None]] = []

        def tick(result: object) -> object:
            # Handed in before the next piece is, as a tick that came while this one was read.
            happened.append("piece")
            at_ms = END_MS + len(happened)
            added = store.add([sample(one, at_ms, 1) for one in SERIES])
            ticks.append(added.addCallback(lambda new: happened.append(f"stored {new}")))
            return result

        class Watched:
            opening: str | None = None

            def transact(self, *work: Any) -> "Deferred[Any]":
                return store.database.transact(*work).addBoth(tick)

        request: Any = DummyRequest([b""])
        begin = END_MS // 1000 - 86_400
        request.args = {
            b"series": [b"cpu.usage_percent", b'network.tx_bytes_total{interface="3"}'],
            b"start": [b"%d" % begin],
            b"end": [b"%d" % (END_MS // 1000)],
            b"step": [b"480"],
        }
        page = Page(reactor, Watched(), list)
        body = yield Deferred.fromCoroutine(page.query_range(request))
        yield DeferredList(ticks, fireOnOneErrback=True)
    finally:
        yield Deferred.fromCoroutine(store.close(2000))
    assert request.responseCode == 200
    assert len(json.loads(body)["series"]) == 61
    pieces = happened.count("piece")
    assert pieces > 0.98 * SAMPLES / ROWS
    # Between two pieces the tick was stored that came before the second.
    assert happened == ["piece", "stored 60"] * pieces
