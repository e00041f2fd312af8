"""Output for people: errors, tables, times, sizes."""

import select
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import click

from belatwist.text import escape

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STDOUT = 1


class CommandError(click.ClickException):
    """A command has failed: one line on stderr, exit status 1."""

    def show(self, file: object = None) -> None:
        """Print the reason, in the form of ``twistd bela``."""
        notify(self.message)


def notify(text: str) -> None:
    """Write a line to stderr."""
    click.echo(f"bela: {escape(text)}", err=True)


def wait(seconds: float) -> bool:
    """Wait, or return early when the reader of stdout has closed it.

    :return: whether stdout may still have a reader.
    """
    poll = select.poll()
    poll.register(_STDOUT, 0)  # Reports only that the other end was closed.
    return not poll.poll(round(seconds * 1000))


def reason(error: OSError) -> str:
    """Return the text of an operating system's error, without its number."""
    return error.strerror or str(error)


def number(value: object) -> str:
    """Write a number for a person: a whole one as it is, a fraction to three digits."""
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return f"{value:.3f}" if 0.01 <= abs(value) < 1e15 else f"{value:.3g}"


def size(count: float) -> str:
    """Write a number of bytes for a person (``12.3 MiB``)."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def span(seconds: float) -> str:
    """Write a length of time for a person, in its two largest units (``3 h 4 min``)."""
    rest = max(round(seconds), 0)
    parts: list[tuple[int, str]] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


def _moment(unix_ms: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(milliseconds=unix_ms)
    except OverflowError:
        return None


def utc(unix_ms: int) -> str:
    """Write a time as RFC 3339, in UTC; empty for one beyond the years 1 to 9999."""
    at = _moment(unix_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else ""


def local(unix_ms: int) -> str:
    """Write a time as this machine's time zone has it."""
    at = _moment(unix_ms)
    try:
        return at.astimezone().isoformat(" ", "milliseconds")[:23] if at else str(unix_ms)
    except (OverflowError, ValueError, OSError):  # Beyond the range of the C library.
        return utc(unix_ms)


def tags(pairs: Sequence[tuple[str, str]]) -> str:
    """Write tags for a person (``core=0 host=a``)."""
    return escape(" ".join(f"{key}={value}" for key, value in pairs))


class Columns:
    """Aligns the cells of rows. A column becomes wider when a cell needs it, and stays so.

    :param widths: the initial widths.
    :param right: the numbers of columns that are aligned to the right.
    """

    def __init__(self, widths: Sequence[int], *, right: Sequence[int] = ()) -> None:
        self._widths = list(widths)
        self._align: list[Callable[[str, int], str]] = [
            str.rjust if column in right else str.ljust for column in range(len(widths))
        ]

    def fit(self, rows: Sequence[Sequence[str]]) -> None:
        """Widen the columns to the cells of these rows."""
        for row in rows:
            self._widths = [max(w, len(cell)) for w, cell in zip(self._widths, row, strict=True)]

    def line(self, row: Sequence[str]) -> str:
        """Return a row as a line."""
        self.fit([row])
        cells = zip(self._align, row, self._widths, strict=True)
        return "  ".join(align(cell, width) for align, cell, width in cells).rstrip()


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Return rows, at least one, as aligned lines."""
    columns = Columns([0] * len(rows[0]), right=right)
    columns.fit(rows)
    return [columns.line(row) for row in rows]
