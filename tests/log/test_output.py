"""From events to the lines of a file, in this process and in the real program."""

import json
import logging
import os
import pty
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from belatwist.log.format import json_line
from belatwist.log.output import LogOutput, StdlibHandler
from tests.log.test_file import Pipe
from tests.log_events import Captured
from tests.process import Twistd, write_config


def logger(output: LogOutput, namespace: str = "test") -> Logger:
    """Make a logger that writes to one output only."""
    return Logger(namespace=namespace, observer=output)


def records(path: Path) -> list[dict[str, Any]]:
    """Return the events of a JSON log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def messages(path: Path) -> list[str]:
    """Return the messages of a JSON log."""
    return [record["msg"] for record in records(path)]


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    """A named pipe."""
    made = Pipe(tmp_path / "pipe")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        ("debug", ["debug", "info", "warn", "error", "critical"]),
        ("info", ["info", "warn", "error", "critical"]),
        ("warn", ["warn", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_level(tmp_path: Path, level: str, wanted: list[str]) -> None:
    """Events below the level are not written."""
    path = tmp_path / "log"
    output = LogOutput(level, "json", str(path))
    for one in LogLevel.iterconstants():
        logger(output).emit(one, one.name)
    output.close()
    assert messages(path) == wanted
    assert [record["level"] for record in records(path)] == [one.upper() for one in wanted]


@pytest.mark.parametrize(
    ("level", "wanted"), [("debug", ["a", "b", "c", "d"]), ("info", ["c", "d"]), ("warn", ["d"])]
)
def test_each_connection_is_a_detail(tmp_path: Path, level: str, wanted: list[str]) -> None:
    """Twisted's events about each connection are written only at ``debug``, except warnings."""
    path = tmp_path / "log"
    output = LogOutput(level, "json", str(path))
    logger(output, "twisted.web.client._HTTP11ClientFactory").info("a")
    logger(output, "twisted.web._newclient.HTTP11ClientProtocol").info("b")
    logger(output, "twisted.web.client").info("c")
    logger(output, "twisted.web._newclient").warn("d")
    output.close()
    assert messages(path) == wanted


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """Lines of an earlier run stay."""
    path = tmp_path / "log"
    path.write_text('{"msg": "before"}\n')
    output = LogOutput("info", "json", str(path))
    logger(output).info("after")
    output.close()
    assert messages(path) == ["before", "after"]


def test_reopen_after_rotation(tmp_path: Path) -> None:
    """After the file was moved, a new one gets its name, and no line is lost."""
    path, moved = tmp_path / "log", tmp_path / "log.1"
    output = LogOutput("info", "json", str(path))
    logger(output).info("one")
    path.rename(moved)
    logger(output).info("two")
    output.reopen()
    logger(output).info("three")
    output.close()
    assert messages(moved) == ["one", "two"]
    assert messages(path) == ["three"]


def test_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """The caller gets the error, and can log it in the old file."""
    path, moved = tmp_path / "log", tmp_path / "log.1"
    output = LogOutput("info", "json", str(path))
    path.rename(moved)
    path.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        output.reopen()
    logger(output).info("still here")
    output.close()
    assert messages(moved) == ["still here"]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """The caller, who knows the key, gets the error."""
    with pytest.raises(FileNotFoundError):
        LogOutput("info", "json", str(tmp_path / "none" / "log"))


def test_streams_stay_open() -> None:
    """Standard output is neither closed nor reopened."""
    output = LogOutput("info", "json", "stdout")
    output.reopen()
    output.close()
    assert not sys.stdout.closed


def test_the_size_is_bounded(tmp_path: Path) -> None:
    """There are at most three old files, none above the limit, with the newest lines in order."""
    path = tmp_path / "log"
    output = LogOutput("info", "json", str(path), max_bytes=1000)
    for n in range(200):
        logger(output).info("line", number=n)
    output.close()
    files = [path, *(Path(f"{path}.{n}") for n in (1, 2, 3))]
    assert sorted(files) == sorted(tmp_path.iterdir())
    assert all(file.stat().st_size <= 1000 for file in files)
    numbers = [record["number"] for file in reversed(files) for record in records(file)]
    assert numbers == list(range(numbers[0], 200))


