"""The laws over adjusted bars: every operator over bars, over prices and volumes that splits and dividends rescale."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.features.expression import Expr, bars
from asof.features.feature_set import FeatureSet
from asof.operators import BAR_SHAPES, OPERATORS, Operator, Scaling
from asof.records import ACTIONS, PRICES
from tests.laws.markets import SEEDS, Market, markets
from tests.laws.vectors import Vectors, assert_same, planned, vectors_of_panel
from tests.operator_cases import called, parameters

ON_BARS = [o for o in OPERATORS if o.shape in BAR_SHAPES]
over_every_operator = pytest.mark.parametrize("operator", ON_BARS, ids=lambda o: o.key)


def inputs_of(operator: Operator, *, adjusted: bool) -> tuple[Expr, ...]:
    """A price, and beside it another, a volume, or a return where the operator takes nothing that scales there."""
    of = bars.adjusted if adjusted else bars
    if operator.scaling is Scaling.WEIGHTED:
        return of.close, bars.close / bars.open
    return of.close, of.volume if operator.name == "corr" else of.open


@cache
def set_of(operator: Operator, *, adjusted: bool = True) -> FeatureSet:
    """A feature set around an operator: of prices and volumes alone, and where they are adjusted inside of others."""
    made: dict[str, Expr] = {}
    for k, params in enumerate(parameters(operator)):
        first, second = inputs_of(operator, adjusted=adjusted)
        made[f"price_{k}"] = called(operator, (first, second), params)
        made[f"volume_{k}"] = called(operator, ((bars.adjusted if adjusted else bars).volume, second), params)
        if adjusted:
            made[f"value_{k}"] = called(operator, (first * bars.adjusted.volume, second), params)
            made[f"nested_{k}"] = called(operator, (made[f"price_{k}"], second), params).lag(1)
            made[f"ratio_{k}"] = called(operator, (first / first.lag(1) - 1, second), params)
    return FeatureSet("adjusted", made)


def acted(market: Market, seed: int) -> pa.Table:
    """Splits and dividends on, before, between and behind the bars of a market, some of them at one time."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(market.bars["ts"]), min(12, len(market.bars["ts"])), replace=False)
    found = {}
    for row in rows.tolist():
        ts = int(market.bars["ts"][row] + rng.choice([0, 0, 1, -1, -1_000_000, 10**10]))
        split, dividend = float(rng.choice([1, 2, 3, 0.05, 1.5])), float(rng.choice([1, 0.99, 0.731]))
        found[int(market.bars["instrument"][row]), ts] = (split, dividend)
    names = [f"I{code:02d}" for code, _ in found]
    columns = [pa.array(names, pa.string()), pa.array([ts for _, ts in found], pa.int64()).cast(ACTIONS.field("ts").type)]
    columns += [pa.array([pair[k] for pair in found.values()], pa.float64()) for k in (0, 1)]
    return pa.table(columns, schema=ACTIONS)


def computed(feature_set: FeatureSet, market: Market, actions: pa.Table, threads: int = 1, rows: int | None = None) -> Vectors:
    the_plan = planned(feature_set)
    return vectors_of_panel(the_plan, market.panel(the_plan, actions), market.instruments, threads, rows)


