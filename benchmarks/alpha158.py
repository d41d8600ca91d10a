"""`alpha158` over 3,390 daily bars of 800 instruments, in memory: `asof.compute` beside Polars.

Polars has functions for 123 of the 158 factors (none for straight lines, ranks and places of extremes), and computes those. Its numbers are
held to ours, to 1e-6, since its rolling sums slide.

KunQuant and pyqlib are run once each where there are some (`quant_peers.py`): over the same bars, each in its own form, and with its own
definitions, so their numbers are not compared here (`docs/reference/accuracy.md` does that for Qlib's).
"""

from __future__ import annotations

import data
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import quant_peers
from measure import Candidate, Figure, Result, Settings, take_turns

import asof
from asof.features.library import SHIPPED
from asof.features.library.alpha import TINY, WINDOWS

TARGET = 4.0
TOLERANCE = 1e-6
BARS, INSTRUMENTS = 3_390, 800
DAY = 86_400_000_000


def run(settings: Settings) -> Result:
    """Measure it."""
    instruments = max(2, round(INSTRUMENTS * settings.scale))
    bars = prices(instruments)
    check = Check()
    candidates = {
        "asof": Candidate(lambda: compute(bars)),
        "Polars, 123 of the factors": Candidate(lambda: with_polars(pl.DataFrame(bars))),
        "asof, 1 thread": Candidate(lambda: compute(bars, threads=1)),
    }
    compute(bars.slice(0, BARS))
    with_polars(pl.DataFrame(bars.slice(0, BARS)))
    seconds = take_turns(candidates, settings.repeat, check.see)
    seconds |= quant_peers.seconds({"KunQuant": "kunquant", "KunQuant, 1 thread": "kunquant-1", "pyqlib": "qlib"}, bars, settings.folder)
    limit = TARGET * instruments / INSTRUMENTS
    return Result(
        f"alpha158, {instruments} instruments x {BARS:,} days",
        [Figure(name, found, len(bars)) for name, found in seconds.items()],
        f"at most {limit:.2f} s",
        f"{seconds['asof']:.2f} s",
        seconds["asof"] <= limit,
        check.problems,
    )


def compute(bars: pa.Table, threads: int | None = None) -> asof.Frame:
    return asof.compute(SHIPPED["alpha158"], bars=bars, timeframe="1d", threads=threads)


def prices(instruments: int) -> pa.Table:
    """Daily bars in float64, by instrument and time; nothing is missing."""
    rng = np.random.default_rng(3)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.015, (instruments, BARS)), axis=1)).ravel()
    opened = close * np.exp(rng.normal(0.0, 0.005, len(close)))
    above, below = (np.exp(np.abs(rng.normal(0.0, 0.005, len(close)))) for _ in range(2))
    return pa.table(
        {
            "instrument_id": data.names(0, instruments).take(pa.array(np.repeat(np.arange(instruments), BARS))),
            "ts": pa.array(np.tile(data.START + DAY * np.arange(BARS), instruments)).cast(data.UTC),
            "open": opened,
            "high": np.maximum(opened, close) * above,
            "low": np.minimum(opened, close) / below,
            "close": close,
            "volume": np.exp(rng.normal(13.0, 1.0, len(close))).round(),
        }
    )


class Check:
    """Holds the factors of the first answer of Polars to ours."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._ours: pa.Table | None = None

    def see(self, name: str, answer: asof.Frame | pl.DataFrame) -> None:
        """Take ours, which comes first, or compare another's with it; both have one row for each bar, by instrument and time."""
        if isinstance(answer, asof.Frame):
            self._ours = self._ours or pa.table(answer)
            return
        assert self._ours is not None
        for factor in answer.columns:
            ours, theirs = (pc.fill_null(column, np.nan).to_numpy() for column in (self._ours[factor], answer[factor].to_arrow()))
            whole = ~np.isnan(ours)
            wrong = int((~(np.abs(ours - theirs)[whole] <= TOLERANCE * np.maximum(np.abs(ours[whole]), 1.0))).sum())
            if wrong or not whole.any():
                self.problems.append(f"{name}: {wrong:,} of {len(ours):,} values of {factor} are not ours")


