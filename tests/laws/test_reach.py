"""Exact reach: a bar or an event changes the vectors whose windows hold it, and no other; broken data heals after the lookback."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.features.expression import bars, lookback, reaches
from asof.features.feature_set import FeatureSet
from asof.operators import BAR_SHAPES, OPERATORS, Operator
from asof.records import PRICES
from tests.laws.markets import SEEDS, Market, made_up, markets
from tests.laws.vectors import SUBJECTS, Vectors, assert_same, expressions_of_columns, vectors
from tests.operator_cases import called, parameters

over_every_subject = pytest.mark.parametrize("feature_set", SUBJECTS.values(), ids=SUBJECTS)
NUMBERS = (*PRICES, "volume")


def assert_reach(feature_set: FeatureSet, before: Vectors, after: Vectors, instrument: int, first: int, first_after: int) -> None:
    """Of the `instrument` only rows from `first` on may differ, each column's for no longer than its lookback after row `first_after`.

    Both count the instrument's own rows that `before` and `after` share; of all others no bit may differ.
    """
    others = before.instrument != instrument
    assert_same(feature_set, after.where(others), before.where(others))
    old, new = before.where(~others), after.where(~others)
    assert old.ts.tolist() == new.ts.tolist()
    differs = old.bits != new.bits
    row = np.arange(len(old.ts))
    for column, expressions in enumerate(expressions_of_columns(feature_set)):
        rows = row[differs[:, column]]
        assert not len(rows) or (rows.min() >= first and rows.max() <= first_after + lookback(*expressions) - 1), (
            f"column {column} ({expressions[0]!r}) changes at rows {rows}; the change is at {first}..{first_after}"
        )


@over_every_subject
@given(market=markets(), share=st.floats(0, 1), what=st.sampled_from(["delete", "missing", "change", "overflow"]), seed=SEEDS)
def test_a_changed_bar_changes_its_own_lookback_of_vectors_and_no_other(
    feature_set: FeatureSet, market: Market, share: float, what: str, seed: int
):
    instrument = market.instruments[seed % len(market.instruments)]
    rows = market.rows_of(instrument)
    at = round(share * (len(rows) - 1))
    before = vectors(feature_set, market)
    hit = np.arange(len(market.bars["ts"])) == rows[at]
    gone = (before.instrument == instrument) & (before.ts == market.bars["ts"][rows[at]])
    if what == "delete":
        after = vectors(feature_set, market.keep(~hit))
        assert_reach(feature_set, before.where(~gone), after, instrument, at, at - 1)
        return
    value = {"missing": np.nan, "overflow": 1e308, "change": 1 + seed % 1000}[what]
    after = vectors(feature_set, market.with_bars(**{n: np.where(hit, value, market.bars[n]) for n in NUMBERS}))
    assert_reach(feature_set, before, after, instrument, at, at)


@over_every_subject
@given(market=markets(), seed=SEEDS, what=st.sampled_from(["delete", "change", "missing"]))
def test_a_changed_event_changes_the_vectors_whose_windows_hold_it_and_no_other(
    feature_set: FeatureSet, market: Market, seed: int, what: str
):
    named = np.flatnonzero(np.isin(market.events["instrument"], market.instruments))
    if not len(named):
        return
    hit = np.arange(len(market.events["known"])) == named[seed % len(named)]
    instrument, known = int(market.events["instrument"][hit][0]), int(market.events["known"][hit][0])
    if what == "delete":
        other = market.keep(events=~hit)
    else:
        columns = {n: np.where(hit, 0.25 if what == "change" else np.nan, market.events[n]) for n in ("score", "confidence")}
        other = market.with_events(**columns)
    before, after = vectors(feature_set, market), vectors(feature_set, other)
    others = before.instrument != instrument
    assert_same(feature_set, after.where(others), before.where(others))
    ts = before.ts[~others]
    differs = before.bits[~others] != after.bits[~others]
    for column, expressions in enumerate(expressions_of_columns(feature_set)):
        length, seen = reaches(*expressions).get("events", (-1, 1))
        holds = (ts >= known) & (ts - length <= known)
        reached = np.convolve(holds, np.ones(seen, int))[: len(ts)] > 0
        assert not (differs[:, column] & ~reached).any(), f"column {column} ({expressions[0]!r}) changes outside its window"


@over_every_subject
@given(market=markets(least=50), first=st.integers(0, 10), length=st.integers(1, 5), value=st.sampled_from([np.nan, 1e308]))
def test_missing_and_broken_values_never_poison_later_vectors(
    feature_set: FeatureSet, market: Market, first: int, length: int, value: float
):
    hit = np.isin(np.arange(len(market.bars["ts"])), market.rows_of(0)[first : first + length])
    broken = market.with_bars(**{name: np.where(hit, value, market.bars[name]) for name in NUMBERS})
    before, after = vectors(feature_set, market), vectors(feature_set, broken)
    healed = (before.instrument != 0) | (np.cumsum(before.instrument == 0) > first + length + feature_set.lookback - 1)
    assert_same(feature_set, after.where(healed), before.where(healed))


@pytest.mark.parametrize("operator", [o for o in OPERATORS if o.shape in BAR_SHAPES], ids=lambda o: o.key)
def test_the_oldest_bar_of_the_declared_lookback_does_count(operator: Operator):
    for params in parameters(operator):
        if operator.name == "ewm" and 1.0 in params:
            continue  # an alpha of 1: the newest bar has all of the weight
        first = bars.close > 1e5 if operator.name == "bars_since" else bars.close  # a close is true, so no older one would count
        second = bars.close > 1e5 if operator.name == "cumulative" else bars.volume  # it changes where the oldest close is huge
        expression = called(operator, (first, second, bars.open), params)
        assert any(oldest_counts(FeatureSet("tight", {"x": expression}), made_up(seed, [40], 0, 0.0)) for seed in (1, 2)), (
            f"{expression!r} declares {expression.lookback} bars but never looks at the oldest"
        )


def oldest_counts(feature_set: FeatureSet, market: Market) -> bool:
    """Whether the last vector changes with the oldest close of its lookback, be it missing, huge or tiny."""
    oldest = np.arange(40) == market.rows_of(0)[-feature_set.lookback]
    last = vectors(feature_set, market).bits[-1, 0]
    changed = (market.with_bars(close=np.where(oldest, value, market.bars["close"])) for value in (np.nan, 1e6, 1e-6))
    return any(vectors(feature_set, other).bits[-1, 0] != last for other in changed)
