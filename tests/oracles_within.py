"""The operators within a bar, and those over the bars of a higher timeframe, beside NumPy and pandas, on real prices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from asof import FeatureSet, compute
from asof.features.expression import Expr, bars, where
from asof.operators import Shape
from tests.oracles import EXACT, FINITE, Floats, Oracle, Table

A, B, V = bars.close, bars.open, bars.volume
ROSE, BUSY = A.lag(1) < A, V.lag(1) < V
"""Conditions that are missing on the first bar."""
ULPS = 5e-16
"""A little more than two units in the last place, as parts of a value."""


def of(function: Callable[..., np.ndarray], *columns: str) -> Callable[[Table], Floats]:
    return lambda t: function(*(t[c] for c in columns))


def before(x: Floats) -> Floats:
    return np.concatenate([[np.nan], x[:-1]])


def up(t: Table, name: str) -> Floats:
    """1 where a column rose, 0 where it did not, NaN where nothing tells."""
    return np.where(np.isnan(before(t[name])), np.nan, t[name] > before(t[name]))


def sql(t: Table, decided: float) -> Floats:
    """AND (decided by 0) and OR (by 1) of SQL over whether the close and the volume rose."""
    a, b = up(t, "close"), up(t, "volume")
    rest = np.where(np.isnan(a) | np.isnan(b), np.nan, 1 - decided)
    return np.where((a == decided) | (b == decided), decided, rest)


TWO = ("close", "open")
WITHIN: dict[str, Oracle] = {
    "add/2": Oracle(A + B, "NumPy", of(np.add, *TWO), EXACT),
    "subtract/2": Oracle(A - B, "NumPy", of(np.subtract, *TWO), EXACT),
    "multiply/2": Oracle(A * V, "NumPy", of(np.multiply, "close", "volume"), EXACT),
    "divide/2": Oracle(A / B, "NumPy", of(np.divide, *TWO), EXACT),
    "negate/1": Oracle(-A, "NumPy", of(np.negative, "close"), EXACT),
    "less/2": Oracle(A < B, "NumPy", of(np.less, *TWO), EXACT),
    "less_equal/2": Oracle(A <= B, "NumPy", of(np.less_equal, *TWO), EXACT),
    "greater/2": Oracle(A > B, "NumPy", of(np.greater, *TWO), EXACT),
    "greater_equal/2": Oracle(A >= B, "NumPy", of(np.greater_equal, *TWO), EXACT),
    "equal/2": Oracle(A == B, "NumPy", of(np.equal, *TWO), EXACT),
    "not_equal/2": Oracle(A != B, "NumPy", of(np.not_equal, *TWO), EXACT),
    "abs/1": Oracle((A - B).abs(), "NumPy", lambda t: np.abs(t["close"] - t["open"]), EXACT),
    "sign/1": Oracle((A - B).sign(), "NumPy", lambda t: np.sign(t["close"] - t["open"]), EXACT),
    "sqrt/1": Oracle(A.sqrt(), "NumPy", of(np.sqrt, "close"), EXACT),
    "exp/1": Oracle((A / B).exp(), "NumPy, long doubles", lambda t: np.exp((t["close"] / t["open"]).astype(np.longdouble)), ULPS),
    "log/1": Oracle(A.log(), "NumPy, long doubles", lambda t: np.log(t["close"].astype(np.longdouble)), ULPS),
    "maximum/2": Oracle(A.maximum(B), "NumPy", of(np.maximum, *TWO), EXACT),
    "minimum/2": Oracle(A.minimum(B), "NumPy", of(np.minimum, *TWO), EXACT),
    "clip/1": Oracle((A / B).clip(0.999, 1.001), "NumPy", lambda t: np.clip(t["close"] / t["open"], 0.999, 1.001), EXACT),
    "and/2": Oracle(ROSE & BUSY, "NumPy", lambda t: sql(t, 0.0), EXACT),
    "or/2": Oracle(ROSE | BUSY, "NumPy", lambda t: sql(t, 1.0), EXACT),
    "not/1": Oracle(~ROSE, "NumPy", lambda t: 1 - up(t, "close"), EXACT),
    "where/3": Oracle(
        where(ROSE, A, -B),
        "NumPy",
        lambda t: np.where(np.isnan(up(t, "close")), np.nan, np.where(up(t, "close"), t["close"], -t["open"])),
        EXACT,
    ),
    "when/2": Oracle(A.when(ROSE), "NumPy", lambda t: np.where(up(t, "close") == 1, t["close"], np.nan), EXACT, gaps=True),
    "is_missing/1": Oracle(A.when(ROSE).is_missing(), "NumPy", lambda t: up(t, "close") != 1, EXACT),
}
"""The operators within a bar by their keys."""

HOURS = bars.every("1h")
HIGHER: dict[str, Expr] = {"latest/1": HOURS.close.mean(3).latest(), "age/1": HOURS.close.age()}
"""The operators over higher timeframes by their keys: the mean of three hours as known at a minute's close, and how old the newest was."""


def higher_differences(folder: Path) -> Iterator[tuple[str, float, float, int]]:
    """Of each operator over higher bars: its largest difference from pandas, how large it may be, and of how many values."""
    minutes = pd.read_parquet(folder / "bars_1m" / "binance_btcusdt_1m.parquet")[:20_000]
    minutes = minutes.rename(columns={"ts_open_utc": "ts"}).assign(instrument_id="BTCUSDT")
    made = compute(FeatureSet("higher", {f"x{k}": x for k, x in enumerate(HIGHER.values())}), minutes, timeframe="1m").to_pandas()
    hours = minutes.set_index("ts").close.resample("1h", label="right").last().dropna()
    hours.index = hours.index.as_unit("us")
    means = pd.concat([hours.shift(2), hours.shift(1), hours], axis=1).sum(axis=1, skipna=False) / 3
    closes = pd.DataFrame({"close_time": made.ts + pd.Timedelta("1min")})
    seen = pd.merge_asof(closes, pd.DataFrame({"mean": means, "hour": means.index}), left_on="close_time", right_index=True)
    theirs = [seen["mean"], (seen.close_time - seen.hour) / pd.Timedelta("1us")]
    for k, (name, wanted) in enumerate(zip(HIGHER, theirs, strict=True)):
        ours = made[f"x{k}"].to_numpy(np.float64)
        assert (np.isnan(ours) == wanted.isna().to_numpy()).all(), f"{name}: not missing where pandas is"
        there = np.isfinite(ours)
        yield name, float((np.abs(ours - wanted)[there] / np.maximum(wanted[there], 1)).max()), FINITE, int(there.sum())


WITHIN_SHAPES = (Shape.ROW, Shape.LOGIC)
