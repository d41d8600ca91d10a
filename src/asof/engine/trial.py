"""An expression tried out on a few bars: what examples and experiments need, without a table or a store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from asof.engine.panel import Ints, Panel
from asof.engine.plan import plan
from asof.engine.run import run
from asof.engine.stages import staged
from asof.features.expression import Expr
from asof.features.feature_set import FeatureSet
from asof.timeframes import UNITS


def tried(expression: Expr, **columns: Sequence[float | None]) -> list[float | None]:
    """The expression over one instrument's minute bars with these columns, oldest first: None where it is missing, infinity for an error.

    Columns are of equal length, None where a bar has no value. Raises `KeyError` for a column that the expression needs and is not there.

    >>> from asof import bars
    >>> tried(bars.close / bars.close.lag(1) - 1, close=[2, 3, None, 6, 3])
    [None, 0.5, None, None, -0.5]
    """
    rows = max(map(len, columns.values()), default=0)
    return _answers(expression, _panel(np.array([0, rows]), np.arange(rows, dtype=np.int64) * UNITS["m"], columns))


def tried_across(expression: Expr, **columns: Sequence[float | None]) -> list[float | None]:
    """The expression over one bar each of several instruments, which open together: as for `tried` otherwise.

    >>> from asof import across, bars
    >>> tried_across(across().rank(bars.close), close=[3, 1, None])
    [1.0, 0.5, None]
    """
    rows = max(map(len, columns.values()), default=0)
    return _answers(expression, _panel(np.arange(rows + 1), np.zeros(rows, np.int64), columns))


def _panel(offsets: Ints, ts: Ints, columns: Mapping[str, Sequence[float | None]]) -> Panel:
    return Panel(
        offsets=offsets,
        ts=ts,
        columns={name: np.array([math.nan if v is None else v for v in values], np.float64) for name, values in columns.items()},
        points={},
        grid=UNITS["m"],
        known=ts + UNITS["m"],
    )


def _answers(expression: Expr, panel: Panel) -> list[float | None]:
    answers: list[float | None] = []
    the_plan = plan(FeatureSet("trial", {"x": expression}))
    for block in run(the_plan, staged(the_plan, panel, threads=1), threads=1):
        values, present, _ = block.features[0]
        there = np.ones(len(values)) if present is None else np.unpackbits(present, count=len(values), bitorder="little")
        absent = [math.inf if flags & 1 else None for flags in block.flags.tolist()]
        answers += [v if here else other for v, here, other in zip(values.tolist(), there.tolist(), absent, strict=True)]
    return answers
