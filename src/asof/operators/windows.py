"""Event operators: the events of one window in, one number out. Sums run from the oldest event to the newest.

Scores cancel (0.4 and -0.4), so a plain sum can lose every digit: sums here carry their rounding error along (Knuth's TwoSum,
Ogita, Rump and Oishi 2005).
"""

import math

from asof.operators.operator import DDOF, Operator, Shape


def total(x):
    """The sum of the values, the rounding error carried along; 0 for no events."""
    high = 0.0
    low = 0.0
    for i in range(len(x)):
        value = x[i]
        new = high + value
        part = new - high
        low += (high - (new - part)) + (value - part)
        high = new
    return high + low


def weighted_total(x, weight):
    """The sum of value times weight; 0 for no events."""
    high = 0.0
    low = 0.0
    for i in range(len(x)):
        value = x[i] * weight[i]
        new = high + value
        part = new - high
        low += (high - (new - part)) + (value - part)
        high = new
    return high + low


def count(x):
    """How many events have a value; 0 for none, never missing."""
    present = 0.0
    for i in range(len(x)):
        if x[i] == x[i]:
            present += 1.0
    return present


def mean(x):
    """The arithmetic mean; missing when there is no event."""
    return total(x) / len(x)


def weighted_mean(x, weight):
    """sum(x * weight) / sum(weight), or the plain mean where the weights sum to 0; missing when there is no event."""
    weights = total(weight)
    return weighted_total(x, weight) / weights if weights != 0.0 else mean(x)


def var(x, ddof):
    """The variance about the mean, divided by the number of events less `ddof`; missing for fewer than 2 events."""
    centre = mean(x)
    squares = 0.0
    for i in range(len(x)):
        squares += (x[i] - centre) * (x[i] - centre)
    return squares / (len(x) - ddof)


def std(x, ddof):
    """The standard deviation: the square root of `var`; missing for fewer than 2 events."""
    return math.sqrt(var(x, ddof))


def weighted_std(x, weight):
    """The weighted population deviation about the weighted mean (the plain one where the weights sum to 0); needs 2 events."""
    weights = total(weight)
    if weights == 0.0:
        return std(x, 0)
    centre = weighted_mean(x, weight)
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


_WEIGHTED = ("x", "weight")

OPERATORS = (
    Operator("count", Shape.TALLY, count),
    Operator("sum", Shape.WINDOW, total),
    Operator("sum", Shape.WINDOW, weighted_total, _WEIGHTED),
    Operator("mean", Shape.WINDOW, mean, minimum=1),
    Operator("mean", Shape.WINDOW, weighted_mean, _WEIGHTED, minimum=1),
    Operator("var", Shape.WINDOW, var, params=(DDOF,), minimum=2),
    Operator("std", Shape.WINDOW, std, params=(DDOF,), minimum=2),
    Operator("std", Shape.WINDOW, weighted_std, _WEIGHTED, minimum=2),
    Operator("min", Shape.WINDOW, smallest, minimum=1),
    Operator("max", Shape.WINDOW, largest, minimum=1),
    Operator("last", Shape.WINDOW, last, minimum=1),
)
