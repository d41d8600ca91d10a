"""Rows that cannot be used: each is refused with its reason, counted, and set aside with its record; the rest goes in."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from asof.errors import DataError
from asof.stores.urls import open_store
from tests.sources.files import (
    GOOD_BAR,
    GOOD_EVENT,
    ingest,
    quarantine_of,
    records_in,
    write_csv,
    write_lines,
    write_parquet,
    written,
)

BAD_BARS: dict[str, tuple[str, dict[str, object], str]] = {
    "an infinite price": ("infinite_value", {"high": math.inf}, "high=inf is infinite"),
    "an infinite volume": ("infinite_value", {"volume": -math.inf}, "volume=-inf is infinite"),
    "a number too large for a float": ("infinite_value", {"close": "1e999"}, "close=inf is infinite"),
    "a high below the low": ("high_below_low", {"high": 9.0, "low": 10.0}, "high=9.0 is below low=10.0"),
    "a negative volume": ("negative_volume", {"volume": -1.0}, "volume=-1.0 is negative"),
    "an unknown timeframe": ("unknown_timeframe", {"timeframe": "1w"}, "timeframe '1w' is not one of <n>s, <n>m, <n>h, <n>d"),
    "a timeframe of nothing": ("unknown_timeframe", {"timeframe": "0m"}, "timeframe '0m' is not one of"),
    "no timeframe": ("unknown_timeframe", {"timeframe": None}, "timeframe None is not one of"),
    "a naive time": ("naive_time", {"ts": "2024-03-01T14:30:00"}, "has no zone: say which zone it is in, such as --timezone UTC"),
    "a date as time": ("naive_time", {"ts": "2024-03-01"}, "has no zone"),
    "no time": ("missing_time", {"ts": None}, "ts is missing"),
    "a time before 1970": ("time_out_of_range", {"ts": "1969-12-31T23:59:59Z"}, "is before 1970 or after 2100; was its unit mistaken?"),
    "a time in the far future": ("time_out_of_range", {"ts": "2100-01-01T00:00:00Z"}, "is before 1970 or after 2100"),
    "a time that seconds as milliseconds give": ("time_unit", {"ts": "1970-01-20T18:00:00Z"}, "a unit mistaken for another"),
    "a day that no month has": ("malformed_time", {"ts": "2024-02-30T14:30:00Z"}, "is not a time"),
    "a time that is none": ("malformed_time", {"ts": "yesterday"}, "ts='yesterday' is not an ISO 8601 time"),
    "a number without a unit": ("time_without_unit", {"ts": "1709303400"}, "1709303400 looks like s: say --unit s"),
    "text for a price": ("not_a_number", {"close": "ten"}, "close='ten' is not a number"),
    "a price with a thousands' separator": ("not_a_number", {"close": "1 000"}, "close='1 000' is not a number"),
    "an empty instrument": ("empty_instrument", {"instrument_id": ""}, "instrument_id is empty"),
    "a blank instrument": ("empty_instrument", {"instrument_id": "  "}, "instrument_id is empty"),
    "no instrument": ("empty_instrument", {"instrument_id": None}, "instrument_id is empty"),
    "known before it opened": ("known_before_open", {"available_at": "2024-03-01T14:29:59Z"}, "is before the bar's open"),
}
"""For each kind of bad bar its reason, what is wrong in it, and a part of what is said about it."""

BAD_EVENTS: dict[str, tuple[str, dict[str, object], str]] = {
    "a score above 1": ("score_out_of_range", {"sentiment": {"score": 1.01, "confidence": 0.5}}, "score=1.01 is outside -1..1"),
    "a score below -1": ("score_out_of_range", {"sentiment": {"score": -1.01, "confidence": 0.5}}, "score=-1.01 is outside -1..1"),
    "an infinite score": ("score_out_of_range", {"sentiment": {"score": math.inf, "confidence": 0.5}}, "score=inf is outside -1..1"),
    "no score": ("missing_score", {"sentiment": {"score": None, "confidence": 0.5}}, "score is missing"),
    "no sentiment": ("missing_score", {"sentiment": None}, "score is missing"),
    "a score of NaN": ("missing_score", {"sentiment": {"score": math.nan, "confidence": 0.5}}, "score is missing"),
    "a negative confidence": (
        "confidence_out_of_range",
        {"sentiment": {"score": 0, "confidence": -0.1}},
        "confidence=-0.1 is outside 0..1",
    ),
    "no confidence": ("missing_confidence", {"sentiment": {"score": 0}}, "confidence is missing"),
    "no tickers": ("no_tickers", {"tickers": []}, "the event names no ticker"),
    "null tickers": ("no_tickers", {"tickers": None}, "the event names no ticker"),
    "an empty ticker": ("no_tickers", {"tickers": [""]}, "the event names no ticker"),
    "a ticker and an empty one": ("no_tickers", {"tickers": ["A", ""]}, "the event names no ticker"),
    "a ticker and a null one": ("no_tickers", {"tickers": ["A", None]}, "the event names no ticker"),
    "an empty id": ("empty_event_id", {"event_id": ""}, "event_id is empty"),
    "no id": ("empty_event_id", {"event_id": None}, "event_id is empty"),
    "a naive time": ("naive_time", {"enriched_at_utc": "2024-03-01 14:30:00"}, "has no zone"),
    "no time": ("missing_time", {"enriched_at_utc": None}, "enriched_at_utc is missing"),
    "a naive event time": ("naive_time", {"event_time_utc": "2024-03-01 14:30:00"}, "event_time_utc=2024-03-01 14:30:00 has no zone"),
}


BAD_ACTIONS: dict[str, tuple[str, dict[str, object], str]] = {
    "a split into nothing": ("factor_not_positive", {"split": 0.0}, "split=0.0 is not above 0"),
    "a dividend of all that there was": ("factor_not_positive", {"dividend_factor": -0.5}, "dividend_factor=-0.5 is not above 0"),
    "an infinite split": ("infinite_value", {"split": math.inf}, "split=inf is infinite"),
    "no factor": ("no_factor", {"split": None, "dividend_factor": math.nan}, "neither split nor dividend_factor is there"),
    "text for a factor": ("not_a_number", {"split": "2:1"}, "split='2:1' is not a number"),
    "a naive ex-date": ("naive_time", {"ts": "2024-03-01"}, "has no zone"),
    "no ex-date": ("missing_time", {"ts": None}, "ts is missing"),
    "no instrument": ("empty_instrument", {"instrument_id": ""}, "instrument_id is empty"),
}


@pytest.mark.parametrize("name", BAD_ACTIONS)
def test_an_action_that_cannot_be_used_is_refused_with_its_reason_and_the_rest_goes_in(tmp_path: Path, name: str) -> None:
    reason, wrong, detail = BAD_ACTIONS[name]
    good: dict[str, object] = {"instrument_id": "GOOD", "ts": "2024-03-01T05:00:00Z", "split": 2.0, "dividend_factor": None}
    done = ingest(write_lines(tmp_path / "actions.jsonl", [good, good | {"instrument_id": "BAD"} | wrong]), kind="actions")
    assert done.refused == [(reason, 2)]
    assert detail in str(done.quarantine[0]["detail"])
    assert done.quarantine[0]["kind"] == "actions"
    assert [(row["instrument_id"], row["split"], row["dividend_factor"]) for row in done.records] == [("GOOD", 2.0, 1.0)]


def test_actions_that_disagree_about_one_ex_date_are_all_refused(tmp_path: Path) -> None:
    row: dict[str, object] = {"instrument_id": "X", "ts": "2024-03-01T05:00:00Z", "split": 2.0}
    done = ingest(write_csv(tmp_path / "actions.csv", [row, row | {"split": 3.0}, row | {"instrument_id": "Y"}, row]), kind="actions")
    assert done.refused == [("duplicate_disagrees", n) for n in (2, 3, 5)]
    assert "about the action of X at 2024-03-01 05:00" in str(done.quarantine[0]["detail"])
    assert [record["instrument_id"] for record in done.records] == ["Y"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", BAD_BARS)
def test_a_bar_that_cannot_be_used_is_refused_with_its_reason_and_the_rest_goes_in(tmp_path: Path, name: str, ending: str) -> None:
    reason, wrong, detail = BAD_BARS[name]
    filled = {"high": 11.0, "low": 9.0, "volume": 5.0, "available_at": "2024-03-02T14:30:00Z"}
    rows = [GOOD_BAR | filled, GOOD_BAR | {"instrument_id": "BAD"} | filled | wrong, GOOD_BAR | filled | {"instrument_id": "LAST"}]
    if ending == "parquet" and any(isinstance(v, str) for n, v in wrong.items() if n in ("close", "high", "volume")):
        rows = [{name: value if value is None else str(value) for name, value in row.items()} for row in rows]
    (path,) = written(tmp_path, rows, [ending])
    done = ingest(path)
    assert done.refused == [(reason, 3 if ending == "csv" else 2)]
    (entry,) = done.quarantine
    assert detail in str(entry["detail"])
    assert (entry["kind"], entry["source"]) == ("bars", path.name)
    shown = json.loads(str(entry["record"]))
    assert shown["instrument_id"] == (rows[1]["instrument_id"] or None if ending == "csv" else rows[1]["instrument_id"])
    assert wrong.keys() <= shown.keys()
    assert dict(done.report.reasons) == {reason: 1}
    assert (done.report.accepted, done.report.refused) == (2, 1)
    assert [record["instrument_id"] for record in done.records] == ["GOOD", "LAST"]


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_an_event_that_cannot_be_used_is_refused_with_its_reason_and_the_rest_goes_in(tmp_path: Path, name: str) -> None:
    reason, wrong, detail = BAD_EVENTS[name]
    rows = [GOOD_EVENT, GOOD_EVENT | {"event_id": "bad"} | wrong, GOOD_EVENT | {"event_id": "last"}]
    path = write_lines(tmp_path / "events.jsonl", rows)
    done = ingest(path, kind="events")
    assert done.refused == [(reason, 2)]
    assert detail in str(done.quarantine[0]["detail"])
    assert done.quarantine[0]["kind"] == "events"
    assert sorted(str(record["event_id"]) for record in done.records) == ["good", "last"]
    assert (done.report.accepted, done.report.refused) == (2, 1)


def test_a_row_that_is_wrong_in_two_ways_is_refused_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bars.jsonl", [GOOD_BAR | {"ts": "?", "close": "?", "instrument_id": ""}, GOOD_BAR])
    assert [row for _, row in ingest(path).refused] == [1]


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = [GOOD_BAR | {"instrument_id": name} | wrong for name, (_, wrong, _) in BAD_BARS.items()]
    rows += [GOOD_BAR, GOOD_BAR, GOOD_BAR | {"instrument_id": "TWICE"}, GOOD_BAR | {"instrument_id": "TWICE", "close": 1.0}]
    report = ingest(write_lines(tmp_path / "bars.jsonl", rows)).report
    assert (report.accepted, report.unchanged, report.corrected) == (1, 1, 0)
    assert report.accepted + report.unchanged + report.corrected + report.refused == len(rows)


def test_rows_that_disagree_are_refused_both_and_set_aside_with_their_numbers(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", [GOOD_BAR, GOOD_BAR | {"instrument_id": "X"}, GOOD_BAR | {"close": 10.5}, GOOD_BAR])
    done = ingest(path)
    assert done.refused == [("duplicate_disagrees", 2), ("duplicate_disagrees", 4), ("duplicate_disagrees", 5)]
    assert "disagrees with this one about the bar of GOOD at 2024-03-01 14:30" in str(done.quarantine[0]["detail"])
    assert json.loads(str(done.quarantine[1]["record"]))["close"] == 10.5
    assert [record["instrument_id"] for record in done.records] == ["X"]


def test_an_event_that_disagrees_with_itself_is_refused_once_for_each_row(tmp_path: Path) -> None:
    both = GOOD_EVENT | {"tickers": ["A", "B"]}
    rows = [both, both | {"sentiment": {"score": 0.1, "confidence": 0.5}}, GOOD_EVENT | {"event_id": "last"}]
    done = ingest(write_lines(tmp_path / "events.jsonl", rows), kind="events")
    assert done.refused == [("duplicate_disagrees", 1), ("duplicate_disagrees", 2)]
    assert "about the event good for" in str(done.quarantine[0]["detail"])
    assert [record["event_id"] for record in done.records] == ["last"]


def test_the_same_refused_rows_again_are_counted_again_but_kept_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bars.jsonl", [GOOD_BAR, GOOD_BAR | {"ts": None}, GOOD_BAR | {"volume": -1}])
    store = open_store("duckdb://")
    first, again = ingest(path, store=store), ingest(path, store=store)
    assert first.report.reasons == again.report.reasons
    assert len(again.quarantine) == 2
    store.close()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (GOOD_BAR | {"ts": None}, r"bars.jsonl, row 2: ts is missing \(missing_time\); --strict stops at the first"),
        (GOOD_BAR | {"close": 1.0}, r"bars.jsonl, row 1: another row disagrees .* \(duplicate_disagrees\)"),
    ],
)
def test_strict_stops_at_the_first_refused_row_and_nothing_of_its_file_goes_in(
    tmp_path: Path, second: dict[str, object], message: str
) -> None:
    before = write_lines(tmp_path / "before.jsonl", [GOOD_BAR | {"instrument_id": "BEFORE"}])
    path = write_lines(tmp_path / "bars.jsonl", [GOOD_BAR, second])
    store = open_store("duckdb://")
    with pytest.raises(DataError, match=message):
        ingest(before, path, store=store, strict=True)
    assert [record["instrument_id"] for record in records_in(store, "bars")] == ["BEFORE"]
    assert quarantine_of(store) == []
    store.close()


def test_strict_stops_at_a_malformed_line_as_well(tmp_path: Path) -> None:
    path = tmp_path / "bars.jsonl"
    path.write_text(json.dumps(GOOD_BAR) + "\n{oops\n")
    with pytest.raises(DataError, match=r"row 2: line 2: .*malformed_json"):
        ingest(path, strict=True)


@pytest.mark.parametrize("value", [None, math.nan, 0.0, -1.0, 0, "", "NaN"])
@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_price_that_is_null_nan_zero_or_below_is_kept_as_missing_and_counted(tmp_path: Path, name: str, value: object) -> None:
    full = GOOD_BAR | {"open": 10.0, "high": 11.0, "low": 9.0}
    done = ingest(write_lines(tmp_path / "bars.jsonl", [full | {"instrument_id": "ODD"} | {name: value}, full]))
    assert done.refused == []
    assert {r["instrument_id"]: r[name] for r in done.records} == {"ODD": None, "GOOD": full[name]}
    assert done.report.missing_prices == 1


def test_a_volume_of_zero_is_a_volume_and_one_of_nan_is_missing(tmp_path: Path) -> None:
    rows = [GOOD_BAR | {"volume": 0.0}, GOOD_BAR | {"instrument_id": "NAN", "volume": math.nan}]
    done = ingest(write_parquet(tmp_path / "bars.parquet", rows))
    assert {r["instrument_id"]: r["volume"] for r in done.records} == {"GOOD": 0.0, "NAN": None}


UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
MOMENT = 1_709_303_400
"""14:30 on the first of March 2024, in seconds."""


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("unit", UNITS)
def test_whole_numbers_are_times_in_the_unit_that_is_said(tmp_path: Path, unit: str, ending: str) -> None:
    (path,) = written(tmp_path, [GOOD_BAR | {"ts": MOMENT * UNITS[unit]}], [ending])
    assert [r["ts"] for r in ingest(path, unit=unit).records] == [datetime(2024, 3, 1, 14, 30, tzinfo=UTC)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("unit", UNITS)
def test_whole_numbers_without_a_unit_are_refused_with_the_unit_that_they_look_like(tmp_path: Path, unit: str, ending: str) -> None:
    (path,) = written(tmp_path, [GOOD_BAR | {"ts": MOMENT * UNITS[unit]}], [ending])
    with pytest.raises(
        DataError, match=rf"ts holds whole numbers without a unit; {MOMENT * UNITS[unit]} looks like {unit}: say --unit {unit}"
    ):
        ingest(path)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(("unit", "other"), [(a, b) for a in UNITS for b in UNITS if a != b])
def test_a_file_that_switches_its_unit_half_way_has_the_other_half_refused(tmp_path: Path, unit: str, other: str, ending: str) -> None:
    rows = [GOOD_BAR | {"instrument_id": f"I{n}", "ts": MOMENT * UNITS[unit if n < 3 else other]} for n in range(6)]
    (path,) = written(tmp_path, rows, [ending])
    done = ingest(path, unit=unit)
    assert [record["instrument_id"] for record in done.records] == ["I0", "I1", "I2"]
    assert dict(done.report.reasons) == {"time_unit": 3}
    assert f"is not a usual time in {unit}; it looks like {other}" in str(done.quarantine[0]["detail"])


@pytest.mark.parametrize("stored", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("meant", ["s", "ms", "us", "ns"])
def test_a_timestamp_column_made_with_the_wrong_unit_is_refused_and_its_unit_named(tmp_path: Path, stored: str, meant: str) -> None:
    numbers = [MOMENT * UNITS[meant], MOMENT * UNITS[stored]]
    names = {"instrument_id": ["A", "B"], "timeframe": ["1d", "1d"], "close": [1.0, 1.0]}
    times = pa.array(numbers, pa.int64()).cast(pa.timestamp(stored, tz="UTC"))
    table = pa.table(names | {"ts": times})
    path = tmp_path / "bars.arrow"
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    done = ingest(path)
    if stored == meant:
        assert done.refused == []
    else:
        assert [record["instrument_id"] for record in done.records] == ["B"]
        assert f"looks like {meant}" in str(done.quarantine[0]["detail"])


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("number", [10**17, 3 * 10**17, 9 * 10**18, -(9 * 10**18)])
def test_a_number_that_no_unit_makes_a_time_is_refused_and_never_wraps_around_to_one(tmp_path: Path, unit: str, number: int) -> None:
    path = write_parquet(tmp_path / "bars.parquet", [GOOD_BAR | {"ts": number}])
    done = ingest(path, unit=unit)
    assert done.records == []
    assert len(done.refused) == 1


def test_floating_point_times_are_whole_numbers_or_missing_and_fractions_are_refused(tmp_path: Path) -> None:
    rows = [GOOD_BAR | {"instrument_id": f"I{n}", "ts": ts} for n, ts in enumerate((MOMENT + 0.0, math.nan, MOMENT + 0.5, math.inf))]
    done = ingest(write_parquet(tmp_path / "bars.parquet", rows), unit="s")
    assert [record["instrument_id"] for record in done.records] == ["I0"]
    assert done.refused == [("missing_time", 2), ("malformed_time", 3), ("malformed_time", 4)]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ns"), pa.date32()])
def test_a_naive_column_is_refused_with_an_example_and_the_option_that_mends_it(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"instrument_id": ["A"], "ts": pa.array([datetime(2024, 3, 1)]).cast(kind), "close": [1.0]})  # noqa: DTZ001
    path = write_parquet(tmp_path / "bars.parquet", table)
    with pytest.raises(DataError, match=r"ts holds naive times, such as 2024-03-01.*say which zone they are in, such as --timezone UTC"):
        ingest(path, timeframe="1d")
    assert ingest(path, timeframe="1d", timezone="America/New_York").records[0]["ts"] == datetime(2024, 3, 1, 5, tzinfo=UTC)


NEW_YORK = {
    "2024-03-10 01:59:59": datetime(2024, 3, 10, 6, 59, 59, tzinfo=UTC),
    "2024-03-10 02:30:00": None,
    "2024-03-10 03:00:00": datetime(2024, 3, 10, 7, tzinfo=UTC),
    "2024-11-03 00:59:59": datetime(2024, 11, 3, 4, 59, 59, tzinfo=UTC),
    "2024-11-03 01:30:00": None,
    "2024-11-03 02:00:00": datetime(2024, 11, 3, 7, tzinfo=UTC),
    "2024-11-03T01:30:00-05:00": datetime(2024, 11, 3, 6, 30, tzinfo=UTC),
}
"""Local times around both changes of the clocks; None where the clock shows that time never, or twice."""


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_local_times_that_the_clock_skips_or_doubles_are_refused(tmp_path: Path, ending: str) -> None:
    rows = [GOOD_BAR | {"instrument_id": f"I{n}", "ts": text} for n, text in enumerate(NEW_YORK)]
    (path,) = written(tmp_path, rows, [ending])
    done = ingest(path, timezone="America/New_York")
    assert [record["ts"] for record in done.records] == [ts for ts in NEW_YORK.values() if ts]
    assert dict(done.report.reasons) == {"ambiguous_time": 2}
    assert "is skipped or doubled by daylight saving in America/New_York" in str(done.quarantine[0]["detail"])


def test_a_zone_or_unit_that_is_not_known_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", [GOOD_BAR])
    with pytest.raises(DataError, match=r"timezone 'America/NewYork' is not known; did you mean 'America/New_York'\?"):
        ingest(path, timezone="America/NewYork")
    with pytest.raises(DataError, match="unit 'sec' is not one of s, ms, us, ns"):
        ingest(path, unit="sec")
