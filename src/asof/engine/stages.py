"""Stages: what is computed before a plan, and becomes columns of its bars.

1. `staged` runs the stages of a plan in their order, each over the panel with the columns of those before it.
2. A stage's own plan gives what its nodes are made of, for every bar of the panel that it is over: missing values and errors as they are.
3. Its nodes' kernels make columns of that, which the plan then reads like any others.
4. A bar's vector cannot be known before what its stages looked at: where that is later, the panel's `known` becomes later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from asof.engine import ordering
from asof.engine.layout import known_since, newest_known
from asof.engine.native import compile_loop
from asof.engine.panel import Floats, Ints, Panel
from asof.engine.plan import Plan, Stage
from asof.engine.run import evaluate
from asof.features.adjustment import Scale, rescales
from asof.operators.staged import age, latest

_latest = compile_loop(latest)
_age = compile_loop(age)
_rescale_newest = compile_loop(ordering.rescale_newest)


def staged(plan: Plan, panel: Panel, threads: int | None = None, rows: int | None = None) -> Panel:
    """The panel with the columns that the plan's stages make, and with what is known later for it; the same one where there are none.

    The bits do not depend on `threads` or `rows`.
    """
    for stage in plan.stages:
        source = panel if stage.timeframe is None else staged(stage.plan, panel.higher[stage.timeframe], threads, rows)
        columns, known = _newest(stage, panel, source, evaluate(stage.plan, source, threads, rows))
        panel = replace(panel, columns={**panel.columns, **columns}, known=known)
    return panel


def _newest(stage: Stage, panel: Panel, higher: Panel, inputs: tuple[Floats, ...]) -> tuple[Mapping[str, Floats], Ints]:
    """The columns of `latest` and `age`: for each bar, values of the newest bar of a higher timeframe that was known when it was.

    That bar's value also looks at the bars before it; one of them may have become known later.
    """
    assert panel.known is not None
    assert panel.moment is not None
    assert higher.known is not None
    newest = newest_known(panel.offsets, panel.moment, higher.offsets, higher.known)
    columns = {node.column: np.empty(len(newest)) for node in stage.nodes}
    for node in stage.nodes:
        if node.operator.name == "age":
            _age(columns[node.column], panel.moment, higher.known, newest)
            continue
        _latest(columns[node.column], inputs[node.inputs[0]], newest)
        if rescales(node.scale):
            _rescaled(columns[node.column], node.scale, newest, panel, higher)
    since = np.append(known_since(higher.known, higher.offsets, stage.plan.lookback), np.iinfo(np.int64).min)
    return columns, np.maximum(panel.known, since[newest])


def _rescaled(out: Floats, scale: Scale, newest: Ints, panel: Panel, higher: Panel) -> None:
    """Rescale values of a higher timeframe's newest bars with the splits and dividends between them and the bars that look at them."""
    acted = panel.acted
    assert acted is not None
    assert isinstance(scale, tuple)
    factors = np.ones(len(acted.time))
    for base, power in ((acted.price, scale[0]), (acted.volume, scale[1])):
        for _ in range(abs(power)):
            factors = factors * base if power > 0 else factors / base
    _rescale_newest(out, newest, panel.ts, higher.ts, panel.offsets, acted.offsets, acted.time, factors)
