"""Every event of an upload with its fields, the counters, and the state for health."""

import sqlite3
from dataclasses import replace
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.health.status import judge
from belatwist.log.throttle import REPEAT_AFTER
from belatwist.model import Series, sample
from belatwist.upload.policy import Misconfigured, Retryable
from belatwist.upload.progress import CYCLE_FAILED, CYCLE_RECOVERED, MAX_NAMED_SERIES
from belatwist.upload.quarantine import WHOLE_SERIES_AFTER
from tests.health.snapshots import HEALTH, HEALTHY
from tests.log_events import Captured, levels, logged
from tests.upload.model import Fault
from tests.upload.test_delivery import NOW_MS, World

ENDPOINT = "http://model/api/v1/import"
SUCCEEDED = "Upload chunk succeeded"
RETRYING = "Upload chunk failed, retrying"
FAILED = "Upload failed"
RECOVERED = "Uploads to {endpoint} recovered"


def value(world: World, name: str) -> float | None:
    """Return a counter."""
    return world.telemetry.registry.get_sample_value(name)


def slow(world: World, seconds: float) -> None:
    """Let each request take a while."""
    post = world.server.post

    def delayed(body: bytes) -> Any:
        world.clock.advance(seconds)
        return post(body)

    world.server.post = delayed  # type: ignore[method-assign]


ON_HOLD = "Uploads on hold"


def recovery(seconds: float, failures: int) -> dict[str, Any]:
    """Return the fields of a recovery."""
    return {
        "event": "upload.recovered",
        "endpoint": ENDPOINT,
        "seconds": seconds,
        "failures": failures,
    }


