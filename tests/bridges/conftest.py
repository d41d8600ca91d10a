"""A small store that every bridge is tested on: each hand-over is compared with what a join as of the same moment gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

import asof
from asof import FeatureSet, bars
from asof.records import BARS, vector_schema
from asof.stores.store import BARS_TABLE, vectors_table

MINI = FeatureSet("mini", {"up": bars.close - bars.open, "wide": bars.high - bars.low})
LEARNED = datetime(2025, 1, 1, tzinfo=UTC)
BEFORE = datetime(2024, 1, 1, tzinfo=UTC)


def day(n: int, hour: float = 14.5) -> datetime:
    """An hour of a day in March 2024, by default the open."""
    return datetime(2024, 3, 1, tzinfo=UTC) + timedelta(days=n, hours=hour)


@pytest.fixture(scope="session")
def store() -> Iterator[asof.FeatureStore]:
    """Daily bars of two instruments, one without its third price and fourth bar; vectors at their closes, but one two days late.

    The vector of ALFA's first day is corrected long after.
    """
    with asof.connect("duckdb://") as opened:
        opened.apply(MINI)
        rows = [(name, n) for name in ("ALFA", "BRAVO") for n in range(14) if (name, n) != ("BRAVO", 3)]
        opened.store.upsert(BARS_TABLE, pa.Table.from_pylist([_bar(*row) for row in rows], BARS), BEFORE)
        vectors = pa.Table.from_pylist([_vector(*row) for row in rows], vector_schema(tuple(MINI.features)))
        opened.store.upsert(vectors_table(MINI), vectors, BEFORE)
        changed = pa.Table.from_pylist([_vector("ALFA", 0) | {"up": 99.0}], vectors.schema)
        opened.store.upsert(vectors_table(MINI), changed, LEARNED)
        yield opened


def _bar(name: str, n: int) -> dict[str, object]:
    price = None if (name, n) == ("BRAVO", 2) else 10.0 + n
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    return dict.fromkeys(BARS.names) | {"instrument_id": name, "timeframe": "1d", "ts": day(n), "volume": 100.0} | prices


def _vector(name: str, n: int) -> dict[str, object]:
    available = day(n + 2 if (name, n) == ("ALFA", 4) else n, 21)
    marks = {"quality_flags": ["ODD", "WIDE"] if n == 5 else [], "event_count": 0, "ohlcv_count": 1, "available_at": available}
    made = {"up": n / 10, "wide": None if n == 6 else n + 0.1, "computed_at": BEFORE, "pipeline_version": "test"}
    return {"instrument_id": name, "timeframe": "1d", "ts": day(n)} | marks | made


def known(store: asof.FeatureStore, rows: Iterable[tuple[str, datetime]], known_at: datetime | None = BEFORE) -> list[dict[str, object]]:
    """What a join gives at these moments. All but the correction was known before any of them."""
    names, moments = zip(*rows, strict=True)
    entities = pa.table({"instrument_id": list(names), "event_timestamp": pa.array(moments, pa.timestamp("us", "UTC"))})
    return store.get_historical_features(entities, "mini", "1d", known_at=known_at).to_pylist()
