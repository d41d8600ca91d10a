"""Every operator against its oracle in plain Python, with missing values, errors, short histories, ties and window edges."""

from __future__ import annotations

import math
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof.engine.panel import Panel, Points
from asof.engine.plan import plan
from asof.engine.run import run
from asof.engine.trial import tried
from asof.features.expression import EVENT_COLUMNS, Expr, bars, constant, events, where
from asof.features.feature_set import FeatureSet
from asof.operators import EVENT_SHAPES, POINT_SHAPES, Operator, Shape
from asof.timeframes import UNITS
from tests.operator_cases import CASES, ERROR, RUN, Answer, Case, called, expressions, parameters

MINUTE = UNITS["m"]
BY_KEY = {operator.key: operator for operator in RUN}
Columns = dict[str, list[Answer]]

numbers = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 0.5, 2.0]), st.floats(-1e6, 1e6).map(lambda x: round(x, 4)))
cells = st.one_of(numbers, numbers, numbers, numbers, numbers, st.sampled_from([None, ERROR]))


def floats(values: list[Answer]) -> np.ndarray:
    """Values as the engine holds them: NaN where missing, inf where an error."""
    return np.array([math.nan if v is None else v for v in values], np.float64)


def evaluate(
    expression: Expr, columns: Columns, minutes: list[int] | None = None, at: list[int] | None = None, seen: Columns | None = None
) -> list[Answer]:
    """The expression over one instrument's bars that open at `minutes`, with events known `at` those minutes, as the engine answers."""
    count = len(next(iter(columns.values()), minutes or []))
    ts = np.array(range(count) if minutes is None else minutes, np.int64) * MINUTE
    known = np.array(at or [], np.int64) * MINUTE
    columns_of = {name: (seen or {}).get(name, [1.0] * len(known)) for name in EVENT_COLUMNS}
    panel = Panel(
        offsets=np.array([0, len(ts)]),
        ts=ts,
        columns={name: floats(values) for name, values in columns.items()},
        points={"events": Points(np.array([[0], [len(known)]]), known, {(name,): floats(column) for name, column in columns_of.items()})},
        grid=0,
    )
    answers: list[Answer] = []
    for block in run(plan(FeatureSet("case", {"x": expression})), panel, threads=1):
        values, bitmap, _ = block.features[0]
        for row, value in enumerate(values.tolist()):
            there = bitmap is None or bitmap[row >> 3] >> (row & 7) & 1
            answers.append(value if there else ERROR if block.flags[row] & 1 else None)
    return answers


def ask(case: Case, *arguments: object) -> Answer:
    """The oracle's answer, an error where Python cannot give a finite one."""
    try:
        answer = case.oracle(*arguments)
    except (ArithmeticError, ValueError):
        return ERROR
    return answer if answer is None or math.isfinite(answer) else ERROR


def expected_of_bars(operator: Operator, case: Case, inputs: list[list[Answer]], params: tuple[float, ...]) -> list[Answer]:
    """What the operator should answer for each bar, by the rules of its shape."""
    reach = operator.reach(params)
    answers: list[Answer] = []
    for row in range(len(inputs[0])):
        looked_at = [column[max(0, row - reach) if operator.shape is Shape.SERIES else row : row + 1] for column in inputs]
        flat = [v for column in looked_at for v in column]
        if operator.shape is Shape.LOGIC:
            answers.append(ask(case, *flat))
        elif operator.shape is Shape.RAW:
            answers.append(ask(case, *(column[: row + 1] for column in inputs), *params))
        elif operator.shape is Shape.PRESENT:
            bars_there = [v for v in zip(*(c[max(0, row - reach) : row + 1] for c in inputs), strict=True) if None not in v]
            there = [list(column) for column in zip(*bars_there, strict=True)]
            broken = any(ERROR in column for column in there)
            answers.append(None if len(bars_there) < params[-1] else ERROR if broken else ask(case, *there, *params[1:-1]))
        elif None in flat or row < reach:
            answers.append(None)
        elif ERROR in flat:
            answers.append(ERROR)
        else:
            answers.append(ask(case, *(flat if operator.shape is Shape.ROW else looked_at), *params))
    return answers


