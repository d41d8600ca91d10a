"""Made-up markets for the laws: bars with missing prices and odd gaps, events that tie, sit on window edges and name several tickers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from numpy.typing import NDArray

from asof.calendars import Calendars
from asof.engine.panel import Panel
from asof.engine.plan import Plan
from asof.jobs.adjusting import NO_ACTIONS
from asof.jobs.panels import merge_enrichments, panel_of, sort_bars
from asof.jobs.points import sort_events
from asof.records import BARS, EVENTS, PRICES
from asof.timeframes import duration
from tests.operator_cases import WINDOWS

TIMEFRAME = "5m"
STEP = duration(TIMEFRAME)
START = 1_600_000_200_000_000
UNKNOWN = 99
"""An instrument that events name and that has no bars."""

Columns = dict[str, NDArray[np.generic]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Market:
    """Bars and events as columns of equal length, in any order. An event that names two instruments is two rows."""

    bars: Columns
    events: Columns

    def keep(self, bars: Mask | None = None, events: Mask | None = None) -> Market:
        """The rows where the masks are true."""
        return Market(
            self.bars if bars is None else {name: values[bars] for name, values in self.bars.items()},
            self.events if events is None else {name: values[events] for name, values in self.events.items()},
        )

    def join(self, other: Market) -> Market:
        """The rows of both."""
        return Market(
            {name: np.concatenate((values, other.bars[name])) for name, values in self.bars.items()},
            {name: np.concatenate((values, other.events[name])) for name, values in self.events.items()},
        )

    def shuffle(self, seed: int) -> Market:
        """The same rows in another order."""
        rng = np.random.default_rng(seed)
        bars, events = rng.permutation(len(self.bars["ts"])), rng.permutation(len(self.events["known"]))
        return Market({n: v[bars] for n, v in self.bars.items()}, {n: v[events] for n, v in self.events.items()})

    def with_bars(self, **columns: NDArray[np.generic]) -> Market:
        """The market with other columns of bars."""
        return replace(self, bars=self.bars | columns)

    def with_events(self, **columns: NDArray[np.generic]) -> Market:
        """The market with other columns of events."""
        return replace(self, events=self.events | columns)

    def rows_of(self, instrument: int) -> NDArray[np.int64]:
        """The positions of an instrument's bars, in the order of time."""
        rows = np.flatnonzero(self.bars["instrument"] == instrument)
        return rows[np.argsort(self.bars["ts"][rows])]

    @property
    def instruments(self) -> list[int]:
        """The instruments that have bars."""
        return np.unique(self.bars["instrument"]).tolist()

    def panel(self, plan: Plan, actions: pa.Table = NO_ACTIONS) -> Panel:
        """The panel that a job would lay out from these rows, and these splits and dividends."""
        rows, count = self.bars, len(self.bars["ts"])
        numbers = {name: pa.array(rows[name], from_pandas=True) for name in (*PRICES, "volume")}
        bars = {"instrument_id": _names(rows["instrument"]), "timeframe": pa.repeat(TIMEFRAME, count), "ts": rows["ts"], **numbers}
        bars |= {name: pa.nulls(count, BARS.field(name).type) for name in ("source", "available_at")}
        seen = self.events
        events = {
            "instrument_id": _names(seen["instrument"]),
            "event_id": pa.array(np.char.add("event ", seen["id"].astype("U9")), pa.string()),
            "enriched_at_utc": seen["known"],
            "event_time_utc": seen["happened"],
            "score": pa.array(seen["score"], from_pandas=True),
            "confidence": pa.array(seen["confidence"], from_pandas=True),
            "scored_at_utc": seen["known"],
        }
        table = pa.table([bars[name] for name in BARS.names], schema=BARS)
        scored = merge_enrichments(pa.table([events[name] for name in EVENTS.names], schema=EVENTS))
        return panel_of(plan, TIMEFRAME, sort_bars(table), sort_events(scored), Calendars({"*": "24/7"}), actions)


