"""Technical indicators, each a few lines of the language: functions of expressions and of lengths in bars, which give expressions.

Lengths count bars, the current one included. Prices and volumes are those of `bars`; what works on any series takes it as `x`. An
indicator is missing where one of the bars that it looks at is missing, or has no value, and an error where it divides by zero: the
relative strength of prices that never moved is no number.

Averages with fading weights are finite sums (see `Expr.ewm`): they reach as far back as weights count in a float, and give from there on
what the recursive formulas of other libraries converge to. `reach` is for those who want to look back less far, and state how far.

Formulas are Wilder's (New Concepts in Technical Trading Systems, 1978) for `rsi`, `atr` and the directional movement, and otherwise those
of the author named; values are TA-Lib's, to which the tests hold them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from asof.errors import DefinitionError
from asof.features.decay import alpha_of
from asof.features.expression import LONGEST_SESSION, Expr, bars, where
from asof.features.spoken import composed


class Bands(NamedTuple):
    """Three lines around a price, in its unit."""

    upper: Expr
    middle: Expr
    lower: Expr


class Macd(NamedTuple):
    """The difference of two averages, its own average, and by how much it lies above that; all in the unit of the price."""

    line: Expr
    signal: Expr
    histogram: Expr


class Stochastic(NamedTuple):
    """Where the close lies in its range, and the average of that; both 0 to 100."""

    k: Expr
    d: Expr


class Aroon(NamedTuple):
    """How recent the highest and the lowest price are, 0 to 100, and the difference of the two."""

    up: Expr
    down: Expr
    oscillator: Expr


def _check_length(name: str, n: int, least: int) -> None:
    """Refuse a length that no operator would see as it is."""
    if n < least:
        raise DefinitionError(f"{name}: n={n!r} must be at least {least}")


@composed
def returns(x: Expr, n: int = 1) -> Expr:
    """The return over `n` bars, as a share: 0.01 is one per cent."""
    return x / x.lag(n) - 1


@composed
def log_returns(x: Expr, n: int = 1) -> Expr:
    """The logarithm of the ratio to the value `n` bars ago; an error where that is not above zero."""
    return (x / x.lag(n)).log()


@composed
def momentum(x: Expr, n: int = 10) -> Expr:
    """MOM: the change over `n` bars, in units of x."""
    return x.diff(n)


@composed
def rate_of_change(x: Expr, n: int = 10) -> Expr:
    """ROC: the return over `n` bars in per cent."""
    return (x / x.lag(n) - 1) * 100


@composed
def sma(x: Expr, n: int) -> Expr:
    """The simple moving average: the mean of the last `n` values."""
    return x.mean(n)


@composed
def wma(x: Expr, n: int) -> Expr:
    """The linearly weighted average: the newest of `n` values weighs n, the oldest 1."""
    return x.wma(n)


@composed
def ema(x: Expr, n: int, reach: int | None = None) -> Expr:
    """The exponential average of span `n`: each value weighs (n - 1) / (n + 1) times the next newer one."""
    return x.ewm(span=n, reach=reach)


@composed
def wilder(x: Expr, n: int, reach: int | None = None) -> Expr:
    """Wilder's average, also called smoothed or RMA: each value weighs (n - 1) / n times the next newer one."""
    return x.ewm(wilder=n, reach=reach)


@composed
def dema(x: Expr, n: int, reach: int | None = None) -> Expr:
    """The double exponential average, which lags less: 2 e - ema(e) for e = ema(x). Mulloy 1994."""
    once = ema(x, n, reach)
    return 2 * once - ema(once, n, reach)


@composed
def tema(x: Expr, n: int, reach: int | None = None) -> Expr:
    """The triple exponential average: 3 e - 3 ema(e) + ema(ema(e)) for e = ema(x). Mulloy 1994."""
    once = ema(x, n, reach)
    twice = ema(once, n, reach)
    return 3 * once - 3 * twice + ema(twice, n, reach)


