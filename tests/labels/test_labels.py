"""Labels against plain Python, on made-up and real prices; what they cannot be part of; and what splits and corrections make of them."""

from __future__ import annotations

import math
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given

import asof
from asof import FeatureSet, bars, events, labels
from asof.errors import DataError, DefinitionError
from asof.features.label_set import LabelSet, ahead, direction, forward_return, triple_barrier
from tests.labels.markets import DAY, LABELS, START, expected, histories, table

ROUNDED = ("log", "extreme_return")
"""Columns that the oracle rounds otherwise."""


def assert_same(name: str, found: object, wanted: object) -> None:
    if isinstance(wanted, float) and name in ROUNDED:
        assert isinstance(found, float)
        assert math.isclose(found, wanted, rel_tol=1e-13, abs_tol=1e-15), name
    else:
        assert found == wanted, name


@given(closes=histories)
def test_labels_are_what_plain_loops_over_each_instrument_give(closes):
    given = table(closes)
    made = labels.compute(LABELS, given, timeframe="1d").to_pylist()
    wanted = [row for one in closes for row in expected(one)]
    assert len(made) == len(wanted)
    for found, want in zip(made, wanted, strict=True):
        for name, value in want.items():
            assert_same(name, found[name], value)
        assert found["label_from"] == found["ts"] + DAY
        times = [found[f"{name}_until"] for name in LABELS.labels if found[f"{name}_until"] is not None]
        assert found["label_until"] == max(times, default=None)


@given(closes=histories)
def test_the_order_of_the_rows_and_of_the_instruments_changes_nothing(closes):
    given = table(closes)
    backwards = given.take(pa.array(range(len(given) - 1, -1, -1), pa.int64()))
    assert labels.compute(LABELS, backwards, timeframe="1d").table.equals(labels.compute(LABELS, given, timeframe="1d").table)


