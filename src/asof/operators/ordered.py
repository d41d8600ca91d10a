"""Operators of order: where values stand among the last `n`, by comparison alone. Nothing is rounded but a last interpolation.

`median` and `quantile` keep the window sorted and move on a bar at a time: the oldest value goes out, the newest comes in. What is
kept are the window's own values, so the bits do not depend on where the series began. The others compare rows block by block.
"""

import math

from asof.operators.operator import Operator, Param, Scaling, Shape, window
from asof.operators.rolling import BLOCK


def take_out(rest, before, after, leaving):
    """The sorted values without one that equals `leaving`: up to it those `before` each place, from it on those `after`."""
    for i in range(len(rest)):
        rest[i] = before[i] if before[i] < leaving else after[i]


def put_in(ordered, below, above, coming):
    """The sorted values with `coming` among them: at each place it, held between the values that would be `below` and `above` it."""
    for i in range(len(ordered)):
        capped = above[i] if above[i] < coming else coming
        ordered[i] = below[i] if below[i] > capped else capped


def comparable(x):
    """x, or infinity where x is missing: what cannot be compared would break the order, and its row is missing anyway."""
    return x if x == x else math.inf


def between(ordered, share):
    """The value `share` of the way from the first of the sorted values to the last, on the straight line between neighbours."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below) + 0.0


def middle(ordered):
    """The middle one of the sorted values, or half the sum of the two."""
    half = len(ordered) // 2
    return ordered[half] + 0.0 if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0 + 0.0


def rolling_ordered(out, x, n, q):
    """The median of the last `n` values, or with a `q` from 0 to 1 that quantile.

    At each bar one value leaves the sorted window and one comes in. Every place is computed, whether it changes or not: that takes no
    guesses, and the processor does many at once.
    """
    ordered, rest = x[:n].copy(), x[: min(n, len(x)) - 1].copy()
    ordered[:] = math.inf
    last = len(rest)
    before, after, inner, above = ordered[:last], ordered[1:], ordered[1:last], rest[1:]
    for i in range(len(x)):
        coming = comparable(x[i])
        take_out(rest, before, after, comparable(x[i - n]) if i >= n else math.inf)
        put_in(inner, rest, above, coming)
        ordered[0] = rest[0] if last > 0 and rest[0] < coming else coming
        ordered[last] = rest[last - 1] if last > 0 and rest[last - 1] > coming else coming
        if i >= n - 1:
            out[i] = between(ordered, q) if q >= 0.0 else middle(ordered)


def rolling_median(out, x, n):
    """The median of the last `n` values: the middle one, or half the sum of the two in the middle.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.median(3), close=[3, 1, 2, 2, 9, 4])
    [None, None, 2.0, 2.0, 2.0, 4.0]
    """
    rolling_ordered(out, x, n, -1.0)


def rolling_quantile(out, x, n, q):
    """The value below which a share `q` of the last `n` lie, on the straight line between the two nearest (Hyndman and Fan's type 7).

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.quantile(3, 0.25), close=[3, 1, 2, 2, 9, 4])
    [None, None, 1.5, 1.5, 2.0, 3.0]
    """
    rolling_ordered(out, x, n, q)


def add_standing(out, x, newest):
    """out += 1 where x is below the newest value, 1/2 where it equals it."""
    for i in range(len(out)):
        out[i] += 1.0 if x[i] < newest[i] else (0.5 if x[i] == newest[i] else 0.0)


def rolling_rank(out, x, n):
    """The rank of the newest among the last `n` values, smallest first, as a share of `n`; those that tie share the mean of theirs.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.rank(4), close=[3, 1, 2, 2, 9, 1])
    [None, None, None, 0.625, 1.0, 0.25]
    """
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        block = out[first + n - 1 : last + n - 1]
        block[:] = 0.5
        for k in range(n):
            add_standing(block, x[first + k :], x[first + n - 1 :])
        for i in range(len(block)):
            block[i] = block[i] / n


def keep_place_of_larger(place, best, x, k, newest):
    """Keep x and its place k where x is larger than the best so far, or as large and `newest`."""
    for i in range(len(best)):
        larger = (x[i] > best[i]) | ((x[i] == best[i]) & newest)
        best[i] = x[i] if larger else best[i]
        place[i] = k if larger else place[i]


def keep_place_of_smaller(place, best, x, k, newest):
    """Keep x and its place k where x is smaller than the best so far, or as small and `newest`."""
    for i in range(len(best)):
        smaller = (x[i] < best[i]) | ((x[i] == best[i]) & newest)
        best[i] = x[i] if smaller else best[i]
        place[i] = k if smaller else place[i]


def rolling_argmax(out, x, n, newest):
    """The place of the largest of the last `n` values, 0 for the oldest bar; of equal ones the oldest, or with `newest` the newest.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.argmax(3), close=[3, 9, 9, 2, 1, 4])
    [None, None, 1.0, 0.0, 0.0, 2.0]
    >>> tried(bars.close.argmax(3, newest=1), close=[3, 9, 9, 2, 1, 4])
    [None, None, 2.0, 1.0, 0.0, 2.0]
    """
    room = out[:BLOCK].copy()
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        place, best = out[first + n - 1 : last + n - 1], room[: last - first]
        place[:] = 0.0
        best[:] = x[first:last]
        for k in range(1, n):
            keep_place_of_larger(place, best, x[first + k :], k, newest != 0)


def rolling_argmin(out, x, n, newest):
    """The place of the smallest of the last `n` values, 0 for the oldest bar; of equal ones the oldest, or with `newest` the newest.

    >>> from asof import bars
    >>> from asof.engine.trial import tried
    >>> tried(bars.close.argmin(3), close=[3, 1, 1, 2, 9, 4])
    [None, None, 1.0, 0.0, 0.0, 0.0]
    """
    room = out[:BLOCK].copy()
    rows = len(x) - n + 1
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        place, best = out[first + n - 1 : last + n - 1], room[: last - first]
        place[:] = 0.0
        best[:] = x[first:last]
        for k in range(1, n):
            keep_place_of_smaller(place, best, x[first + k :], k, newest != 0)


SHARE = Param("q", float, minimum=0.0, maximum=1.0)
"""A share of the values, from 0 to 1."""
NEWEST = Param("newest", minimum=0, maximum=1, default=0)
"""Of equal values the oldest (0) or the newest (1)."""

OPERATORS = (
    Operator("median", Shape.SERIES, rolling_median, params=(window(),), scaling=Scaling.SAME),
    Operator("quantile", Shape.SERIES, rolling_quantile, params=(window(), SHARE), scaling=Scaling.SAME),
    Operator("rank", Shape.SERIES, rolling_rank, params=(window(),), scaling=Scaling.SIGN),
    Operator("argmax", Shape.SERIES, rolling_argmax, params=(window(), NEWEST), scaling=Scaling.SIGN),
    Operator("argmin", Shape.SERIES, rolling_argmin, params=(window(), NEWEST), scaling=Scaling.SIGN),
)
