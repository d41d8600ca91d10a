"""Features across instruments over 1,000 days of 2,000 instruments, in memory: `asof.compute` beside Polars and pandas.

A rank, a score, a rank within sectors and what sectors leave, of the returns of five days. The peers' values are held to ours, to 1e-9.
"""

from __future__ import annotations

import data
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from measure import Candidate, Figure, Result, Settings, take_turns

import asof
from asof import FeatureSet, across, bars

TOLERANCE = 1e-9
DAYS, INSTRUMENTS, SECTORS = 1_000, 2_000, 11
DAY = 86_400_000_000

week = bars.close / bars.close.lag(5) - 1
everybody, sector = across(), across(by="sector")
CROSS = FeatureSet(
    "cross",
    {
        "rank": everybody.rank(week),
        "score": everybody.zscore(week),
        "rank_in_sector": sector.rank(week),
        "neutral": sector.demean(week),
    },
)


def run(settings: Settings) -> Result:
    """Measure it."""
    instruments = max(20, round(INSTRUMENTS * settings.scale))
    prices, members = market(instruments)
    check = Check()
    frame, table = prices.to_pandas(), pl.DataFrame(prices)
    candidates = {
        "asof": Candidate(lambda: compute(prices, members)),
        "Polars": Candidate(lambda: with_polars(table)),
        "pandas": Candidate(lambda: with_pandas(frame)),
        "asof, 1 thread": Candidate(lambda: compute(prices, members, threads=1)),
    }
    compute(prices.slice(0, 10 * DAYS), members)
    seconds = take_turns(candidates, settings.repeat, check.see)
    best = min(seconds["Polars"], seconds["pandas"])
    return Result(
        f"across instruments, {instruments:,} of them x {DAYS:,} days",
        [Figure(name, found, len(prices)) for name, found in seconds.items()],
        measured=f"{seconds['asof'] / best:.2f} of the best peer's time",
        problems=check.problems,
    )


def compute(prices: pa.Table, members: pa.Table, threads: int | None = None) -> asof.Frame:
    return asof.compute(CROSS, prices.select(["instrument_id", "ts", "close"]), memberships=members, timeframe="1d", threads=threads)


def market(instruments: int) -> tuple[pa.Table, pa.Table]:
    """Daily closes by instrument and time, each with its sector; and the same as memberships."""
    rng = np.random.default_rng(5)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.015, (instruments, DAYS)), axis=1)).round(6).ravel()
    names, sectors = data.names(0, instruments), pa.array([f"S{k % SECTORS:02d}" for k in range(instruments)])
    each = pa.array(np.repeat(np.arange(instruments), DAYS))
    ts = pa.array(np.tile(data.START + DAY * np.arange(DAYS), instruments)).cast(data.UTC)
    prices = pa.table({"instrument_id": names.take(each), "ts": ts, "close": close, "sector": sectors.take(each)})
    since = pa.repeat(pa.scalar(data.START, pa.int64()), instruments).cast(data.UTC)
    return prices, pa.table({"scheme": pa.repeat("sector", instruments), "instrument_id": names, "ts": since, "value": sectors})


class Check:
    """Holds the peers' first answers to ours."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._ours: dict[str, np.ndarray] = {}

    def see(self, name: str, answer: asof.Frame | pl.DataFrame | pd.DataFrame) -> None:
        """Take ours, which comes first, or compare another's with it; all have one row for each bar, by instrument and time."""
        found = {
            feature: np.asarray(answer.to_pandas()[feature] if not isinstance(answer, pd.DataFrame) else answer[feature], np.float64)
            for feature in CROSS.features
        }
        self._ours = self._ours or found
        for feature, ours in self._ours.items():
            theirs = np.where(np.isnan(ours), np.nan, found[feature])
            wrong = int((~(np.abs(ours - theirs) <= TOLERANCE) & ~np.isnan(ours)).sum())
            if wrong or np.isnan(ours).all():
                self.problems.append(f"{name}: {wrong:,} of {len(ours):,} values of {feature} are not ours")


def with_polars(prices: pl.DataFrame) -> pl.DataFrame:
    """The features by Polars's windows."""
    x = pl.col("x")
    lazy = prices.lazy().with_columns(x=pl.col("close") / pl.col("close").shift(5).over("instrument_id") - 1)
    return lazy.select(
        rank=(x.rank() / x.count()).over("ts"),
        score=((x - x.mean()) / x.std()).over("ts"),
        rank_in_sector=(x.rank() / x.count()).over("ts", "sector"),
        neutral=(x - x.mean()).over("ts", "sector"),
    ).collect()


def with_pandas(prices: pd.DataFrame) -> pd.DataFrame:
    """The features by groups of pandas."""
    frame = prices.assign(x=prices.close / prices.groupby("instrument_id", sort=False).close.shift(5) - 1)
    day, within = frame.groupby("ts").x, frame.groupby(["ts", "sector"]).x
    return pd.DataFrame(
        {
            "rank": day.rank(pct=True),
            "score": (frame.x - day.transform("mean")) / day.transform("std"),
            "rank_in_sector": within.rank(pct=True),
            "neutral": frame.x - within.transform("mean"),
        }
    )
