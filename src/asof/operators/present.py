"""Operators that take what the last `n` bars have: with `min_count=`, a window may be short or have gaps.

Each kernel sees the values that are there, oldest first. Sums run from the oldest to the newest, as in `rolling`.
"""

import math

from asof.operators.moments import within
from asof.operators.operator import DDOF, Operator, Scaling, Shape, min_count, window
from asof.operators.ordered import SHARE, between, middle
from asof.operators.trend import ALPHA, REACH, later_weight


def present_sum(values):
    """The sum of the values that the last `n` bars have.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.sum(3, min_count=2), close=[1, None, 4, 2, None, None])
    [None, None, 5.0, 6.0, 6.0, None]
    """
    total = values[0]
    for i in range(1, len(values)):
        total += values[i]
    return total


def present_mean(values):
    """The mean of the values that the last `n` bars have."""
    return present_sum(values) / len(values)


def present_var(values, ddof):
    """The variance of the values that the last `n` bars have, divided by their number less `ddof`."""
    centre = present_mean(values)
    squares = 0.0
    for i in range(len(values)):
        squares += (values[i] - centre) * (values[i] - centre)
    return squares / (len(values) - ddof)


def present_std(values, ddof):
    """The standard deviation of the values that the last `n` bars have: the square root of `var`."""
    return math.sqrt(present_var(values, ddof))


def present_min(values):
    """The smallest of the values that the last `n` bars have."""
    best = values[0]
    for i in range(1, len(values)):
        best = values[i] if values[i] < best else best
    return best


def present_max(values):
    """The largest of the values that the last `n` bars have."""
    best = values[0]
    for i in range(1, len(values)):
        best = values[i] if values[i] > best else best
    return best


def present_median(values):
    """The median of the values that the last `n` bars have."""
    values.sort()
    return middle(values)


def present_quantile(values, q):
    """The value below which a share `q` of those lie that the last `n` bars have."""
    values.sort()
    return between(values, q)


def present_ewm(values, alpha):
    """The exponentially weighted mean of the values that the last `reach` bars have: the newest weighs 1, each earlier one fades.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.ewm(alpha=0.5, reach=3, min_count=1), close=[1, 2, None, 4])
    [1.0, 1.666..., 1.666..., 3.333...]
    """
    mean, total = values[0], 1.0
    for i in range(1, len(values)):
        total = later_weight(total, 1.0 - alpha)
        mean += (1.0 / total) * (values[i] - mean)
    return mean


def pair_sums(x, y):
    """Of pairs of values, as distances from the oldest: the sums of x and of y, and of their products."""
    x_sum, y_sum, both = 0.0, 0.0, 0.0
    for i in range(1, len(x)):
        p, q = x[i] - x[0], y[i] - y[0]
        x_sum += p
        y_sum += q
        both += p * q
    return x_sum, y_sum, both


def present_cov(x, y, ddof):
    """The covariance of the pairs of values that the last `n` bars have, divided by their number less `ddof`."""
    x_sum, y_sum, both = pair_sums(x, y)
    return (both - (x_sum / len(x)) * y_sum) / (len(x) - ddof)


def present_corr(x, y):
    """Pearson's correlation of the pairs of values that the last `n` bars have; an error where either series does not change.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.corr(bars.open, 4, min_count=3), close=[1, 2, None, 3, 5], open=[2, 4, 5, 6, 6])
    [None, None, None, 0.999..., 0.755...]
    """
    x_sum, y_sum, both = pair_sums(x, y)
    x_square, y_square = pair_sums(x, x)[2] - (x_sum / len(x)) * x_sum, pair_sums(y, y)[2] - (y_sum / len(y)) * y_sum
    return within((both - (x_sum / len(x)) * y_sum) / (math.sqrt(x_square) * math.sqrt(y_square)))


_WINDOW = (window(), min_count())
_SPREAD = (window(2), DDOF, min_count(2))

OPERATORS = (
    Operator("sum", Shape.PRESENT, present_sum, params=_WINDOW, scaling=Scaling.SAME),
    Operator("mean", Shape.PRESENT, present_mean, params=_WINDOW, scaling=Scaling.SAME),
    Operator("var", Shape.PRESENT, present_var, params=_SPREAD, scaling=Scaling.SQUARE),
    Operator("std", Shape.PRESENT, present_std, params=_SPREAD, scaling=Scaling.SAME),
    Operator("min", Shape.PRESENT, present_min, params=_WINDOW, scaling=Scaling.SAME),
    Operator("max", Shape.PRESENT, present_max, params=_WINDOW, scaling=Scaling.SAME),
    Operator("cov", Shape.PRESENT, present_cov, ("x", "y"), params=_SPREAD, scaling=Scaling.PRODUCT),
    Operator("corr", Shape.PRESENT, present_corr, ("x", "y"), params=(window(2), min_count(2)), scaling=Scaling.SIGN),
    Operator("median", Shape.PRESENT, present_median, params=_WINDOW, scaling=Scaling.SAME),
    Operator("quantile", Shape.PRESENT, present_quantile, params=(window(), SHARE, min_count()), scaling=Scaling.SAME),
    Operator("ewm", Shape.PRESENT, present_ewm, params=(REACH, ALPHA, min_count()), scaling=Scaling.SAME),
)
