"""``bela export``: samples from the database to a file or stdout, page by page."""

import csv
import heapq
import io
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import click

from belatwist.cli import output
from belatwist.cli.database import PAGE, SAMPLES, TEXTS, DatabaseReader, RowPage, SampleRow
from belatwist.cli.output import CommandError
from belatwist.model import Series
from belatwist.store import Key
from belatwist.text import counted
from belatwist.upload.jsonl import Encoder

Wanted = Callable[[str], bool]
"""Tells from its stored name whether to export a metric."""

NAMES = ("time", "timestamp_ms", "metric", "tags", "value", "device", "session", "state")
"""The columns of a CSV file."""


class EncodedPage(NamedTuple):
    """A page of rows, encoded for the output.

    :ivar samples: the number of samples in it.
    :ivar until_ms: the time of the last row, whether it was exported or not.
    """

    data: bytes
    samples: int
    until_ms: int


class Span(NamedTuple):
    """The samples to export: those after one key and before another."""

    after: Key
    before: Key


def jsonl(
    database: DatabaseReader, span: Span, wanted: Wanted, skipped: Counter[str]
) -> Iterator[EncodedPage]:
    """Encode samples for VictoriaMetrics' ``/api/v1/import``, one line per series and page.

    :param skipped: counts the samples that the server would not keep, by the reason.
    """
    encoder = Encoder()
    for page in database.pages(SAMPLES, *span):
        chosen = _chosen(page, wanted)
        rows = [(row.timestamp_ms, row.series_id, row.value) for row in chosen]
        numbers = [
            (at, series, value)
            for at, series, value in rows
            if isinstance(value, int | float) and math.isfinite(value)
        ]
        good, bad = encoder.partition(numbers, page.series)
        skipped["not a number"] += len(rows) - len(numbers)
        skipped.update({why: len(refused) for why, refused in bad.items()})
        yield EncodedPage(encoder.encode(good, page.series), len(good), page.rows[-1].timestamp_ms)
    for page in database.pages(TEXTS, *span):
        skipped["text, which VictoriaMetrics does not store"] += len(_chosen(page, wanted))


def csv_lines(
    database: DatabaseReader, span: Span, wanted: Wanted, _skipped: Counter[str]
) -> Iterator[EncodedPage]:
    """Encode samples as comma-separated values (RFC 4180, with line feeds), in order of time.

    The first line names the columns. Tags are JSON, and no sample is left out.
    """
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(NAMES)
    count = 0
    last_ms, time = 0, output.utc(0)  # Samples of one tick have one time.
    rows = (_rows(database, table, span, wanted) for table in (SAMPLES, TEXTS))
    for row, series in heapq.merge(*rows, key=lambda pair: pair[0].key):
        at = row.timestamp_ms
        if at != last_ms:
            last_ms, time = at, output.utc(at)
        write(
            (
                time,
                at,
                series.name,
                series.tags_json,
                row.value,
                series.device_id,
                row.session,
                row.state,
            )
        )
        count += 1
        if count == PAGE:
            yield EncodedPage(_taken(text), count, at)
            count = 0
    yield EncodedPage(_taken(text), count, last_ms)


Format = Callable[[DatabaseReader, Span, Wanted, Counter[str]], Iterator[EncodedPage]]

FORMATS: Mapping[str, Format] = {"jsonl": jsonl, "csv": csv_lines}


def _chosen(page: RowPage, wanted: Wanted) -> list[SampleRow]:
    ids = {number for number, series in page.series.items() if wanted(series.name)}
    return [row for row in page.rows if row.series_id in ids]


def _rows(
    database: DatabaseReader, table: str, span: Span, wanted: Wanted
) -> Iterator[tuple[SampleRow, Series]]:
    for page in database.pages(table, *span):
        for row in _chosen(page, wanted):
            yield row, page.series[row.series_id]


def _taken(text: io.StringIO) -> bytes:
    data = text.getvalue().encode("utf-8", "backslashreplace")
    text.seek(0)
    text.truncate()
    return data


def export(
    database: DatabaseReader,
    span: Span,
    *,
    form: str,
    wanted: Wanted,
    to: Path | None,
    force: bool,
) -> None:
    """Export samples, and print their number on stderr.

    :param form: one of :data:`FORMATS`.
    :param to: the file; ``None`` for stdout.
    :param force: whether to replace an existing file.
    :raises BelaError: when the database cannot be read.
    :raises CommandError: when the file cannot be written. An existing file stays as it was.
    """
    skipped: Counter[str] = Counter()
    first, last = _limits(database, span)
    pages = FORMATS[form](database, span, wanted, skipped)
    written = 0
    # A bar would disturb samples that go to the terminal themselves.
    silent = not sys.stderr.isatty() or (to is None and sys.stdout.isatty())
    with (
        _destination(to, force=force) as out,
        click.progressbar(
            length=max(last - first, 1), label="Exporting", file=sys.stderr, hidden=silent
        ) as bar,
    ):
        for page in pages:
            out.write(page.data)
            written += page.samples
            bar.update(max(page.until_ms - first - bar.pos, 0))
        bar.update(max(last - first - bar.pos, 0))
        out.flush()
    where = "" if to is None else f" to {to}"
    output.notify(f"{counted(written, 'sample')} exported{where}")
    for why, count in skipped.items():
        if count:
            output.notify(f"{counted(count, 'sample')} skipped: {why}")


def _limits(database: DatabaseReader, span: Span) -> tuple[int, int]:
    """Return the times of the first and of the last sample."""
    ends = [
        row.timestamp_ms
        for newest in (False, True)
        for row in database.page(SAMPLES, *span, newest=newest, limit=1).rows
    ]
    return (ends[0], ends[-1]) if ends else (0, 0)


@contextmanager
def _destination(to: Path | None, *, force: bool) -> Iterator[IO[bytes]]:
    """Open a file that gets its name when it is complete.

    :raises CommandError: when the file cannot be written, or exists and ``force`` is not given.
    """
    if to is None:
        yield sys.stdout.buffer
        return
    _check_free(to, force=force)
    temporary = to.parent / f".{to.name}.{os.urandom(8).hex()}"
    with _removed_at_signals(temporary):
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _check_free(to, force=force)
            temporary.replace(to)
        except OSError as error:
            raise CommandError(f"{to}: cannot be written: {output.reason(error)}") from error
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _removed_at_signals(temporary: Path) -> Iterator[None]:
    """On SIGTERM and SIGHUP remove a file and exit.

    A signal that the process ignores, as under ``nohup``, stays ignored.

    :raises SystemExit: with 128 plus the signal's number, as in shells.
    """
    signals = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.SIG_DFL
    ]
    ended: list[int] = []

    def end(number: int, _: object) -> None:
        if ended:  # systemd and sshd may send both.
            return
        ended.append(number)
        # The file is removed here, because the exception may be lost wherever it is raised.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        sys.exit(128 + number)

    try:
        for number in signals:
            signal.signal(number, end)
        yield
    except Exception:
        if ended:  # For example a progress bar whose terminal has gone.
            sys.exit(128 + ended[0])
        raise
    finally:
        for number in () if ended else signals:
            signal.signal(number, signal.SIG_DFL)


def _check_free(to: Path, *, force: bool) -> None:
    if to.exists() and not to.is_file():
        raise CommandError(f"{to}: is not a regular file; without --output, samples go to stdout")
    if to.exists() and not force:
        raise CommandError(f"{to}: already exists; --force replaces it")
