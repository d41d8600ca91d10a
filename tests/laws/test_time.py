"""The laws of time: no look-ahead, no start date, live = backfill. Each runs over every operator and every shipped feature set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.features.feature_set import FeatureSet
from tests.laws.markets import Market, markets
from tests.laws.vectors import SUBJECTS, assert_same, planned, vectors, vectors_of_panel

pytestmark = pytest.mark.parametrize("feature_set", SUBJECTS.values(), ids=SUBJECTS)


@given(past=markets(), future=markets(first_id=1000, least=0), share=st.floats(0, 1))
def test_whatever_comes_after_a_moment_changes_no_bit_up_to_it(feature_set: FeatureSet, past: Market, future: Market, share: float):
    times = np.sort(past.bars["ts"])
    now = times[round(share * (len(times) - 1))]
    known = past.keep(past.bars["ts"] <= now, past.events["known"] <= now)
    other = known.join(future.keep(future.bars["ts"] > now, future.events["known"] > now))
    everything, otherwise = vectors(feature_set, past), vectors(feature_set, other)
    assert_same(feature_set, otherwise.where(otherwise.ts <= now), everything.where(everything.ts <= now))
    assert_same(feature_set, vectors(feature_set, known), everything.where(everything.ts <= now))


@given(market=markets(least=45), drops=st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_an_earlier_or_later_start_gives_the_same_bits_once_the_lookback_is_there(
    feature_set: FeatureSet, market: Market, drops: list[int]
):
    bars, events = np.ones(len(market.bars["ts"]), bool), np.ones(len(market.events["known"]), bool)
    full = []
    for instrument in market.instruments:
        rows = market.rows_of(instrument)
        dropped = min(drops[instrument], len(rows) - 1)
        bars[rows[:dropped]] = False
        first_needed = market.bars["ts"][rows[dropped]] - feature_set.reaches.get("events", (0, 0))[0]
        events &= (market.events["instrument"] != instrument) | (market.events["known"] >= first_needed)
        full.append(np.arange(len(rows)) >= dropped + feature_set.lookback - 1)
    mask = np.concatenate(full)
    later, whole = vectors(feature_set, market.keep(bars, events)), vectors(feature_set, market)
    kept = bars[np.lexsort((market.bars["ts"], market.bars["instrument"]))]
    assert_same(feature_set, later.where(mask[kept]), whole.where(mask))


@given(market=markets(least=45), spare=st.integers(0, 2))
def test_the_last_bars_alone_give_the_live_vector_that_a_backfill_gives(feature_set: FeatureSet, market: Market, spare: int):
    plan = planned(feature_set)
    panel = market.panel(plan)
    tail = panel.take_last(feature_set.lookback + spare)
    backfill = vectors_of_panel(plan, panel, market.instruments)
    live = vectors_of_panel(plan, tail, market.instruments)
    assert_same(feature_set, live.where(_last_rows(tail.offsets)), backfill.where(_last_rows(panel.offsets)))


def _last_rows(offsets: np.ndarray) -> np.ndarray:
    mask = np.zeros(offsets[-1], bool)
    mask[offsets[1:][np.diff(offsets) > 0] - 1] = True
    return mask
