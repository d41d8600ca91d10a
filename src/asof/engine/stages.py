"""Stages: what is computed before a plan, and becomes columns of its bars.

1. `staged` runs the stages of a plan in their order, each over the panel with the columns of those before it.
2. A stage's own plan gives what its nodes are made of, for every bar of the panel that it is over: missing values and errors as they are.
3. Its nodes' kernels make columns of that, which the plan then reads like any others.
4. A bar's vector cannot be known before what its stages looked at: where a higher timeframe's bar is later, the panel's `known` becomes
   later; when a section could be known is kept beside its column, for a vector looks at fewer of these than of its own bars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from asof.engine import ordering
from asof.engine.layout import known_since, newest_known
from asof.engine.native import compile_loop
from asof.engine.panel import Floats, Ints, Panel
from asof.engine.plan import Plan, Stage, Staged
from asof.engine.run import evaluate
from asof.engine.sections import Sections
from asof.features.adjustment import Scale, rescales
from asof.operators.staged import age, latest

_latest = compile_loop(latest)
_age = compile_loop(age)
_rescale_newest = compile_loop(ordering.rescale_newest)


def staged(plan: Plan, panel: Panel, threads: int | None = None, rows: int | None = None) -> Panel:
    """The panel with the columns that the plan's stages make, and with what is known later for it; the same one where there are none.

    The bits do not depend on `threads` or `rows`.
    """
    found: dict[tuple[str, str], Sections] = {}
    for stage in plan.stages:
        if stage.timeframe is None:
            panel = _across(stage, panel, evaluate(stage.plan, panel, threads, rows), found, threads)
            continue
        source = staged(stage.plan, panel.higher[stage.timeframe], threads, rows)
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


def _across(stage: Stage, panel: Panel, inputs: tuple[Floats, ...], found: dict[tuple[str, str], Sections], threads: int | None) -> Panel:
    """The panel with the columns of operators across instruments, and with when each of these could be known.

    A section is known when the last of its members' bars is, and all that their values depend on.
    """
    columns, known = dict(panel.columns), dict(panel.sections)
    for node in stage.nodes:
        which = (node.members, node.groups)
        if which not in found:
            found[which] = Sections.of(panel.offsets, panel.ts, *(panel.columns.get(name) for name in which))
        columns[node.column] = found[which].apply(node.operator, tuple(inputs[i] for i in node.inputs), node.params, threads)
        known[node.column] = found[which].latest(known_through(node, panel))
    return replace(panel, columns=columns, sections=known)


def known_through(of: Plan | Staged, panel: Panel) -> Ints:
    """When each bar's row of a plan, or what a staged operator takes of it, could be known: as soon as all that it depends on is.

    The stages before it have run.
    """
    assert panel.known is not None
    since = known_since(panel.known, panel.offsets, of.lookback)
    for name, bars in of.looked_at.items():
        if name in panel.sections:
            since = np.maximum(since, known_since(panel.sections[name], panel.offsets, bars))
    return since
