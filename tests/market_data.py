"""Real trades, quotes and order books: BAC of one hour in 2013, minute by minute, and BTCUSDT of two minutes in 2024, second by second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asof.features.library import SHIPPED
from asof.jobs.ingest import Ingestion, books_into
from asof.jobs.trade_bars import store_bars
from asof.jobs.work import Work, joined
from asof.records import BARS
from asof.sources.columns import ColumnMapping
from asof.stores.store import BARS_TABLE, POINTS, Selection, Store
from asof.stores.urls import open_store
from asof.timeframes import UNITS
from tests.market_oracle import Instrument, amihud

BAC_HOUR = datetime(2013, 10, 7, 14, tzinfo=UTC), datetime(2013, 10, 7, 14, 40, tzinfo=UTC)
BTC_SPAN = datetime(2024, 8, 8, 23, 54, 14, tzinfo=UTC), datetime(2024, 8, 8, 23, 55, 10, tzinfo=UTC)
NOW = datetime(2024, 9, 1, tzinfo=UTC)


def real_market(folder: Path, work: Path) -> Store:
    """A store in memory with both, and with bars made of the trades. `work` is for files that are cut out of those in `folder`."""
    store = open_store("duckdb://")
    ticks, lob = folder / "ticks", folder / "lob"
    theirs = {"instrument_id": "ticker", "ts": "ts_utc"}
    _ingest(store, "trades", _cut(work, ticks / "lean_bac_trades.parquet", "ts_utc", *BAC_HOUR), theirs)
    quotes = _cut(work, ticks / "lean_bac_quotes_20131007.parquet", "ts_utc", *BAC_HOUR)
    _ingest(store, "quotes", quotes, theirs, missing_side="unchanged")
    received = {"instrument_id": "ticker", "ts": "recv_ns", "seq": "update_id"}
    _ingest(store, "quotes", _cut(work, lob / "binance_btcusdt_l1_quotes.parquet", "recv_ns", *BTC_SPAN), received)
    _ingest(store, "trades", _cut(work, lob / "binance_btcusdt_trades.parquet", "recv_ns", *BTC_SPAN), received | {"seq": "trade_id"})
    updates = {"instrument_id": "ticker", "ts": "recv_ns", "update_id": "last_update_id"}
    mapping = ColumnMapping(updates, unit="ns")
    books_into(store, NOW, mapping, "level2", depth=20).run([_cut(work, lob / "binance_btcusdt_l2_depth.parquet", "recv_ns", *BTC_SPAN)])
    store_bars(store, "1m", NOW, ("BAC",), None, None)
    store_bars(store, "1s", NOW, ("BTCUSDT",), None, None)
    return store


def _ingest(store: Store, kind: str, path: Path, columns: dict[str, str], missing_side: str | None = None) -> None:
    unit = "ns" if columns["ts"] == "recv_ns" else None
    report = Ingestion(store, kind, NOW, ColumnMapping(columns, unit=unit), missing_side=missing_side).run([path])
    assert report.accepted, report


def _cut(work: Path, path: Path, time: str, start: datetime, end: datetime) -> Path:
    """The rows of a file between two moments."""
    table = pq.read_table(path)
    micros = pc.divide(table[time], 1_000) if time == "recv_ns" else table[time].cast(pa.int64())
    first, last = (round(moment / timedelta(microseconds=1)) for moment in (start - EPOCH, end - EPOCH))
    out = work / path.name
    pq.write_table(table.filter(pc.and_(pc.greater_equal(micros, first), pc.less(micros, last))), out)
    return out


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE, SECOND = UNITS["m"], UNITS["s"]


def real_differences(folder: Path, work: Path) -> Iterator[tuple[str, float, int]]:
    """How far each feature of `book_v1` is at most from the plain program, in parts of its value, and of how many values."""
    feature_set, found = SHIPPED["book_v1"], dict[str, list[float]]()
    with closing(real_market(folder, work)) as store:
        for timeframe, name, step in (("1m", "BAC", MINUTE), ("1s", "BTCUSDT", SECOND)):
            bars = joined(store.read(BARS_TABLE, Selection(timeframe, (name,))), BARS)
            points = rows_of(store, name)
            market, illiquid = Instrument(**points), amihud(bars.to_pylist(), points["trades"], step)
            vectors = Work(store, feature_set, timeframe, NOW, "test").vectors(bars, Selection(None, (name,))).to_pylist()
            for vector, rest in zip(vectors, illiquid, strict=True):
                theirs = market.vector(round(vector["ts"].timestamp() * 1_000_000) + step) | {"amihud_20": rest}
                for feature, wanted in theirs.items():
                    if wanted is not None and vector[feature] is not None:
                        apart = abs(vector[feature] - wanted)
                        found.setdefault(feature, []).append(apart / abs(wanted) if wanted else apart)
    for feature in feature_set.features:
        if feature in found:
            yield feature, max(found[feature]), len(found[feature])


def rows_of(store: Store, name: str) -> dict[str, list[dict[str, Any]]]:
    """The trades, quotes and books of an instrument, by stream."""
    chosen = Selection(None, (name,))
    return {table.name: [row for some in store.read(table, chosen) for row in some.to_pylist()] for table in POINTS}