def test_a_failed_rotation_is_logged(tmp_path: Path) -> None:
    """The old file has a warning, once per maximum size."""
    path = tmp_path / "log"
    (tmp_path / "log.2").touch()
    (tmp_path / "log.3").mkdir()
    output = LogOutput("info", "json", str(path), max_bytes=2000)
    for _ in range(60):  # of about 80 bytes
        logger(output).info("line")
    output.close()
    warnings = [record for record in records(path) if record["level"] == "WARN"]
    assert [record["event"] for record in warnings] == ["log.rotation_failed"] * 2
    assert warnings[0]["msg"] == f"Log file cannot be rotated: {warnings[0]['error']}"
    assert "Is a directory" in warnings[0]["error"]


def test_lines_that_cannot_be_written(pipe: Pipe) -> None:
    """Nothing is raised, and the next line that is written reports how many were lost."""
    output = LogOutput("info", "json", str(pipe.path))
    pipe.fill()
    publisher = LogPublisher(output)
    for _ in range(5):
        Logger(observer=publisher).info("lost")
    pipe.read()
    for text in ("one", "two"):
        Logger(observer=publisher).info(text)
    output.close()
    lost, one, two = (json.loads(line) for line in pipe.read().splitlines())
    assert (lost["level"], lost["event"], lost["lost"]) == ("WARN", "log.lines_lost", 5)
    assert lost["msg"].startswith("Log could not be written for ")
    assert lost["msg"].endswith(f" s (lines lost: 5): {lost['error']}")
    assert lost["seconds"] >= 0
    assert "temporarily unavailable" in lost["error"]
    assert (one["msg"], two["msg"]) == ("one", "two")


