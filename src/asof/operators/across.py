"""Operators across instruments: the values that the members of a universe have at one moment, each beside the others.

A kernel is given a section, the values of the members that have one, in the order of their names, and fills `out` for each of them; one
of shape SECTION gives a single number for all. `members` is missing where an instrument is no member, `groups` numbers the groups that
each section falls into. Sums are exact, so neither the order nor what instruments are called changes a bit.
"""

import math

from asof.operators.operator import DDOF, Operator, Param, Scaling, Shape
from asof.operators.sums import exact_sum


def mean_of(x):
    """The exact sum by the number of values; of equal values exactly what they are."""
    low, high = x[0], x[0]
    for i in range(len(x)):
        low, high = min(low, x[i]), max(high, x[i])
    return low if low == high else exact_sum(x) / len(x)


def products(x, y):
    """The products of the values of two rows."""
    out = x.copy()
    for i in range(len(x)):
        out[i] = x[i] * y[i]
    return out


def standing(out, x, order):
    """The rank of each value, smallest first, as a share of how many there are; those that tie share the mean of theirs.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().rank(bars.close), close=[3, 1, None, 1])
    [1.0, 0.5, None, 0.5]
    """
    start = 0
    while start < len(x):
        stop = start + 1
        while stop < len(x) and x[order[stop]] == x[order[start]]:
            stop += 1
        for k in range(start, stop):
            out[order[k]] = (start + 1 + stop) / 2.0 / len(x)
        start = stop


def quantile(out, x, order, n):
    """Which of `n` buckets of equal size each value falls into, 1 for the smallest; those that tie fall into the same.

    It is 1 + the share of the values that are smaller, times `n`, rounded down.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().quantile(bars.close, 2), close=[3, 1, None, 1, 5])
    [2.0, 1.0, None, 1.0, 2.0]
    """
    start = 0
    for k in range(len(x)):
        if x[order[k]] != x[order[start]]:
            start = k
        out[order[k]] = 1.0 + start * n // len(x)


def value_at(x, order, share):
    """The value `share` of the way from the smallest to the largest, on the straight line between neighbours."""
    place = share * (len(x) - 1)
    below = int(place)
    above = min(below + 1, len(x) - 1)
    return x[order[below]] + (x[order[above]] - x[order[below]]) * (place - below)


def winsorize(out, x, order, lower, upper):
    """Each value, held between the quantiles `lower` and `upper` of all of them (Hyndman and Fan's type 7).

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().winsorize(bars.close, 0.25, 0.75), close=[3, 1, 2, 90, 4])
    [3.0, 2.0, 2.0, 4.0, 4.0]
    """
    low, high = value_at(x, order, lower), value_at(x, order, upper)
    for i in range(len(x)):
        out[i] = max(low, min(high, x[i])) + 0.0


def demean(out, x):
    """Each value less the mean of all; within groups this is neutral to them.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().demean(bars.close), close=[3, 1, None, 2])
    [1.0, -1.0, None, 0.0]
    """
    mean = mean_of(x)
    for i in range(len(x)):
        out[i] = x[i] - mean


def zscore(out, x, ddof):
    """Each value less the mean, by the standard deviation of all; missing for fewer than 2, an error where all are equal.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().zscore(bars.close), close=[3, 1, None, 2])
    [1.0, -1.0, None, 0.0]
    """
    demean(out, x)
    deviation = math.sqrt(exact_sum(products(out, out)) / (len(x) - ddof))
    for i in range(len(x)):
        out[i] = out[i] / deviation


def scale(out, x):
    """Each value by the sum of the absolute values of all, so that those of the results add up to 1; an error where all are 0.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().scale(bars.close), close=[3, 1, None, 4])
    [0.375, 0.125, None, 0.5]
    """
    for i in range(len(x)):
        out[i] = abs(x[i])
    whole = exact_sum(out)
    for i in range(len(x)):
        out[i] = x[i] / whole


def neutralise(out, x, against):
    """What is left of each value when a straight line through all, of x over `against`, is taken away: the residual of least squares.

    Only members that have both take part. Missing for fewer than 2, an error where all of `against` are equal.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().neutralise(bars.close, bars.volume), close=[2, 1, 3, 7], volume=[1, 2, 3, None])
    [0.5, -1.0, 0.5, None]
    """
    place = against.copy()
    demean(place, against)
    demean(out, x)
    slope = exact_sum(products(out, place)) / exact_sum(products(place, place))
    for i in range(len(x)):
        out[i] = out[i] - slope * place[i]


def count(x):
    """How many members have a value: of all, or of the member's own group; 0 for none, never missing for a member.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().count(bars.close), close=[3, 1, None, 4])
    [3.0, 3.0, 3.0, 3.0]
    """
    return float(len(x))


def mean(x):
    """The mean of the members' values, the same for every member.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().mean(bars.close), close=[3, 1, None, 2])
    [2.0, 2.0, 2.0, 2.0]
    """
    return mean_of(x)


def std(x, ddof):
    """The standard deviation of the members' values, the same for every member; missing for fewer than 2.

    >>> from asof import across, bars
    >>> from asof.engine.trial import tried_across
    >>> tried_across(across().std(bars.close), close=[3, 1, None, 2])
    [1.0, 1.0, 1.0, 1.0]
    """
    out = x.copy()
    demean(out, x)
    return math.sqrt(exact_sum(products(out, out)) / (len(x) - ddof))


LOWER, UPPER = (Param(name, float, minimum=0.0, maximum=1.0) for name in ("lower", "upper"))
"""Shares of the values, from 0 to 1."""
BUCKETS = Param("n", minimum=2, maximum=1_000_000)
"""How many buckets."""
ONE, TWO = ("x", "members", "groups"), ("x", "against", "members", "groups")

OPERATORS = (
    Operator("rank", Shape.RANKED, standing, ONE, minimum=1),
    Operator("quantile", Shape.RANKED, quantile, ONE, (BUCKETS,), minimum=1),
    Operator("winsorize", Shape.RANKED, winsorize, ONE, (LOWER, UPPER), minimum=1),
    Operator("demean", Shape.ACROSS, demean, ONE, minimum=1),
    Operator("zscore", Shape.ACROSS, zscore, ONE, (DDOF,), minimum=2),
    Operator("scale", Shape.ACROSS, scale, ONE, minimum=1),
    Operator("neutralise", Shape.ACROSS, neutralise, TWO, minimum=2),
    Operator("count", Shape.SECTION, count, ONE, scaling=Scaling.PRESENCE),
    Operator("mean", Shape.SECTION, mean, ONE, minimum=1),
    Operator("std", Shape.SECTION, std, ONE, (DDOF,), minimum=2),
)
