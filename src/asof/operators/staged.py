"""Staged operators: they look beyond the bars of one instrument and timeframe, and are computed before everything that uses them.

The engine gives their kernels whole panels (`asof.engine.stages`); to the rest of a plan, what they make is a column of its bars.
"""

import math

from asof.operators.operator import Operator, Scaling, Shape


def latest(out, values, newest):
    """The value of the newest bar of a higher timeframe that was known when this bar was; missing where there is none.

    `newest` has that bar's row for each row of `out`, -1 where there is none.
    """
    for i in range(len(out)):
        out[i] = values[newest[i]] if newest[i] >= 0 else math.nan


def age(out, moments, known, newest):
    """How long the newest known bar of a higher timeframe had been known, in microseconds; missing where there is none.

    It was known at `known` when the bars looked at their `moments`; `newest` is as for `latest`.
    """
    for i in range(len(out)):
        out[i] = moments[i] - known[newest[i]] if newest[i] >= 0 else math.nan


HIGHER = ("latest", "age")
"""The operators over the bars of a higher timeframe."""

OPERATORS = (
    Operator("latest", Shape.STAGED, latest, scaling=Scaling.SAME),
    Operator("age", Shape.STAGED, age, scaling=Scaling.PRESENCE),
)
