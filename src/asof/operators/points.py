"""Operators over points: what a point has to do with those before it, and with the points of other streams.

None of them remembers: each looks back `within` a duration, and has nothing to say where that is not far enough. So they do not depend on
where the data begins.
"""

import math

from asof.operators.operator import WITHIN, Operator, Shape


def previous(out, x, time, within):
    """The value of the point before, if that became known at most `within` earlier; else missing."""
    for i in range(len(out)):
        out[i] = x[i - 1] if i > 0 and time[i] - time[i - 1] <= within else math.nan


def previous_other(out, x, time, within):
    """The newest earlier value that differs from this one, if its point became known at most `within` earlier; else missing.

    Points without a value are passed over.
    """
    newest = other = -1
    for i in range(len(out)):
        out[i] = math.nan
        if x[i] == x[i]:
            if newest >= 0 and x[newest] != x[i]:
                other = newest
            newest = i
            if other >= 0 and time[i] - time[other] <= within:
                out[i] = x[other]


def at(out, time, x, seen, within):
    """The value of the newest point that became known before this one, and at most `within` before it; else missing.

    A point of the same moment is not seen: nothing tells which of the two came first.
    """
    k = 0
    for i in range(len(out)):
        while k < len(x) and seen[k] < time[i]:
            k += 1
        out[i] = x[k - 1] if k > 0 and time[i] - seen[k - 1] <= within else math.nan


OPERATORS = (
    Operator("previous", Shape.POINT, previous, params=(WITHIN,)),
    Operator("previous_other", Shape.POINT, previous_other, params=(WITHIN,)),
    Operator("at", Shape.AT, at, ("x", "points")),
)