@pytest.mark.slow
def test_labels_of_real_prices_are_what_plain_loops_give(shared_data: Path):
    daily = pq.read_table(shared_data / "daily/stocknet_prices.parquet").rename_columns({"ticker": "instrument_id", "ts_open_utc": "ts"})
    daily = daily.filter(pc.is_in(daily["instrument_id"], pa.array(["MSFT", "FB", "BAC"], daily["instrument_id"].type)))
    daily = daily.set_column(daily.schema.get_field_index("high"), "high", pc.multiply(daily["close"], 1.01))
    daily = daily.set_column(daily.schema.get_field_index("low"), "low", pc.multiply(daily["close"], 0.99)).sort_by("ts")
    made = labels.compute(LABELS, daily, timeframe="1d").to_pylist()
    checked = 0
    for name in ("BAC", "FB", "MSFT"):
        mine = [row for row in made if row["instrument_id"] == name]
        closes = daily.filter(pc.equal(daily["instrument_id"], name))["close"].to_pylist()
        for found, want in zip(mine, expected(closes), strict=True):
            for column, value in want.items():
                if not column.endswith(("until", "touch")):
                    assert_same(column, found[column], value)
                    checked += value is not None
            if (end := want["fixed_touch"]) is not None:
                assert found["fixed_touch"] == mine[(end - START) // DAY]["ts"]
    assert checked > 10_000
    assert {row["fixed"] for row in made} == {1.0, 0.0, -1.0, None}


def test_a_label_can_be_no_feature_and_no_part_of_one():
    label = forward_return(5)
    with pytest.raises(
        DefinitionError, match=r"feature next of leaky_v1 is a label: it is made of bars that come after .* put it into a LabelSet"
    ):
        FeatureSet("leaky_v1", {"next": label})
    with pytest.raises(DefinitionError, match="flag UP of leaky_v1 is a label"):
        FeatureSet("leaky_v1", {"ret": bars.close}, {"UP": label})
    for attempt in (lambda: bars.close + label, lambda: bars.close.maximum(label), lambda: label + bars.close):
        with pytest.raises((DefinitionError, TypeError), match=r"is a label|unsupported operand"):
            attempt()
    with pytest.raises(DefinitionError, match=r"is no label: .* to look ahead at an expression write ahead"):
        LabelSet("labels_v1", {"ret": bars.close})


def test_a_lag_that_looks_ahead_is_refused_in_features_and_is_what_a_label_has():
    with pytest.raises(DefinitionError, match=r"n=-2 must be at least 1; .* only a label may: asof.labels.ahead\(x, n\)"):
        bars.close.lag(-2)
    made = labels.compute(LabelSet("ahead_v1", {"x": ahead(bars.close, 2)}), table([[1.0, 2.0, 3.0, 4.0]]), timeframe="1d").to_pylist()
    assert [row["x"] for row in made] == [3.0, 4.0, None, None]


def test_a_label_of_a_higher_timeframe_is_what_is_known_of_it_some_bars_later():
    ts = [START + k * timedelta(minutes=15) for k in range(16)]
    given = pa.table({"instrument_id": ["A"] * 16, "ts": ts, "close": [float(k) for k in range(1, 17)]})
    latest = bars.every("1h").close.latest()
    made = labels.compute(LabelSet("hours_v1", {"hour": ahead(latest, 3)}), given, timeframe="15m").to_pylist()
    seen = asof.compute(FeatureSet("hours_v1", {"hour": latest}), given, timeframe="15m").to_pylist()
    assert [row["hour"] for row in made] == [row["hour"] for row in seen[3:]] + [None] * 3
    assert made[0]["hour"] == 4.0
    assert made[0]["hour_until"] == ts[4]


def test_the_text_reads_back_and_the_fingerprint_tells_sets_apart():
    assert LabelSet.parse(LABELS.text) == LABELS
    assert pickle.loads(pickle.dumps(LABELS)) == LABELS  # noqa: S301  # what it holds is the text
    assert LABELS.text.splitlines()[1] == "label ret = ahead(bars.close / bars.close.lag(4) - 1, 4)"
    other = LabelSet("labels_v1", {"ret": forward_return(4, log=True)})
    assert LABELS not in (other, LABELS.text)
    assert (LABELS.horizon, other.horizon) == (4, 4)
    assert repr(other).startswith("<LabelSet labels_v1: 1 labels, 4 bars ahead, ")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: forward_return(0), "n=0 is not a whole number of bars from 1"),
        (lambda: ahead(bars.close, 2.0), "n=2.0 is not a whole number"),
        (lambda: ahead(events.window("1h").sentiment, 2), "value is no expression over bars"),
        (lambda: triple_barrier(bars.close, 5, upper=0, lower=1), "upper=0 is not a number above 0"),
        (lambda: triple_barrier(bars.close, 5, upper=1, lower=1, high=bars.high), "high and low go together"),
        (lambda: triple_barrier(bars.adjusted.close, 5, upper=1, lower=1, high=bars.high, low=bars.low), "must be all adjusted or all not"),
        (lambda: triple_barrier(bars.close, 5, upper=1, lower=1, volatility=bars.adjusted.close.std(5)), "volatility must be a return"),
        (lambda: LabelSet("labels_v1", {}), "has no labels"),
        (lambda: LabelSet("labels_v1", {"ts": forward_return(1)}), "is a reserved word"),
        (lambda: LabelSet("labels_v1", {"label": forward_return(1)}), "several columns label_until"),
        (lambda: LabelSet("labels_v1", {"x": forward_return(1), "x_until": forward_return(1)}), "several columns x_until"),
        (lambda: LabelSet.parse("feature set x"), "starts with 'label set <version>'"),
        (lambda: LabelSet.parse("label set x\nfeature a = 1"), "line 2 of the definition is not"),
        (lambda: LabelSet.parse("label set x\nlabel a = bars.close"), "one is ahead"),
        (lambda: LabelSet.parse("label set x\nlabel a = ahead(__import__('os'), 1)"), "is not part of the language"),
        (lambda: LabelSet.parse("label set x\nlabel a = ahead(bars.close, m=1)"), "ahead is called as ahead"),
    ],
)
def test_what_cannot_be_a_label_is_refused_and_told_why(made, said):
    with pytest.raises(DefinitionError, match=said):
        made()


def test_splits_and_dividends_are_no_returns():
    adjusted = bars.adjusted
    split_v1 = LabelSet(
        "split_v1",
        {
            "ret": forward_return(2, adjusted.close),
            "way": triple_barrier(adjusted.close, 2, upper=0.04, lower=0.04),
            "far": triple_barrier(adjusted.close, 2, upper=0.04, lower=0.04, high=adjusted.high, low=adjusted.low),
        },
    )
    given = table([[100.0, 51.0, 52.0, 50.0]])  # two for one before the second bar
    action = pa.table({"instrument_id": ["I0"], "ts": [START + DAY], "split": [2.0]})
    made = labels.compute(split_v1, given, actions=action, timeframe="1d").to_pylist()
    assert made[0]["ret"] == made[0]["way_return"] == 52.0 / 50.0 - 1
    assert (made[0]["way"], made[0]["way_touch"]) == (1.0, START + 2 * DAY)
    assert [row["way"] for row in made] == [1.0, 0.0, None, None]
    assert made[1]["far"] == 0.0
    raw = labels.compute(LabelSet("raw_v1", {"ret": forward_return(2)}), given, timeframe="1d").to_pylist()
    assert raw[0]["ret"] == 52.0 / 100.0 - 1


