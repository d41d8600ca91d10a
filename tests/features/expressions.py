"""Random expression trees, made from the table of operators alone."""

from __future__ import annotations

from hypothesis import strategies as st

from asof.features.expression import BAR_COLUMNS, BARS, EVENT_COLUMNS, Expr, apply, bars, constant, events, where
from asof.operators import BAR_SHAPES, EVENT_SHAPES, POINT_SHAPES, Operator
from tests.operator_cases import RUN, called, parameters

ROW_LIKE = [o for o in RUN if o.shape not in (*BAR_SHAPES, *EVENT_SHAPES, *POINT_SHAPES)]
ON_BARS = [o for o in RUN if o.shape in BAR_SHAPES]
ON_EVENTS = [o for o in RUN if o.shape in EVENT_SHAPES]

finite = st.floats(allow_nan=False, allow_infinity=False)
constants = st.one_of(st.integers(-(10**16), 10**16), finite, st.sampled_from([0.0, -0.0, 1e15, 1e-7, 123456789.125])).map(constant)


def _applied(operator: Operator, inputs: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    needed = len(operator.inputs)
    return st.builds(called, st.just(operator), st.lists(inputs, min_size=needed, max_size=needed), st.sampled_from(parameters(operator)))


def _grown(leaves: st.SearchStrategy[Expr], operators: list[Operator], most: int) -> st.SearchStrategy[Expr]:
    """Trees of these operators over the leaves; an operator that would mix rows or have none is left out."""

    def over(inputs: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        return st.sampled_from(operators).flatmap(lambda operator: _applied(operator, inputs))

    return st.recursive(leaves, over, max_leaves=most)


def event_expressions(window: str) -> st.SearchStrategy[Expr]:
    """Expressions whose rows are the events of a window, with constants among them."""
    columns = st.sampled_from(sorted(EVENT_COLUMNS)).map(lambda name: getattr(events.window(window), name))
    before = st.builds(lambda x, span: x.previous(span), columns, st.sampled_from(["10s", "5m"]))
    seen = st.builds(lambda x: x.at(events.window(window)), columns)
    return _grown(st.one_of(columns, columns, constants, before, seen), ROW_LIKE, 5)


def _reduced(window: str) -> st.SearchStrategy[Expr]:
    """Event expressions, brought to the rows of bars."""
    column = events.window(window).sentiment
    anchored = event_expressions(window).map(lambda e: e if e.domain else column + e)
    weights = st.one_of(event_expressions(window), constants)

    def over(operator: Operator) -> st.SearchStrategy[Expr]:
        return st.builds(
            lambda first, more, params: called(operator, (first, *more), params),
            anchored,
            st.lists(weights, min_size=len(operator.inputs) - 1, max_size=len(operator.inputs) - 1),
            st.sampled_from(parameters(operator)),
        )

    return st.one_of(st.just(events.window(window).count()), st.sampled_from(ON_EVENTS).flatmap(over))


def _rolled(inputs: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    anchored = inputs.map(lambda e: e if e.domain == BARS else where(bars.close > 0, e, -e))
    return st.sampled_from(ON_BARS).flatmap(lambda operator: _applied(operator, anchored))


def bar_expressions(most: int = 10) -> st.SearchStrategy[Expr]:
    """Expressions over bars, with events, constants, and every operator in them."""
    columns = st.sampled_from(sorted(BAR_COLUMNS)).map(lambda name: getattr(bars, name))
    counts = st.integers(1, 50).map(bars.count)
    leaves = st.one_of(columns, columns, constants, counts, st.sampled_from(["90s", "1h", "36h", "2d"]).flatmap(_reduced))
    mixed = st.recursive(
        leaves,
        lambda inputs: st.one_of(_rolled(inputs), st.sampled_from(ROW_LIKE).flatmap(lambda operator: _applied(operator, inputs))),
        max_leaves=most,
    )
    return mixed.map(lambda e: e if e.domain == BARS else apply("add", bars.close, e))