def assert_answer(case: Case, found: Answer, expected: Answer, arguments: tuple[object, ...] = ()) -> None:
    """The answer is the oracle's, as nearly as the case asks for."""
    if found is None or expected is None or ERROR in (found, expected):
        assert found == expected
    elif case.bits:
        assert struct.pack("d", found) == struct.pack("d", expected), f"{found!r} is not {expected!r} to the bit"
    elif case.ulps is not None:
        assert abs(found - expected) <= case.ulps * math.ulp(expected)
    else:
        scale = abs(expected) if case.scale is None else max(abs(expected), case.scale(*arguments))
        assert abs(found - expected) <= 1e-12 * scale, f"{found!r} is not near {expected!r}"


def test_every_operator_has_a_case_and_every_case_an_operator():
    assert set(CASES) == set(BY_KEY)


@pytest.mark.parametrize("operator", RUN, ids=lambda o: o.key)
def test_every_operator_has_expressions_that_use_it(operator: Operator):
    made = expressions(operator)
    assert all(operator.name in repr(e) or str(operator.symbol) in repr(e) for e in made.values())
    assert len(parameters(operator)) == len(set(parameters(operator)))


@pytest.mark.parametrize("operator", [o for o in RUN if o.shape not in (*EVENT_SHAPES, *POINT_SHAPES)], ids=lambda o: o.key)
@given(data=st.data())
@settings(max_examples=40)
def test_a_bar_operator_answers_what_its_oracle_answers(operator: Operator, data: st.DataObject):
    case = CASES[operator.key]
    params = data.draw(st.sampled_from(parameters(operator)))
    rows = data.draw(st.lists(st.tuples(cells, cells, cells), max_size=30))
    inputs: list[list[Answer]] = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    found = evaluate(
        called(operator, (bars.close, bars.open, bars.volume), params), dict(zip(("close", "open", "volume"), inputs, strict=True))
    )
    expected = expected_of_bars(operator, case, inputs[: len(operator.inputs)], params)
    assert len(found) == len(expected)
    for row, (one, other) in enumerate(zip(found, expected, strict=True)):
        window = slice(max(0, row - operator.reach(params)), row + 1)
        seen = [[v for v in column[window] if v not in (None, ERROR)] for column in inputs[: len(operator.inputs)]]
        assert_answer(case, one, other, (*seen, *params))


@pytest.mark.parametrize("operator", [o for o in RUN if o.shape in EVENT_SHAPES], ids=lambda o: o.key)
@given(data=st.data())
@settings(max_examples=40)
def test_an_event_operator_answers_what_its_oracle_answers(operator: Operator, data: st.DataObject):
    case = CASES[operator.key]
    params = data.draw(st.sampled_from(parameters(operator)))
    minutes = sorted(data.draw(st.sets(st.integers(20, 60), max_size=12)))
    shares = st.one_of(st.sampled_from([0.0, 0.0, 1.0, 0.5]), st.floats(0, 1).map(lambda w: round(w, 3)), cells)
    rows = sorted(data.draw(st.lists(st.tuples(st.integers(5, 65), cells, shares), max_size=12)), key=lambda row: row[0])
    rows = [(at, value, weight if weight in (None, ERROR) else abs(weight)) for at, value, weight in rows]
    at, x, weight = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    news = events.window("10m")
    expression = called(operator, (news.sentiment, news.confidence), params)
    found = evaluate(expression, {}, minutes, at, {"sentiment": x, "confidence": weight})
    assert len(found) == len(minutes)
    for minute, answer in zip(minutes, found, strict=True):
        inside = [k for k, known in enumerate(at) if minute - 10 <= known <= minute]
        columns = [[column[k] for k in inside] for column in (x, weight)[: len(operator.inputs)]]
        flat = [v for column in columns for v in column]
        if operator.shape is Shape.COUNT:
            expected = ask(case, *columns, *params)
        elif len(inside) < operator.minimum or None in flat:
            expected = None
        else:
            expected = ERROR if ERROR in flat else ask(case, *columns, *params)
        assert_answer(case, answer, expected, (*columns, *params))