def micros_of(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // datetime.resolution


def seen_from(market: Market, instrument: int, actions: pa.Table) -> Market:
    """For each bar of an instrument a market of its own: the bars up to it, as plain Python rescales them to it."""
    rows = market.rows_of(instrument).tolist()
    ts = [int(market.bars["ts"][row]) for row in rows]
    mine = sorted(
        (micros_of(a["ts"]), a["split"], a["dividend_factor"]) for a in actions.to_pylist() if a["instrument_id"] == f"I{instrument:02d}"
    )
    made: dict[str, list[float]] = {name: [] for name in market.bars}
    for last in range(len(rows)):
        price = volume = 1.0
        for k in range(last, -1, -1):
            for name in market.bars:
                value = market.bars[name][rows[k]]
                factor = price if name in PRICES else volume if name == "volume" else None
                made[name].append(last if name == "instrument" else value if factor is None else value * factor)
            between = [a for a in mine if k and ts[k - 1] < a[0] <= ts[k]]
            of_price = of_volume = 1.0
            for _, split, dividend in between:
                of_price *= dividend / split
                of_volume *= split
            price *= of_price
            volume *= of_volume
    return Market(
        {name: np.array(values, market.bars[name].dtype) for name, values in made.items()},
        market.keep(events=np.zeros(len(market.events["known"]), bool)).events,
    )


@over_every_operator
@given(market=markets(), seed=SEEDS)
def test_every_row_sees_the_bars_before_it_as_they_are_worth_then(operator: Operator, market: Market, seed: int):
    market = market.keep(events=np.zeros(len(market.events["known"]), bool))
    actions, plain = acted(market, seed), set_of(operator, adjusted=False)
    one = market.keep(market.bars["instrument"] == 0)
    found = computed(set_of(operator), one, actions)
    expected = computed(plain, seen_from(one, 0, actions), ACTIONS.empty_table())
    last = np.flatnonzero(np.append(np.diff(expected.instrument) != 0, True))
    names = list(set_of(operator).features)
    if operator.scaling is Scaling.WEIGHTED:
        return  # its gain is of prices as they are, which the rescaled market has not
    for k, name in enumerate(plain.features):
        assert found.bits[:, names.index(name)].tolist() == expected.bits[last, k].tolist(), name


@over_every_operator
@given(market=markets(), seed=SEEDS, share=st.floats(0, 1))
def test_actions_behind_a_row_change_none_of_its_bits(operator: Operator, market: Market, seed: int, share: float):
    actions = acted(market, seed)
    times = np.sort(market.bars["ts"])
    end = int(times[round(share * (len(times) - 1))])
    before = np.asarray(actions["ts"].cast(pa.int64())) <= end
    some, whole = computed(set_of(operator), market, actions.filter(pa.array(before))), computed(set_of(operator), market, actions)
    assert_same(set_of(operator), some.where(some.ts <= end), whole.where(whole.ts <= end))


@over_every_operator
@given(market=markets(), seed=SEEDS, dropped=st.integers(0, 30))
def test_bars_from_anywhere_on_give_the_same_bits(operator: Operator, market: Market, seed: int, dropped: int):
    actions, feature_set = acted(market, seed), set_of(operator)
    rows = market.rows_of(0)
    one = market.keep(market.bars["instrument"] == 0)
    later = one.keep(np.isin(np.arange(len(rows)), one.rows_of(0)[dropped:]))
    whole, cut = computed(feature_set, one, actions), computed(feature_set, later, actions)
    full = np.arange(len(whole.ts)) >= dropped + feature_set.lookback - 1
    assert_same(feature_set, cut.where(full[dropped:]), whole.where(full))


@over_every_operator
@given(market=markets(least=0), seed=SEEDS, rows=st.integers(1, 40), threads=st.sampled_from([1, 2]))
def test_any_split_of_the_work_gives_the_same_bits(operator: Operator, market: Market, seed: int, rows: int, threads: int):
    actions, feature_set = acted(market, seed) if len(market.bars["ts"]) else ACTIONS.empty_table(), set_of(operator)
    whole = computed(feature_set, market, actions)
    assert_same(feature_set, computed(feature_set, market, actions, threads, rows), whole)
    assert_same(feature_set, computed(feature_set, market.shuffle(seed), actions.take(pa.array(np.arange(len(actions))[::-1]))), whole)
    for instrument in market.instruments:
        alone = computed(feature_set, market.keep(market.bars["instrument"] == instrument), actions)
        assert_same(feature_set, alone, whole.where(whole.instrument == instrument))


@over_every_operator
@given(market=markets(), seed=SEEDS)
def test_an_action_changes_the_vectors_whose_windows_span_its_ex_date_and_no_other(operator: Operator, market: Market, seed: int):
    actions, feature_set = acted(market, seed), set_of(operator)
    gone = seed % len(actions)
    instrument, ex_date = int(actions["instrument_id"][gone].as_py()[1:]), micros_of(actions["ts"][gone].as_py())
    others = actions.filter(pa.array(np.arange(len(actions)) != gone))
    whole, without = computed(feature_set, market, actions), computed(feature_set, market, others)
    mine = whole.instrument == instrument
    first = int(np.searchsorted(whole.ts[mine], ex_date))
    reached = np.zeros(len(whole.ts), bool)
    reached[np.flatnonzero(mine)[first : first + feature_set.lookback - 1]] = True
    assert_same(feature_set, without.where(~reached), whole.where(~reached))