class EventTests(SynchronousTestCase):
    """Every event, its level and all of its fields."""

    def setUp(self) -> None:
        self.world = World(chunk_size=5, attempts=2)
        self.progress = self.world.delivery.progress
        self.world.collect([1])

    def outage(self, *faults: Fault) -> Captured:
        """Run a cycle in which requests meet faults."""
        self.world.server.faults = list(faults)
        with Captured() as log:
            self.world.cycle()
        return log

    def batch_id(self) -> str:
        """Return the id that the last samples were recorded with."""
        return self.world.store.settlements[-1].batch_id

    def test_a_chunk_that_is_accepted(self) -> None:
        """The first of a run is logged at INFO, the others at DEBUG."""
        self.world.collect([2, 3])
        slow(self.world, 0.23456)
        with Captured() as log:
            self.world.cycle()
        first, second = logged(log, SUCCEEDED)
        size = first[1]["bytes_sent"]
        self.assertGreater(size, 100)
        self.assertEqual(
            first,
            (
                "info",
                {
                    "event": "upload.chunk_succeeded",
                    "batch_id": self.batch_id(),
                    "chunk_index": 0,
                    "attempt": 1,
                    "count": 5,
                    "endpoint": ENDPOINT,
                    "http_status": 204,
                    "bytes_sent": size,
                    "bytes_rcvd": 0,
                    "duration_ms": 234.6,
                },
            ),
        )
        self.assertEqual(
            (second[0], second[1]["chunk_index"], second[1]["count"]), ("debug", 1, 10)
        )

    def test_a_cycle_is_summed_up(self) -> None:
        """In one line at INFO, each time."""
        for tick in (2, 3):
            self.world.collect([tick])
            with Captured() as log:
                self.world.cycle()
            ((level, fields),) = logged(log, "Uploaded ")
            self.assertEqual(level, "info")
            count = 10 if tick == 2 else 5
            size = sum(f["bytes_sent"] for _, f in logged(log, SUCCEEDED))
            expected = {
                "event": "upload.completed",
                "batch_id": self.batch_id(),
                "count": count,
                "chunks": count // 5,
                "bytes_sent": size,
                "duration_ms": 0.0,
                "rejected": 0,
                "pending": 0,
            }
            self.assertEqual(fields, expected)

    def test_an_attempt_that_fails(self) -> None:
        """The event has the number of the attempt, the reason, and the wait before the next one."""
        log = self.outage(Fault.BUSY)
        self.assertEqual(
            logged(log, RETRYING),
            [
                (
                    "warn",
                    {
                        "event": "upload.chunk_failed",
                        "batch_id": self.batch_id(),
                        "chunk_index": 0,
                        "attempt": 1,
                        "backoff_ms": 1000.0,
                        "count": 5,
                        "endpoint": ENDPOINT,
                        "http_status": 503,
                        "error": "HTTP 503",
                        "error_type": "HTTPStatus",
                    },
                )
            ],
        )
        ((level, fields),) = logged(log, SUCCEEDED)
        self.assertEqual((level, fields["attempt"]), ("info", 2))
        self.assertEqual(logged(log, RECOVERED), [("info", recovery(1.0, 1))])

    def test_a_cycle_that_fails(self) -> None:
        """The event has the number of pending samples and the reason; the status may be null."""
        log = self.outage(Fault.LOST, Fault.LOST)
        ((level, fields),) = logged(log, FAILED)
        self.assertEqual(level, "warn")
        self.assertEqual(len(fields.pop("batch_id")), 36)
        self.assertEqual(
            fields,
            {
                "event": "upload.failed",
                "chunk_index": 0,
                "attempt": 2,
                "endpoint": ENDPOINT,
                "http_status": None,
                "error": "connection refused",
                "error_type": "ConnectionRefusedError",
                "pending": 5,
                "failures": 2,
                "seconds": 1.0,
            },
        )
        self.assertEqual(
            log.texts(LogLevel.warn)[1],
            "Upload failed, 5 samples pending: connection refused; 2 failures in 1 s",
        )

    def test_an_outage_is_logged_once(self) -> None:
        """Repetitions are logged at DEBUG until the recovery; the next outage is like the first."""
        for tick in (2, 3):
            with Captured() as log:
                for _ in range(3):
                    self.world.server.faults = [Fault.LOST] * 2
                    self.world.cycle()
                    self.world.clock.advance(29)
                self.world.cycle()
            self.assertEqual(levels(log, RETRYING), ["warn", "debug", "debug"])
            self.assertEqual(levels(log, FAILED), ["warn", "debug", "debug"])
            self.assertEqual(logged(log, RECOVERED), [("info", recovery(90.0, 6))])
            self.assertEqual(levels(log, SUCCEEDED), ["info"])
            self.world.collect([tick])
            self.world.clock.advance(REPEAT_AFTER)

    def test_an_outage_that_goes_on_is_logged_every_ten_minutes(self) -> None:
        """A day without an uplink is 144 lines of each of its two kinds."""
        with Captured() as log:
            for _ in range(24 * 60 * 2):
                self.world.server.faults = [Fault.LOST] * 2
                self.world.cycle()
                self.world.clock.advance(29)
        self.assertEqual(levels(log, FAILED).count("warn"), 144)
        self.assertEqual(levels(log, RETRYING).count("warn"), 144)

    def test_a_link_that_comes_and_goes_does_not_flood(self) -> None:
        """A failure now and then is logged once in ten minutes."""
        with Captured() as log:
            for tick in range(2, 30):
                self.world.collect([tick])
                self.world.server.faults = [Fault.LOST]
                self.world.cycle()
                self.world.clock.advance(10)
        self.assertEqual(levels(log, RETRYING).count("warn"), 1)
        self.assertEqual(levels(log, RECOVERED).count("info"), 1)

    def test_a_wrong_configuration(self) -> None:
        """The error names the key to check, also when it begins within another failure."""
        self.outage(Fault.LOST, Fault.LOST)
        log = self.outage(Fault.DENIED)
        ((level, fields),) = logged(log, FAILED)
        check = "remote.auth_token_file: the server wants another token"
        self.assertEqual(level, "error")
        self.assertEqual(fields["check"], check)
        self.assertEqual((fields["http_status"], fields["error"]), (401, "HTTP 401"))
        self.assertEqual(fields["error_type"], "HTTPStatus")
        self.assertIn(check, log.texts(LogLevel.error)[0])
        self.assertEqual(self.progress.error, f"HTTP 401; check {check}")
        self.assertTrue(self.progress.misconfigured)
        log = self.outage(Fault.LOST, Fault.LOST)
        self.assertEqual(levels(log, FAILED), ["debug"])
        self.assertFalse(self.progress.misconfigured)
        log = self.outage(Fault.DENIED)
        self.assertEqual(levels(log, FAILED), ["debug"])
        self.outage()
        self.assertFalse(self.progress.misconfigured)
        self.assertIsNone(self.progress.error)

    def test_a_wrong_token_soon_after_an_outage(self) -> None:
        """It is logged at once as an error, however recently another failure was logged."""
        self.outage(Fault.LOST, Fault.LOST)
        self.outage()
        self.world.clock.advance(30)
        self.world.collect([2])
        log = self.outage(Fault.DENIED)
        self.assertEqual(levels(log, FAILED), ["error"])
        self.world.clock.advance(30)
        self.assertEqual(levels(self.outage(Fault.DENIED), FAILED), ["debug"])

    def test_what_to_check_is_among_the_reasons_whatever_the_server_says(self) -> None:
        """A long page of the server's does not push it beyond the end of the sentence."""
        page = "HTTP 401: " + "sorry, " * 100
        denied = Misconfigured(401, page)
        with mock.patch.object(self.world.server, "post", return_value=succeed(denied)):
            self.world.cycle()
        uploader = replace(HEALTHY.uploader, error=self.progress.error, misconfigured=True)
        (reason,) = judge(replace(HEALTHY, uploader=uploader), HEALTH).reasons
        self.assertTrue(reason.endswith("the server wants another token"), reason)
        self.assertIn("HTTP 401: sorry", reason)

    def test_something_else_that_answers(self) -> None:
        """Health says what came; nothing is marked, and the next good answer ends it."""
        reason = "HTTP 200 with an empty body is not VictoriaMetrics' answer, which is 204"
        self.world.collect([2])
        with mock.patch.object(
            self.world.server, "post", side_effect=lambda _: succeed(Retryable(reason, 200))
        ):
            self.world.cycle()
        self.assertEqual(self.progress.error, reason)
        self.assertFalse(self.progress.misconfigured)
        self.assertTrue(self.world.store.pending)
        uploader = replace(HEALTHY.uploader, error=self.progress.error, overdue=1e6)
        (told,) = judge(replace(HEALTHY, uploader=uploader), HEALTH).reasons
        self.assertIn(reason, told)
        self.world.cycle()
        self.assertFalse(self.world.store.pending)
        self.assertIsNone(self.progress.error)

    def test_a_server_that_refuses_everything(self) -> None:
        """That, too, is an error of the configuration."""
        self.world.server.refuses_everything = True
        log = self.outage()
        ((level, fields),) = logged(log, FAILED)
        self.assertEqual((level, fields["http_status"]), ("error", 400))
        self.assertIn("the server refuses whatever is sent there", str(fields["check"]))
        self.assertTrue(self.progress.misconfigured)

    def test_an_untrusted_clock(self) -> None:
        """Nothing is sent; this counts as no failure, but the log and health have the reason."""
        self.world.device_clock.wrong = "it differs from the server's by 7200.0 s"
        log = self.outage()
        ((level, fields),) = logged(log, ON_HOLD)
        reason = "the clock is not trusted: it differs from the server's by 7200.0 s"
        self.assertEqual(level, "info")
        self.assertEqual((fields["error"], fields["error_type"]), (reason, "OnHold"))
        self.assertIsNone(fields["http_status"])
        self.assertEqual(self.progress.error, reason)
        self.assertFalse(self.progress.misconfigured)
        self.assertEqual(value(self.world, "uploader_upload_failures_total"), 0)
        self.assertEqual(levels(self.outage(), ON_HOLD), ["debug"])
        self.world.device_clock.wrong = None
        log = self.outage()
        self.assertEqual(levels(log, RECOVERED), [])
        self.assertEqual(levels(log, "Uploads resumed"), ["info"])
        self.assertIsNone(self.progress.error)

    def test_a_hold_that_was_logged_has_its_end_logged(self) -> None:
        """Also when the link fails in between, which is logged at DEBUG soon after an outage."""
        self.outage(Fault.BUSY)
        self.world.collect([2])
        self.world.device_clock.wrong = "it differs from the server's by 7200.0 s"
        self.assertEqual(levels(self.outage(), ON_HOLD), ["info"])
        self.world.device_clock.wrong = None
        log = self.outage(Fault.BUSY)
        self.assertEqual(levels(log, RECOVERED), ["debug"])
        self.assertEqual(levels(log, "Uploads resumed"), ["info"])

    def test_rejected_samples(self) -> None:
        """Each series is logged once at WARN, with its name and tags, and then at DEBUG."""
        self.world.server.bad = lambda point: point[0] == "b"
        with Captured() as log:
            for tick in range(2, 5 + WHOLE_SERIES_AFTER):
                self.world.collect([tick])
                self.world.cycle()
        first, *others = logged(log, "Rejected {count} sample")
        self.assertEqual(first[0], "warn")
        self.assertEqual(len(first[1].pop("batch_id")), 36)
        self.assertEqual(
            first[1],
            {
                "event": "upload.samples_rejected",
                "count": 1,
                "reason": "refused twice: HTTP 400: cannot parse",
                "metric": "b",
                "tags": "{}",
            },
        )
        self.assertEqual({level for level, _ in others}, {"debug"})
        rejected = len(self.world.rejected())
        self.assertEqual(sum(f["count"] for _, f in (first, *others)), rejected)
        self.assertEqual(value(self.world, "uploader_metrics_rejected_total"), rejected)

    def test_named_series_are_bounded(self) -> None:
        """However many series have rejected samples, the log names so many and no more."""
        tags = {"zone": "z" * 5000}
        names = [f"x{n}" for n in range(MAX_NAMED_SERIES + 10)]
        for at in (2, 1):
            series = [Series.of(name, "device", tags) for name in names]
            self.world.store.add([sample(one, NOW_MS - at, 1.0) for one in series])
        with Captured() as log:
            self.world.cycle()
        found = [f["metric"] for level, f in logged(log, "Rejected {count}") if level == "warn"]
        self.assertEqual(len(found), MAX_NAMED_SERIES)
        self.assertEqual(len(set(found)), MAX_NAMED_SERIES)

    def test_series_that_the_server_would_drop(self) -> None:
        """Each is named, also where several are found at once for the same reason."""
        tags = {"zone": "z" * 5000}
        bad = [Series.of(name, "device", tags) for name in ("x", "y")]
        self.world.store.add([sample(one, NOW_MS - at, 1.0) for one in bad for at in range(3)])
        with Captured() as log:
            self.world.cycle()
        events = logged(log, "Rejected {count} sample")
        found = {(fields["metric"], fields["count"]) for _, fields in events}
        self.assertEqual(found, {("x", 3), ("y", 3)})
        self.assertEqual({level for level, _ in events}, {"warn"})
        self.assertTrue(all(len(fields["tags"]) == 200 for _, fields in events))
        self.assertEqual(value(self.world, "uploader_metrics_rejected_total"), 6)

    def test_an_error_of_our_own(self) -> None:
        """Each kind is logged once with its traceback, then at debug; and the recovery is."""
        error = OSError("disk is full")
        with Captured() as log:
            for _ in range(3):
                self.progress.broke(error)
                self.world.clock.advance(30)
            self.assertEqual(self.progress.error, "OSError: disk is full")
            self.progress.broke(ValueError("another"))
            self.world.clock.advance(30)
            self.progress.ran()
            self.progress.ran()
        failed = logged(log, CYCLE_FAILED.text)
        self.assertEqual([level for level, _ in failed], ["error", "debug", "debug", "error"])
        texts = [fields["error"] for _, fields in failed]
        self.assertEqual(texts, ["OSError: disk is full"] * 3 + ["ValueError: another"])
        self.assertEqual(
            logged(log, CYCLE_RECOVERED.text),
            [("info", {"event": "upload.cycle_recovered", "seconds": 120.0, "failures": 4})],
        )
        self.assertIsNone(self.progress.error)
        self.flushLoggedErrors()

    def test_an_error_of_the_database(self) -> None:
        """Its line has no traceback: a full disk is no fault of the program."""
        with Captured() as log:
            self.progress.broke(sqlite3.OperationalError("database or disk is full"))
        (event,) = log.events
        self.assertNotIn("log_failure", event)
        self.assertEqual(event["error"], "OperationalError: database or disk is full")

    def test_stopping_is_no_failure(self) -> None:
        """A wait that ends because the agent stops is neither logged nor counted again."""
        self.world.server.faults = [Fault.LOST]
        done = Deferred.fromCoroutine(self.world.delivery.run())
        with Captured() as log:
            self.world.wakeup.stop()
        self.successResultOf(done)
        self.assertEqual(logged(log, FAILED), [])
        self.assertEqual(value(self.world, "uploader_upload_failures_total"), 1)