@composed
def hma(x: Expr, n: int) -> Expr:
    """Hull's average, of weighted averages over half of `n`, `n`, and the root of `n` bars, each rounded down. Hull 2005."""
    return (2 * x.wma(n // 2) - x.wma(n)).wma(math.isqrt(n))


@composed
def efficiency(x: Expr, n: int = 10) -> Expr:
    """Kaufman's efficiency: the change over `n` bars as a share of the way walked, 0 to 1; 1 where nothing moved."""
    walked = x.diff().abs().sum(n)
    return where(walked > 0, x.diff(n).abs() / walked, 1).minimum(1)


@composed
def kama(x: Expr, n: int = 10, fast: int = 2, slow: int = 30, reach: int = 500) -> Expr:
    """Kaufman's adaptive average: it goes to x as an average of span `fast` would where x is efficient, as one of `slow` where not.

    It has no bounded memory of its own; `reach` bars stand for it. Kaufman 1995.
    """
    quick, idle = alpha_of(span=fast), alpha_of(span=slow)
    speed = efficiency(x, n) * (quick - idle) + idle
    return x.ewm(speed * speed, reach=reach)


@composed
def rsi(x: Expr, n: int = 14, reach: int | None = None) -> Expr:
    """The relative strength index, 0 to 100: Wilder's average of the rises, as a share of that of all moves."""
    change = x.diff()
    rise, fall = wilder(change.maximum(0), n, reach), wilder((-change).maximum(0), n, reach)
    return 100 * (rise / (rise + fall))


@composed
def macd(x: Expr, fast: int = 12, slow: int = 26, signal: int = 9, reach: int | None = None) -> Macd:
    """Moving average convergence and divergence: ema(fast) - ema(slow), and its own ema. Appel 1979."""
    line = ema(x, fast, reach) - ema(x, slow, reach)
    average = ema(line, signal, reach)
    return Macd(line, average, line - average)


@composed
def ppo(x: Expr, fast: int = 12, slow: int = 26, reach: int | None = None) -> Expr:
    """The percentage price oscillator: by how many per cent ema(fast) lies above ema(slow)."""
    long = ema(x, slow, reach)
    return (ema(x, fast, reach) - long) / long * 100


@composed
def trix(x: Expr, n: int = 15, reach: int | None = None) -> Expr:
    """The change, from bar to bar and in per cent, of an exponential average of an average of an average. Hutson 1983."""
    return rate_of_change(ema(ema(ema(x, n, reach), n, reach), n, reach), 1)


@composed
def bollinger(x: Expr, n: int = 20, width: float = 2.0) -> Bands:
    """BBANDS: `width` population deviations above and below the mean of the last `n` values. Bollinger 1983."""
    middle, apart = x.mean(n), x.std(n, ddof=0) * width
    return Bands(middle + apart, middle, middle - apart)


@composed
def true_range() -> Expr:
    """TRANGE: how far the price went since the last close, in its unit."""
    before = bars.close.lag(1)
    return (bars.high - bars.low).maximum((bars.high - before).abs()).maximum((bars.low - before).abs())


@composed
def atr(n: int = 14, reach: int | None = None) -> Expr:
    """The average true range: Wilder's average of `true_range`, in the unit of the price."""
    return wilder(true_range(), n, reach)


@composed
def natr(n: int = 14, reach: int | None = None) -> Expr:
    """The average true range in per cent of the close."""
    return atr(n, reach) / bars.close * 100


@composed
def plus_di(n: int = 14, reach: int | None = None) -> Expr:
    """+DI: Wilder's average of the upward movement, in per cent of the average true range."""
    up, down = bars.high.diff(), -bars.low.diff()
    return 100 * (wilder(where((up > down) & (up > 0), up, 0), n, reach) / atr(n, reach))


@composed
def minus_di(n: int = 14, reach: int | None = None) -> Expr:
    """-DI: Wilder's average of the downward movement, in per cent of the average true range."""
    up, down = bars.high.diff(), -bars.low.diff()
    return 100 * (wilder(where((down > up) & (down > 0), down, 0), n, reach) / atr(n, reach))


@composed
def dx(n: int = 14, reach: int | None = None) -> Expr:
    """The directional index, 0 to 100: how far +DI and -DI are apart, as a share of both."""
    plus, minus = plus_di(n, reach), minus_di(n, reach)
    return 100 * ((plus - minus).abs() / (plus + minus))


@composed
def adx(n: int = 14, reach: int | None = None) -> Expr:
    """The average directional index: Wilder's average of `dx`."""
    return wilder(dx(n, reach), n, reach)


@composed
def adxr(n: int = 14, reach: int | None = None) -> Expr:
    """The directional rating: the mean of `adx` now and `n - 1` bars ago."""
    now = adx(n, reach)
    return (now + now.lag(n - 1)) / 2


@composed
def position_in_range(x: Expr, high: Expr, low: Expr, n: int) -> Expr:
    """Where x lies between the lowest `low` and the highest `high` of the last `n` bars, 0 to 100."""
    bottom = low.min(n)
    return (x - bottom) / ((high.max(n) - bottom) / 100)


@composed
def stochastic(n: int = 14, slow_k: int = 3, slow_d: int = 3) -> Stochastic:
    """STOCH, the slow stochastic: the close's place in the range of the last `n` bars, averaged once and again. Lane 1984."""
    k = position_in_range(bars.close, bars.high, bars.low, n).mean(slow_k)
    return Stochastic(k, k.mean(slow_d))


@composed
def stochastic_rsi(x: Expr, n: int = 14, k: int = 5, d: int = 3, reach: int | None = None) -> Stochastic:
    """STOCHRSI: where the relative strength index lies in its own range of the last `k` bars. Chande and Kroll 1994."""
    strength = rsi(x, n, reach)
    place = position_in_range(strength, strength, strength, k)
    return Stochastic(place, place.mean(d))


@composed
def williams(n: int = 14) -> Expr:
    """WILLR, Williams' %R, -100 to 0: how far the close lies below the highest price of the last `n` bars."""
    top = bars.high.max(n)
    return (top - bars.close) / ((top - bars.low.min(n)) / -100)


@composed
def typical_price() -> Expr:
    """The mean of high, low and close."""
    return (bars.high + bars.low + bars.close) / 3


@composed
def cci(n: int = 20) -> Expr:
    """The commodity channel index: the typical price's distance from its mean, in 0.015 mean absolute deviations. Lambert 1980."""
    price = typical_price()
    return (price - price.mean(n)) / (0.015 * price.mad(n))


@composed
def mfi(n: int = 14) -> Expr:
    """The money flow index, 0 to 100: typical price times volume of the bars that rose, as a share of those that moved. Quong, Soudack."""
    price = typical_price()
    flow, change = price * bars.volume, price.diff()
    rises, falls = where(change > 0, flow, 0).sum(n), where(change < 0, flow, 0).sum(n)
    return 100 * (rises / (rises + falls))


@composed
def obv_windowed(n: int = 20) -> Expr:
    """On-balance volume over the last `n` bars: the volume of those that closed higher, less that of those that closed lower.

    Granville's OBV (1963) counts from the first bar there is, so its level means nothing; this is its change over `n` bars.
    """
    return (bars.close.diff().sign() * bars.volume).sum(n)


@composed
def cmf(n: int = 20) -> Expr:
    """Chaikin's money flow, -1 to 1: volume weighted by where in its range each bar closed. A bar without a range counts nothing."""
    spread = bars.high - bars.low
    place = where(spread > 0, ((bars.close - bars.low) - (bars.high - bars.close)) / spread, 0)
    return (place * bars.volume).sum(n) / bars.volume.sum(n)


@composed
def vwap_windowed(n: int = 20) -> Expr:
    """The volume-weighted mean of the typical price over the last `n` bars; an error where nothing was traded."""
    return (typical_price() * bars.volume).sum(n) / bars.volume.sum(n)


@composed
def vwap_session(n: int = LONGEST_SESSION) -> Expr:
    """VWAP: the volume-weighted mean of the typical price since the session's first bar; an error where nothing was traded yet.

    The session is that of the instrument's calendar, and the day of UTC where there is none. No session may have more than `n` bars.
    """
    return (typical_price() * bars.volume).cumulative(n=n) / bars.volume.cumulative(n=n)


@composed
def bars_since_open(n: int = LONGEST_SESSION) -> Expr:
    """How many bars of the session were before this one: 0 for its first."""
    return (bars.session > 0).cumulative(n=n) - 1


@composed
def vwma(x: Expr, n: int = 20) -> Expr:
    """The volume-weighted mean of x over the last `n` bars."""
    return (x * bars.volume).sum(n) / bars.volume.sum(n)


@composed
def aroon(n: int = 25) -> Aroon:
    """How recent the highest and lowest price of the last `n + 1` bars are: 100 for the current bar, 0 for `n` bars ago. Chande 1995."""
    _check_length("aroon", n, 1)
    up = bars.high.argmax(n + 1, newest=1) * (100 / n)
    down = bars.low.argmin(n + 1, newest=1) * (100 / n)
    return Aroon(up, down, up - down)


@composed
def ultimate(short: int = 7, middle: int = 14, long: int = 28) -> Expr:
    """ULTOSC, 0 to 100: buying pressure as a share of the true range over three lengths, weighted 4, 2 and 1. Williams 1976."""
    spread, pressure = true_range(), bars.close - bars.low.minimum(bars.close.lag(1))
    a, b, c = (pressure.sum(n) / spread.sum(n) for n in (short, middle, long))
    return 100 * ((4 * a + 2 * b + c) / 7)


@composed
def donchian(n: int = 20) -> Bands:
    """The highest and the lowest price of the last `n` bars, and half their sum. For those before the current bar, lag the lines."""
    top, bottom = bars.high.max(n), bars.low.min(n)
    return Bands(top, (top + bottom) / 2, bottom)


@composed
def keltner(n: int = 20, width: float = 2.0, range_n: int = 10, reach: int | None = None) -> Bands:
    """`width` average true ranges of `range_n` bars above and below the exponential average of span `n`. Keltner 1960, Raschke."""
    middle, apart = ema(bars.close, n, reach), atr(range_n, reach) * width
    return Bands(middle + apart, middle, middle - apart)


@composed
def volume_z(n: int = 20) -> Expr:
    """The volume's distance from its mean over the last `n` bars, in population deviations; an error where it does not vary."""
    return (bars.volume - bars.volume.mean(n)) / bars.volume.std(n, ddof=0)


@composed
def parkinson(n: int = 20) -> Expr:
    """Volatility per bar from high and low: the root of the mean of ln(H/L)**2 / (4 ln 2). Parkinson 1980."""
    spread = (bars.high / bars.low).log()
    return ((spread * spread).mean(n) / (4 * math.log(2))).sqrt()


@composed
def garman_klass(n: int = 20) -> Expr:
    """Volatility per bar from all four prices: the root of the mean of ln(H/L)**2 / 2 - (2 ln 2 - 1) ln(C/O)**2. Garman and Klass 1980."""
    spread, move = (bars.high / bars.low).log(), (bars.close / bars.open).log()
    return (spread * spread / 2 - (2 * math.log(2) - 1) * (move * move)).mean(n).sqrt()


@composed
def rogers_satchell_variance(n: int) -> Expr:
    """The variance per bar, whatever the drift: the mean of ln(H/C) ln(H/O) + ln(L/C) ln(L/O). Rogers and Satchell 1991."""
    up = (bars.high / bars.close).log() * (bars.high / bars.open).log()
    down = (bars.low / bars.close).log() * (bars.low / bars.open).log()
    return (up + down).mean(n)


@composed
def rogers_satchell(n: int = 20) -> Expr:
    """Volatility per bar, whatever the drift: the root of `rogers_satchell_variance`."""
    return rogers_satchell_variance(n).sqrt()


@composed
def yang_zhang(n: int = 20) -> Expr:
    """Volatility per bar with opening jumps: of ln(O/C before) and of ln(C/O) (sample variances), and Rogers and Satchell's between them.

    The weight of the second is 0.34 / (1.34 + (n + 1) / (n - 1)). Yang and Zhang 2000.
    """
    _check_length("yang_zhang", n, 2)
    weight = 0.34 / (1.34 + (n + 1) / (n - 1))
    jump, move = (bars.open / bars.close.lag(1)).log(), (bars.close / bars.open).log()
    return (jump.var(n) + weight * move.var(n) + (1 - weight) * rogers_satchell_variance(n)).sqrt()
