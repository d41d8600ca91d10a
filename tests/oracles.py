"""What others compute of real prices, beside the expressions that should give the same: TA-Lib, pandas, and NumPy in long doubles.

One visible table for each kind; what is found goes into `tests/accuracy.py`, whose rows the tests hold to their bounds. A difference is
told in parts of the oracle's value, or of another unit where digits cancel by the definition itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import talib
from numpy.typing import NDArray
from pandas.api.typing import SeriesGroupBy

from asof import FeatureSet, across, compute
from asof.engine.trial import tried
from asof.features.expression import Expr, bars
from asof.features.library import SHIPPED
from asof.features.library import technical as ta
from asof.features.library.alpha import BAR_FACTORS, ROLLING_FACTORS, TINY, WINDOWS

Floats = NDArray[np.float64]
Table = Mapping[str, Floats]

EXACT, FINITE, SETTLED = 0.0, 1e-12, 1e-9
"""The bounds: the same bits; the same finite sums in another order; a recursion that has forgotten where it began."""

OHLCV = ("open", "high", "low", "close", "volume")
BTC_BARS = 20_000


@dataclass(frozen=True)
class Oracle:
    """An expression, who else computes it and how, what differences are parts of, and how large they may be.

    `unit` is a number, a column, or None for the oracle's own value. `judged` tells where the oracle's value means something; `gaps` that
    values may be missing behind the warm-up.
    """

    expression: Expr
    source: str
    function: Callable[[Table], Floats]
    bound: float = FINITE
    unit: float | str | None = None
    judged: Callable[[Table], NDArray[np.bool_]] | None = None
    gaps: bool = False

    def compared(self, table: Table) -> tuple[Floats, Floats]:
        """Our values and the oracle's, where both have one that means something. A gap of ours beyond the lookback fails."""
        with np.errstate(all="ignore"):
            ours, theirs = self.ours(table), np.asarray(self.function(table), np.float64)
        missing = np.flatnonzero(np.isnan(ours))
        assert self.gaps or missing.tolist() == list(range(len(missing))), "missing behind the warm-up"
        assert self.gaps or len(missing) < self.expression.lookback, "missing for longer than the lookback"
        both = np.isfinite(ours) & np.isfinite(theirs)
        if self.judged is not None:
            both &= self.judged(table)
        return ours[both], theirs[both]

    def ours(self, table: Table) -> Floats:
        """The expression's values: NaN where missing, infinity for an error."""
        return np.array([np.nan if v is None else v for v in tried(self.expression, **table)])

    def difference(self, table: Table) -> tuple[float, int]:
        """The largest difference in this oracle's unit, and of how many values."""
        ours, theirs = self.compared(table)
        apart = np.abs(ours - theirs)
        match self.unit:
            case None:
                apart = np.where(apart == 0, 0, apart / np.where(theirs == 0, np.inf, np.abs(theirs)) + (theirs == 0) * apart)
            case str():
                apart = apart / np.abs(table[self.unit]).max()
            case number:
                apart = apart / number
        return float(apart.max(initial=0.0)), len(apart)


def series(folder: Path) -> Iterator[tuple[str, Table]]:
    """Real bars long enough for what has to settle: two stocks over years of days, and two weeks of minutes, quiet ones among them."""
    daily = pd.read_parquet(folder / "daily" / "bokeh_wiki_stocks_raw.parquet")
    for ticker in ("GOOG", "MSFT"):
        yield ticker, table_of(daily[daily.ticker == ticker])
    yield "BTCUSDT", table_of(pd.read_parquet(folder / "bars_1m" / "binance_btcusdt_1m.parquet")[:BTC_BARS])


def table_of(frame: pd.DataFrame) -> Table:
    return {name: frame[name].to_numpy(np.float64) for name in OHLCV}


def windows(x: Floats, n: int) -> NDArray[np.longdouble]:
    return np.lib.stride_tricks.sliding_window_view(x.astype(np.longdouble), n)


def rolled(function: Callable[..., NDArray[np.longdouble]], n: int, *columns: str) -> Callable[[Table], Floats]:
    """A function of whole windows (rows) of some columns, missing for the first `n - 1` bars."""
    return lambda t: np.concatenate([np.full(n - 1, np.nan), function(*(windows(t[c], n) for c in columns)).astype(np.float64)])


def from_the_start(function: Callable[..., NDArray[np.longdouble]]) -> Callable[[Table], Floats]:
    """A function of the last 20 closes or as many as there are, missing for fewer than 3."""

    def call(t: Table) -> Floats:
        found = function(windows(np.concatenate([np.full(17, np.nan), t["close"]]), 20), axis=1, ddof=1)
        return np.concatenate([np.full(2, np.nan), found.astype(np.float64)])

    return call


