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
from asof.features.library.alpha import BAR_FACTORS, ROLLING_FACTORS
from asof.operators import BAR_SHAPES
from asof.operators import OPERATORS as ALL_OPERATORS
from tests.oracles import FINITE, GOLDENS, INDICATORS, OPERATORS, Oracle, Table, alpha158_differences, golden_differences, series

X = bars.close


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, Table]:
    return dict(series(shared_data))


@pytest.mark.parametrize("oracle", [*OPERATORS.values(), *INDICATORS.values()], ids=[*OPERATORS, *(f"indicator {n}" for n in INDICATORS)])
def test_on_real_prices_everything_is_what_its_oracle_says(oracle: Oracle, real: dict[str, Table]):
    for table in real.values():
        difference, values = oracle.difference(table)
        assert difference <= oracle.bound
        assert values > 500


def test_the_goldens_of_another_library_are_met(shared_data: Path):
    for indicator, field, difference, bound, values in golden_differences(shared_data):
        assert difference <= bound, (indicator, field)
        assert values > 20, (indicator, field)


def test_the_factors_of_alpha158_are_what_pandas_makes_of_their_definitions(shared_data: Path):
    differences = {factor: difference for factor, difference, values in alpha158_differences(shared_data) if values > 20_000}
    assert len(differences) == len(BAR_FACTORS) + len(ROLLING_FACTORS)
    assert {factor: d for factor, d in differences.items() if d > FINITE} == {}


def test_alpha158_and_alpha360_have_as_many_features_as_they_say():
    assert [len(SHIPPED[name].features) for name in ("alpha158", "alpha360")] == [158, 360]
    assert [*SHIPPED["alpha158"].features][13:18] == ["ROC5", "ROC10", "ROC20", "ROC30", "ROC60"]


def test_alpha360_holds_the_last_sixty_bars_in_parts_of_the_newest():
    close = [float(k) for k in range(1, 61)]
    table = {"open": close, "high": close, "low": close, "close": close, "volume": [2 * k for k in close]}
    features = SHIPPED["alpha360"].features
    assert [tried(features[name], **table)[-1] for name in ("CLOSE59", "OPEN30", "VWAP0", "CLOSE0")] == [1 / 60, 0.5, 1.0, 1.0]
    assert tried(features["VOLUME59"], **table)[-1] == 2 / (120 + 1e-12)


def test_every_operator_over_bars_has_an_oracle_on_real_prices():
    told = {name.partition(",")[0] for name in OPERATORS}
    assert {o.name for o in ALL_OPERATORS if o.shape in BAR_SHAPES} <= told


def test_the_page_on_accuracy_tells_of_every_oracle():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "accuracy.md").read_text()
    names = [*OPERATORS, *INDICATORS, *(" ".join(golden) for golden in GOLDENS), *BAR_FACTORS, *ROLLING_FACTORS]
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_the_shipped_set_is_made_of_indicators_that_have_an_oracle():
    tested = {oracle.expression for oracle in (*INDICATORS.values(), *OPERATORS.values())}
    tested |= {*ta.stochastic(), *ta.keltner()}  # held to goldens, and made of lines that have an oracle
    untested = {name for name, expression in SHIPPED["ta_v1"].features.items() if expression not in tested}
    assert untested == set()


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
