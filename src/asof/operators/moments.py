"""Operators of deviation: how the last `n` values lie about their own mean, and beside those of another series.

All are counted from the window's oldest value, and its mean is the mean distance from that one. Equal values then deviate by exactly
nothing, so what they divide (a correlation, a skewness) is an error and not what rounding left over; and a level far from zero costs no
digits. Sums of products can take off the means afterwards: the oldest value is one of the `n`, so its distance from the mean squared is at
most `n` variances, and cancellation costs no more than adding up does. Blocks of rows as in `rolling`: the oldest values of a block's
windows are its own rows of x.
"""

import math

from asof.operators.operator import DDOF, Operator, Scaling, Shape, window
from asof.operators.rolling import BLOCK


def add_four_distances(out, a, b, c, d, origin):
    """out += a - origin, then those of b, c and d."""
    for i in range(len(out)):
        p, q, r, s = a[i] - origin[i], b[i] - origin[i], c[i] - origin[i], d[i] - origin[i]
        out[i] = (((out[i] + p) + q) + r) + s


def add_distance(out, x, origin):
    """out += x - origin, element by element."""
    for i in range(len(out)):
        out[i] += x[i] - origin[i]


def centre_block(centre, x, n):
    """The mean distance, from the first of them, of the `n` values that begin at each of the block's rows."""
    centre[:] = 0.0
    for k in range(1, n - 3, 4):
        add_four_distances(centre, x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :], x)
    for k in range(n - (n - 1) % 4, n):
        add_distance(centre, x[k:], x)
    for i in range(len(centre)):
        centre[i] = centre[i] / n


def add_powers(second, power, x, origin, centre, cube):
    """Add the square of x's deviation from the mean, which lies `centre` above `origin`, and its cube or fourth power."""
    for i in range(len(second)):
        distance = (x[i] - origin[i]) - centre[i]
        square = distance * distance
        second[i] += square
        power[i] += square * (distance if cube else square)


def powers(out, x, n, cube):
    """The third or fourth power sum of the last `n` deviations in units of their mean square: n m3 / m2**1.5 or n m4 / m2**2."""
    room = out[:BLOCK].copy()
    more = out[:BLOCK].copy()
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        power, centre, second = out[first + n - 1 : last + n - 1], room[: last - first], more[: last - first]
        centre_block(centre, x[first:], n)
        power[:] = 0.0
        second[:] = 0.0
        for k in range(n):
            add_powers(second, power, x[first + k :], x[first:], centre, cube)
        for i in range(len(power)):
            mean_square = second[i] / n
            power[i] = power[i] / (mean_square * (math.sqrt(mean_square) if cube else mean_square))


def rolling_skew(out, x, n):
    """The skewness of the last `n` values, corrected for their number: G1 of Joanes and Gill (1998), as in pandas.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.skew(4), close=[1, 2, 3, 4, 9])
    [None, None, None, 0.0, 1.597...]
    """
    powers(out, x, n, True)
    scale = math.sqrt(float(n) * (n - 1)) / (float(n) * (n - 2))
    for i in range(n - 1, len(x)):
        out[i] = out[i] * scale


def rolling_kurt(out, x, n):
    """The excess kurtosis of the last `n` values, corrected for their number: G2 of Joanes and Gill (1998), as in pandas.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.kurt(4), close=[1, 2, 3, 4, 9])
    [None, None, None, -1.200..., 2.703...]
    """
    powers(out, x, n, False)
    a, b = (n - 1.0) / ((n - 2.0) * (n - 3.0)), n - 1.0
    for i in range(n - 1, len(x)):
        out[i] = a * ((n + 1.0) * (out[i] / n) - 3.0 * b)


def add_apart(out, x, origin, centre):
    """Add how far x lies from the mean, which lies `centre` above `origin`."""
    for i in range(len(out)):
        out[i] += abs((x[i] - origin[i]) - centre[i])


def rolling_mad(out, x, n):
    """The mean absolute deviation of the last `n` values from their mean.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.mad(3), close=[1, 2, 6, 4])
    [None, None, 2.0, 1.333...]
    """
    room = out[:BLOCK].copy()
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        block, centre = out[first + n - 1 : last + n - 1], room[: last - first]
        centre_block(centre, x[first:], n)
        block[:] = 0.0
        for k in range(n):
            add_apart(block, x[first + k :], x[first:], centre)
        for i in range(len(block)):
            block[i] = block[i] / n


def add_pair(x_sum, y_sum, both, x, y, x_origin, y_origin):
    """Add the distances of x and y from their origins, and the product of the two."""
    for i in range(len(both)):
        p, q = x[i] - x_origin[i], y[i] - y_origin[i]
        x_sum[i] += p
        y_sum[i] += q
        both[i] += p * q


