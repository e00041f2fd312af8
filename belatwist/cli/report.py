"""The health document for people. It is not trusted: members of another type are left out."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from belatwist.cli import output
from belatwist.text import escape

_UNKNOWN = "unknown"
"""Replaces a number that the document does not have, as while the agent opens its database."""

_COLOURS = {"ok": "green", "degraded": "yellow", "error": "red"}

_Row = tuple[str, str, str, str, str, str]


class DocumentView:
    """An object of the document, read with type checks."""

    def __init__(self, value: object) -> None:
        self._members: Mapping[str, Any] = value if isinstance(value, dict) else {}

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the members."""
        return iter(self._members)

    def view(self, name: str) -> "DocumentView":
        """Return a member that is an object; an empty one if there is none."""
        return DocumentView(self._members.get(name))

    def text(self, name: str) -> str | None:
        """Return a member that is text; ``None`` if there is none."""
        value = self._members.get(name)
        return escape(value) if isinstance(value, str) else None

    def texts(self, name: str) -> list[str]:
        """Return a member that is a list of texts; empty if there is none."""
        value = self._members.get(name)
        members = value if isinstance(value, list) else []
        return [escape(text) for text in members if isinstance(text, str)]

    def number(self, name: str) -> float | None:
        """Return a member that is a number; ``None`` if there is none."""
        value = self._members.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if abs(value) < 2**63 else None

    def flag(self, name: str) -> bool | None:
        """Return a member that is a boolean; ``None`` if there is none."""
        value = self._members.get(name)
        return value if isinstance(value, bool) else None

    def count(self, name: str) -> str:
        """Return a member that is a number as text; "unknown" if there is none."""
        value = self.number(name)
        return _UNKNOWN if value is None else output.number(value)


