"""Made-up market data in Arrow: one-minute bars of many instruments, and scored events scattered over the same hours.

Everything follows from a seed. Bars come by instrument and time, as a store reads them; events by time alone, as they arrive.
One price in a thousand is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC as UTC_ZONE
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from asof.stores.duckdb import DuckDBStore
from asof.stores.store import BARS_TABLE, EVENTS_TABLE

UTC = pa.timestamp("us", tz="UTC")
MINUTE = 60_000_000
START = 1_704_153_600_000_000
"""2024-01-02T00:00:00Z."""

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_DASHES = (8, 13, 18, 23)
_DIGITS = np.array([i for i in range(36) if i not in _DASHES])


@dataclass(frozen=True)
class Size:
    """How much data: `instruments`, of `bars` bars and `events` events each."""

    instruments: int
    bars: int
    events: int

    @property
    def rows(self) -> int:
        """Bars of all instruments."""
        return self.instruments * self.bars


def size(rows: float, instruments: int, scale: float) -> Size:
    """`rows` bars of `instruments` instruments at scale 1, and a fifth as many events. Smaller scales keep ten instruments at least."""
    count = max(10, round(instruments * scale))
    bars = max(100, round(rows * scale / count))
    return Size(count, bars, bars // 5)


def names(first: int, last: int) -> pa.Array:
    """The identifiers of instruments `first` to `last`, in alphabetical order."""
    return pa.array([f"I{k:06d}" for k in range(first, last)])


def bars(wanted: Size, first: int = 0, last: int | None = None) -> pa.Table:
    """`instrument_id, ts, close` of instruments `first` to `last`."""
    last = wanted.instruments if last is None else last
    count = last - first
    rng = np.random.default_rng((1, first))
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.0008, (count, wanted.bars)), axis=1)).round(6)
    close = close.ravel()
    missing = rng.random(len(close)) < 0.001
    ts = np.tile(START + MINUTE * np.arange(wanted.bars), count)
    return pa.table(
        {
            "instrument_id": names(first, last).take(pa.array(np.repeat(np.arange(count), wanted.bars))),
            "ts": pa.array(ts).cast(UTC),
            "close": pa.array(close, mask=missing),
        }
    )


def events(wanted: Size, first: int = 0, last: int | None = None) -> pa.Table:
    """`event_id, enriched_at_utc, instrument_id, score, confidence` of instruments `first` to `last`, by time."""
    last = wanted.instruments if last is None else last
    rows = (last - first) * wanted.events
    rng = np.random.default_rng((2, first))
    who = rng.integers(0, last - first, rows)
    return pa.table(
        {
            "event_id": _uuids(rng, rows),
            "enriched_at_utc": pa.array(np.sort(rng.integers(START, START + MINUTE * wanted.bars, rows))).cast(UTC),
            "instrument_id": names(first, last).take(pa.array(who)),
            "score": rng.uniform(-1.0, 1.0, rows).round(6),
            "confidence": np.where(rng.random(rows) < 0.02, 0.0, rng.uniform(0.0, 1.0, rows).round(6)),
        }
    )


def groups(wanted: Size, rows: int = 500_000) -> Iterator[tuple[int, int]]:
    """Instruments in groups of at most so many bars, for data that is never whole in memory."""
    step = max(1, rows // wanted.bars)
    for first in range(0, wanted.instruments, step):
        yield first, min(first + step, wanted.instruments)


def fill(path: Path, wanted: Size) -> None:
    """A DuckDB store with the bars and events, made and written a group of instruments at a time."""
    now = datetime.now(UTC_ZONE)
    with DuckDBStore(path, memory="512MB") as store:
        for first, last in groups(wanted):
            store.upsert(BARS_TABLE, _stored(bars(wanted, first, last), BARS_TABLE.schema, timeframe="1m"), now)
            made = events(wanted, first, last)
            store.upsert(EVENTS_TABLE, _stored(made.append_column("scored_at_utc", made["enriched_at_utc"]), EVENTS_TABLE.schema), now)


def _stored(table: pa.Table, schema: pa.Schema, **constants: str) -> pa.Table:
    """A table in a store's schema; what it does not have is a constant, or null."""
    rows = len(table)
    columns = [table[f.name] if f.name in table.column_names else pa.repeat(pa.scalar(constants.get(f.name), f.type), rows) for f in schema]
    return pa.table(columns, schema=schema)


def _uuids(rng: np.random.Generator, rows: int) -> pa.Array:
    """Random identifiers in the shape of a UUID."""
    text = np.full((rows, 36), ord("-"), np.uint8)
    text[:, _DIGITS] = _HEX[rng.integers(0, 16, (rows, 32), np.uint8)]
    offsets = np.arange(0, 36 * rows + 1, 36, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(text)])
