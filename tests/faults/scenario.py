"""A service behind the proxy, and the account of every sample."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from belatwist.model import Sample
from belatwist.store.sql import queries, schema
from tests.faults.proxy import Proxy
from tests.process import Twistd, write_config
from tests.victoria.compare import assert_same, expected
from tests.victoria.server import Points, VictoriaMetrics

COLLECTORS = ("cpu.usage", "memory.usage", "network.traffic", "system.load", "system.uptime")


@dataclass(frozen=True, slots=True)
class Account:
    """The samples at the end of a test.

    :ivar collected: rows in the database.
    :ivar delivered: rows that are uploaded there, and points that the server has: the same ones.
    :ivar twice: points that the server shows more than once.
    :ivar sent_again: samples that the server was given more than once, because an answer was
        missing.
    :ivar rejected: rows that are marked so.
    :ivar requests: uploads that reached the proxy.
    :ivar seconds: from the beginning of the test.
    """

    collected: int
    delivered: int
    twice: int
    sent_again: int
    rejected: int
    requests: int
    seconds: float


class World:
    """A device with its service, and the server at the other end.

    :param folder: the device's; made here.
    :param server: it deduplicates.
    :param url: where the service uploads, if not to the proxy.
    :param collect: seconds between collections, and
    :param upload: between uploads.
    :param remote: further settings of the configuration's ``remote``.
    :param sections: further sections.
    """

    def __init__(
        self,
        folder: Path,
        server: VictoriaMetrics,
        proxy: Proxy,
        *,
        url: str | None = None,
        collectors: Sequence[str] = COLLECTORS,
        collect: str = "200ms",
        upload: str = "200ms",
        remote: dict[str, Any] | None = None,
        **sections: Any,
    ) -> None:
        self.began = time.monotonic()
        folder.mkdir(parents=True)
        self.folder = folder
        self.server = server
        self.proxy = proxy
        self.device = f"{folder.parent.name}-{folder.name}"
        self.database = folder / "metrics.db"
        retry = {"max_attempts": 3, "initial_backoff": "50ms", "max_backoff": "200ms"}
        self._sections: dict[str, Any] = {
            "device": {"id": self.device},
            "remote": {
                "enabled": True,
                "url": url or proxy.url,
                "upload_interval": upload,
                "timeout": "5s",
                "retry": retry,
                **(remote or {}),
            },
            # The machine's clock is not tested here, whether or not it is synchronised.
            "monitoring": {"clock_hold": "100ms", "clock_skew_url": f"{server.url}/health"},
            "metrics": [{"name": name, "interval": collect} for name in collectors],
            **sections,
        }

    def run(self, *, env: Mapping[str, str] | None = None, **sections: Any) -> Twistd:
        """Start the service.

        :param env: added to its environment.
        """
        config = write_config(self.folder, **{**self._sections, **sections})
        return Twistd("bela", "--config", str(config), cwd=self.folder, env=env)

    def redirect(self, proxy: Proxy, **remote: str) -> None:
        """Upload elsewhere from the next start on."""
        self.proxy = proxy
        self._sections["remote"] |= {"url": proxy.url, **remote}

    def collects(self, service: Twistd, ticks: int) -> None:
        """Wait until the service has stored so many ticks more."""
        for _ in range(ticks):
            service.log.until(
                lambda line: '"stored":' in line and "stored" in json.loads(line), "a stored tick"
            )

    def drains(self, service: Twistd) -> None:
        """Wait until a cycle has left nothing pending but what was collected meanwhile."""
        while service.expect_event("upload.completed")["pending"] > 100:
            pass

    def finish(self) -> Account:
        """Deliver what is left, with nothing in the way; then account for every sample."""
        if self._pending():
            self.proxy.heal()
            remote = self._sections["remote"] | {"upload_interval": "100ms", "url": self.proxy.url}
            with self.run(metrics=[], remote=remote) as service:
                self.collects(service, 1)  # Its own metrics, once: they belong to what is left.
                while self._pending():
                    service.expect_event("upload.completed")
                assert service.stop() == 0
        return self.account()

    def account(self) -> Account:
        """Compare the database and the server, completely."""
        assert self.query("PRAGMA integrity_check") == [("ok",)]
        wanted = expected(self.database)
        exported = self.server.export(self.device)
        assert_same(exported, wanted)
        states = dict(self.query("SELECT uploaded, count(*) FROM metrics GROUP BY uploaded"))
        given = Counter(
            (labels, at)
            for one in self.proxy.seen
            if one.taken
            for labels, at, _ in one.request.points
            if dict(labels)["device_id"] == self.device
        )
        account = Account(
            collected=sum(states.values()),
            delivered=states.get(1, 0),
            twice=duplicates(exported),
            sent_again=sum(1 for times in given.values() if times > 1),
            rejected=states.get(2, 0),
            requests=len(self.proxy.seen),
            seconds=round(time.monotonic() - self.began, 1),
        )
        print(", ".join(f"{name} {value}" for name, value in asdict(account).items()))
        assert account.twice == 0
        return account

    def _pending(self) -> set[int]:
        return {row[0] for row in self.query("SELECT id FROM metrics WHERE uploaded = 0")}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the database, which the service may have open."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchall()

    def latencies(self) -> list[int]:
        """Return how long the samples of this run waited for the server, ascending, in ms."""
        return sorted(
            wait
            for (wait,) in self.query(
                "SELECT c.upload_time - s.timestamp_ms FROM samples s"
                " JOIN upload_checkpoints c ON c.id = s.checkpoint_id"
                " JOIN sessions r ON r.number = s.session_number WHERE r.id <> 'earlier'"
            )
        )

    def prefill(self, samples: Sequence[Sample]) -> None:
        """Make the database before the service does, with samples that wait."""
        with closing(sqlite3.connect(self.database)) as connection:
            schema.create(connection, "2026-01-01T00:00:00+00:00")
            with connection:
                cursor = connection.cursor()
                number, _ = queries.begin_session(cursor, "earlier", 0, "{}")
                queries.insert(cursor, samples, {}, number)
                queries.end_session(cursor, number, 1)


def duplicates(points: Points) -> int:
    """Count the points whose series has another one at the same millisecond."""
    return sum(len(series) - len({at for at, _ in series}) for series in points.values())
