"""Alpha158 and Alpha360: the factors that Microsoft's Qlib ships for daily bars, by its names and definitions, in float64.

They differ from Qlib's in three things. A window that is not whole has no value, where Qlib takes what there is of it. `VWAP` is the
typical price, (high + low + close) / 3, since a bar has no such column. And a correlation or a straight line through prices that do not
move is an error, where Qlib answers NaN. Neither set uses Qlib's WMA and EMA, which have faults of their own. Prices are to be adjusted for
splits and dividends by whoever brings them.
"""

from __future__ import annotations

from collections.abc import Callable

from asof.features.expression import Expr, bars
from asof.features.feature_set import FeatureSet
from asof.features.library.quality import bar_flags
from asof.features.library.technical import typical_price

WINDOWS = (5, 10, 20, 30, 60)
DAYS = 60
TINY = 1e-12
"""What Qlib adds to divisors that may be zero."""

_open, _high, _low, _close, _volume = bars.open, bars.high, bars.low, bars.close, bars.volume
_before = _close.lag(1)
_change, _volume_change = _close - _before, _volume - _volume.lag(1)
_turmoil = (_close / _before - 1).abs() * _volume
_spread = _high - _low + TINY

BAR_FACTORS: dict[str, Expr] = {
    "KMID": (_close - _open) / _open,
    "KLEN": (_high - _low) / _open,
    "KMID2": (_close - _open) / _spread,
    "KUP": (_high - _open.maximum(_close)) / _open,
    "KUP2": (_high - _open.maximum(_close)) / _spread,
    "KLOW": (_open.minimum(_close) - _low) / _open,
    "KLOW2": (_open.minimum(_close) - _low) / _spread,
    "KSFT": (2 * _close - _high - _low) / _open,
    "KSFT2": (2 * _close - _high - _low) / _spread,
    "OPEN0": _open / _close,
    "HIGH0": _high / _close,
    "LOW0": _low / _close,
    "VWAP0": typical_price() / _close,
}
"""The factors of one bar."""


def _risen(change: Expr, n: int) -> Expr:
    return change.maximum(0).sum(n)


def _fallen(change: Expr, n: int) -> Expr:
    return (-change).maximum(0).sum(n)


def _moved(change: Expr, n: int) -> Expr:
    return change.abs().sum(n) + TINY


ROLLING_FACTORS: dict[str, Callable[[int], Expr]] = {
    "ROC": lambda n: _close.lag(n) / _close,
    "MA": lambda n: _close.mean(n) / _close,
    "STD": lambda n: _close.std(n) / _close,
    "BETA": lambda n: _close.slope(n) / _close,
    "RSQR": _close.rsquare,
    "RESI": lambda n: _close.resid(n) / _close,
    "MAX": lambda n: _high.max(n) / _close,
    "MIN": lambda n: _low.min(n) / _close,
    "QTLU": lambda n: _close.quantile(n, 0.8) / _close,
    "QTLD": lambda n: _close.quantile(n, 0.2) / _close,
    "RANK": _close.rank,
    "RSV": lambda n: (_close - _low.min(n)) / (_high.max(n) - _low.min(n) + TINY),
    "IMAX": lambda n: (_high.argmax(n) + 1) / n,
    "IMIN": lambda n: (_low.argmin(n) + 1) / n,
    "IMXD": lambda n: (_high.argmax(n) - _low.argmin(n)) / n,
    "CORR": lambda n: _close.corr((_volume + 1).log(), n),
    "CORD": lambda n: (_close / _before).corr((_volume / _volume.lag(1) + 1).log(), n),
    "CNTP": (_close > _before).mean,
    "CNTN": (_close < _before).mean,
    "CNTD": lambda n: (_close > _before).mean(n) - (_close < _before).mean(n),
    "SUMP": lambda n: _risen(_change, n) / _moved(_change, n),
    "SUMN": lambda n: _fallen(_change, n) / _moved(_change, n),
    "SUMD": lambda n: (_risen(_change, n) - _fallen(_change, n)) / _moved(_change, n),
    "VMA": lambda n: _volume.mean(n) / (_volume + TINY),
    "VSTD": lambda n: _volume.std(n) / (_volume + TINY),
    "WVMA": lambda n: _turmoil.std(n) / (_turmoil.mean(n) + TINY),
    "VSUMP": lambda n: _risen(_volume_change, n) / _moved(_volume_change, n),
    "VSUMN": lambda n: _fallen(_volume_change, n) / _moved(_volume_change, n),
    "VSUMD": lambda n: (_risen(_volume_change, n) - _fallen(_volume_change, n)) / _moved(_volume_change, n),
}
"""The factors of the last `n` bars."""

PRICES: dict[str, Expr] = {"CLOSE": _close, "OPEN": _open, "HIGH": _high, "LOW": _low, "VWAP": typical_price()}


def build_alpha158() -> FeatureSet:
    """`alpha158`: 13 factors of a bar, and 29 over each of 5, 10, 20, 30 and 60 bars."""
    features = BAR_FACTORS | {f"{name}{n}": factor(n) for name, factor in ROLLING_FACTORS.items() for n in WINDOWS}
    return FeatureSet("alpha158", features, bar_flags(features))


def build_alpha360() -> FeatureSet:
    """`alpha360`: the prices of the last 60 bars in parts of the last close, and their volumes in parts of the last one."""
    ages = range(DAYS - 1, -1, -1)
    features = {f"{name}{k}": (price.lag(k) if k else price) / _close for name, price in PRICES.items() for k in ages}
    features |= {f"VOLUME{k}": (_volume.lag(k) if k else _volume) / (_volume + TINY) for k in ages}
    return FeatureSet("alpha360", features, bar_flags(features))
