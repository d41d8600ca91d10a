"""Bars from trades: by time, or by how many trades, how much volume or how much value has passed.

1. An instrument's trades are put in order: by `ts`, and by `seq` where that is the same.
2. Each is given the number of its bar. By time, that is the interval its `ts` lies in, counted from 1970. Otherwise it is how often `every`
   fits into what had passed before it in its UTC day, so that a bar does not depend on where the data begins, as long as its day is whole.
   Trades of one `ts` are never parted: nothing says which of them was first, and `ts` stays unique.
3. A bar is made of the trades of one number. There is none where there are no trades.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC as ZONE
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asof.errors import DefinitionError, NotFound, did_you_mean
from asof.records import BARS, TRADES, UTC, floats, micros
from asof.stores.store import BARS_TABLE, TRADES_TABLE, Changes, Selection, Store
from asof.timeframes import UNITS
from asof.timeframes import timeframe as timeframe_micros

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Number = Callable[[Ints, Floats, Floats], tuple[Ints, Ints]]
"""From times, prices and sizes the number of each trade's bar, and when that bar closes."""
SOURCE = "trades"
"""The `source` of these bars."""
PASSED = ("trades", "volume", "value")
"""What can pass: trades, their sizes, or their sizes times their prices."""


@dataclass(frozen=True)
class Passing:
    """A bar ends when `every` of `what` (one of `PASSED`) has passed, and with the day. Raises `DefinitionError` for what cannot be."""

    what: str
    every: float

    def __post_init__(self) -> None:
        if self.what not in PASSED:
            raise DefinitionError(f"{self.what!r} is none of {', '.join(PASSED)}")
        if not 0 < self.every < np.inf:
            raise DefinitionError(f"bars of {self.every:g} {self.what} never end: give a number above 0")


def bars_by_time(trades: pa.Table, timeframe: str) -> pa.Table:
    """The bars (`BARS`) of trades of any instruments, in any order; each is known at its close, or with the last of its trades."""
    step = timeframe_micros(timeframe)

    def number(ts: Ints, price: Floats, size: Floats) -> tuple[Ints, Ints]:
        numbers = ts // step
        return numbers, (numbers + 1) * step

    made = _bars(trades, number, lambda ts: ts // step * step)
    return made.set_column(1, "timeframe", pa.repeat(pa.scalar(timeframe), len(made)))


def bars_by_passing(trades: pa.Table, passing: Passing) -> pa.Table:
    """The bars of trades, with no timeframe; each opens at its first trade, and is known when enough has passed, or the day is over."""

    def number(ts: Ints, price: Floats, size: Floats) -> tuple[Ints, Ints]:
        amount = {"trades": np.ones(len(ts)), "volume": size, "value": price * size}[passing.what]
        day = ts // UNITS["d"]
        numbers, ends = np.empty(len(ts), np.int64), np.empty(len(ts), np.int64)
        for begin, stop in _runs(day):
            after = np.cumsum(amount[begin:stop])
            moments = ts[begin:stop]
            first = np.searchsorted(moments, moments)  # of those of one time, the first
            last = np.searchsorted(moments, moments, side="right") - 1
            mine = np.floor(np.where(first > 0, after[first - 1], 0.0) / passing.every).astype(np.int64)
            numbers[begin:stop] = mine
            full = after[last] >= (mine + 1) * passing.every
            ends[begin:stop] = np.where(full, moments, (day[begin] + 1) * UNITS["d"])
        # a day has fewer bars than it has trades; this many more than any, so that numbers of two days differ
        return day * (int(numbers.max(initial=0)) + 1) + numbers, ends

    return _bars(trades, number, lambda ts: ts)


def store_bars(
    store: Store, timeframe: str, now: datetime, instruments: tuple[str, ...] | None, start: datetime | None, end: datetime | None
) -> Changes:
    """Make bars of stored trades and store them, an instrument in a transaction; `[start, end]` are opens of bars, both included."""
    timeframe_micros(timeframe)
    done = Changes()
    for trades in stored_trades(store, instruments, start):
        bars = bars_by_time(trades, timeframe)
        if start is not None:
            bars = bars.filter(pc.greater_equal(bars["ts"], pa.scalar(start, UTC)))
        if end is not None:
            bars = bars.filter(pc.less_equal(bars["ts"], pa.scalar(end, UTC)))
        if len(bars):
            done += store.upsert(BARS_TABLE, bars, now)
    return done


def stored_trades(store: Store, instruments: tuple[str, ...] | None, start: datetime | None) -> Iterator[pa.Table]:
    """The trades of each instrument from the beginning of the UTC day of `start` on. Raises `NotFound` where there are none at all."""
    day = None if start is None else start.astimezone(ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
    every = [pc.unique(some["instrument_id"]) for some in store.read(TRADES_TABLE, Selection(), ("instrument_id",), ordered=False)]
    known = sorted({name for some in every for name in some.to_pylist()})
    if not known:
        raise NotFound("the store has no trades: ingest some first (asof ingest trades FILE)")
    if without := sorted(set(instruments or ()) - set(known)):
        raise NotFound(f"the store has no trades of {', '.join(without)}{did_you_mean(without[0], known)}")
    for name in known if instruments is None else sorted(set(instruments)):
        trades = pa.concat_tables([TRADES.empty_table(), *store.read(TRADES_TABLE, Selection(None, (name,), start=day), ordered=False)])
        yield trades if day is None else trades.filter(pc.greater_equal(trades["ts"], pa.scalar(day, UTC)))


def _bars(trades: pa.Table, number: Number, opens: Callable[[Ints], Ints]) -> pa.Table:
    trades = trades.sort_by([(name, "ascending") for name in TRADES_TABLE.key])
    parts = [BARS.empty_table()]
    names = pc.unique(trades["instrument_id"]).to_pylist()
    parts += [_bars_of(name, trades.filter(pc.equal(trades["instrument_id"], name)), number, opens) for name in names]
    return pa.concat_tables(parts)


def _bars_of(name: str, trades: pa.Table, number: Number, opens: Callable[[Ints], Ints]) -> pa.Table:
    """The bars of one instrument, whose trades are in order."""
    ts, price, size = micros(trades["ts"]), floats(trades["price"]), floats(trades["size"])
    known = micros(pc.coalesce(trades["available_at"], trades["ts"]))
    numbers, ends = number(ts, price, size)
    runs = _runs(numbers)
    first, last = np.array([a for a, _ in runs]), np.array([b for _, b in runs]) - 1
    bar = np.repeat(np.arange(len(runs)), last - first + 1)
    columns = {
        "instrument_id": pa.repeat(pa.scalar(name), len(runs)),
        "timeframe": pa.nulls(len(runs), pa.string()),
        "ts": pa.array(opens(ts[first])).cast(UTC),
        "open": pa.array(price[first]),
        "high": pa.array(np.maximum.reduceat(price, first)),
        "low": pa.array(np.minimum.reduceat(price, first)),
        "close": pa.array(price[last]),
        "volume": pa.array(np.bincount(bar, size)),  # added from the oldest to the newest
        "source": pa.repeat(pa.scalar(SOURCE), len(runs)),
        "available_at": pa.array(np.maximum(ends[last], np.maximum.reduceat(known, first))).cast(UTC),
    }
    return pa.table([columns[column] for column in BARS.names], schema=BARS)


def _runs(values: Ints) -> list[tuple[int, int]]:
    """Where equal values follow one another: the first of each run, and the one behind its last."""
    starts = np.flatnonzero(np.append(True, np.diff(values) != 0)) if len(values) else np.zeros(0, np.int64)
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(values)], strict=True))
