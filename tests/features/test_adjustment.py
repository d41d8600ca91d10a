"""How expressions over adjusted bars scale, what they may be in, and that their text reads back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asof import FeatureSet, bars, fs_v1
from asof.errors import DefinitionError, UnknownName
from asof.features.adjustment import ANY, FREE, NONE, Scale
from asof.features.expression import Expr, constant, events, where
from asof.features.library import technical as ta
from asof.features.text import parse_expression

p, v = bars.adjusted.close, bars.adjusted.volume

SCALES: dict[Scale, tuple[Expr, ...]] = {
    FREE: (
        bars.close,
        p / p.lag(1),
        p > p.lag(1),
        p > 0,
        p.is_missing(),
        p.rank(5),
        p.corr(v, 5),
        p.mean(5) / p.std(5),
        (p > p.lag(1)) & (v > 0),
    ),
    (1, 0): (
        p,
        -p,
        p + p.lag(2),
        p - 0,
        p * 2,
        p.maximum(0),
        p.mean(5),
        p.std(5),
        p.ewm(span=5),
        p.var(5).sqrt(),
        where(v > 0, p, 0),
        p * v / v,
    ),
    (0, 1): (v, v.sum(5), v.median(5)),
    (1, 1): (p * v, p.cov(v, 5), (p * v).mean(3).lag(1)),
    (2, 0): (p * p, p.var(5)),
    (-1, 0): (1 / p, v / (p * v)),
    ANY: (constant(0), constant(0) + constant(0), p * 0),
    NONE: (p + 1, p.log(), p + v, p > 100, p.clip(1, 2), p.sqrt(), p - bars.close, where(p > 100, 1, 2), (p + 1).sign()),
}
"""Expressions of each scale."""


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_the_scale_of_an_expression_follows_from_its_operators(scale: Scale):
    assert [expression.scale for expression in SCALES[scale]] == [scale] * len(SCALES[scale])


@pytest.mark.parametrize("expression", [e for some in SCALES.values() for e in some], ids=repr)
def test_the_text_of_adjusted_expressions_reads_back(expression: Expr):
    assert parse_expression(repr(expression)) is expression


def test_a_feature_set_of_adjusted_bars_is_rebuilt_from_its_text():
    chosen = FeatureSet("adjusted_v1", {"rsi": ta.rsi(p, 14), "upper": ta.bollinger(p, 20).upper, "now": p, "logged": p.log()})
    assert FeatureSet.parse(chosen.text) == chosen
    assert chosen.lookback == FeatureSet("x", {"rsi": ta.rsi(bars.close, 14), "upper": ta.bollinger(bars.close, 20).upper}).lookback


def test_the_fingerprint_of_what_is_not_adjusted_is_what_it_was():
    assert fs_v1.fingerprint == "bdf77f0994de89e3781fa89ce6478188ac142102d46eb3beb19265a6bef338c3"


WINDOWS: dict[str, Callable[[Expr], Expr]] = {
    "lag": lambda x: x.lag(1),
    "mean": lambda x: x.mean(5),
    "mean of those there": lambda x: x.mean(5, min_count=2),
    "diff": Expr.diff,
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("expression", SCALES[NONE], ids=repr)
def test_a_window_over_what_no_action_multiplies_is_refused_with_what_to_write(expression: Expr, window: Callable[[Expr], Expr]):
    with pytest.raises(DefinitionError, match=r"which a split does not simply multiply: make it a ratio .*bars.adjusted.close.lag\(1\)"):
        window(expression)


def test_counting_looks_at_no_value_and_is_not_refused():
    assert (p + 1).count(5).scale == FREE


def test_a_gain_may_not_be_adjusted():
    assert p.ewm(p / p.lag(1), reach=5).scale == (1, 0)
    with pytest.raises(DefinitionError, match="give it a ratio of adjusted values"):
        p.ewm(v, reach=5)


def test_a_column_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(UnknownName, match=r"bars.adjusted has no column 'closes'; did you mean 'close'\?"):
        _ = bars.adjusted.closes
    with pytest.raises(UnknownName):
        parse_expression("bars.adjusted.unbroken")
    for text in ("bars.adjusted", "bars.adjusted.adjusted.close", "bars.adjusted.count(5)", "bars.adjusted.__class__"):
        with pytest.raises(DefinitionError):
            parse_expression(text)
    with pytest.raises(DefinitionError, match="cannot mix rows"):
        p + events.window("1h").sentiment
