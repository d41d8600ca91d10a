"""`where=` over trades, quotes and order books against plain Python: what is not chosen might as well not be there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from asof import FeatureSet, bars, books, compute, quotes, trades
from asof.errors import DefinitionError, UnknownName
from asof.features.expression import Expr, PointWindow
from asof.jobs.points import known
from asof.operators import EVENT_SHAPES, Operator, Shape
from asof.operators.operator import of_chosen
from tests.laws.test_market import STEP, Market, markets
from tests.operator_cases import CASES, ERROR, RUN, Answer, called, parameters
from tests.test_operators import ask, assert_answer

ROOTS = {"trades": trades, "quotes": quotes, "books": books}
ON_POINTS = [o for o in RUN if o.shape in EVENT_SHAPES]
Columns = list[list[Answer]]


def windows(stream: str) -> dict[str, PointWindow]:
    return {"all": ROOTS[stream].window("1m"), "few": ROOTS[stream].last(3, within="2m")}


def inputs(of: PointWindow, stream: str, operator: Operator) -> tuple[Expr, Expr, Expr]:
    """The values, the weights or times, and what chooses."""
    one, two, some = {
        "trades": lambda: (of.price, of.size, of.side == 1),
        "quotes": lambda: (of.bid, of.ask, of.ask - of.bid > 0.1),
        "books": lambda: (of.bid_price(1), of.ask_size(1), of.gap == 0),  # type: ignore[attr-defined]
    }[stream]()
    return one, of.time if "time" in operator.inputs else two, some


def rows(table: pa.Table, name: str) -> Iterator[tuple[int, list[Answer]]]:
    """When each point of an instrument became known, in their order, with its two values and whether it is chosen."""
    found = zip(known(table).tolist(), table.to_pylist(), strict=True)
    for at, row in sorted((pair for pair in found if pair[1]["instrument_id"] == name), key=lambda p: (p[0], p[1]["ts"], p[1]["seq"])):
        if "price" in row:
            yield at, [row["price"], row["size"], None if row["side"] is None else float(row["side"] == 1)]
        elif "bid" in row:
            wide = None if None in (row["bid"], row["ask"]) else float(row["ask"] - row["bid"] > 0.1)
            yield at, [row["bid"], row["ask"], wide]
        else:
            yield at, [(row["bid_prices"] or [None])[0], (row["ask_sizes"] or [None])[0], float(not row["gap"])]


def wanted(operator: Operator, params: tuple[float, ...], seen: list[tuple[int, list[Answer]]]) -> tuple[Answer, Columns]:
    chosen = [(at, values) for at, values in seen if values[2]]
    second: list[Answer] = [float(at) if "time" in operator.inputs else values[1] for at, values in chosen]
    columns: Columns = [[values[0] for _, values in chosen], second][: len(operator.inputs)]
    if operator.shape is Shape.COUNT:
        return ask(CASES[operator.key], *columns, *params), columns
    if len(chosen) < operator.minimum or any(None in column for column in columns):
        return None, columns
    return ask(CASES[operator.key], *columns, *params), columns


@pytest.mark.parametrize("stream", ROOTS)
@given(market=markets())
@settings(max_examples=6)
def test_over_chosen_points_an_operator_answers_as_if_there_were_no_others(stream: str, market: Market):
    made, asked = dict[str, Expr](), dict[str, tuple[Operator, tuple[float, ...], str]]()
    for span, of in windows(stream).items():
        for operator in ON_POINTS:
            for k, params in enumerate(parameters(operator)[:2]):
                one, two, some = inputs(of, stream, operator)
                name = f"{span}_{operator.name}_{len(operator.inputs)}_{k}"
                made[name] = called(of_chosen(operator), (one, two)[: len(operator.inputs)], params, some)
                asked[name] = operator, params, span
    found = market.vectors(FeatureSet("chosen_v1", made))
    points = {code: list(rows(market.points[stream], name)) for code, name in enumerate(("A", "B"))}
    numbers = found.bits[:, : len(made)].view(np.float64)
    for row, (code, close) in enumerate(zip(found.instrument.tolist(), (found.ts + STEP).tolist(), strict=True)):
        for place, (operator, params, span) in enumerate(asked.values()):
            minutes, most = (1, 0) if span == "all" else (2, 3)
            seen = [p for p in points[code] if close - minutes * STEP <= p[0] < close]
            answer, columns = wanted(operator, params, seen[-most:] if most else seen)
            number = None if np.isnan(numbers[row, place]) else float(numbers[row, place])
            assert_answer(CASES[operator.key], number, None if answer == ERROR else answer, (*columns, *params))


@pytest.mark.parametrize("stream", ROOTS)
def test_points_of_the_market_have_no_texts_of_events(stream: str):
    for name in ("category", "source", "source_name"):
        with pytest.raises(UnknownName, match=f"{stream} have no column '{name}'; only events have texts"):
            getattr(windows(stream)["all"], name)


def test_what_chooses_nothing_is_refused():
    of = trades.window("1m")
    with pytest.raises(DefinitionError, match=r"previous.*chooses points of a window; choose in what reduces them"):
        of.price.previous("1m", where=of.side == 1)
    with pytest.raises(DefinitionError, match="cannot mix rows of trades of 1m and quotes of 1m"):
        of.price.mean(where=quotes.window("1m").crossed)


def test_fading_over_trades_goes_by_when_they_became_known_and_reads_back():
    faded = FeatureSet("faded_v1", {"price": trades.window("1m").price.fading_mean("10s")})
    assert FeatureSet.parse(faded.text) == faded
    minute = pa.table({"instrument_id": ["X"], "ts": ["2024-06-10T14:30:00Z"], "close": [1.0]})
    seen = pa.table(
        {
            "instrument_id": ["X", "X"],
            "ts": ["2024-06-10T14:30:01Z", "2024-06-10T14:30:02Z"],
            "available_at": ["2024-06-10T14:30:20Z", "2024-06-10T14:30:10Z"],
            "price": [8.0, 2.0],
            "size": [1.0, 1.0],
        }
    )
    assert compute(faded, minute, trades=seen, timeframe="1m").to_pylist()[0]["price"] == (8 + 2 / 2) / 1.5
    assert bars.time is not trades.window("1m").time
