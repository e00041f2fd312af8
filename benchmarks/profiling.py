"""Where the time of a tick and of an upload goes: cProfile over the synchronous halves.

The profiler makes small functions look more expensive than they are: compare shares only.
``stages`` has the figures.
"""

import cProfile
import io
import pstats
import sqlite3
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from belatwist.model import Series
from belatwist.procfs.reader import Reader
from belatwist.store import Outcome, Row, Settlement
from belatwist.store.sql import queries, schema
from belatwist.upload.jsonl import Encoder, compress
from benchmarks import board

_TICKS = 300
_UPLOAD_TICKS = 3
_START_MS = 1_767_225_600_000


def measure() -> str:
    """Profile a tick's collection and storing, and an upload's fetching, encoding and settling."""
    parts: list[str] = []
    with TemporaryDirectory(prefix="bela-bench-") as made:
        where = Path(made)
        model = board.Board()
        model.write(where, everything=True)
        sources = board.collectors(Reader(str(where / "proc")), Reader(str(where / "sys")))
        parts.append(_collectors(sources, model, where))
        parts.append(_profiled("collect", lambda: [read(_START_MS) for read in sources.values()]))
        parts += _stored(where / "metrics.db")
    return "\n\n".join(parts)


def _collectors(sources: dict[str, Callable[[int], Any]], model: board.Board, where: Path) -> str:
    """Time each collector without a profiler."""
    spent = dict.fromkeys(sources, 0)
    counts = dict(spent)
    for number in range(_TICKS):
        model.advance(1.0)
        model.write(where, everything=False)
        for name, collect in sources.items():
            begun = time.process_time_ns()
            found = len(collect(_START_MS))
            if number:
                spent[name] += time.process_time_ns() - begun
                counts[name] += found
    lines = ["collectors on the board model, microseconds a tick and samples a tick"]
    lines += [
        f"  {name:18} {spent[name] / 1000 / (_TICKS - 1):7.1f} {counts[name] / (_TICKS - 1):5.0f}"
        for name in spent
    ]
    return "\n".join(lines)


def _stored(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    schema.configure(connection, synchronous="full", cache_mb=8, mmap_mb=0)
    schema.create(connection, "")
    cursor: Any = connection.cursor()  # Whose type says that lastrowid is read-only.
    queries.begin_session(cursor, "profile", _START_MS, "{}")
    known: dict[Series, int] = {}
    ticks = [list(tick) for tick in islice(board.ticks(_START_MS, 10.0), _TICKS)]
    source = iter(ticks)

    def store() -> None:
        _, found, _ = queries.insert(cursor, next(source), known, 1)
        known.update(found)
        connection.commit()

    parts = [_profiled("store: insert and commit", store, times=_TICKS)]
    series = {number: one for one, number in known.items()}
    encoder = Encoder()
    state: dict[str, Any] = {}

    def fetch() -> None:
        state["rows"] = queries.fetch(cursor, 80 * _UPLOAD_TICKS, _START_MS * 2)

    def encode() -> None:
        rows: list[Row] = state["rows"]
        sent, _ = encoder.partition(rows, series)
        state["body"] = encoder.encode(sent, series)

    def pack() -> None:
        state["packed"] = compress(state["body"], 6)

    def settle() -> None:
        settlement = Settlement(Outcome.ACCEPTED, state["rows"], "batch", 0)
        queries.settle(cursor, [settlement], _START_MS, 0)
        connection.commit()

    steps = (fetch, encode, pack, settle)
    spent = dict.fromkeys(steps, 0)
    uploads = _TICKS // _UPLOAD_TICKS
    for _ in range(uploads):
        for step in steps:
            begun = time.process_time_ns()
            step()
            spent[step] += time.process_time_ns() - begun
    lines = [f"an upload of {80 * _UPLOAD_TICKS} samples without its request, microseconds"]
    lines += [f"  {s.__name__:18} {spent[s] / 1000 / uploads:7.1f}" for s in steps]
    lines.append(f"  body {len(state['body'])} bytes, packed {len(state['packed'])}")
    connection.close()
    return [*parts, "\n".join(lines)]


def _profiled(title: str, function: Callable[[], object], *, times: int = _TICKS) -> str:
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    for _ in range(times):
        function()
    profile.disable()
    said = io.StringIO()
    pstats.Stats(profile, stream=said).strip_dirs().sort_stats("tottime").print_stats(14)
    body = [line for line in said.getvalue().splitlines() if line.strip()]
    return "\n".join([f"{title}, {times} times", *body])
