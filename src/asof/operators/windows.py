"""Event operators: the events of one window in, one number out.

Scores cancel (0.4 and -0.4), so a plain sum can lose every digit, and a sum that is rounded at each step depends on where it began.
Sums here are exact and rounded once, as `math.fsum` is (Shewchuk 1997): no order and no start changes a bit of them.
"""

import math

from asof.operators.operator import DDOF, Operator, Param, Shape


def total(x):
    """The exact sum of the values, rounded once; 0 for no events.

    `parts` add up to the sum so far and do not overlap, the smallest first.
    """
    parts = [0.0] * 0
    for i in range(len(x)):
        high = x[i]
        kept = 0
        for k in range(len(parts)):
            larger, smaller = (high, parts[k]) if abs(high) >= abs(parts[k]) else (parts[k], high)
            high = larger + smaller
            low = smaller - (high - larger)
            if low != 0.0:
                parts[kept] = low
                kept += 1
        del parts[kept:]
        if high != 0.0:
            parts.append(high)
    return rounded(parts)


def rounded(parts):
    """The sum of parts that do not overlap, rounded once: to even where it lies half-way, but for what lies below the half."""
    k = len(parts) - 1
    high = parts[k] if k >= 0 else 0.0
    low = 0.0
    while k > 0 and low == 0.0:
        k -= 1
        new = high + parts[k]
        low = parts[k] - (new - high)
        high = new
    if k > 0 and low != 0.0 and (low > 0.0) == (parts[k - 1] > 0.0):
        twice = high + 2.0 * low
        if twice - high == 2.0 * low:
            return twice
    return high


def weighted_total(n, products):
    """The sum of value times weight; 0 for no events."""
    return products


def count(x):
    """How many events have a value; 0 for none, never missing."""
    return x == x


def mean(n, values):
    """The arithmetic mean; missing when there is no event."""
    return values / n


def weighted_mean(n, products, weights, values):
    """sum(x * weight) / sum(weight), or the plain mean where the weights sum to 0; missing when there is no event."""
    return products / weights if weights != 0.0 else values / n


def var(x, values, ddof):
    """The variance about the mean, divided by the number of events less `ddof`; missing for fewer than 2 events."""
    centre = values / len(x)
    squares = 0.0
    for i in range(len(x)):
        squares += (x[i] - centre) * (x[i] - centre)
    return squares / (len(x) - ddof)


def std(x, values, ddof):
    """The standard deviation: the square root of `var`; missing for fewer than 2 events."""
    return math.sqrt(var(x, values, ddof))


def weighted_std(x, weight, products, weights, values):
    """The weighted population deviation about the weighted mean (the plain one where the weights sum to 0); needs 2 events."""
    if weights == 0.0:
        return std(x, values, 0)
    centre = products / weights
    squares = 0.0
    for i in range(len(x)):
        squares += weight[i] * (x[i] - centre) * (x[i] - centre)
    ratio = squares / weights
    return math.sqrt(ratio) if ratio >= 0.0 else math.inf


def smallest(x):
    """The smallest value; missing when there is no event."""
    best = x[0]
    for i in range(1, len(x)):
        best = x[i] if x[i] < best else best
    return best


def largest(x):
    """The largest value; missing when there is no event."""
    best = x[0]
    for i in range(1, len(x)):
        best = x[i] if x[i] > best else best
    return best


def last(x):
    """The newest event's value (of events at the same moment the one with the greatest id); missing when there is no event."""
    return x[len(x) - 1]


def first(x):
    """The oldest event's value; missing when there is no event."""
    return x[0]


def buckets(x, weight, n):
    """How one-sided `n` buckets of equal weight are, into which the window is cut: the mean of |sum(x * weight)| / sum(weight) over them.

    An event at the edge of two buckets lies in both, with what of its weight belongs to each. An error where all weights are 0.
    """
    total = 0.0
    for i in range(len(x)):
        total += weight[i]
    size = total / n
    if size <= 0.0:
        return math.inf
    found = held = inside = 0.0
    filled = 0
    for i in range(len(x)):
        rest = weight[i]
        while filled < n - 1 and inside + rest >= size:
            part = size - inside
            found += abs(held + x[i] * part)
            rest -= part
            held = inside = 0.0
            filled += 1
        held += x[i] * rest
        inside += rest
    return (found + abs(held)) / total


_WEIGHTED = ("x", "weight")
_SUM = (("x",),)
_WEIGHTED_SUMS = (_WEIGHTED, ("weight",), ("x",))

OPERATORS = (
    Operator("count", Shape.COUNT, count),
    Operator("sum", Shape.SUM, total),
    Operator("sum", Shape.MOMENT, weighted_total, _WEIGHTED, sums=(_WEIGHTED,)),
    Operator("mean", Shape.MOMENT, mean, sums=_SUM, minimum=1),
    Operator("mean", Shape.MOMENT, weighted_mean, _WEIGHTED, sums=_WEIGHTED_SUMS, minimum=1),
    Operator("var", Shape.WINDOW, var, params=(DDOF,), sums=_SUM, minimum=2),
    Operator("std", Shape.WINDOW, std, params=(DDOF,), sums=_SUM, minimum=2),
    Operator("std", Shape.WINDOW, weighted_std, _WEIGHTED, sums=_WEIGHTED_SUMS, minimum=2),
    Operator("min", Shape.WINDOW, smallest, minimum=1),
    Operator("max", Shape.WINDOW, largest, minimum=1),
    Operator("first", Shape.WINDOW, first, minimum=1),
    Operator("last", Shape.WINDOW, last, minimum=1),
    Operator("buckets", Shape.WINDOW, buckets, _WEIGHTED, params=(Param("n", minimum=1, maximum=100_000, named=True),), minimum=1),
)
