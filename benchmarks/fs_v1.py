"""`fs_v1` over 10M one-minute bars of 1,000 instruments and 2M events, in memory: `asof.compute` beside Polars, DuckDB and pandas.

Every peer's numbers are held to ours, at the size that is measured: 1e-12 relative, or absolute where a number is nearly 0.
"""

from __future__ import annotations

import data
import numpy as np
import pandas as pd
import peers
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from measure import Candidate, Figure, Result, Settings, take_turns

import asof

TARGET = 0.1
TOLERANCE = 1e-12


def run(settings: Settings) -> Result:
    """Measure it."""
    wanted = data.size(10_000_000, 1_000, settings.scale)
    bars, events = data.bars(wanted), data.events(wanted)
    candidates = _candidates(bars, events)
    _compile(wanted, bars, events)
    check = _Check(wanted)
    seconds = take_turns(candidates, settings.repeat, check.see)
    best = min((name for name in seconds if not name.startswith("asof")), key=lambda name: seconds[name])
    share = seconds["asof"] / seconds[best]
    return Result(
        f"fs_v1, {wanted.rows:,} bars + {len(events):,} events",
        [Figure(name, found, wanted.rows) for name, found in seconds.items()],
        f"at most {TARGET:.2f} of the best peer's time",
        f"{share:.2f} of {best}'s time",
        share <= TARGET,
        check.problems,
    )


def _candidates(bars: pa.Table, events: pa.Table) -> dict[str, Candidate]:
    return {
        "asof": Candidate(lambda: asof.compute(asof.fs_v1, bars=bars, events=events, timeframe="1m")),
        "Polars": Candidate(peers.with_polars(bars, events)),
        "DuckDB": Candidate(peers.with_duckdb(bars, events)),
        "pandas": Candidate(peers.with_pandas(bars, events)),
        "asof, 1 thread": Candidate(lambda: asof.compute(asof.fs_v1, bars=bars, events=events, timeframe="1m", threads=1)),
    }


def _compile(wanted: data.Size, bars: pa.Table, events: pa.Table) -> None:
    """One call of everybody on a little of the data: kernels get compiled, thread pools started."""
    first = pc.equal(events["instrument_id"], data.names(0, 1)[0])
    little = bars.slice(0, wanted.bars), events.filter(first)
    for threads in (None, 1):
        asof.compute(asof.fs_v1, *little, timeframe="1m", threads=threads)
    for make in (peers.with_polars, peers.with_duckdb, peers.with_pandas):
        make(*little)()


class _Check:
    """Holds each candidate's first answer to ours."""

    def __init__(self, wanted: data.Size) -> None:
        self.problems: list[str] = []
        self._wanted = wanted
        self._ours: dict[str, np.ndarray] = {}

    def see(self, name: str, answer: asof.Frame | pa.Table | pl.DataFrame | pd.DataFrame) -> None:
        """Take ours, which comes first, or compare another's with it."""
        found = _columns(pa.table(answer) if not isinstance(answer, pd.DataFrame) else pa.Table.from_pandas(answer), self._wanted)
        if name == "asof":
            self._ours = found
            return
        for feature, theirs in found.items():
            wrong = disagreements(self._ours[feature], theirs)
            if wrong:
                self.problems.append(f"{name}: {wrong:,} of {len(theirs):,} values of {feature} are not ours")


def _columns(table: pa.Table, wanted: data.Size) -> dict[str, np.ndarray]:
    """The features by instrument and time, NaN where missing."""
    codes = pc.index_in(table["instrument_id"].cast(pa.string()), data.names(0, wanted.instruments))
    minutes = (np.asarray(table["ts"].cast(data.UTC).cast(pa.int64())) - data.START) // data.MINUTE
    keys = np.asarray(codes).astype(np.int64) * wanted.bars + minutes
    expected = np.arange(len(table))
    order = None if np.array_equal(keys, expected) else np.argsort(keys)
    if order is not None and not np.array_equal(keys[order], expected):
        raise AssertionError("the answer does not have one row for each bar")
    arrays = {name: table[name].to_numpy().astype(np.float64) for name in peers.FEATURES}
    return arrays if order is None else {name: array[order] for name, array in arrays.items()}


def disagreements(ours: np.ndarray, theirs: np.ndarray) -> int:
    """How many values differ by more than the tolerance, or are missing on one side only."""
    missing = np.isnan(ours)
    close = np.abs(ours - theirs) <= TOLERANCE * np.maximum(np.abs(ours), 1.0)
    return int((~np.where(missing, np.isnan(theirs), close)).sum())
