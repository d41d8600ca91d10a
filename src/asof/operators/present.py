"""Operators that take what the last `n` bars have: with `min_count=`, a window may be short or have gaps.

Each kernel sees the values that are there, oldest first. Sums run from the oldest to the newest, as in `rolling`.
"""

import math

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


_WINDOW = (window(), min_count())
_SPREAD = (window(2), DDOF, min_count(2))

OPERATORS = (
    Operator("sum", Shape.PRESENT, present_sum, params=_WINDOW, scaling=Scaling.SAME),
    Operator("mean", Shape.PRESENT, present_mean, params=_WINDOW, scaling=Scaling.SAME),
    Operator("var", Shape.PRESENT, present_var, params=_SPREAD, scaling=Scaling.SQUARE),
    Operator("std", Shape.PRESENT, present_std, params=_SPREAD, scaling=Scaling.SAME),
    Operator("min", Shape.PRESENT, present_min, params=_WINDOW, scaling=Scaling.SAME),
    Operator("max", Shape.PRESENT, present_max, params=_WINDOW, scaling=Scaling.SAME),
    Operator("median", Shape.PRESENT, present_median, params=_WINDOW, scaling=Scaling.SAME),
    Operator("quantile", Shape.PRESENT, present_quantile, params=(window(), SHARE, min_count()), scaling=Scaling.SAME),
    Operator("ewm", Shape.PRESENT, present_ewm, params=(REACH, ALPHA, min_count()), scaling=Scaling.SAME),
)