def apart(w: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    return w - w.mean(axis=1, keepdims=True)


def moment(w: NDArray[np.longdouble], power: int) -> NDArray[np.longdouble]:
    return (apart(w) ** power).mean(axis=1)


def skew(w: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    n = w.shape[1]
    return np.sqrt(np.longdouble(n * (n - 1))) / (n - 2) * moment(w, 3) / moment(w, 2) ** np.longdouble(1.5)


def kurt(w: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    n = w.shape[1]
    return np.longdouble(n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (moment(w, 4) / moment(w, 2) ** 2 - 3) + 6)


def corr(v: NDArray[np.longdouble], w: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    return (apart(v) * apart(w)).mean(axis=1) / np.sqrt(moment(v, 2) * moment(w, 2))


def ages(w: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    return np.arange(w.shape[1], dtype=np.longdouble) - (w.shape[1] - 1) / 2


def slope(w: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    return (apart(w) * ages(w)).sum(axis=1) / (ages(w) ** 2).sum()


def left_over(w: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    return apart(w) - slope(w)[:, None] * ages(w)


def faded(w: NDArray[np.longdouble], alpha: float) -> NDArray[np.longdouble]:
    weights = (1 - np.longdouble(alpha)) ** np.arange(w.shape[1] - 1, -1, -1)
    return (w * weights).sum(axis=1) / weights.sum()


def pandas_of(function: Callable[[pd.Series], pd.Series]) -> Callable[[Table], Floats]:
    return lambda t: function(pd.Series(t["close"])).to_numpy(np.float64)


def gained(t: Table) -> Floats:
    """From the oldest of 30 closes on, a seventh more or less of the way to the next: 0.15 where it rose, 0.05 where it did not."""
    share = np.where(np.diff(t["close"], prepend=np.nan) > 0, np.longdouble("0.1"), 0) + np.longdouble("0.05")
    values, shares = windows(t["close"], 30), np.lib.stride_tricks.sliding_window_view(share, 30)
    answer = values[:, 0].copy()
    for k in range(1, 30):
        answer += shares[:, k] * (values[:, k] - answer)
    answer[0] = np.nan  # whether the first close rose is not known
    return np.concatenate([np.full(29, np.nan), answer.astype(np.float64)])


def rose_since(t: Table) -> Floats:
    rose = np.diff(t["close"], prepend=np.nan) > 0
    last = pd.Series(np.where(rose, np.arange(len(rose)), np.nan)).ffill().to_numpy()
    since = np.arange(len(rose)) - last
    return np.where(since < 30, since, np.nan)


def pairs_from_the_start(t: Table, other: str, *, share: bool) -> Floats:
    """The covariance, or as a share the correlation, of the last 20 closes or as many as there are with another column; missing below 3."""
    v, w = (windows(np.concatenate([np.full(17, np.nan), t[name]]), 20) for name in ("close", other))
    v, w = (x - np.nanmean(x, axis=1, keepdims=True) for x in (v, w))
    both = np.nansum(v * w, axis=1)
    found = both / np.sqrt(np.nansum(v * v, axis=1) * np.nansum(w * w, axis=1)) if share else both / (np.isfinite(v).sum(axis=1) - 1)
    return np.concatenate([np.full(2, np.nan), found.astype(np.float64)])


def volume_of_the_run(t: Table) -> Floats:
    """The volume since the close last began to rise, or stopped to."""
    rises = pd.Series(np.where(np.arange(len(t["close"])) > 0, np.diff(t["close"], prepend=np.nan) > 0, np.nan))
    runs = (rises != rises.shift()).cumsum()
    return np.where(rises.isna(), np.nan, pd.Series(t["volume"]).groupby(runs).cumsum())


def drift_free(o: Floats, h: Floats, lo: Floats, c: Floats) -> Floats:
    """Rogers and Satchell's variance."""
    return (np.log(h / c) * np.log(h / o) + np.log(lo / c) * np.log(lo / o)).mean(axis=1)


def with_jumps(o: Floats, h: Floats, lo: Floats, c: Floats) -> Floats:
    """Yang and Zhang's variance, from windows of one bar more."""
    n = o.shape[1] - 1
    weight = np.longdouble(34) / 100 / (np.longdouble(134) / 100 + np.longdouble(n + 1) / (n - 1))
    jump, move = np.log(o[:, 1:] / c[:, :-1]), np.log(c[:, 1:] / o[:, 1:])
    inside = drift_free(*(w[:, 1:] for w in (o, h, lo, c)))
    return jump.var(axis=1, ddof=1) + weight * move.var(axis=1, ddof=1) + (1 - weight) * inside


X, Y = bars.close, bars.volume
EWM, ROSE = X.ewm(span=20), X.lag(1) < X
LONG, PANDAS = "NumPy, long doubles", "pandas"

OPERATORS: dict[str, Oracle] = {
    "lag": Oracle(X.lag(5), PANDAS, pandas_of(lambda s: s.shift(5)), EXACT),
    "count": Oracle(X.count(20), PANDAS, pandas_of(lambda s: s.rolling(20, min_periods=1).count()), EXACT),
    "sum": Oracle(X.sum(20), LONG, rolled(lambda w: w.sum(axis=1), 20, "close")),
    "mean": Oracle(X.mean(20), LONG, rolled(lambda w: w.mean(axis=1), 20, "close")),
    "var": Oracle(X.var(20), LONG, rolled(lambda w: w.var(axis=1, ddof=1), 20, "close")),
    "std": Oracle(X.std(20), LONG, rolled(lambda w: w.std(axis=1, ddof=1), 20, "close"), unit="close"),
    "min": Oracle(X.min(20), PANDAS, pandas_of(lambda s: s.rolling(20).min()), EXACT),
    "max": Oracle(X.max(20), PANDAS, pandas_of(lambda s: s.rolling(20).max()), EXACT),
    "bars_since": Oracle(ROSE.bars_since(30), PANDAS, rose_since, EXACT, gaps=True),
    "cumulative": Oracle(Y.cumulative(ROSE, 500), PANDAS, volume_of_the_run),
    "median": Oracle(X.median(20), PANDAS, pandas_of(lambda s: s.rolling(20).median()), EXACT),
    "quantile": Oracle(X.quantile(20, 0.8), LONG, rolled(lambda w: np.quantile(w, 0.8, axis=1), 20, "close")),
    "rank": Oracle(X.rank(20), PANDAS, pandas_of(lambda s: s.rolling(20).rank(pct=True)), EXACT),
    "argmax": Oracle(X.argmax(20), "NumPy", rolled(lambda w: w.argmax(axis=1), 20, "close"), EXACT),
    "argmin": Oracle(X.argmin(20), "NumPy", rolled(lambda w: w.argmin(axis=1), 20, "close"), EXACT),
    "mad": Oracle(X.mad(20), LONG, rolled(lambda w: np.abs(apart(w)).mean(axis=1), 20, "close")),
    "skew": Oracle(X.skew(20), LONG, rolled(skew, 20, "close"), unit=1.0),
    "kurt": Oracle(X.kurt(20), LONG, rolled(kurt, 20, "close"), unit=1.0),
    "cov": Oracle(
        X.cov(bars.open, 20), LONG, rolled(lambda v, w: (apart(v) * apart(w)).sum(axis=1) / 19, 20, "close", "open"), unit="close"
    ),
    "corr": Oracle(X.corr(Y, 20), LONG, rolled(corr, 20, "close", "volume"), unit=1.0),
    "wma": Oracle(X.wma(20), LONG, rolled(lambda w: (w * np.arange(1, 21)).sum(axis=1) / 210, 20, "close")),
    "ewm": Oracle(EWM, LONG, rolled(lambda w: faded(w, EWM.params[1]), EWM.lookback, "close")),
    "ewm, gain": Oracle(X.ewm(ROSE * 0.1 + 0.05, reach=30), LONG, gained),
    "slope": Oracle(X.slope(20), LONG, rolled(slope, 20, "close"), unit="close"),
    "resid": Oracle(X.resid(20), LONG, rolled(lambda w: left_over(w)[:, -1], 20, "close"), unit="close"),
    "rsquare": Oracle(X.rsquare(20), LONG, rolled(lambda w: 1 - (left_over(w) ** 2).mean(axis=1) / moment(w, 2), 20, "close"), unit=1.0),
    "sum, min_count": Oracle(X.sum(20, min_count=3), PANDAS, pandas_of(lambda s: s.rolling(20, min_periods=3).sum())),
    "mean, min_count": Oracle(X.mean(20, min_count=3), PANDAS, pandas_of(lambda s: s.rolling(20, min_periods=3).mean())),
    "var, min_count": Oracle(X.var(20, min_count=3), LONG, from_the_start(np.nanvar), unit="close"),
    "std, min_count": Oracle(X.std(20, min_count=3), LONG, from_the_start(np.nanstd), unit="close"),
    "min, min_count": Oracle(X.min(20, min_count=3), PANDAS, pandas_of(lambda s: s.rolling(20, min_periods=3).min()), EXACT),
    "max, min_count": Oracle(X.max(20, min_count=3), PANDAS, pandas_of(lambda s: s.rolling(20, min_periods=3).max()), EXACT),
    "cov, min_count": Oracle(X.cov(bars.open, 20, min_count=3), LONG, lambda t: pairs_from_the_start(t, "open", share=False), unit="close"),
    "corr, min_count": Oracle(X.corr(Y, 20, min_count=3), LONG, lambda t: pairs_from_the_start(t, "volume", share=True), unit=1.0),
    "median, min_count": Oracle(X.median(20, min_count=3), PANDAS, pandas_of(lambda s: s.rolling(20, min_periods=3).median()), EXACT),
    "quantile, min_count": Oracle(
        X.quantile(20, 0.8, min_count=3), PANDAS, pandas_of(lambda s: s.rolling(20, min_periods=3).quantile(0.8))
    ),
    "ewm, min_count": Oracle(X.ewm(span=20, min_count=1), PANDAS, pandas_of(lambda s: s.ewm(span=20, adjust=True).mean())),
}
"""The operators over bars that are not arithmetic."""


def of_talib(name: str, *columns: str, output: int | None = None, **params: float) -> Callable[[Table], Floats]:
    def call(t: Table) -> Floats:
        answer = getattr(talib, name)(*(t[c] for c in columns), **params)
        return answer if output is None else answer[output]

    return call


def obv_change(t: Table) -> Floats:
    total = talib.OBV(t["close"], t["volume"])
    return total - pd.Series(total).shift(20).to_numpy()


def no_false_moves(t: Table) -> NDArray[np.bool_]:
    """Bars without a typical price in their window that differs from the one before by rounding alone: TA-Lib calls it the same."""
    price = (t["high"] + t["low"] + t["close"]) / 3
    move = np.abs(np.diff(price, prepend=price[:1]))
    false = (move > 0) & (move < 1e-12 * price)
    return pd.Series(false).rolling(14, min_periods=1).max().to_numpy() == 0


def strength_moves(t: Table) -> NDArray[np.bool_]:
    """Bars whose relative strength did move: where it stands still, its place in its range is what rounding makes of it."""
    strength = pd.Series(talib.RSI(t["close"], 14))
    quiet = strength.rolling(5).max() - strength.rolling(5).min() < 1e-6
    return quiet.rolling(3, min_periods=1).max().to_numpy() == 0


def keltner_line(t: Table, width: float) -> Floats:
    return talib.EMA(t["close"], 20) + width * talib.ATR(t["high"], t["low"], t["close"], 10)


HLC = ("high", "low", "close")
SLOW, STRENGTH, AROON, DONCHIAN = ta.stochastic(5, 3, 3), ta.stochastic_rsi(X), ta.aroon(), ta.donchian()
MACD, BANDS, KELTNER, SLOW_14 = ta.macd(X), ta.bollinger(X), ta.keltner(), ta.stochastic()
_STOCH = {"fastk_period": 5, "slowk_period": 3, "slowk_matype": 0, "slowd_period": 3, "slowd_matype": 0}
_STOCHRSI = {"timeperiod": 14, "fastk_period": 5, "fastd_period": 3, "fastd_matype": 0}
_MACD = {"fastperiod": 12, "slowperiod": 26, "signalperiod": 9}
_BANDS = {"timeperiod": 20, "nbdevup": 2.0, "nbdevdn": 2.0, "matype": 0}


def like(name: str, *columns: str, output: int | None = None, **params: float) -> tuple[str, Callable[[Table], Floats]]:
    """TA-Lib's function as the source and the function of an oracle."""
    return f"TA-Lib {name}", of_talib(name, *columns, output=output, **params)


INDICATORS: dict[str, Oracle] = {
    "momentum": Oracle(ta.momentum(X), *like("MOM", "close", timeperiod=10), EXACT),
    "rate_of_change": Oracle(ta.rate_of_change(X), *like("ROC", "close", timeperiod=10), EXACT),
    "returns": Oracle(ta.returns(X), *like("ROCP", "close", timeperiod=1), unit=1.0),
    "log_returns": Oracle(ta.log_returns(X), "NumPy", lambda t: np.log(t["close"] / pd.Series(t["close"]).shift().to_numpy()), unit=1.0),
    "sma": Oracle(ta.sma(X, 20), *like("SMA", "close", timeperiod=20)),
    "wma": Oracle(ta.wma(X, 20), *like("WMA", "close", timeperiod=20)),
    "hma": Oracle(ta.hma(X, 20), *like("HMA", "close", timeperiod=20)),
    "ema": Oracle(ta.ema(X, 20), *like("EMA", "close", timeperiod=20), SETTLED),
    "wilder": Oracle(ta.wilder(X, 20), *like("RMA", "close", timeperiod=20), SETTLED),
    "dema": Oracle(ta.dema(X, 20), *like("DEMA", "close", timeperiod=20), SETTLED),
    "tema": Oracle(ta.tema(X, 20), *like("TEMA", "close", timeperiod=20), SETTLED),
    "efficiency": Oracle(ta.efficiency(X), *like("ER", "close", timeperiod=10), EXACT),
    "kama": Oracle(ta.kama(X), *like("KAMA", "close", timeperiod=10), SETTLED),
    "rsi": Oracle(ta.rsi(X), *like("RSI", "close", timeperiod=14), SETTLED),
    "macd line": Oracle(MACD.line, *like("MACD", "close", output=0, **_MACD), SETTLED, unit="close"),
    "macd signal": Oracle(MACD.signal, *like("MACD", "close", output=1, **_MACD), SETTLED, unit="close"),
    "macd histogram": Oracle(MACD.histogram, *like("MACD", "close", output=2, **_MACD), SETTLED, unit="close"),
    "ppo": Oracle(ta.ppo(X), *like("PPO", "close", fastperiod=12, slowperiod=26, matype=1), SETTLED, unit=1.0),
    "trix": Oracle(ta.trix(X), *like("TRIX", "close", timeperiod=15), SETTLED, unit=1.0),
    "bollinger upper": Oracle(BANDS.upper, *like("BBANDS", "close", output=0, **_BANDS)),
    "bollinger middle": Oracle(BANDS.middle, *like("BBANDS", "close", output=1, **_BANDS)),
    "bollinger lower": Oracle(BANDS.lower, *like("BBANDS", "close", output=2, **_BANDS)),
    "true_range": Oracle(ta.true_range(), *like("TRANGE", *HLC), EXACT),
    "atr": Oracle(ta.atr(), *like("ATR", *HLC, timeperiod=14), SETTLED),
    "natr": Oracle(ta.natr(), *like("NATR", *HLC, timeperiod=14), SETTLED),
    "plus_di": Oracle(ta.plus_di(), *like("PLUS_DI", *HLC, timeperiod=14), SETTLED),
    "minus_di": Oracle(ta.minus_di(), *like("MINUS_DI", *HLC, timeperiod=14), SETTLED),
    "dx": Oracle(ta.dx(), *like("DX", *HLC, timeperiod=14), SETTLED),
    "adx": Oracle(ta.adx(), *like("ADX", *HLC, timeperiod=14), SETTLED),
    "adxr": Oracle(ta.adxr(), *like("ADXR", *HLC, timeperiod=14), SETTLED),
    "stochastic k": Oracle(SLOW.k, *like("STOCH", *HLC, output=0, **_STOCH), unit=100.0),
    "stochastic d": Oracle(SLOW.d, *like("STOCH", *HLC, output=1, **_STOCH), unit=100.0),
    "stochastic_rsi k": Oracle(STRENGTH.k, *like("STOCHRSI", "close", output=0, **_STOCHRSI), SETTLED, 100.0, strength_moves),
    "stochastic_rsi d": Oracle(STRENGTH.d, *like("STOCHRSI", "close", output=1, **_STOCHRSI), SETTLED, 100.0, strength_moves),
    "position_in_range": Oracle(
        ta.position_in_range(X, bars.high, bars.low, 14), *like("STOCHF", *HLC, output=0, fastk_period=14, fastd_period=1), unit=100.0
    ),
    "stochastic, of 14 bars, k": Oracle(SLOW_14.k, *like("STOCH", *HLC, output=0, **_STOCH | {"fastk_period": 14}), unit=100.0),
    "stochastic, of 14 bars, d": Oracle(SLOW_14.d, *like("STOCH", *HLC, output=1, **_STOCH | {"fastk_period": 14}), unit=100.0),
    "typical_price": Oracle(ta.typical_price(), *like("TYPPRICE", *HLC)),
    "keltner upper": Oracle(KELTNER.upper, "TA-Lib EMA and ATR", lambda t: keltner_line(t, 2.0), SETTLED),
    "keltner middle": Oracle(KELTNER.middle, *like("EMA", "close", timeperiod=20), SETTLED),
    "keltner lower": Oracle(KELTNER.lower, "TA-Lib EMA and ATR", lambda t: keltner_line(t, -2.0), SETTLED),
    "williams": Oracle(ta.williams(), *like("WILLR", *HLC, timeperiod=14)),
    "cci": Oracle(ta.cci(), *like("CCI", *HLC, timeperiod=20), SETTLED, unit=100.0),
    "mfi": Oracle(ta.mfi(), *like("MFI", *HLC, "volume", timeperiod=14), judged=no_false_moves),
    "obv_windowed": Oracle(ta.obv_windowed(), "TA-Lib OBV, its change over 20 bars", obv_change, unit="volume"),
    "cmf": Oracle(ta.cmf(), *like("CMF", *HLC, "volume", timeperiod=20), unit=1.0),
    "vwma": Oracle(ta.vwma(X), *like("VWMA", "close", "volume", timeperiod=20)),
    "aroon up": Oracle(AROON.up, *like("AROON", "high", "low", output=1, timeperiod=25), EXACT),
    "aroon down": Oracle(AROON.down, *like("AROON", "high", "low", output=0, timeperiod=25), EXACT),
    "aroon oscillator": Oracle(AROON.oscillator, *like("AROONOSC", "high", "low", timeperiod=25)),
    "ultimate": Oracle(ta.ultimate(), *like("ULTOSC", *HLC, timeperiod1=7, timeperiod2=14, timeperiod3=28)),
    "donchian upper": Oracle(DONCHIAN.upper, *like("DONCHIAN", "high", "low", output=0, timeperiod=20), EXACT),
    "donchian middle": Oracle(DONCHIAN.middle, *like("DONCHIAN", "high", "low", output=1, timeperiod=20), EXACT),
    "donchian lower": Oracle(DONCHIAN.lower, *like("DONCHIAN", "high", "low", output=2, timeperiod=20), EXACT),
    "vwap_windowed": Oracle(
        ta.vwap_windowed(),
        LONG,
        rolled(lambda h, lo, c, v: ((h + lo + c) / 3 * v).sum(axis=1) / v.sum(axis=1), 20, *HLC, "volume"),
    ),
    "volume_z": Oracle(ta.volume_z(), LONG, rolled(lambda w: (w[:, -1] - w.mean(axis=1)) / w.std(axis=1), 20, "volume"), unit=1.0),
    "parkinson": Oracle(
        ta.parkinson(), LONG, rolled(lambda h, lo: np.sqrt((np.log(h / lo) ** 2).mean(axis=1) / (4 * np.log(2))), 20, "high", "low")
    ),
    "garman_klass": Oracle(
        ta.garman_klass(),
        LONG,
        rolled(
            lambda o, h, lo, c: np.sqrt((np.log(h / lo) ** 2 / 2 - (2 * np.log(2) - 1) * np.log(c / o) ** 2).mean(axis=1)), 20, *OHLCV[:4]
        ),
    ),
    "rogers_satchell_variance": Oracle(ta.rogers_satchell_variance(20), LONG, rolled(drift_free, 20, *OHLCV[:4]), unit=1.0),
    "rogers_satchell": Oracle(ta.rogers_satchell(), LONG, rolled(lambda o, h, lo, c: np.sqrt(drift_free(o, h, lo, c)), 20, *OHLCV[:4])),
    "yang_zhang": Oracle(
        ta.yang_zhang(),
        LONG,
        rolled(lambda o, h, lo, c: np.sqrt(with_jumps(o, h, lo, c)), 21, *OHLCV[:4]),
    ),
}
"""The indicators of `asof.features.library.technical`."""

GOLDENS: dict[tuple[str, str], tuple[Expr, float]] = {
    ("sma", "sma"): (ta.sma(X, 20), EXACT),
    ("wma", "wma"): (ta.wma(X, 14), FINITE),
    ("hma", "hma"): (ta.hma(X, 14), FINITE),
    ("ema", "ema"): (ta.ema(X, 20), SETTLED),
    ("smma", "smma"): (ta.wilder(X, 20, reach=450), SETTLED),
    ("dema", "dema"): (ta.dema(X, 14, reach=200), SETTLED),
    ("kama", "er"): (ta.efficiency(X), EXACT),
    ("kama", "kama"): (ta.kama(X, reach=400), SETTLED),
    ("rsi", "rsi"): (ta.rsi(X, reach=400), SETTLED),
    ("trix", "trix"): (ta.trix(X, 14, reach=160), SETTLED),
    ("roc", "roc"): (ta.rate_of_change(X, 14), FINITE),
    ("roc", "momentum"): (ta.momentum(X, 14), EXACT),
    ("bb", "upperBand"): (BANDS.upper, EXACT),
    ("bb", "sma"): (BANDS.middle, EXACT),
    ("bb", "lowerBand"): (BANDS.lower, EXACT),
    ("stdev", "stdDev"): (X.std(14, ddof=0), EXACT),
    ("tr", "tr"): (ta.true_range(), EXACT),
    ("atr", "atr"): (ta.atr(reach=400), SETTLED),
    ("atr", "atrp"): (ta.natr(reach=400), SETTLED),
    ("adx", "pdi"): (ta.plus_di(reach=400), SETTLED),
    ("adx", "mdi"): (ta.minus_di(reach=400), SETTLED),
    ("adx", "dx"): (ta.dx(reach=400), SETTLED),
    ("stoch", "k"): (SLOW_14.k, FINITE),
    ("stoch", "d"): (SLOW_14.d, FINITE),
    ("willr", "williamsR"): (ta.williams(), FINITE),
    ("cci", "cci"): (ta.cci(), FINITE),
    ("mfi", "mfi"): (ta.mfi(), FINITE),
    ("cmf", "cmf"): (ta.cmf(), FINITE),
    ("vwma", "vwma"): (ta.vwma(X, 14), EXACT),
    ("uo", "ultimate"): (ta.ultimate(), FINITE),
    ("donchian", "upperBand"): (DONCHIAN.upper.lag(1), EXACT),
    ("donchian", "centerline"): (DONCHIAN.middle.lag(1), EXACT),
    ("donchian", "lowerBand"): (DONCHIAN.lower.lag(1), EXACT),
    ("keltner", "upperBand"): (KELTNER.upper, SETTLED),
    ("keltner", "lowerBand"): (KELTNER.lower, SETTLED),
}
"""Expressions that give what Stock.Indicators does, by its names. A reach is stated where 502 bars are too few for the whole of it."""


def golden_differences(folder: Path) -> Iterator[tuple[str, str, float, float, int]]:
    """Of each golden: indicator, field, largest difference in parts of its largest value, bound, and of how many values."""
    goldens = pd.read_parquet(folder / "golden" / "skender_indicator_goldens.parquet")
    table = table_of(pd.read_parquet(folder / "golden" / "skender_default_quotes.parquet"))
    for (indicator, field), (expression, bound) in GOLDENS.items():
        mine = goldens[(goldens.indicator == indicator) & (goldens.field == field)]
        theirs = mine.sort_values("date")["value"].to_numpy(np.float64)
        ours = np.array([np.nan if v is None else v for v in tried(expression, **table)])
        both = np.isfinite(ours) & np.isfinite(theirs)
        yield indicator, field, float(np.abs(ours - theirs)[both].max() / np.abs(theirs[both]).max()), bound, int(both.sum())


WEEK = bars.close / bars.close.lag(5) - 1
EVERYBODY, SECTOR = across(), across(by="sector")


def of_days(function: Callable[[SeriesGroupBy], pd.Series], *, sector: bool = False) -> Callable[[pd.DataFrame], pd.Series]:
    """A function of the values `x` of each day, or of each day and sector."""
    return lambda f: function(f.groupby(["ts", "sector"] if sector else "ts").x)


def held_between(f: pd.DataFrame) -> pd.Series:
    day = f.groupby("ts").x
    return f.x.clip(f.ts.map(day.quantile(0.05)), f.ts.map(day.quantile(0.95)))


def fifths(f: pd.DataFrame) -> pd.Series:
    """Which fifth of a day's values each is in, by how many are smaller."""
    day = f.groupby("ts").x
    smaller, there = day.rank(method="min") - 1, day.transform("count")
    return 1 + (smaller * 5) // there


def residuals(f: pd.DataFrame) -> pd.Series:
    """What least squares of `x` over the logarithm of the volume leave of each day."""
    log = np.log(f.volume.where(f.volume > 0))
    both = f.x.notna() & log.notna()
    x, y = (v.where(both) - v.where(both).groupby(f.ts).transform("mean") for v in (f.x, log))
    slope = (x * y).groupby(f.ts).transform("sum") / (y * y).groupby(f.ts).transform("sum")
    return x - slope * y


@dataclass(frozen=True)
class AcrossOracle:
    """An expression across instruments, what pandas makes of a frame with `ts`, `sector`, `volume` and `x`, and how far they may be apart.

    Differences are parts of 1, for returns are small beside it.
    """

    expression: Expr
    function: Callable[[pd.DataFrame], pd.Series]
    bound: float = FINITE


ACROSS: dict[str, AcrossOracle] = {
    "rank": AcrossOracle(EVERYBODY.rank(WEEK), of_days(lambda x: x.rank(pct=True)), EXACT),
    "rank, by": AcrossOracle(SECTOR.rank(WEEK), of_days(lambda x: x.rank(pct=True), sector=True), EXACT),
    "quantile": AcrossOracle(EVERYBODY.quantile(WEEK, 5), fifths, EXACT),
    "winsorize": AcrossOracle(EVERYBODY.winsorize(WEEK, 0.05, 0.95), held_between),
    "demean": AcrossOracle(EVERYBODY.demean(WEEK), lambda f: f.x - f.groupby("ts").x.transform("mean")),
    "demean, by": AcrossOracle(SECTOR.demean(WEEK), lambda f: f.x - f.groupby(["ts", "sector"]).x.transform("mean")),
    "zscore": AcrossOracle(EVERYBODY.zscore(WEEK), of_days(lambda x: (x.obj - x.transform("mean")) / x.transform("std"))),
    "scale": AcrossOracle(EVERYBODY.scale(WEEK), lambda f: f.x / f.x.abs().groupby(f.ts).transform("sum")),
    "neutralise": AcrossOracle(EVERYBODY.neutralise(WEEK, bars.volume.log()), residuals),
    "count": AcrossOracle(EVERYBODY.count(WEEK), of_days(lambda x: x.transform("count")), EXACT),
    "mean": AcrossOracle(EVERYBODY.mean(WEEK), of_days(lambda x: x.transform("mean"))),
    "std": AcrossOracle(EVERYBODY.std(WEEK), of_days(lambda x: x.transform("std"))),
}
"""The operators across instruments, of the returns of five days."""


def markets(folder: Path) -> Iterator[pd.DataFrame]:
    """Closes and volumes of real stocks by instrument and day: 44 over years, and 320 as they were first published."""
    stocks = pd.read_parquet(folder / "daily" / "stocknet_prices.parquet")
    yield market_of(stocks.rename(columns={"ticker": "instrument_id", "ts_open_utc": "ts"}))
    published = pd.read_parquet(folder / "pit" / "pystock_prices_asof.parquet")
    published = published.assign(instrument_id=published.ticker, ts=pd.to_datetime(published.trade_date, utc=True))
    yield market_of(published.sort_values("published_at_utc", kind="stable").drop_duplicates(["instrument_id", "ts"]))


def market_of(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame[["instrument_id", "ts", "close", "volume"]].sort_values(["instrument_id", "ts"], ignore_index=True)
    frame["close"] = frame.close.where(frame.close > 0)
    frame["x"] = frame.close / frame.groupby("instrument_id").close.shift(5) - 1
    frame["sector"] = np.array(["even", "odd"])[frame.instrument_id.str.len() % 2]
    return frame


def across_differences(folder: Path) -> Iterator[tuple[str, float, float, int]]:
    """Of each operator across instruments: its largest difference, how large it may be, and of how many values."""
    chosen = FeatureSet("across_v1", {f"x{k}": oracle.expression for k, oracle in enumerate(ACROSS.values())})
    apart = dict.fromkeys(ACROSS, (0.0, 0))
    for market in markets(folder):
        names = market.drop_duplicates("instrument_id")
        members = {"instrument_id": names.instrument_id, "scheme": "sector", "ts": pd.Timestamp("2000-01-01", tz="UTC")}
        made = compute(chosen, market, memberships=pd.DataFrame(members | {"value": names.sector}), timeframe="1d").to_pandas()
        for k, (name, oracle) in enumerate(ACROSS.items()):
            ours, theirs = made[f"x{k}"].to_numpy(np.float64), oracle.function(market).to_numpy(np.float64)
            both = np.isfinite(ours) & np.isfinite(theirs)
            assert name.startswith(FOR_ALL) or (np.isfinite(ours) == np.isfinite(theirs)).all(), f"{name}: not missing where pandas is"
            most, values = apart[name]
            apart[name] = max(most, float(np.abs(ours - theirs)[both].max())), values + int(both.sum())
    for name, (most, values) in apart.items():
        yield name, most, ACROSS[name].bound, values


FOR_ALL = ("count", "mean", "std")
"""The operators that answer the same for every member, also for those without a value."""


def alpha158_of_pandas(t: Table) -> pd.DataFrame:
    """Qlib's definitions in plain pandas, over whole windows; the typical price stands for the volume-weighted one.

    Deviations, correlations and lines are taken in long doubles, window by window: pandas slides them, and loses digits.
    """
    o, h, lo, c = (pd.Series(t[name]) for name in OHLCV[:4])
    top, bottom, spread = np.maximum(o, c), np.minimum(o, c), h - lo + TINY
    found = {
        "KMID": (c - o) / o,
        "KLEN": (h - lo) / o,
        "KMID2": (c - o) / spread,
        "KUP": (h - top) / o,
        "KUP2": (h - top) / spread,
        "KLOW": (bottom - lo) / o,
        "KLOW2": (bottom - lo) / spread,
        "KSFT": (2 * c - h - lo) / o,
        "KSFT2": (2 * c - h - lo) / spread,
        "OPEN0": o / c,
        "HIGH0": h / c,
        "LOW0": lo / c,
        "VWAP0": (h + lo + c) / 3 / c,
    }
    for n in WINDOWS:
        found |= {f"{name}{n}": values for name, values in rolling_factors_of_pandas(t, n).items()}
    return pd.DataFrame(found)


def rolling_factors_of_pandas(t: Table, n: int) -> dict[str, pd.Series | Floats]:
    _, h, lo, c, v = (pd.Series(t[name]) for name in OHLCV)
    move, volume_move = c.diff(), v.diff()
    rises, falls, moves = (x.rolling(n).sum() for x in (move.clip(lower=0), (-move).clip(lower=0), move.abs()))
    more, less, changes = (x.rolling(n).sum() for x in (volume_move.clip(lower=0), (-volume_move).clip(lower=0), volume_move.abs()))
    up, down = (
        (move > 0).astype(float).where(move.notna()).rolling(n).mean(),
        (move < 0).astype(float).where(move.notna()).rolling(n).mean(),
    )
    low, high = lo.rolling(n).min(), h.rolling(n).max()
    highest, lowest = (rolled(pick, n, name)(t) + 1 for name, pick in (("high", argmax), ("low", argmin)))
    turmoil = (c / c.shift(1) - 1).abs() * v
    more_columns = {"log_volume": np.log(v + 1), "ratio": c / c.shift(1), "log_ratio": np.log(v / v.shift(1) + 1), "turmoil": turmoil}
    t = {**t, **{name: column.to_numpy() for name, column in more_columns.items()}}
    return {
        "ROC": c.shift(n) / c,
        "MA": c.rolling(n).mean() / c,
        "STD": rolled(deviation, n, "close")(t) / c,
        "BETA": rolled(slope, n, "close")(t) / c,
        "RSQR": rolled(lambda w: 1 - (left_over(w) ** 2).mean(axis=1) / moment(w, 2), n, "close")(t),
        "RESI": rolled(lambda w: left_over(w)[:, -1], n, "close")(t) / c,
        "MAX": high / c,
        "MIN": low / c,
        "QTLU": c.rolling(n).quantile(0.8) / c,
        "QTLD": c.rolling(n).quantile(0.2) / c,
        "RANK": c.rolling(n).rank(pct=True),
        "RSV": (c - low) / (high - low + TINY),
        "IMAX": highest / n,
        "IMIN": lowest / n,
        "IMXD": (highest - lowest) / n,
        "CORR": rolled(corr, n, "close", "log_volume")(t),
        "CORD": rolled(corr, n, "ratio", "log_ratio")(t),
        "CNTP": up,
        "CNTN": down,
        "CNTD": up - down,
        "SUMP": rises / (moves + TINY),
        "SUMN": falls / (moves + TINY),
        "SUMD": (rises - falls) / (moves + TINY),
        "VMA": v.rolling(n).mean() / (v + TINY),
        "VSTD": rolled(deviation, n, "volume")(t) / (v + TINY),
        "WVMA": rolled(deviation, n, "turmoil")(t) / (rolled(lambda w: w.mean(axis=1), n, "turmoil")(t) + TINY),
        "VSUMP": more / (changes + TINY),
        "VSUMN": less / (changes + TINY),
        "VSUMD": (more - less) / (changes + TINY),
    }


def deviation(w: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    return w.std(axis=1, ddof=1)


def argmax(w: NDArray[np.longdouble]) -> NDArray[np.intp]:
    return w.argmax(axis=1)


def argmin(w: NDArray[np.longdouble]) -> NDArray[np.intp]:
    return w.argmin(axis=1)


def alpha158_differences(folder: Path) -> Iterator[tuple[str, float, int]]:
    """Of each factor: the largest difference over its lengths, in parts of the value or of 1 where that is more, and of how many values."""
    tables = [table for _, table in series(folder)]
    with np.errstate(all="ignore"):
        expected = [alpha158_of_pandas(table) for table in tables]
    for factor in (*BAR_FACTORS, *ROLLING_FACTORS):
        names = [factor] if factor in BAR_FACTORS else [f"{factor}{n}" for n in WINDOWS]
        pairs = [(name, table, answers) for name in names for table, answers in zip(tables, expected, strict=True)]
        found = [apart_from(SHIPPED["alpha158"].features[name], table, answers[name].to_numpy()) for name, table, answers in pairs]
        yield factor, max(difference for difference, _ in found), sum(values for _, values in found)


def apart_from(expression: Expr, table: Table, theirs: Floats) -> tuple[float, int]:
    ours = np.array([np.nan if v is None else v for v in tried(expression, **table)])
    assert np.isnan(ours).sum() <= expression.lookback - 1
    both = np.isfinite(ours) & np.isfinite(theirs)
    return float((np.abs(ours - theirs)[both] / np.maximum(np.abs(theirs[both]), 1)).max()), int(both.sum())