def with_polars(bars: pl.DataFrame) -> pl.DataFrame:
    """The factors that Polars has functions for."""
    o, h, lo, c, v = (pl.col(name) for name in ("open", "high", "low", "close", "volume"))
    moves = {"change": c.diff(), "volume_change": v.diff(), "ratio": c / c.shift(1), "log_ratio": (v / v.shift(1) + 1).log()}
    steps = [
        {name: move.over("instrument_id") for name, move in moves.items()},
        {
            "log_volume": (v + 1).log(),
            "turmoil": (pl.col("ratio") - 1).abs() * v,
            "up": (pl.col("change") > 0).cast(pl.Float64),
            "down": (pl.col("change") < 0).cast(pl.Float64),
            "top": pl.max_horizontal(o, c),
            "bottom": pl.min_horizontal(o, c),
        },
    ]
    spread = h - lo + TINY
    of_bars = {
        "KMID": (c - o) / o,
        "KLEN": (h - lo) / o,
        "KMID2": (c - o) / spread,
        "KUP": (h - pl.col("top")) / o,
        "KUP2": (h - pl.col("top")) / spread,
        "KLOW": (pl.col("bottom") - lo) / o,
        "KLOW2": (pl.col("bottom") - lo) / spread,
        "KSFT": (2 * c - h - lo) / o,
        "KSFT2": (2 * c - h - lo) / spread,
        "OPEN0": o / c,
        "HIGH0": h / c,
        "LOW0": lo / c,
        "VWAP0": (h + lo + c) / 3 / c,
    }
    rolling = {f"{name}{n}": factor.over("instrument_id") for n in WINDOWS for name, factor in rolling_factors(n).items()}
    lazy = bars.lazy()
    for columns in steps:
        lazy = lazy.with_columns(**columns)
    return lazy.select(**of_bars, **rolling).collect()


def rolling_factors(n: int) -> dict[str, pl.Expr]:
    h, lo, c, v = (pl.col(name) for name in ("high", "low", "close", "volume"))
    move, volume_move, turmoil = pl.col("change"), pl.col("volume_change"), pl.col("turmoil")
    rises, falls, moved = (x.rolling_sum(n) for x in (move.clip(lower_bound=0), (-move).clip(lower_bound=0), move.abs()))
    more, less, changed = (
        x.rolling_sum(n) for x in (volume_move.clip(lower_bound=0), (-volume_move).clip(lower_bound=0), volume_move.abs())
    )
    up, down = pl.col("up").rolling_mean(n), pl.col("down").rolling_mean(n)
    low, high = lo.rolling_min(n), h.rolling_max(n)
    return {
        "ROC": c.shift(n) / c,
        "MA": c.rolling_mean(n) / c,
        "STD": c.rolling_std(n) / c,
        "MAX": high / c,
        "MIN": low / c,
        "QTLU": c.rolling_quantile(0.8, "linear", n) / c,
        "QTLD": c.rolling_quantile(0.2, "linear", n) / c,
        "RSV": (c - low) / (high - low + TINY),
        "CORR": pl.rolling_corr(c, pl.col("log_volume"), window_size=n),
        "CORD": pl.rolling_corr(pl.col("ratio"), pl.col("log_ratio"), window_size=n),
        "CNTP": up,
        "CNTN": down,
        "CNTD": up - down,
        "SUMP": rises / (moved + TINY),
        "SUMN": falls / (moved + TINY),
        "SUMD": (rises - falls) / (moved + TINY),
        "VMA": v.rolling_mean(n) / (v + TINY),
        "VSTD": v.rolling_std(n) / (v + TINY),
        "WVMA": turmoil.rolling_std(n) / (turmoil.rolling_mean(n) + TINY),
        "VSUMP": more / (changed + TINY),
        "VSUMN": less / (changed + TINY),
        "VSUMD": (more - less) / (changed + TINY),
    }
