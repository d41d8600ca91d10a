"""Rolling operators: one instrument's series in, the same series' windows of the last `n` bars out.

Sums run from the oldest bar to the newest, one addition at a time, so a `for` loop in any language gives the same bits. The
loops are turned inside out (the window outside, a block of rows inside) so that the processor adds many rows at once without
changing the order within any one of them.
"""

import math

from asof.operators.operator import DDOF, LONGEST, Operator, Param, Scaling, Shape, window

BLOCK = 512


def add_into(out, x):
    """out += x, element by element."""
    for i in range(len(out)):
        out[i] += x[i]


def add_four_into(out, a, b, c, d):
    """out += a, then b, c and d: what four calls of `add_into` give, with the sum kept at hand in between."""
    for i in range(len(out)):
        out[i] = (((out[i] + a[i]) + b[i]) + c[i]) + d[i]


def add_square_into(out, x, centre):
    """out += (x - centre)**2, element by element."""
    for i in range(len(out)):
        out[i] += (x[i] - centre[i]) * (x[i] - centre[i])


def add_four_squares_into(out, a, b, c, d, centre):
    """out += (a - centre)**2, then those of b, c and d."""
    for i in range(len(out)):
        p, q, r, s = a[i] - centre[i], b[i] - centre[i], c[i] - centre[i], d[i] - centre[i]
        out[i] = (((out[i] + p * p) + q * q) + r * r) + s * s


def keep_smaller(out, x):
    """out = min(out, x), element by element."""
    for i in range(len(out)):
        out[i] = x[i] if x[i] < out[i] else out[i]


def keep_larger(out, x):
    """out = max(out, x), element by element."""
    for i in range(len(out)):
        out[i] = x[i] if x[i] > out[i] else out[i]


def sum_block(block, x, n):
    """The sums of the `n` values that begin at each of the block's rows."""
    block[:] = x[: len(block)]
    for k in range(1, n - 3, 4):
        add_four_into(block, x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :])
    for k in range(n - (n - 1) % 4, n):
        add_into(block, x[k:])


def square_block(block, x, centre, n):
    """The sums of the squared deviations from `centre` of the `n` values that begin at each of the block's rows."""
    block[:] = 0.0
    for k in range(0, n - 3, 4):
        add_four_squares_into(block, x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :], centre)
    for k in range(n - n % 4, n):
        add_square_into(block, x[k:], centre)


def rolling_sum(out, x, n):
    """The sum of the last `n` values."""
    sums = out[n - 1 :]
    for first in range(0, len(sums), BLOCK):
        sum_block(sums[first : first + BLOCK], x[first:], n)


def rolling_mean(out, x, n):
    """The arithmetic mean of the last `n` values."""
    rolling_sum(out, x, n)
    for i in range(n - 1, len(x)):
        out[i] = out[i] / n


def squared_deviations(out, x, n):
    """The sum of the squared deviations of the last `n` values from their own mean. Two passes, so no cancellation."""
    room = out[:BLOCK].copy()
    squares = out[n - 1 :]
    for first in range(0, len(squares), BLOCK):
        block = squares[first : first + BLOCK]
        centre = room[: len(block)]
        sum_block(centre, x[first:], n)
        for i in range(len(centre)):
            centre[i] = centre[i] / n
        square_block(block, x[first:], centre, n)


def rolling_var(out, x, n, ddof):
    """The variance of the last `n` values about their own mean, divided by `n - ddof`."""
    squared_deviations(out, x, n)
    for i in range(n - 1, len(x)):
        out[i] = out[i] / (n - ddof)


def rolling_std(out, x, n, ddof):
    """The standard deviation of the last `n` values: the square root of `var`."""
    squared_deviations(out, x, n)
    for i in range(n - 1, len(x)):
        out[i] = math.sqrt(out[i] / (n - ddof))


def rolling_min(out, x, n):
    """The smallest of the last `n` values."""
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        block = out[first + n - 1 : last + n - 1]
        block[:] = x[first:last]
        for k in range(1, n):
            keep_smaller(block, x[first + k : last + k])


def rolling_max(out, x, n):
    """The largest of the last `n` values."""
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        block = out[first + n - 1 : last + n - 1]
        block[:] = x[first:last]
        for k in range(1, n):
            keep_larger(block, x[first + k : last + k])


def lag(out, x, n):
    """The value `n` bars ago; missing where there is no such bar."""
    out[:n] = math.nan
    for i in range(n, len(x)):
        out[i] = x[i - n]


def count(out, x, n):
    """How many of the last `n` bars exist and have a value; never missing, and smaller than `n` near the first bar."""
    present = 0
    for i in range(len(x)):
        if x[i] == x[i]:
            present += 1
        if i >= n and x[i - n] == x[i - n]:
            present -= 1
        out[i] = present


def bars_since(out, x, n):
    """How many bars ago x was last true, 0 for now; missing where it was not among the last `n` bars, or has no value since.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried((bars.close > 3).bars_since(3), close=[1, 4, 2, 2, 2, 5])
    [None, 0.0, 1.0, 2.0, None, 0.0]
    """
    seen = -1
    for i in range(len(x)):
        if x[i] != 0.0:
            seen = i
        if seen < 0 or i - seen >= n:
            out[i] = math.nan
        else:
            out[i] = i - seen if math.isfinite(x[seen]) else x[seen]


def cumulative(out, x, within, n):
    """The sum of x over the bars since `within` changed; missing where that is not among the last `n` bars, or one has no value.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.cumulative(bars.open, 3), close=[1, 2, 3, 4, 5, 6], open=[7, 7, 8, 8, 8, 8])
    [None, None, 3.0, 7.0, 12.0, None]
    """
    first, total, missing, broken = 0, 0.0, False, False
    for i in range(len(x)):
        if i == 0 or within[i] != within[i - 1]:
            first, total, missing, broken = i, x[i], False, False
        else:
            total += x[i]
        missing |= x[i] != x[i]
        broken |= math.isinf(x[i])
        if first == 0 or i - first >= n or missing or within[i] != within[i]:
            out[i] = math.nan
        else:
            out[i] = math.inf if broken or math.isinf(within[i]) or not math.isfinite(total) else total


OPERATORS = (
    Operator("lag", Shape.RAW, lag, params=(Param("n", minimum=1, maximum=LONGEST),), scaling=Scaling.SAME),
    Operator("count", Shape.RAW, count, params=(window(),), scaling=Scaling.PRESENCE),
    Operator("bars_since", Shape.RAW, bars_since, params=(window(),), scaling=Scaling.SIGN),
    Operator("cumulative", Shape.RAW, cumulative, ("x", "within"), params=(window(),), scaling=Scaling.WEIGHTED),
    Operator("sum", Shape.SERIES, rolling_sum, params=(window(),), scaling=Scaling.SAME),
    Operator("mean", Shape.SERIES, rolling_mean, params=(window(),), scaling=Scaling.SAME),
    Operator("var", Shape.SERIES, rolling_var, params=(window(2), DDOF), scaling=Scaling.SQUARE),
    Operator("std", Shape.SERIES, rolling_std, params=(window(2), DDOF), scaling=Scaling.SAME),
    Operator("min", Shape.SERIES, rolling_min, params=(window(),), scaling=Scaling.SAME),
    Operator("max", Shape.SERIES, rolling_max, params=(window(),), scaling=Scaling.SAME),
)
