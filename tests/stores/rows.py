"""Bars, events, actions, memberships, points and vectors for the tests of the stores, made from few words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from asof import FeatureSet, bars
from asof.records import ACTIONS, BARS, BOOKS, EVENTS, MEMBERSHIPS, QUOTES, TRADES, vector_schema
from asof.stores.store import (
    ACTIONS_TABLE,
    BARS_TABLE,
    EVENTS_TABLE,
    MEMBERSHIPS_TABLE,
    QUOTES_TABLE,
    TRADES_TABLE,
    Selection,
    Store,
    Table,
    vectors_table,
)

MINI = FeatureSet("mini", {"ret_1": bars.close / bars.close.lag(1) - 1, "high": bars.high + 0})
VECTORS_TABLE = vectors_table(MINI)
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
"""When the first rows are known."""


def minute(n: float) -> datetime:
    """A time so many minutes into the year 2024."""
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n)


def later(n: int) -> datetime:
    """A time at which something is known: so many hours after `NOON`."""
    return NOON + timedelta(hours=n)


def bar(n: int, close: float | None = 1.0, instrument: str = "A", **rest: object) -> dict[str, object]:
    """The one-minute bar that opens in minute `n`."""
    return {"instrument_id": instrument, "timeframe": "1m", "ts": minute(n), "close": close, **rest}


def bars_of(*rows: dict[str, object]) -> pa.Table:
    """Bars as the store takes them."""
    return pa.Table.from_pylist([dict.fromkeys(BARS.names) | row for row in rows], schema=BARS)


def event(name: str, enriched: float, score: float = 0.5, instrument: str = "A", **rest: object) -> dict[str, object]:
    """An event as one of its enrichments delivered it."""
    at = minute(enriched)
    known = {"instrument_id": instrument, "event_id": name, "enriched_at_utc": at, "scored_at_utc": at}
    return known | {"score": score, "confidence": 0.5} | rest


def events_of(*rows: dict[str, object]) -> pa.Table:
    """Events as the store takes them."""
    return pa.Table.from_pylist([dict.fromkeys(EVENTS.names) | row for row in rows], schema=EVENTS)


def action(n: float, split: float = 2.0, instrument: str = "A", dividend_factor: float = 1.0) -> dict[str, object]:
    """An action whose ex-date begins in minute `n`."""
    return {"instrument_id": instrument, "ts": minute(n), "split": split, "dividend_factor": dividend_factor}


def actions_of(*rows: dict[str, object]) -> pa.Table:
    """Actions as the store takes them."""
    return pa.Table.from_pylist(list(rows), schema=ACTIONS)


def membership(n: float, value: str | None = "in", instrument: str = "A", scheme: str = "index", **rest: object) -> dict[str, object]:
    """What an instrument is in a scheme from minute `n` on."""
    return {"scheme": scheme, "instrument_id": instrument, "ts": minute(n), "value": value, "available_at": None} | rest


def memberships_of(*rows: dict[str, object]) -> pa.Table:
    """Memberships as the store takes them."""
    return pa.Table.from_pylist(list(rows), schema=MEMBERSHIPS)


def trade(n: float, price: float | None = 1.0, instrument: str = "A", seq: int = 0, **rest: object) -> dict[str, object]:
    """A trade in minute `n`, known at once unless `rest` says otherwise."""
    made = {"price": price, "size": 100.0, "side": 1.0, "available_at": minute(n)}
    return {"instrument_id": instrument, "ts": minute(n), "seq": seq} | made | rest


def trades_of(*rows: dict[str, object]) -> pa.Table:
    """Trades as the store takes them."""
    return pa.Table.from_pylist(list(rows), schema=TRADES)


def quote(n: float, bid: float | None = 1.0, instrument: str = "A", seq: int = 0, **rest: object) -> dict[str, object]:
    """A quote in minute `n`, known at once unless `rest` says otherwise."""
    made = {"bid": bid, "bid_size": 5.0, "ask": 2.0, "ask_size": None, "available_at": minute(n)}
    return {"instrument_id": instrument, "ts": minute(n), "seq": seq} | made | rest


def quotes_of(*rows: dict[str, object]) -> pa.Table:
    """Quotes as the store takes them."""
    return pa.Table.from_pylist(list(rows), schema=QUOTES)


def book(n: float, *bids: float, instrument: str = "A", seq: int = 0, **rest: object) -> dict[str, object]:
    """A book in minute `n`, with a size of 1 at each bid and one ask."""
    made = {"bid_prices": list(bids), "bid_sizes": [1.0] * len(bids), "ask_prices": [9.0], "ask_sizes": [2.0], "gap": n == 1}
    return {"instrument_id": instrument, "ts": minute(n), "seq": seq} | made | {"available_at": minute(n)} | rest


def books_of(*rows: dict[str, object]) -> pa.Table:
    """Books as the store takes them."""
    return pa.Table.from_pylist(list(rows), schema=BOOKS)


def vector(n: int, ret_1: float | None = 0.1, instrument: str = "A", **rest: object) -> dict[str, object]:
    """The vector of the bar that opens in minute `n`, available at its close unless `rest` says otherwise."""
    known = {"instrument_id": instrument, "timeframe": "1m", "ts": minute(n), "available_at": minute(n + 1)}
    made = {"quality_flags": [], "event_count": 0, "ohlcv_count": 1, "computed_at": NOON, "pipeline_version": "test"}
    return known | made | {"ret_1": ret_1, "high": 1.0} | rest


def vectors_of(*rows: dict[str, object]) -> pa.Table:
    """Vectors of `MINI` as the store takes them."""
    return pa.Table.from_pylist(list(rows), schema=vector_schema(tuple(MINI.features)))


def streamed(*batches: pa.Table) -> Iterable[pa.Table]:
    """Tables as a source yields them: each row with the number it has in its file."""
    first = 1
    for batch in batches:
        yield batch.append_column("row", pa.array(range(first, first + len(batch)), pa.int64()))
        first += len(batch)


def rows_in(store: Store, table: Table, selection: Selection | None = None) -> list[dict[str, object]]:
    """The rows that a read yields."""
    return [row for batch in store.read(table, selection or Selection()) for row in batch.to_pylist()]


def closes(store: Store, known_at: datetime | None = None) -> dict[datetime, float | None]:
    """The closes of all bars by time, as they were held at `known_at`."""
    return {row["ts"]: row["close"] for row in rows_in(store, BARS_TABLE, Selection(known_at=known_at))}  # type: ignore[misc]


KINDS = {
    "bars": (BARS_TABLE, bars_of, bar, "close"),
    "events": (EVENTS_TABLE, events_of, lambda n, score: event(f"e{n:03d}", n, score), "score"),
    "actions": (ACTIONS_TABLE, actions_of, action, "split"),
    "memberships": (MEMBERSHIPS_TABLE, memberships_of, lambda n, value: membership(n, f"{value}"), "value"),
    "trades": (TRADES_TABLE, trades_of, trade, "price"),
    "quotes": (QUOTES_TABLE, quotes_of, quote, "bid"),
    "vectors": (VECTORS_TABLE, vectors_of, vector, "ret_1"),
}
"""For each kind of record its table, what makes a table of rows, what makes a row from its number and a value, and that value's column."""
