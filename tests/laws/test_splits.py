"""Any split gives the same bits: threads, morsels, instruments alone or together, rows in any order; and so does computing again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.features.feature_set import FeatureSet
from tests.laws.markets import SEEDS, Market, markets
from tests.laws.vectors import SUBJECTS, assert_same, planned, vectors, vectors_of_panel

pytestmark = pytest.mark.parametrize("feature_set", SUBJECTS.values(), ids=SUBJECTS)


@given(market=markets(least=0), rows=st.one_of(st.integers(1, 12), st.integers(13, 300)), threads=st.sampled_from([1, 2]))
def test_morsels_of_any_size_on_any_number_of_threads_give_the_same_bits(feature_set: FeatureSet, market: Market, rows: int, threads: int):
    assert_same(feature_set, vectors(feature_set, market, threads, rows), vectors(feature_set, market))


@given(market=markets())
def test_an_instrument_alone_gets_the_vectors_that_it_gets_among_others(feature_set: FeatureSet, market: Market):
    together = vectors(feature_set, market)
    for instrument in market.instruments:
        alone = vectors(feature_set, market.keep(market.bars["instrument"] == instrument))
        assert_same(feature_set, alone, together.where(together.instrument == instrument))


@given(market=markets(), other=markets(first_id=0, least=0), seed=SEEDS)
def test_the_order_in_which_rows_come_changes_no_bit(feature_set: FeatureSet, market: Market, other: Market, seed: int):
    enriched_again = Market(market.bars, market.join(other).events)  # the same ids twice or more, at other times or the same
    assert_same(feature_set, vectors(feature_set, enriched_again.shuffle(seed)), vectors(feature_set, enriched_again))


@given(market=markets())
def test_computing_again_gives_the_same_bits(feature_set: FeatureSet, market: Market):
    plan = planned(feature_set)
    panel = market.panel(plan)
    columns = {**panel.columns, **panel.points["events"].columns}
    before = {name: values.copy() for name, values in columns.items()}
    first, second = (vectors_of_panel(plan, panel, market.instruments, rows=50) for _ in range(2))
    assert_same(feature_set, second, first)
    for name, values in before.items():
        after = columns[name]
        assert np.array_equal(values, after, equal_nan=True), f"the engine wrote into its input {name}"