@pytest.mark.parametrize("output", ["/dev/full", "stdout"])
def test_a_full_disk_and_a_reader_who_went(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither raises into the log's publisher, which would log in turn."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        heard = Captured()
        publisher = LogPublisher(LogOutput("info", "json", output), heard)
        for _ in range(3):
            Logger(observer=publisher).info("lost")
        assert len(heard.events) == 3


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    """With many threads and rotations every line is whole, and none is missing."""
    path = tmp_path / "log"
    output = LogOutput("info", "json", str(path), max_bytes=40_000)

    def write(thread: int) -> None:
        for n in range(200):
            logger(output).info("line", thread=thread, number=n, more="x" * 20)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    output.close()
    found = [record for file in tmp_path.iterdir() for record in records(file)]
    assert len(list(tmp_path.iterdir())) > 2
    assert sorted((r["thread"], r["number"]) for r in found) == [
        (thread, number) for thread in range(4) for number in range(200)
    ]


def test_an_event_within_an_event(tmp_path: Path) -> None:
    """A Deferred may be collected and log its error while another line is written."""
    path = tmp_path / "log"
    output = LogOutput("info", "json", str(path))
    write, inner = os.write, ["inner"]

    def interrupted(descriptor: int, data: bytes) -> int:
        if inner:
            logger(output).info(inner.pop())
        return write(descriptor, data)

    with mock.patch.object(os, "write", interrupted):
        logger(output).info("outer")
    output.close()
    assert messages(path) == ["inner", "outer"]


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("", True), ("1", False)])
def test_colours_on_a_terminal(
    no_color: str | None, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours appear on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    master, slave = pty.openpty()
    output = LogOutput("info", "console", os.ttyname(slave))
    logger(output).warn("careful")
    output.close()
    assert os.read(master, 1000).startswith(b"\x1b[33m") is coloured
    os.close(master)
    os.close(slave)


def test_no_colours_in_a_file(tmp_path: Path) -> None:
    """A file is no terminal."""
    path = tmp_path / "log"
    output = LogOutput("info", "console", str(path))
    logger(output).warn("careful")
    output.close()
    assert "\x1b" not in path.read_text()


class StdlibHandlerTests(SynchronousTestCase):
    """The standard library's logging."""

    def setUp(self) -> None:
        self.captured = Captured()
        self.enterContext(self.captured)
        self.logger = logging.Logger("asyncio", 1)
        self.logger.addHandler(StdlibHandler())

    def test_levels(self) -> None:
        """Each level has its counterpart; a level in between has the next lower one."""
        for number in (5, 10, 20, 25, 30, 40, 50):
            self.logger.log(number, "%s of %s", "one", "two")
        events = self.captured.events
        self.assertEqual(
            [event["log_level"].name for event in events],
            ["debug", "debug", "info", "info", "warn", "error", "critical"],
        )
        self.assertEqual(self.captured.texts(LogLevel.warn), ["one of two"])
        self.assertEqual(events[0]["log_namespace"], "asyncio")

    def test_exception(self) -> None:
        """An exception is logged with its traceback."""
        try:
            raise ValueError("bad")
        except ValueError:
            self.logger.exception("it {broke}")
        (event,) = self.captured.events
        record = json.loads(json_line(event))
        self.assertEqual((record["msg"], record["error"]), ("it {broke}", "bad"))
        self.assertIn("test_exception", record["stack"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_arguments_that_do_not_fit(self) -> None:
        """A mistake in a message raises nothing at its caller."""
        self.logger.warning("%d", "x")
        self.assertEqual(self.captured.texts(LogLevel.warn), ["%d"])


PROGRAM = """
import gc, logging, os, warnings
from twisted.application.service import Application, Service
from twisted.internet import reactor
from twisted.internet.defer import fail
from twisted.python import log
from belatwist.log.output import StdlibHandler, LogOutput
from belatwist.runtime.process import ServiceRoot, configure_process

output = LogOutput("info", {form!r}, {output!r}, max_bytes={max_bytes!r})

def hung_up():
    output.reopen()
    reactor.callLater(0, os.write, 1, b"hung up\\n")

class Noisy(Service):
    def startService(self):
        reactor.callWhenRunning(self.run)

    def run(self):
        {body}
        os.write(1, b"ran\\n")

configure_process(reactor, on_hangup=hung_up)
application = Application("noisy")
ServiceRoot(output, Noisy()).setServiceParent(application)
"""


def program(
    folder: Path, body: str, *, output: str = "stdout", max_bytes: int | None = None
) -> Twistd:
    """Run a service that does one thing, with our log, in a real ``twistd``."""
    path = folder / "noisy.tac"
    path.write_text(PROGRAM.format(form="json", output=output, max_bytes=max_bytes, body=body))
    return Twistd("-y", str(path), cwd=folder)


@pytest.mark.process
@pytest.mark.parametrize(
    ("body", "message", "error"),
    [
        ("fail(ValueError('bad')); gc.collect()", "Unhandled error in Deferred", "bad"),
        ("log.err(ValueError('bad'), 'it broke')", "it broke", "bad"),
        ("logging.error('it broke', exc_info=ValueError('bad'))", "it broke", "bad"),
        ("reactor.callLater(0, int, 'x')", "", "invalid literal for int() with base 10: 'x'"),
    ],
)
def test_an_unhandled_error_is_one_line(
    tmp_path: Path, body: str, message: str, error: str
) -> None:
    """The line has the error's text, type and stack, and no other line mentions it."""
    with program(tmp_path, body) as service:
        service.expect("ran")
        assert service.stop() == 0
        lines = [line for line in service.log.rest() if line != "ran"]
    found = [json.loads(line) for line in lines]
    (one,) = [record for record in found if record["level"] in {"CRITICAL", "ERROR", "WARN"}]
    assert one["msg"].startswith(message)
    assert (one["error"], one["error_type"]) == (error, "ValueError")
    assert "ValueError: " in one["stack"]


@pytest.mark.process
def test_what_others_say_is_in_the_log(tmp_path: Path) -> None:
    """Warnings, the standard library's log and printed text are lines of JSON."""
    body = (
        "warnings.warn('old', DeprecationWarning, stacklevel=1);"
        "warnings.warn('careful');"
        "logging.getLogger('asyncio').warning('slow');"
        "log.msg('legacy');"
        "print('printed')"
    )
    with program(tmp_path, body) as service:
        service.expect("ran")
        assert service.stop() == 0
        lines = [line for line in service.log.rest() if line != "ran"]
    said = {record["msg"]: record for record in map(json.loads, lines)}
    assert said["slow"]["level"] == "WARN"
    assert said["legacy"]["level"] == said["printed"]["level"] == "INFO"
    (warning,) = [record for text, record in said.items() if "UserWarning: careful" in text]
    assert warning["level"] == "WARN"


@pytest.mark.process
def test_hangup_begins_a_new_file(tmp_path: Path) -> None:
    """A renamed file keeps its lines, and a new file gets the name."""
    path = tmp_path / "log"
    with program(tmp_path, "pass", output=str(path)) as service:
        service.expect("ran")
        path.rename(tmp_path / "moved")
        service.process.send_signal(signal.SIGHUP)
        service.expect("hung up")
        assert service.stop() == 0
        assert service.log.rest() == ["ran", "hung up"]
    assert messages(tmp_path / "moved")[0].startswith("Loading ")
    assert messages(path)[0] == "SIGHUP received, log file reopened"
    assert messages(path)[-1] == "Server Shut Down."


@pytest.mark.process
def test_the_program_keeps_its_log_small(tmp_path: Path) -> None:
    """At the limit the program rotates the file, and keeps three old ones."""
    body = "[log.msg('line', number=n) for n in range(200)]"
    with program(tmp_path, body, output=str(tmp_path / "log"), max_bytes=2000) as service:
        service.expect("ran")
        assert service.stop() == 0
    found = sorted(path for path in tmp_path.iterdir() if path.name.startswith("log"))
    assert [path.name for path in found] == ["log", "log.1", "log.2", "log.3"]
    assert all(path.stat().st_size <= 2000 for path in found)
    assert messages(found[0])[-1] == "Server Shut Down."


@pytest.mark.process
def test_the_configured_size(tmp_path: Path) -> None:
    """``logging.max_size_mb`` is the size at which the agent rotates its file."""
    path = tmp_path / "log"
    path.write_bytes(b"x" * (1 << 20))
    config = write_config(
        tmp_path,
        logging={"output": str(path), "max_size_mb": 1},
        storage={"path": str(path / "no-folder" / "metrics.db")},
    )
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        assert service.wait() == 1
    assert Path(f"{path}.1").stat().st_size == 1 << 20
    assert "starting up" in messages(path)[0]


@pytest.mark.process
def test_a_failed_start_is_printed_where_the_log_cannot_be_written(tmp_path: Path) -> None:
    """If the log is on a full disk, stderr has the reason of a failed start."""
    config = write_config(
        tmp_path,
        logging={"output": "/dev/full"},
        storage={"path": str(tmp_path / "config.yaml" / "metrics.db")},
    )
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        assert service.wait() == 1
        (line,) = service.log.rest()
    assert line == f"bela: lock {config}/metrics.db.lock: Not a directory"


@pytest.mark.process
def test_a_log_that_is_a_link_is_refused_in_one_line(tmp_path: Path) -> None:
    """The line has the key and the path."""
    (tmp_path / "log").symlink_to("elsewhere")
    config = write_config(tmp_path, logging={"output": str(tmp_path / "log")})
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        assert service.wait() == os.EX_CONFIG
        (line,) = service.log.rest()
    assert f"logging.output: {tmp_path / 'log'}: is a symbolic link" in line