@pytest.mark.parametrize("operator", [o for o in RUN if o.shape in POINT_SHAPES], ids=lambda o: o.key)
@given(data=st.data())
@settings(max_examples=40)
def test_a_point_operator_answers_what_its_oracle_answers(operator: Operator, data: st.DataObject):
    case = CASES[operator.key]
    params = data.draw(st.sampled_from(parameters(operator)))
    rows = sorted(data.draw(st.lists(st.tuples(st.integers(1, 40), cells), max_size=12)), key=lambda row: row[0])
    at, x = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [])
    of = events.last(1, within="3m")
    found = evaluate(called(operator, (of.sentiment, of.present), params).last(), {}, list(range(45)), at, {"sentiment": x})
    for minute, answer in enumerate(found):
        known = [moment for moment in at if moment <= minute]
        times = [moment * MINUTE for moment in known]
        if not known or known[-1] < minute - 3:
            assert answer is None
            continue
        seen = (x[: len(known)], times)
        assert_answer(case, answer, ask(case, *seen, times[-1], 3 * MINUTE) if operator.shape is Shape.AT else ask(case, *seen, *params))


GAPPY: list[Answer] = [3.0, None, 2.0, 2.0, 5.0, None, None, None, 1.0, 4.0, 4.0, 4.0, 4.0, 4.0, 0.5, None, 7.0]
ROLLING = {
    "sum": lambda x, **kw: (x.sum(4, **kw), lambda r: r.sum()),
    "mean": lambda x, **kw: (x.mean(4, **kw), lambda r: r.mean()),
    "var": lambda x, **kw: (x.var(4, **kw), lambda r: r.var()),
    "std": lambda x, **kw: (x.std(4, ddof=0, **kw), lambda r: r.std(ddof=0)),
    "min": lambda x, **kw: (x.min(4, **kw), lambda r: r.min()),
    "max": lambda x, **kw: (x.max(4, **kw), lambda r: r.max()),
    "median": lambda x, **kw: (x.median(4, **kw), lambda r: r.median()),
    "quantile": lambda x, **kw: (x.quantile(4, 0.3, **kw), lambda r: r.quantile(0.3)),
}


@pytest.mark.parametrize("min_count", [None, 2, 4])
@pytest.mark.parametrize("name", ROLLING)
def test_gaps_and_equal_values_are_as_in_pandas(name: str, min_count: int | None):
    expression, of_pandas = ROLLING[name](bars.close, **({} if min_count is None else {"min_count": min_count}))
    expected = of_pandas(pd.Series(floats(GAPPY)).rolling(4, min_periods=min_count)).to_numpy()
    np.testing.assert_allclose(floats(tried(expression, close=GAPPY)), expected, rtol=1e-12, atol=1e-12)


def test_an_infinite_value_is_an_error_as_long_as_the_window_holds_it():
    close = [1.0, 2.0, ERROR, 3.0, 4.0, 5.0, 6.0]
    for expression in (bars.close.median(3), bars.close.rank(3), bars.close.slope(3), bars.close.ewm(span=2, reach=3)):
        answers = tried(expression, close=close)
        assert [v == ERROR for v in answers] == [False, False, True, True, True, False, False]


def test_windows_longer_than_the_history_have_no_value():
    for expression in (bars.close.median(9), bars.close.argmax(9), bars.close.corr(bars.open, 9), bars.close.ewm(span=20)):
        assert tried(expression, close=[1.0, 2.0, 3.0], open=[3.0, 2.0, 1.0]) == [None] * 3


def test_windows_of_events_include_both_their_ends():
    seen: Columns = {"sentiment": [1.0, 2.0, 4.0, 8.0]}
    news = events.window("10m")
    at = [19, 20, 30, 31]
    assert evaluate(news.sentiment.sum(), {}, [30], at, seen) == [6.0]
    assert evaluate(news.count(), {}, [18, 19, 29, 30, 31, 41, 42], at, seen) == [0.0, 1.0, 2.0, 2.0, 2.0, 1.0, 0.0]