def test_a_bar_that_is_known_late_makes_its_labels_late():
    late = table([[100.0, 101.0, 102.0, 104.0, 104.0]]).append_column(
        "available_at", pa.array([None, START + 9 * DAY, None, None, None], pa.timestamp("us", "UTC"))
    )
    made = labels.compute(
        LabelSet("late_v1", {"ret": ahead(bars.close, 1), "way": triple_barrier(bars.close, 2, upper=1, lower=1)}), late, timeframe="1d"
    )
    rows = made.to_pylist()
    assert [row["ret_until"] for row in rows[:3]] == [START + 9 * DAY, START + 3 * DAY, START + 4 * DAY]
    assert [row["way_until"] for row in rows[:3]] == [START + 9 * DAY, START + 9 * DAY, START + 5 * DAY]
    assert rows[1]["label_from"] == START + 9 * DAY


def test_no_bars_give_no_labels():
    assert len(labels.compute(LABELS, table([[]]), timeframe="1d")) == 0


@pytest.fixture
def store(tmp_path: Path):
    with asof.connect("duckdb://") as opened:
        path = tmp_path / "bars.parquet"
        pq.write_table(table([[100.0 + (7 * i * k) % 11 for i in range(40)] for k in (1, 2, 3)]), path)
        opened.ingest_bars(path, timeframe="1d")
        yield opened


def test_a_store_gives_the_labels_of_its_bars_beside_the_vectors_of_them(store):
    whole = store.labels(LABELS, "1d").table
    again = labels.compute(LABELS, table([[100.0 + (7 * i * k) % 11 for i in range(40)] for k in (1, 2, 3)]), timeframe="1d").table
    assert whole.equals(again)
    some = store.labels(LABELS, "1d", instruments=["I1"], start="2024-01-10", end="2024-01-20").table
    inside = pc.and_(pc.equal(whole["instrument_id"], "I1"), pc.is_in(whole["ts"], some["ts"]))
    assert len(some) == 11
    assert some.equals(whole.filter(inside))
    features = FeatureSet("small_v1", {"ret_1": bars.close / bars.close.lag(1) - 1, "high": bars.high})
    store.backfill(features, "1d", start="2024-01-10")
    joined = store.labels(LABELS, "1d", features=["small_v1:ret_1"]).table
    vectors = {(row["instrument_id"], row["ts"]): row["ret_1"] for row in store.history(features, "1d").to_pylist()}
    assert joined.drop_columns("ret_1").equals(whole)
    assert joined["ret_1"].to_pylist() == [vectors.get((row["instrument_id"], row["ts"])) for row in whole.to_pylist()]
    with pytest.raises(DataError, match="both the labels and the features have high"):
        store.labels(LabelSet("high_v1", {"high": forward_return(1)}), "1d", features=features)


def test_labels_as_known_at_a_moment_have_not_seen_a_correction(store, tmp_path: Path):
    simple = LabelSet("simple_v1", {"ret": forward_return(1)})
    before, moment = store.labels(simple, "1d").table, datetime.now(UTC)
    path = tmp_path / "corrected.csv"
    path.write_text("instrument_id,ts,close\nI0,2024-01-06T00:00:00Z,55\n")
    store.ingest_bars(path, timeframe="1d")
    assert not store.labels(simple, "1d").table.equals(before)
    assert store.labels(simple, "1d", known_at=moment).table.equals(before)


def test_labels_join_features_by_when_their_bar_could_be_known(store):
    features = FeatureSet("small_v1", {"ret_1": bars.close / bars.close.lag(1) - 1})
    store.backfill(features, "1d")
    made = store.labels(LABELS, "1d").table
    entities = made.select(["instrument_id", "ret", "label_from"]).rename_columns(["instrument_id", "ret", "event_timestamp"])
    joined = store.get_historical_features(entities, features, "1d").table
    assert joined["ts"].to_pylist() == made["ts"].to_pylist()
    assert timedelta(0) == max(joined["event_timestamp"].to_pylist()) - max(joined["available_at"].to_pylist())
    assert direction(1).text.startswith("ahead(where(")
