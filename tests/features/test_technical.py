"""The indicators are what TA-Lib, Stock.Indicators and the formulas of their authors give, on real prices."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from asof.engine.trial import tried
from asof.errors import DefinitionError
from asof.features.expression import Expr, bars
from asof.features.library import SHIPPED
from asof.features.library import technical as ta
from tests.oracles import Table, series

X = bars.close


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, Table]:
    return dict(series(shared_data))


def test_alpha158_and_alpha360_have_as_many_features_as_they_say():
    assert [len(SHIPPED[name].features) for name in ("alpha158", "alpha360")] == [158, 360]
    assert [*SHIPPED["alpha158"].features][13:18] == ["ROC5", "ROC10", "ROC20", "ROC30", "ROC60"]


def test_alpha360_holds_the_last_sixty_bars_in_parts_of_the_newest():
    close = [float(k) for k in range(1, 61)]
    table = {"open": close, "high": close, "low": close, "close": close, "volume": [2 * k for k in close]}
    features = SHIPPED["alpha360"].features
    assert [tried(features[name], **table)[-1] for name in ("CLOSE59", "OPEN30", "VWAP0", "CLOSE0")] == [1 / 60, 0.5, 1.0, 1.0]
    assert tried(features["VOLUME59"], **table)[-1] == 2 / (120 + 1e-12)


FLAT = {name: [5.0] * 30 for name in ("open", "high", "low", "close", "volume")}


@pytest.mark.parametrize(
    "expression",
    [ta.rsi(X, 5, reach=9), ta.stochastic().k, ta.williams(), ta.cci(), ta.mfi(), ta.dx(3, reach=5), ta.ultimate(3, 4, 5), ta.volume_z()],
    ids=repr,
)
def test_what_divides_by_a_move_is_an_error_where_nothing_moves(expression: Expr):
    assert tried(expression, **FLAT)[-1] == math.inf


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (ta.ema(X, 9), None),
        (ta.ema(X, 9, reach=30), 5.0),
        (ta.macd(X, reach=10).histogram, 0.0),
        (ta.kama(X, reach=15), 5.0),
        (ta.atr(reach=20), 0.0),
        (ta.cmf(), 0.0),
        (ta.vwap_windowed(), 5.0),
        (ta.bollinger(X).upper, 5.0),
        (ta.obv_windowed(), 0.0),
        (ta.parkinson(), 0.0),
        (ta.yang_zhang(), 0.0),
        (ta.aroon().up, 100.0),
    ],
    ids=repr,
)
def test_what_does_not_has_a_value_where_nothing_moves(expression: Expr, value: float | None):
    assert tried(expression, **FLAT)[-1] == value


def test_lengths_that_make_no_sense_are_refused():
    for wrong in (
        lambda: ta.sma(X, 0),
        lambda: ta.hma(X, 1),
        lambda: ta.ema(X, 0),
        lambda: ta.atr(0),
        lambda: ta.momentum(X, -1),
        lambda: ta.aroon(0),
        lambda: ta.yang_zhang(1),
    ):
        with pytest.raises(DefinitionError):
            wrong()


def test_one_missing_bar_makes_an_indicator_missing_for_its_lookback_and_no_longer():
    close = [100.0 + (k * k) % 7 for k in range(60)]
    close[20] = None
    expression = ta.rsi(X, 5, reach=10)
    answers = tried(expression, close=close)
    assert [k for k, v in enumerate(answers) if v is None] == [*range(10), *range(20, 20 + expression.lookback)]