def test_without_events_counts_and_sums_are_zero_and_the_rest_is_missing():
    news = events.window("10m")
    answers = {
        e: evaluate(e, {}, [30])[0]
        for e in (called(o, (news.sentiment, news.confidence), parameters(o)[0]) for o in RUN if o.shape in EVENT_SHAPES)
    }
    assert {repr(e) for e, answer in answers.items() if answer is not None} == {
        repr(news.sentiment.count()),
        repr(news.sentiment.sum()),
        repr(news.sentiment.sum(weight=news.confidence)),
    }
    assert set(answers.values()) == {0.0, None}


def test_one_event_has_a_mean_but_no_deviation():
    news, seen = events.window("10m"), {"sentiment": [0.25], "confidence": [0.5]}
    for expression in (news.sentiment.mean(), news.sentiment.mean(weight=news.confidence), news.sentiment.min(), news.sentiment.last()):
        assert evaluate(expression, {}, [30], [30], seen) == [0.25]
    for expression in (news.sentiment.std(ddof=0), news.sentiment.var(), news.sentiment.std(weight=news.confidence)):
        assert evaluate(expression, {}, [30], [30], seen) == [None]


def test_weights_that_sum_to_zero_give_the_plain_mean():
    news, seen = events.window("10m"), {"sentiment": [0.5, 1.0], "confidence": [0.0, 0.0]}
    assert evaluate(news.sentiment.mean(weight=news.confidence), {}, [30], [30, 30], seen) == [0.75]
    assert evaluate(news.sentiment.std(weight=news.confidence), {}, [30], [30, 30], seen) == [0.25]


def test_a_number_can_be_a_weight():
    news, seen = events.window("10m"), {"sentiment": [0.5, 1.0]}
    assert evaluate(news.sentiment.sum(weight=3), {}, [30], [30, 30], seen) == [4.5]


def test_scores_that_cancel_lose_no_digit():
    news, seen = events.window("10m"), {"sentiment": [1e16, 1.0, -1e16, 0.1]}
    assert evaluate(news.sentiment.sum(), {}, [30], [27, 28, 29, 30], seen) == [1.1]


def test_where_does_not_mind_what_the_branch_not_taken_is():
    columns: Columns = {"close": [1.0, 0.0, None, ERROR], "open": [5.0, None, 5.0, 5.0], "volume": [ERROR, 7.0, 7.0, 7.0]}
    assert evaluate(where(bars.close, bars.open, bars.volume), columns) == [5.0, 7.0, None, ERROR]


def test_a_division_by_zero_is_an_error_wherever_it_stands():
    columns: Columns = {"close": [1.0, 0.0, -0.0, None], "open": [0.0, 0.0, -0.0, 0.0]}
    assert evaluate(bars.close / bars.open, columns) == [ERROR, ERROR, ERROR, None]
    assert evaluate((bars.close / bars.open).is_missing(), columns) == [0.0, 0.0, 0.0, 1.0]
    assert evaluate((bars.close / bars.open) * 0, columns) == [ERROR, ERROR, ERROR, None]


def test_constants_of_either_sign_of_zero_stay_apart():
    zero = bars.close * 0
    feature_set = FeatureSet("zeros", {"plus": zero + 0.0, "minus": zero + -0.0})
    panel = Panel(np.array([0, 1]), np.zeros(1, np.int64), {"close": np.array([-1.0])}, {}, 0)
    block = next(run(plan(feature_set), panel, threads=1))
    assert [math.copysign(1, values[0]) for values, _, _ in block.features] == [1.0, -1.0]


def test_constants_alone_are_an_expression_too():
    assert evaluate(bars.close * 0 + (constant(2) + constant(3)), {"close": [1.0, 2.0]}) == [5.0, 5.0]


def test_exp_and_log_at_the_ends_of_their_range():
    columns: Columns = {"close": [709.79, 1e300, -745.2, -746.0, -1e300]}
    assert evaluate(bars.close.exp(), columns) == [ERROR, ERROR, 0.0, 0.0, 0.0]
    assert evaluate(bars.close.log(), {"close": [0.0, -0.0, -1.0, 1.0]}) == [ERROR, ERROR, ERROR, 0.0]
