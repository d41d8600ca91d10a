"""`book_v1` over a busy day of quotes, trades and order books, in memory: rows of quotes a second, on one thread and on all.

Bars are of one second. Beside each twenty quotes there are two trades, and a book of ten levels a side; one trade in three does not say who
the aggressor was. What is measured begins with the canonical tables, as a store gives them, and ends with the vectors.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from measure import Candidate, Figure, Result, Settings, take_turns

from asof.engine.plan import plan
from asof.features.library import SHIPPED
from asof.jobs.panels import panel_of, sort_bars, vectors_of
from asof.jobs.points import NO_EVENTS
from asof.records import BARS, BOOKS, QUOTES, TRADES

TARGET = 1_000_000
QUOTES_A_SECOND, LEVELS = 200, 10
SECOND = 1_000_000
START = 1_704_153_600_000_000
INSTRUMENTS = 4


def run(settings: Settings) -> Result:
    """Measure it."""
    seconds = max(60, round(10_000 * settings.scale))
    bars, market = made_up(seconds)
    quotes = len(market["quotes"])
    compute(bars, market, 1)
    found = take_turns(
        {
            "asof, 1 thread": Candidate(lambda: compute(bars, market, 1)),
            "asof": Candidate(lambda: compute(bars, market, None)),
        },
        settings.repeat,
    )
    rate = quotes / found["asof, 1 thread"]
    about = f"{len(market['trades']):,} trades + {len(market['books']):,} books"
    return Result(
        f"book_v1, {len(bars):,} one-second bars, {quotes:,} quotes + {about}",
        [Figure(name, taken, quotes) for name, taken in found.items()],
        f"at least {TARGET:,} quotes a second on one thread",
        f"{rate:,.0f} quotes a second",
        rate >= TARGET,
    )


def compute(bars: pa.Table, market: dict[str, pa.Table], threads: int | None) -> pa.Table:
    """The vectors of canonical tables."""
    the_plan, found = plan(SHIPPED["book_v1"]), sort_bars(bars)
    panel = panel_of(the_plan, "1s", found, NO_EVENTS, market=market)
    return vectors_of(the_plan, panel, "1s", found, datetime.now(UTC), "benchmark", threads)


def made_up(seconds: int) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Bars, and points by stream, of a few instruments, as a store reads them."""
    parts = [_instrument(k, seconds) for k in range(INSTRUMENTS)]
    bars = pa.concat_tables(bars for bars, _ in parts)
    return bars, {stream: pa.concat_tables(market[stream] for _, market in parts).combine_chunks() for stream in parts[0][1]}


def _instrument(number: int, seconds: int) -> tuple[pa.Table, dict[str, pa.Table]]:
    rng, name = np.random.default_rng(number), f"I{number:06d}"
    count = seconds * QUOTES_A_SECOND
    at = START + np.sort(rng.integers(0, seconds * SECOND, count))
    ticks = np.cumsum(rng.choice([-1, 0, 0, 0, 0, 1], count)) + 10_000
    sizes = rng.integers(1, 100, (2, count)) * 100.0
    bid, ask = ticks / 100, (ticks + rng.choice([1, 1, 1, 2], count)) / 100
    quotes = {"bid": bid, "bid_size": sizes[0], "ask": ask, "ask_size": sizes[1]}
    rows = np.sort(rng.choice(count, count // 10, replace=False))
    side = rng.choice([1.0, -1.0, np.nan], len(rows))
    price = np.where(side > 0, ask[rows], np.where(side < 0, bid[rows], (bid[rows] + ask[rows]) / 2))
    trades = {"price": price, "size": rng.integers(1, 20, len(rows)) * 100.0, "side": side}
    seen = np.arange(0, count, QUOTES_A_SECOND // 10)
    books = _levels(rng, bid[seen], -0.01, "bid") | _levels(rng, ask[seen], 0.01, "ask") | {"gap": np.zeros(len(seen), np.bool_)}
    ts = START + np.arange(seconds) * SECOND
    last = bid[np.minimum(np.searchsorted(at, ts + SECOND), count - 1)]
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), last)
    market = {
        "quotes": _table(QUOTES, name, at, quotes),
        "trades": _table(TRADES, name, at[rows] + 1, trades),
        "books": _table(BOOKS, name, at[seen], books),
    }
    return _table(BARS, name, ts, prices | {"timeframe": pa.repeat("1s", seconds)}), market


def _levels(rng: np.random.Generator, best: np.ndarray, step: float, side: str) -> dict[str, pa.Array]:
    """Ten levels of each book."""
    prices = best[:, None] + step * np.arange(LEVELS)
    begins = pa.array(np.arange(0, prices.size + 1, LEVELS, dtype=np.int32))
    sizes = rng.integers(1, 50, prices.size) * 100.0
    return {
        f"{side}_prices": pa.ListArray.from_arrays(begins, pa.array(prices.ravel())),
        f"{side}_sizes": pa.ListArray.from_arrays(begins, pa.array(sizes)),
    }


def _table(schema: pa.Schema, name: str, at: np.ndarray, columns: dict[str, object]) -> pa.Table:
    """A canonical table of one instrument; what is not given is null."""
    rows = len(at)
    known = {"instrument_id": pa.repeat(name, rows), "ts": pa.array(at).cast(schema.field("ts").type), "seq": pa.array(np.arange(rows))}
    made = known | {key: value if isinstance(value, pa.Array) else pa.array(value, from_pandas=True) for key, value in columns.items()}
    return pa.table([made[f.name] if f.name in made else pa.nulls(rows, f.type) for f in schema], schema=schema)
