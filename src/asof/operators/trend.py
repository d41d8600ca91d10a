"""Operators of trend: weights by a value's place in the window, and straight lines through it. Blocks of rows as in `rolling`."""

import math

from asof.operators.moments import centre_block, variation_block
from asof.operators.operator import LONGEST, Operator, Param, Scaling, Shape, window
from asof.operators.rolling import BLOCK


def add_times(out, x, weight):
    """out += weight * x, element by element."""
    for i in range(len(out)):
        out[i] += weight * x[i]


def rolling_wma(out, x, n):
    """The mean of the last `n` values, the oldest weighing 1, the next one 2, and the newest `n`.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.wma(2), close=[3, 6, 9])
    [None, 5.0, 8.0]
    """
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        block = out[first + n - 1 : min(first + BLOCK, rows) + n - 1]
        block[:] = x[first : first + len(block)]
        for k in range(1, n):
            add_times(block, x[first + k :], k + 1.0)
        for i in range(len(block)):
            block[i] = block[i] / (n * (n + 1.0) / 2.0)


def add_distance_times(out, x, origin, weight):
    """Add `weight` times the distance of x from its origin."""
    for i in range(len(out)):
        out[i] += weight * (x[i] - origin[i])


def add_four_distances_times(out, a, b, c, d, origin, weight):
    """What `add_distance_times` adds of a, then b, c and d, the weight growing by 1 a bar."""
    for i in range(len(out)):
        p, q, r, s = a[i] - origin[i], b[i] - origin[i], c[i] - origin[i], d[i] - origin[i]
        out[i] = (((out[i] + weight * p) + (weight + 1.0) * q) + (weight + 2.0) * r) + (weight + 3.0) * s


def slope_block(slope, x, n):
    """The slope of the line through the `n` values that begin at each of the block's rows, by least squares.

    The bars' distances from the middle of the window add up to nothing, so it does not matter what the values are counted from.
    """
    slope[:] = 0.0
    for k in range(1, n - 3, 4):
        add_four_distances_times(slope, x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :], x, k - (n - 1) / 2.0)
    for k in range(n - (n - 1) % 4, n):
        add_distance_times(slope, x[k:], x, k - (n - 1) / 2.0)
    for i in range(len(slope)):
        slope[i] = slope[i] / squared_ages(n)


def squared_ages(n):
    """The sum of the squared distances of `n` bars from their middle."""
    return n * (float(n) * n - 1.0) / 12.0


def rolling_slope(out, x, n):
    """The slope, in units of x per bar, of the straight line through the last `n` values by least squares.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.slope(3), close=[1, 3, 5, 4])
    [None, None, 2.0, 0.5]
    """
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        slope_block(out[first + n - 1 : min(first + BLOCK, rows) + n - 1], x[first:], n)


def rolling_resid(out, x, n):
    """By how much the newest of the last `n` values lies above the straight line through them.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.resid(3), close=[1, 3, 5, 4])
    [None, None, 0.0, -0.5]
    """
    room = out[:BLOCK].copy()
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        block, centre = out[first + n - 1 : last + n - 1], room[: last - first]
        centre_block(centre, x[first:], n)
        slope_block(block, x[first:], n)
        for i in range(len(block)):
            block[i] = ((x[first + n - 1 + i] - x[first + i]) - centre[i]) - block[i] * ((n - 1) / 2.0)


def rolling_rsquare(out, x, n):
    """The share of the variance of the last `n` values that the straight line through them explains; an error where they are all equal.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.rsquare(3), close=[1, 3, 5, 4])
    [None, None, 1.0, 0.25]
    """
    room, more = out[:BLOCK].copy(), out[:BLOCK].copy()
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        block, squares = out[first + n - 1 : last + n - 1], room[: last - first]
        slope_block(block, x[first:], n)
        variation_block(squares, more[: last - first], x[first:], n)
        for i in range(len(block)):
            share = block[i] * block[i] * squared_ages(n) / squares[i]
            block[i] = 1.0 if share > 1.0 and math.isfinite(share) else share