def rolling_cov(out, x, y, n, ddof):
    """The covariance of the last `n` pairs of values, divided by `n - ddof`.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.cov(bars.open, 3), close=[1, 2, 3, 5], open=[2, 4, 6, 6])
    [None, None, 2.0, 1.333...]
    """
    room, more = out[:BLOCK].copy(), out[:BLOCK].copy()
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        both, x_sum, y_sum = out[first + n - 1 : last + n - 1], room[: last - first], more[: last - first]
        both[:] = 0.0
        x_sum[:] = 0.0
        y_sum[:] = 0.0
        for k in range(1, n):
            add_pair(x_sum, y_sum, both, x[first + k :], y[first + k :], x[first:], y[first:])
        for i in range(len(both)):
            both[i] = (both[i] - (x_sum[i] / n) * y_sum[i]) / (n - ddof)


def add_squares(sums, squares, x, origin):
    """Add the distance of x from its origin, and its square."""
    for i in range(len(sums)):
        distance = x[i] - origin[i]
        sums[i] += distance
        squares[i] += distance * distance


def add_four_squares(sums, squares, a, b, c, d, origin):
    """What `add_squares` adds of a, then b, c and d, with the sums kept at hand in between."""
    for i in range(len(sums)):
        p, q, r, s = a[i] - origin[i], b[i] - origin[i], c[i] - origin[i], d[i] - origin[i]
        sums[i] = (((sums[i] + p) + q) + r) + s
        squares[i] = (((squares[i] + p * p) + q * q) + r * r) + s * s


def variation_block(squares, sums, x, n):
    """The sums of the squared deviations of the `n` values that begin at each of the block's rows, and of the distances from the first."""
    sums[:] = 0.0
    squares[:] = 0.0
    for k in range(1, n - 3, 4):
        add_four_squares(sums, squares, x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :], x)
    for k in range(n - (n - 1) % 4, n):
        add_squares(sums, squares, x[k:], x)
    for i in range(len(squares)):
        squares[i] = squares[i] - (sums[i] / n) * sums[i]


def add_product(both, x, y, x_origin, y_origin):
    """Add the product of the distances of x and y from their origins."""
    for i in range(len(both)):
        both[i] += (x[i] - x_origin[i]) * (y[i] - y_origin[i])


def add_two_products(both, x, y, x_next, y_next, x_origin, y_origin):
    """What `add_product` adds of x and y, then of the bar after them."""
    for i in range(len(both)):
        first, second = (x[i] - x_origin[i]) * (y[i] - y_origin[i]), (x_next[i] - x_origin[i]) * (y_next[i] - y_origin[i])
        both[i] = (both[i] + first) + second


def product_block(both, x, y, n):
    """The sums of the products of the distances from the oldest values of the windows that begin at each of the block's rows."""
    both[:] = 0.0
    for k in range(1, n - 1, 2):
        add_two_products(both, x[k:], y[k:], x[k + 1 :], y[k + 1 :], x, y)
    for k in range(n - (n - 1) % 2, n):
        add_product(both, x[k:], y[k:], x, y)


def rolling_corr(out, x, y, n):
    """Pearson's correlation of the last `n` pairs of values, -1 to 1; an error where either series does not change.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.corr(bars.open, 3), close=[1, 2, 3, 5], open=[2, 4, 6, 6])
    [None, None, 0.999..., 0.755...]
    """
    a, b, c, d = out[:BLOCK].copy(), out[:BLOCK].copy(), out[:BLOCK].copy(), out[:BLOCK].copy()
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        both, x_sum, y_sum, x_square, y_square = out[first + n - 1 : first + n - 1 + count], a[:count], b[:count], c[:count], d[:count]
        variation_block(x_square, x_sum, x[first:], n)
        variation_block(y_square, y_sum, y[first:], n)
        product_block(both, x[first:], y[first:], n)
        for i in range(count):
            both[i] = within((both[i] - (x_sum[i] / n) * y_sum[i]) / (math.sqrt(x_square[i]) * math.sqrt(y_square[i])))


def within(share):
    """A correlation held to what it can be, -1 to 1; what is not a number stays so."""
    return -1.0 if share < -1.0 else (1.0 if share > 1.0 and math.isfinite(share) else share)


OPERATORS = (
    Operator("mad", Shape.SERIES, rolling_mad, params=(window(),), scaling=Scaling.SAME),
    Operator("skew", Shape.SERIES, rolling_skew, params=(window(3),), scaling=Scaling.SIGN),
    Operator("kurt", Shape.SERIES, rolling_kurt, params=(window(4),), scaling=Scaling.SIGN),
    Operator("cov", Shape.SERIES, rolling_cov, ("x", "y"), params=(window(2), DDOF), scaling=Scaling.PRODUCT),
    Operator("corr", Shape.SERIES, rolling_corr, ("x", "y"), params=(window(2),), scaling=Scaling.SIGN),
)