def _names(codes: NDArray[np.generic]) -> pa.Array:
    return pa.array([f"I{code:02d}" for code in codes], pa.string())


def made_up(seed: int, bar_counts: list[int], event_count: int, missing: float, first_id: int = 0) -> Market:
    """A market of the given size: `missing` is the share of absent prices and scores."""
    rng = np.random.default_rng(seed)
    bars = [_bars_of(rng, instrument, count, missing) for instrument, count in enumerate(bar_counts)]
    merged = {name: np.concatenate([b[name] for b in bars]) for name in bars[0]}
    return Market(merged, _events(rng, merged["ts"], len(bar_counts), event_count, missing, first_id))


def _bars_of(rng: np.random.Generator, instrument: int, count: int, missing: float) -> Columns:
    steps = rng.choice([1, 1, 1, 1, 2, 3, 40], count)
    ts = START + (np.cumsum(steps) + rng.integers(0, 12)) * STEP
    ts += np.where(rng.random(count) < 0.1, 30_000_000, 0)  # off the timeframe's grid
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, count) * (rng.random(count) < 0.7)))  # some closes repeat
    columns: Columns = {"instrument": np.full(count, instrument), "ts": ts, "close": close}
    columns["open"] = np.round(close * (1 + rng.normal(0, 0.01, count)), 2)
    columns["high"], columns["low"] = np.maximum(close, columns["open"]) * 1.01, np.minimum(close, columns["open"]) * 0.99
    columns["volume"] = rng.integers(0, 5, count) * 100.0  # a volume of zero makes divisions fail
    for name in (*PRICES, "volume"):
        columns[name] = np.where(rng.random(count) < missing, np.nan, columns[name])
    return columns


def _events(rng: np.random.Generator, ts: NDArray[np.generic], instruments: int, count: int, missing: float, first_id: int) -> Columns:
    span = int(ts.max()) - START if len(ts) else 100 * STEP
    known = START + rng.integers(0, span + STEP, count)
    if len(ts):
        edges = rng.choice([0, 1, -1, *(-duration(w) for w in WINDOWS), *(-duration(w) - 1 for w in WINDOWS)], count)
        known = np.where(rng.random(count) < 0.7, rng.choice(ts, count) + edges, known)
    tied = (rng.random(count) < 0.2) & (np.arange(count) > 0)
    known = np.where(tied, np.roll(known, 1), known)
    score = np.where(rng.random(count) < missing / 4, np.nan, np.round(rng.uniform(-1, 1, count), 1))
    confidence = np.where(rng.random(count) < missing / 4, np.nan, np.round(rng.uniform(0, 1, count), 1))
    happened = known + rng.choice([-60_000_000, 0, 5_000_000], count, p=[0.7, 0.2, 0.1])
    ids = first_id + rng.permutation(count)
    tickers = [
        rng.choice([*range(instruments), UNKNOWN], rng.integers(1, min(3, instruments + 1) + 1), replace=False) for _ in range(count)
    ]
    parent = np.repeat(np.arange(count), [len(t) for t in tickers])
    columns: Columns = {"id": ids, "known": known, "happened": happened, "score": score, "confidence": confidence}
    exploded = {name: values[parent] for name, values in columns.items()}
    return exploded | {"instrument": np.concatenate([np.zeros(0, np.int64), *tickers])}


SEEDS = st.integers(0, 2**32 - 1)


def markets(first_id: int = 0, least: int = 30) -> st.SearchStrategy[Market]:
    """Markets of one to four instruments, the first with at least `least` bars."""
    counts = st.builds(lambda one, more: [one, *more], st.integers(least, 60), st.lists(st.integers(0, 60), max_size=3))
    return st.builds(made_up, SEEDS, counts, st.integers(0, 60), st.sampled_from([0.0, 0.03, 0.4]), st.just(first_id))