class StateTests(SynchronousTestCase):
    """The counters, and the state for health."""

    def setUp(self) -> None:
        self.world = World(batch_size=40, chunk_size=5, attempts=2)
        self.progress = self.world.delivery.progress
        self.world.clock.advance(1000)

    def value(self, name: str) -> float | None:
        """Return a counter of the uploader's."""
        return value(self.world, f"uploader_{name}")

    def cycle(self, *faults: Fault) -> None:
        """Run a cycle in which requests meet faults."""
        self.world.server.faults = list(faults)
        self.world.cycle()

    def test_samples_and_failures(self) -> None:
        """Samples that were taken; requests that failed, the last of a chain included."""
        self.world.collect(range(3))
        self.cycle(Fault.LOST, Fault.NONE, Fault.BUSY, Fault.CUT)
        self.assertEqual(self.value("metrics_uploaded_total"), 5)
        self.assertEqual(self.value("upload_failures_total"), 3)
        self.assertEqual(self.value("upload_duration_seconds_count"), 4)
        self.cycle(Fault.DENIED)
        self.assertEqual(self.value("upload_failures_total"), 4)
        self.cycle()
        self.assertEqual(self.value("metrics_uploaded_total"), 15)

    def test_refused_bodies_are_no_failures(self) -> None:
        """A bad sample is found by refusals, and the link is well; unless all is refused."""
        self.world.collect(range(3))
        self.world.server.bad = lambda point: point == ("c", NOW_MS - 10**6 + 1)
        self.cycle()
        self.assertEqual(self.value("upload_failures_total"), 0)
        self.assertIsNone(self.progress.error)
        self.world.server.refuses_everything = True
        self.world.collect([9])
        self.cycle()
        self.assertEqual(self.value("upload_failures_total"), 1)

    def test_partial_success(self) -> None:
        """Counted once a cycle in which some samples were taken, and others were not."""
        for faults, partial in (
            ((), 0),
            ((Fault.LOST, Fault.LOST), 0),
            ((Fault.LOST,), 0),
            ((Fault.NONE, Fault.LOST, Fault.LOST), 1),
            ((Fault.NONE, Fault.DENIED), 1),
        ):
            with self.subTest(faults=faults):
                self.setUp()
                self.world.collect(range(3))
                self.cycle(*faults)
                self.assertEqual(self.value("partial_success_total"), partial)

    def test_partial_success_by_refusal(self) -> None:
        """A bad sample counts its cycles, however many requests it took to find it."""
        self.world.collect(range(3))
        self.world.server.bad = lambda point: point == ("c", NOW_MS - 10**6 + 1)
        self.cycle()
        self.assertEqual(self.value("partial_success_total"), 1)
        self.world.collect([9])
        self.cycle()
        self.assertEqual(self.value("metrics_rejected_total"), 1)
        self.assertEqual(self.value("partial_success_total"), 2)
        self.world.collect([10])
        self.cycle()
        self.assertEqual(self.value("partial_success_total"), 2)

    def test_the_last_upload(self) -> None:
        """It is when the server last took samples."""
        self.world.collect([1])
        self.cycle(Fault.LOST, Fault.LOST)
        self.assertIsNone(self.progress.last_upload_at)
        self.cycle()
        taken = self.world.clock.seconds()
        self.assertEqual(self.progress.last_upload_at, taken)
        self.world.clock.advance(30)
        self.cycle()
        self.assertEqual(self.progress.last_upload_at, taken)

    def test_caught_up(self) -> None:
        """It is the start, then each time that a cycle finds nothing pending, or leaves nothing."""
        self.progress.started()
        self.assertEqual(self.progress.caught_up_at, 1000)
        self.world.clock.advance(30)
        self.cycle()
        self.assertEqual(self.progress.caught_up_at, 1030)
        self.world.collect([1])
        self.world.clock.advance(30)
        self.cycle(Fault.DENIED)
        self.assertEqual(self.progress.caught_up_at, 1030)
        self.world.clock.advance(30)
        self.cycle()
        self.assertEqual(self.progress.caught_up_at, 1090)

    def test_retrying(self) -> None:
        """The number of samples that wait for the next attempt; 0 at the end of any chain."""
        self.world.collect([1])
        self.world.server.faults = [Fault.LOST]
        done = Deferred.fromCoroutine(self.world.delivery.run())
        self.assertEqual(self.progress.retrying, 5)
        self.assertEqual(self.progress.error, "connection refused")
        self.world.clock.advance(1)
        self.successResultOf(done)
        self.assertEqual(self.progress.retrying, 0)
        self.assertIsNone(self.progress.error)

    def test_retrying_ends_with_an_error(self) -> None:
        """Also with an error of the agent's own."""
        self.world.collect([1])
        self.world.server.faults = [Fault.LOST]
        done = Deferred.fromCoroutine(self.world.delivery.run())
        with mock.patch.object(self.world.device_clock, "hold_reason", side_effect=OSError):
            self.world.clock.advance(1)
        self.failureResultOf(done, OSError)
        self.assertEqual(self.progress.retrying, 0)

    def test_what_cannot_be_recorded_was_taken(self) -> None:
        """The server has it, once: it is counted when it says so, not when the disk has room."""
        self.world.collect([1])
        full = OSError("database or disk is full")
        with mock.patch.object(self.world.store, "settle", return_value=fail(full)):
            self.failureResultOf(Deferred.fromCoroutine(self.world.delivery.run()), OSError)
        self.cycle()
        self.assertEqual(self.value("metrics_uploaded_total"), 5)
        self.assertEqual(self.progress.last_upload_at, 1000)