class Report:
    """Formats a health document.

    :param document: the decoded JSON; its ``status`` is ``ok``, ``degraded`` or ``error``.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._all = DocumentView(document)
        self._now = _time(self._all.text("timestamp"))

    def lines(self) -> list[str]:
        """Return the verdict in the form for Nagios, then the details."""
        return [
            *self._verdict(),
            "",
            self._device(),
            "",
            *self._collectors(),
            "",
            *output.table([*self._uploader(), *self._storage(), *self._clock()]),
        ]

    def _verdict(self) -> Iterator[str]:
        status = str(self._all.text("status"))
        first, *others = self._all.texts("reasons") or ["all is well"]
        yield f"{click.style(status.upper(), fg=_COLOURS[status], bold=True)} - {first}"
        for reason in others:
            yield f"  {reason}"

    def _device(self) -> str:
        up = self._all.number("uptime_seconds")
        parts = (
            self._all.text("device_id"),
            f"belatwist {self._all.text('version') or '?'}",
            None if up is None else f"up {output.span(up)}",
            f"process {self._all.count('pid')}",
            f"session {self._all.text('session_id') or '?'}",
        )
        return ", ".join(part for part in parts if part)

    def _collectors(self) -> list[str]:
        rows: list[_Row] = [("COLLECTOR", "STATE", "LAST", "SAMPLES", "FAILED", "REASON")]
        statuses: list[str | None] = []
        collectors = self._all.view("collectors")
        for name in collectors:
            collector = collectors.view(name)
            found = self._collector(escape(name), collector)
            rows += found
            statuses += [collector.text("status")] * len(found)
        head, *lines = output.table(rows, right=(3, 4))
        return [
            head,
            *(
                click.style(line, fg=_COLOURS[status]) if status in {"degraded", "error"} else line
                for line, status in zip(lines, statuses, strict=True)
            ),
        ]

    def _collector(self, name: str, collector: DocumentView) -> list[_Row]:
        """Return the row of a collector, and rows below its reason: the cure, what is left out."""
        below = []
        if (cure := collector.text("cure")) is not None:
            below.append(f"cure: {cure}")
        if left_out := collector.texts("left_out"):
            below.append(f"left out: {', '.join(left_out)}")
        reason = collector.text("reason") or ""
        if below and not reason:
            reason = below.pop(0)
        row = (
            name,
            # Before the first collection there is no state.
            collector.text("state") or ("waiting" if "state" in collector else "?"),
            self._ago(collector, "last_collection"),
            collector.count("metrics_collected"),
            collector.count("metrics_failed"),
            reason,
        )
        return [row, *(("", "", "", "", "", f"  {text}") for text in below)]

    def _uploader(self) -> Iterator[tuple[str, str]]:
        uploader = self._all.view("uploader")
        if uploader.flag("enabled") is False:
            yield "uploads", "off"
            pending = self._all.view("storage").count("metrics_pending_upload")
            yield "  samples", f"{pending} pending"
            return
        yield "uploads", f"{uploader.text('status') or '?'}, to {uploader.text('endpoint') or '?'}"
        yield "  last", self._ago(uploader, "last_upload")
        yield (
            "  samples",
            (
                f"{uploader.count('metrics_uploaded')} uploaded,"
                f" {uploader.count('pending_metrics')} pending,"
                f" {uploader.count('retry_queue_size')} being retried,"
                f" {uploader.count('metrics_rejected')} rejected"
            ),
        )
        failures = f"{uploader.count('upload_failures')} attempts failed"
        error = uploader.text("last_error")
        yield "  failures", failures if error is None else f"{failures}; now: {error}"

    def _storage(self) -> Iterator[tuple[str, str]]:
        storage = self._all.view("storage")
        yield "storage", f"{storage.text('status') or '?'}, {storage.text('path') or '?'}"
        sizes = f"{_size(storage, 'database_size_bytes')}, log {_size(storage, 'wal_size_bytes')}"
        yield "  size", f"{sizes}; {self._oldest(storage)}"
        yield (
            "  samples",
            (
                f"{storage.count('metrics_waiting')} waiting in memory,"
                f" {storage.count('metrics_dropped')} lost,"
                f" {storage.count('metrics_pruned')} deleted because of age or size"
            ),
        )
        for name, title in (("opening", "opening"), ("last_error", "error")):
            if (text := storage.text(name)) is not None:
                yield f"  {title}", text
        if (backup := storage.text("replaced_as")) is not None:
            yield "  replaced", f"{self._ago(storage, 'replaced_at')}; the damaged file is {backup}"
        lock = storage.view("lock")
        held = {True: "held", False: "not held", None: "?"}[lock.flag("held")]
        yield "  lock", f"{held}, {lock.text('path') or '?'}"

    def _oldest(self, storage: DocumentView) -> str:
        if storage.text("oldest_metric_timestamp") is not None:
            return f"oldest sample {self._ago(storage, 'oldest_metric_timestamp')}"
        opened = storage.text("opening") is None
        return "no samples" if opened else f"oldest sample {_UNKNOWN}"

    def _clock(self) -> Iterator[tuple[str, str]]:
        clock = self._all.view("time")
        yield "time", clock.text("local") or "?"
        skew = clock.number("skew_ms")
        if skew is None:
            yield "  skew", "not measured"
        else:
            yield "  skew", f"{skew:+.0f} ms, measured {self._ago(clock, 'skew_measured')}"
        synced = clock.flag("ntp_synced")
        words = {True: "synchronised", False: "not synchronised", None: "unknown"}
        good = "" if clock.flag("trusted") is not False else "; the clock is not trusted yet"
        yield "  NTP", f"{words[synced]}, {clock.count('steps')} steps{good}"

    def _ago(self, view: DocumentView, name: str) -> str:
        """Return how long before the document's own time an event was."""
        at = _time(view.text(name))
        if at is None or self._now is None:
            return "never"
        return f"{output.span((self._now - at).total_seconds())} ago"


def _size(view: DocumentView, name: str) -> str:
    value = view.number(name)
    return _UNKNOWN if value is None else output.size(value)


def _time(text: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
