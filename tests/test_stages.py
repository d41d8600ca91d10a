"""Stages: what a lower timeframe sees of a higher one, held to a plain search over all bars."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asof
from asof import FeatureSet, bars
from asof.engine.layout import newest_known
from asof.engine.plan import plan
from asof.engine.run import evaluate
from asof.engine.stages import staged
from asof.errors import DefinitionError
from asof.jobs.panels import panel_of, sort_bars
from asof.jobs.points import NO_EVENTS
from asof.records import UTC
from asof.sources.canonical import bars_of
from asof.sources.columns import ColumnMapping
from asof.timeframes import UNITS

MINUTE, HOUR = UNITS["m"], UNITS["h"]
START = 470_000 * HOUR
hour = bars.every("1h")


def table(name: str, ts: list[int], close: list[float | None], known: list[int | None] | None = None) -> pa.Table:
    columns = {"instrument_id": [name] * len(ts), "ts": pa.array(ts, pa.int64()).cast(UTC), "close": pa.array(close, pa.float64())}
    return pa.table(columns | ({} if known is None else {"available_at": pa.array(known, pa.int64()).cast(UTC)}))


def minutes(count: int, first: int = START, step: int = 15) -> pa.Table:
    return table("A", [first + k * step * MINUTE for k in range(count)], [float(k + 1) for k in range(count)])


def computed(feature_set: FeatureSet, base: pa.Table, hours: pa.Table) -> pa.Table:
    return asof.compute(feature_set, base, higher={"1h": hours}, timeframe="15m").to_arrow()


def test_a_bar_sees_the_newest_hour_that_has_closed_when_it_closes():
    hours = table("A", [START + k * HOUR for k in range(-1, 2)], [10.0, 20.0, 30.0])
    found = computed(FeatureSet("x", {"close": hour.close.latest(), "mean": hour.close.mean(2).latest()}), minutes(8), hours)
    assert found["close"].to_pylist() == [10.0] * 3 + [20.0] * 4 + [30.0]
    assert found["mean"].to_pylist() == [None] * 3 + [15.0] * 4 + [25.0]
    assert (micros(found) == np.arange(1, 9) * 15 * MINUTE + START).all()


def micros(found: pa.Table) -> np.ndarray:
    return np.asarray(found["available_at"].cast(pa.int64()))


def test_a_late_hour_is_seen_when_it_is_known_and_makes_what_looks_at_it_late():
    late = START + 70 * MINUTE
    hours = table("A", [START + k * HOUR for k in range(-2, 2)], [10.0, 20.0, 30.0, 40.0], [None, None, late, None])
    found = computed(FeatureSet("x", {"close": hour.close.latest(), "mean": hour.close.mean(2).latest()}), minutes(8), hours)
    assert found["close"].to_pylist() == [20.0] * 4 + [30.0] * 3 + [40.0], "15 minutes after its close, not at it"
    later = table("A", [START + k * HOUR for k in range(-2, 2)], [10.0, 20.0, 30.0, 40.0], [None, None, START + 3 * HOUR, None])
    found = computed(FeatureSet("x", {"mean": hour.close.mean(2).latest()}), minutes(8), later)
    assert found["mean"].to_pylist()[-1] == 35.0
    assert micros(found)[-1] == START + 3 * HOUR, "the mean holds the hour that came late"
    assert micros(found)[-2] == START + 105 * MINUTE


def test_its_age_is_told_from_when_it_was_known():
    hours = table("A", [START - HOUR, START], [10.0, None], [START + 20 * MINUTE, None])
    found = computed(FeatureSet("x", {"age": hour.close.age() / MINUTE}, {"OLD": hour.close.age() > 30 * MINUTE}), minutes(6), hours)
    assert found["age"].to_pylist() == [None, 10.0, 25.0, 0.0, 15.0, 30.0]
    assert {flag for flags in found["quality_flags"].to_pylist() for flag in flags} == set()


def test_adjusted_values_are_as_seen_from_the_bar_that_looks():
    days = table("A", [START - 48 * HOUR, START - 24 * HOUR], [100.0, 80.0])
    actions = {"ts": [START - 25 * HOUR, START + 30 * MINUTE, START + 60 * MINUTE], "split": [4.0, 2.0, 5.0]}
    acted = pa.table({"instrument_id": ["A"] * 3, "ts": pa.array(actions["ts"]).cast(UTC), "split": actions["split"]})
    day = bars.every("1d").adjusted.close
    set_of_days = FeatureSet(
        "x", {"last": day.latest(), "mean": day.mean(2).latest(), "ratio": (bars.adjusted.close / day.latest()).sum(2)}
    )
    found = asof.compute(set_of_days, minutes(5), actions=acted, higher={"1d": days}, timeframe="15m").to_arrow()
    assert found["last"].to_pylist() == [80.0, 80.0, 40.0, 40.0, 80.0 / 10], "yesterday's close, in shares of the bar"
    assert found["mean"].to_pylist() == [52.5, 52.5, 26.25, 26.25, (100 / 4 + 80) / 2 * 0.1]
    assert found["ratio"].to_pylist() == [None, 1 / 80 + 2 / 80, 2 / 80 + 3 / 40, 3 / 40 + 4 / 40, 4 / 40 + 5 / 8]


def test_errors_pass_through_and_end_as_one():
    hours = table("A", [START - HOUR, START], [10.0, None])
    found = computed(FeatureSet("x", {"x": (1 / (hour.close - 10)).latest() + 1, "y": hour.close.latest()}), minutes(4), hours)
    assert found["x"].to_pylist() == [None] * 4
    assert found["quality_flags"].to_pylist() == [["COMPUTATION_ERROR"]] * 3 + [[]]
    assert found["y"].to_pylist() == [10.0] * 3 + [None]


def test_staged_values_are_columns_for_windows_and_an_instrument_may_have_none():
    hours = pa.concat_tables([table("A", [START - HOUR], [10.0]), table("C", [START - HOUR], [1.0])])
    base = pa.concat_tables([minutes(4), table("B", [START], [1.0])])
    found = computed(FeatureSet("x", {"x": (bars.close * hour.close.latest()).sum(2)}), base, hours)
    assert found["x"].to_pylist() == [None, 30.0, 50.0, 70.0, None]


def test_equal_parts_are_one_column_and_sets_without_stages_have_none():
    day = bars.every("1d")
    made = plan(
        FeatureSet("x", {"a": hour.close.mean(3).latest(), "b": hour.close.mean(3).latest() + 1, "c": day.close.latest(), "d": bars.close})
    )
    assert [(s.timeframe, len(s.nodes), s.plan.lookback) for s in made.stages] == [("1d", 1, 1), ("1h", 1, 3)]
    assert plan(FeatureSet("x", {"d": bars.close})).stages == ()
    assert made.columns == {"close"}


@pytest.mark.parametrize("base", ["1h", "2h", "1d"])
def test_bars_that_are_not_lower_are_refused_with_the_mend(base: str):
    with pytest.raises(DefinitionError, match=f"x looks at 1h bars from {base} bars, which are not lower"):
        asof.compute(FeatureSet("x", {"x": hour.close.latest()}), minutes(2), higher={"1h": minutes(2)}, timeframe=base)


def test_a_feature_of_higher_bars_alone_is_refused_with_the_mend():
    with pytest.raises(DefinitionError, match=r"feature x of mine is not an expression over bars: .*take what was known of it, with"):
        FeatureSet("mine", {"x": hour.close})


@given(st.data())
@settings(max_examples=200)
def test_the_newest_that_was_known_is_found_whatever_the_order(data: st.DataObject):
    times = st.lists(st.integers(0, 9), max_size=12)
    known = data.draw(st.lists(times, min_size=1, max_size=3))
    available = [data.draw(times) for _ in known]
    offsets, ends = (np.cumsum([0, *map(len, lists)]) for lists in (known, available))
    naive = [
        max((ends[s] + k for k, when in enumerate(available[s]) if when <= moment), default=-1)
        for s in range(len(known))
        for moment in known[s]
    ]
    flat = [np.array([v for one in lists for v in one], np.int64) for lists in (known, available)]
    assert newest_known(offsets, flat[0], ends, flat[1]).tolist() == naive


@given(seed=st.integers(0, 2**32 - 1), threads=st.sampled_from([1, 2]), rows=st.sampled_from([None, 1, 7]))
@settings(max_examples=25)
def test_any_split_gives_the_bits_of_a_plain_search(seed: int, threads: int, rows: int | None):
    rng = np.random.default_rng(seed)
    base, hours = minutes(40), hours_of(rng, 14)
    feature_set = FeatureSet("x", {"x": hour.close.sum(3).latest()})
    the_plan = plan(feature_set)
    lower, higher = (sort_bars(bars_of(t, ColumnMapping(), f).table) for t, f in ((base, "15m"), (hours, "1h")))
    panel = staged(the_plan, panel_of(the_plan, "15m", lower, NO_EVENTS, higher={"1h": higher}), threads, rows)
    found = evaluate(the_plan, panel, threads, rows)[0]
    close, available = np.asarray(hours["close"].to_numpy(zero_copy_only=False)), np.asarray(hours["available_at"].cast(pa.int64()))
    for row, moment in enumerate(START + np.arange(1, 41) * 15 * MINUTE):
        seen = np.flatnonzero(available <= moment)
        newest = seen.max() if len(seen) else -1
        expected = (close[newest - 2] + close[newest - 1]) + close[newest] if newest >= 2 else np.nan
        assert np.array_equal(found[row : row + 1], [expected], equal_nan=True)


def hours_of(rng: np.random.Generator, count: int) -> pa.Table:
    ts = START + (np.arange(count) - 3) * HOUR
    known = ts + HOUR + np.where(rng.random(count) < 0.4, rng.integers(1, 4 * HOUR, count), 0)
    close = np.where(rng.random(count) < 0.1, np.nan, rng.normal(100, 1, count))
    return table("A", ts.tolist(), [None if np.isnan(v) else float(v) for v in close], known.tolist())
