"""The real agent with sources to which events come, and that ask over HTTP."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.process import Twistd, write_config


class Modem(BaseHTTPRequestHandler):
    """Says how good the signal is."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"-83.5")

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def modem() -> Iterator[str]:
    """Serve, and yield the URL."""
    with HTTPServer(("127.0.0.1", 0), Modem) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/signal"
        finally:
            server.shutdown()
            thread.join()


def stored(database: Path, name: str) -> list[tuple[int, float]]:
    """Return time and value of the samples of a metric, in the order of time."""
    sql = (
        "SELECT timestamp_ms, metric_value FROM metrics WHERE metric_name = ? ORDER BY timestamp_ms"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, (name,)).fetchall()


@pytest.mark.process
def test_pushed_and_asking_sources(tmp_path: Path) -> None:
    """Events are stored with their own times, and answers of HTTP with the tick's.

    A service that cannot start costs itself. Each service stops before the database closes.
    """
    names = ("test.links", "test.deaf", "test.modem")
    config = write_config(tmp_path, metrics=[{"name": one, "interval": "200ms"} for one in names])
    arguments = ("bela", "--config", str(config))
    with (
        modem() as url,
        Twistd(
            *arguments, cwd=tmp_path, env={"BELA_MODEM": url}, module="tests.twistd_with_sources"
        ) as service,
    ):
        service.expect("links: started")
        failed = service.expect_event("Collection failed")
        assert (failed["collector"], failed["error"]) == ("test.deaf", "no such bus")
        for _ in range(4):
            service.expect_event("scheduler.tick_stored")
        assert service.stop() == 0
        log = service.log.rest()
    assert log.index("links: stopped") < next(
        number for number, line in enumerate(log) if "agent.stopped" in line
    )
    events = stored(tmp_path / "metrics.db", "test.link_up")
    answers = stored(tmp_path / "metrics.db", "test.signal_dbm")
    assert len(events) > len(answers) >= 2
    assert {value for _, value in answers} == {-83.5}
    assert len(dict(events)) == len(events)
    assert stored(tmp_path / "metrics.db", "test.deaf_events") == []