def step_towards(out, x, gain):
    """out += gain * (x - out), element by element."""
    for i in range(len(out)):
        out[i] += gain * (x[i] - out[i])


def four_steps_towards(out, a, b, c, d, gains):
    """out += gain * (a - out), then towards b, c and d, each with its gain."""
    e, f, g, h = gains
    for i in range(len(out)):
        one = out[i] + e * (a[i] - out[i])
        two = one + f * (b[i] - one)
        three = two + g * (c[i] - two)
        out[i] = three + h * (d[i] - three)


def later_weight(total, decay):
    """The sum of one weight more: 1 for the newest value, and all the others times `decay`."""
    return 1.0 + decay * total


def ewm(out, x, reach, alpha):
    """The exponentially weighted mean of the last `reach` values: the newest weighs 1, each earlier one `1 - alpha` times the next.

    It is taken step by step from the oldest value on, each step as large as the weights so far ask for, so equal values have that value
    as their mean. `Expr.ewm` tells how `alpha` and `reach` follow from a span.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.ewm(alpha=0.5, reach=3), close=[1, 2, 4, 4])
    [None, None, 3.0, 3.714285714285714]
    """
    rows = len(x) - reach + 1
    for first in range(0, rows, BLOCK):
        block = out[first + reach - 1 : min(first + BLOCK, rows) + reach - 1]
        block[:] = x[first : first + len(block)]
        a, k = 1.0, 1
        while k + 3 < reach:
            b = later_weight(a, 1.0 - alpha)
            c = later_weight(b, 1.0 - alpha)
            d = later_weight(c, 1.0 - alpha)
            a = later_weight(d, 1.0 - alpha)
            here = x[first + k :]
            four_steps_towards(block, here, here[1:], here[2:], here[3:], (1.0 / b, 1.0 / c, 1.0 / d, 1.0 / a))
            k += 4
        for rest in range(k, reach):
            a = later_weight(a, 1.0 - alpha)
            step_towards(block, x[first + rest :], 1.0 / a)


def step_by_own_gain(out, x, gain):
    """out += gain * (x - out), each row with a gain of its own."""
    for i in range(len(out)):
        out[i] += gain[i] * (x[i] - out[i])


def ewm_by_gain(out, x, gain, reach):
    """An average that begins at the oldest of the last `reach` values and at each later bar goes the bar's own `gain` of the way to x.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.ewm(bars.volume, reach=3), close=[8, 16, 4, 4], volume=[0.5, 0.5, 0.25, 1])
    [None, None, 10.0, 4.0]
    """
    rows = len(x) - reach + 1
    for first in range(0, rows, BLOCK):
        block = out[first + reach - 1 : min(first + BLOCK, rows) + reach - 1]
        block[:] = x[first : first + len(block)]
        for k in range(1, reach):
            step_by_own_gain(block, x[first + k :], gain[first + k :])


REACH = Param("reach", minimum=1, maximum=LONGEST, named=True)
"""How many bars an average with fading weights looks at, the current one included."""
ALPHA = Param("alpha", float, minimum=1e-9, maximum=1.0, named=True)
"""The share of the newest value in an average with fading weights."""

OPERATORS = (
    Operator("wma", Shape.SERIES, rolling_wma, params=(window(),), scaling=Scaling.SAME),
    Operator("ewm", Shape.SERIES, ewm, params=(REACH, ALPHA), scaling=Scaling.SAME),
    Operator("ewm", Shape.SERIES, ewm_by_gain, ("x", "gain"), params=(REACH,), scaling=Scaling.WEIGHTED),
    Operator("slope", Shape.SERIES, rolling_slope, params=(window(2),), scaling=Scaling.SAME),
    Operator("resid", Shape.SERIES, rolling_resid, params=(window(2),), scaling=Scaling.SAME),
    Operator("rsquare", Shape.SERIES, rolling_rsquare, params=(window(2),), scaling=Scaling.SIGN),
)
