"""`asof.leakcheck`: every planted leak is found and named, and nothing is found where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

import asof
from asof.errors import DataError, DefinitionError, NotFound
from asof.features.library import SHIPPED
from asof.jobs.around import set_around, tried_on
from asof.jobs.leakcheck import Leakcheck, bits, stored
from asof.jobs.subjects import FRAMES
from asof.jobs.variations import CHECKS
from asof.operators import FORMS, STAGED_SHAPES, Operator, staged
from asof.sources.sample import make_sample
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, Store
from asof.stores.urls import open_store
from tests.leaks import HONEST, LEAKS, Planted, endless_average, negative_lag, planted_operator, rolling_mean, total_so_far
from tests.stores.rows import action, actions_of, bar, bars_of, event, events_of, minute

SAMPLE = make_sample(days=120)
BARS = SAMPLE.bars.filter(pa.compute.is_in(SAMPLE.bars["instrument_id"], pa.array(["ALFA", "BRAVO", "CARGO"])))
EVENTS = pa.Table.from_pylist(SAMPLE.events)


def check(subject: object, **options: object) -> Leakcheck:
    """The check on a small market."""
    return asof.leakcheck(subject, BARS, EVENTS, **({"cuts": 12} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("planted", LEAKS.values(), ids=LEAKS)
def test_a_planted_leak_is_found_and_called_by_its_name(planted: Planted) -> None:
    skipped = () if "again" in planted.checks else ("again",)  # what memory holds may show at once, and then nothing more is asked
    found = check(planted.subject, frame=planted.frame, skip=skipped)
    assert not found.clean
    mine = [finding for finding in found.findings if finding.check in planted.checks]
    assert {finding.check for finding in mine} == planted.checks & {finding.check for finding in found.findings} != set()
    assert planted.means in {finding.means for finding in mine}
    opens = {(row["instrument_id"], row["ts"]) for row in BARS.to_pylist()}
    assert {(finding.instrument, finding.ts) for finding in mine} <= opens
    assert all(finding.rows > 0 and finding.whole != finding.part for finding in mine)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_function_is_clean(name: str) -> None:
    function, frame = HONEST[name]
    found = check(function, frame=frame)
    assert found.findings == ()
    assert found.compared > 10_000


@pytest.mark.parametrize("feature_set", SHIPPED.values(), ids=SHIPPED)
def test_a_shipped_feature_set_is_clean_on_the_sample(feature_set: asof.FeatureSet) -> None:
    found = asof.leakcheck(feature_set, cuts=6)
    assert (found.findings, found.unseen) == ((), ())


@pytest.mark.parametrize("operator", FORMS, ids=lambda operator: operator.key)
def test_a_shipped_operator_is_clean(operator: Operator) -> None:
    lacking = operator.shape in STAGED_SHAPES  # what the sample has no higher bars and no memberships for is made up
    found = asof.leakcheck(operator, cuts=6) if lacking else check(operator, cuts=6)
    assert (found.subjects, found.findings, found.unseen) == ((operator.key,), (), ())


def test_the_operators_over_higher_bars_are_tried_on_whatever_makes_some() -> None:
    keys = {frame: {operator.key for operator in tried_on(frame)} for frame in (None, "1m", "12h", "13h", "1d")}
    assert keys[None] == keys["1m"] == keys["12h"] == {operator.key for operator in FORMS}
    assert keys["13h"] == keys["1d"] == keys[None] - {"latest/1", "age/1"}
    assert [[*set_around(staged.OPERATORS[0], frame).higher] for frame in (None, "1m", "7h", "12h")] == [["1d"], ["5m"], ["21h"], ["1d"]]


def test_a_shipped_feature_set_is_clean_on_real_data_with_its_calendar(shared_data: Path) -> None:
    bars = pa.parquet.read_table(shared_data / "daily/stocknet_prices.parquet").rename_columns(
        {"ticker": "instrument_id", "ts_open_utc": "ts"}
    )
    few = bars.filter(pa.compute.is_in(bars["instrument_id"], bars["instrument_id"].unique().slice(0, 3)))
    few = few.filter(pa.compute.greater(few["ts"], pa.scalar(datetime(2014, 10, 1, tzinfo=UTC))))
    events = pa.parquet.read_table(shared_data / "events/stocknet_events.parquet")
    assert asof.leakcheck(asof.fs_v1, few, events, timeframe="1d", calendars={"*": "XNYS"}, cuts=8).clean


def test_a_finding_names_the_first_row_the_check_the_moment_and_both_values() -> None:
    finding = next(f for f in check(negative_lag).findings if f.check == "truncated")
    assert (finding.subject, finding.feature, finding.instrument, finding.part) == ("negative_lag", "x", "ALFA", None)
    alfa = BARS.filter(pa.compute.equal(BARS["instrument_id"], "ALFA")).to_pandas()
    row = int(np.flatnonzero(alfa.ts == finding.ts)[0])
    assert finding.whole == alfa.close[row + 1] / alfa.close[row] - 1
    assert finding.moment == finding.ts + timedelta(days=1), "the row's own close"
    assert bits(finding.whole) == np.float64(finding.whole).view(np.uint64).item().to_bytes(8, "big").hex()
    assert bits(None) == bits("a word") == ""


def test_the_same_seed_finds_the_same_and_another_may_not() -> None:
    first, again, other = (check(endless_average, seed=seed, cuts=3) for seed in (1, 1, 2))
    assert first == again
    assert {f.ts for f in first.findings} != {f.ts for f in other.findings}


def test_one_that_answers_otherwise_is_asked_nothing_more_and_the_next_one_is() -> None:
    found = check([LEAKS["function with a memory"].subject, rolling_mean, negative_lag], cuts=3)
    assert {(f.subject, f.check) for f in found.findings if f.check == "again"} == {("remembers", "again")}
    assert {f.subject for f in found.findings} == {"remembers", "negative_lag"}


def test_rounding_is_forgiven_where_the_data_begins_elsewhere_unless_it_is_not_to_be() -> None:
    def late_digit(bars: pd.DataFrame) -> pd.DataFrame:
        return bars[["instrument_id", "ts"]].assign(x=bars.close * (1 + len(bars) * 2.0**-52))

    start = {"truncated", "changed", "shuffled", "late", "stretch", "instrument"}
    assert check(late_digit, cuts=3, skip=start).clean
    assert [f.check for f in check(late_digit, cuts=3, skip=start, tolerance=0.0).findings] == ["start"]


def test_a_function_that_says_its_lookback_is_held_to_what_is_missing_too() -> None:
    assert check(rolling_mean, cuts=3, lookback=20).clean
    short = check(rolling_mean, cuts=3, lookback=19)
    assert {(f.check, f.part) for f in short.findings} == {("start", None), ("stretch", None)}


def test_checks_can_be_left_out() -> None:
    assert check(planted_operator(total_so_far), skip=set(CHECKS)).compared == 0
    assert {f.check for f in check(endless_average, cuts=3, skip=["start"]).findings} == {"stretch"}


def test_the_progress_ends_at_its_total() -> None:
    steps: list[tuple[int, int | None]] = []
    check(asof.fs_v1, cuts=2, progress=lambda done, total: steps.append((done, total)))
    assert sum(done for done, _ in steps) == steps[-1][1] == len(CHECKS) * len(BARS)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_function_gets_the_frames_that_it_takes(frame: str) -> None:
    def counted(bars: object, events: object) -> pa.Table:
        assert type(bars) is type(events)
        return pa.table(bars).select(["instrument_id", "ts", "close"])

    assert check(counted, cuts=2, frame=frame).clean


def keyed(bars: pd.DataFrame, **features: object) -> pd.DataFrame:
    return bars[["instrument_id", "ts"]].assign(**features)


def out_of_bounds(bars: pd.DataFrame) -> pd.DataFrame:
    raise IndexError("there is no row 7")


def no_such_column(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.select("instrument_id", "ts", "px")


WRONG: dict[str, tuple[Callable[[pd.DataFrame], object], type[Exception], str]] = {
    "it fails": (out_of_bounds, DefinitionError, "failed on 360 bars and .* events: IndexError: there is no row 7"),
    "no frame": (lambda bars: 5, DataError, "gives int: return a data frame with instrument_id, ts and the features"),
    "no keys": (lambda bars: bars[["close"]], DataError, "no column 'instrument_id'"),
    "no time": (lambda bars: keyed(bars).assign(ts=None), DataError, "gives a row for a bar that it was not given"),
    "another time": (
        lambda bars: keyed(bars).assign(ts=bars.ts + pd.Timedelta("1h")),
        DataError,
        r"gives a row for a bar that it was not given: lay the result on the bars \(ALFA, 2024-01-01 15:30:00",
    ),
    "another instrument": (lambda bars: keyed(bars).assign(instrument_id="ZULU"), DataError, r"not given: .* \(ZULU, "),
    "a bar twice": (lambda bars: pd.concat([keyed(bars), keyed(bars)]), DataError, r"gives two rows for one bar \(ALFA, "),
    "naive times": (lambda bars: keyed(bars).assign(ts=bars.ts.dt.tz_localize(None)), DataError, "zone"),
    "nested values": (lambda bars: keyed(bars, x=[{"a": 1}] * len(bars)), DataError, "x holds struct"),
    "other columns": (lambda bars: keyed(bars, **{f"n{len(bars)}": 1.0}), DataError, "return the same columns always"),
}


def test_whatever_a_function_raises_is_told_by_the_name_of_the_function() -> None:
    with pytest.raises(DefinitionError, match=r"no_such_column failed on 360 bars and .* events: ColumnNotFoundError"):
        check(no_such_column, frame="polars")


@pytest.mark.parametrize("name", WRONG)
def test_a_function_that_is_wrong_is_named_with_what_is_wrong(name: str) -> None:
    function, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        check(function)


def test_what_cannot_be_checked_is_refused() -> None:
    for subject, options, message in (
        (5, {}, "5 is no feature set, operator or function"),
        ("fs_v1", {}, "'fs_v1' is no feature set, operator or function"),
        (["fs_v1"], {}, "'fs_v1' is no feature set, operator or function"),
        (rolling_mean, {"frame": "panda"}, "did you mean 'pandas'?"),
        (rolling_mean, {"skip": ["strat"]}, "did you mean 'start'?"),
    ):
        with pytest.raises(DefinitionError, match=message.replace("?", r"\?")):
            check(subject, **options)
    with pytest.raises(DataError, match="the bars open at 9 different times: a check for leaks needs 10 at least"):
        asof.leakcheck(asof.fs_v1, BARS.slice(0, 9))
    assert asof.leakcheck(asof.fs_v1, BARS.slice(0, 10)).clean


def test_a_feature_that_is_missing_on_every_row_is_not_called_clean_in_silence() -> None:
    close = asof.bars.close
    far = asof.FeatureSet("far", {"near": close.mean(5), "mean_121": close.mean(121)})
    assert check(far, cuts=2).unseen == ("far: mean_121",)
    assert check(rolling_mean, cuts=2).unseen == ()


@pytest.fixture
def filled() -> Store:
    """Forty bars of each of seven instruments, and an event for each bar."""
    store = open_store("duckdb://")
    names = "ABCDEFG"
    store.upsert(BARS_TABLE, bars_of(*(bar(n, 1.0 + n % 7, name) for name in names for n in range(40))), minute(100))
    store.upsert(EVENTS_TABLE, events_of(*(event(f"e{n}", n, 0.5, name) for name in names for n in range(40))), minute(100))
    return store


def test_a_store_gives_the_last_bars_of_a_few_instruments_with_their_events(filled: Store) -> None:
    bars, events, _ = stored(filled, "1m", bars=15)
    names = set(bars["instrument_id"].to_pylist())
    assert len(names) == 5
    assert set(events["instrument_id"].to_pylist()) == names
    assert set(bars["ts"].to_pylist()) == {minute(n) for n in range(25, 40)}
    assert stored(filled, "1m", bars=15)[0].equals(bars)
    chosen, _, _ = stored(filled, "1m", ("C",), 100)
    assert (len(chosen), set(chosen["instrument_id"].to_pylist())) == (40, {"C"})
    assert asof.leakcheck(asof.fs_v1, bars, events, timeframe="1m", cuts=3).clean


def test_adjusted_bars_are_clean_with_the_actions_of_a_store(filled: Store) -> None:
    filled.upsert(ACTIONS_TABLE, actions_of(*(action(n, 2.0, "C", 0.9) for n in (3, 20, 21, 39, 41))), minute(100))
    adjusted = asof.bars.adjusted.close
    subject = asof.FeatureSet(
        "adjusted", {"ret": adjusted / adjusted.lag(1) - 1, "mean": adjusted.mean(5), "fading": adjusted.ewm(alpha=0.5)}
    )
    bars, events, actions = stored(filled, "1m", ("C",), 100)
    assert actions["ts"].to_pylist() == [minute(n) for n in (3, 20, 21, 39)]
    assert asof.leakcheck(subject, bars, events, actions, timeframe="1m", cuts=6).clean


def test_a_store_without_such_bars_says_so(filled: Store) -> None:
    for timeframe, names, message in (("1h", None, "the store has no 1h bars"), ("1m", ("C", "CC"), "no 1m bars of CC; did you mean 'C'?")):
        with pytest.raises(NotFound, match=message.replace("?", r"\?")):
            stored(filled, timeframe, names)
    with pytest.raises(DefinitionError, match="timeframe '5x'"):
        stored(filled, "5x")
