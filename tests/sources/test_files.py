"""Files as they come: what they are, how they are broken, how their columns are named; the same rows in any format are the same."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.errors import DataError
from asof.records import EVENT_DETAILS
from asof.sources.files import LINES, read_file
from tests.sources.files import (
    GOOD_BAR,
    GOOD_EVENT,
    WRITERS,
    Outcome,
    ingest,
    write_csv,
    write_lines,
    write_parquet,
    written,
)


def bars(count: int) -> list[dict[str, object]]:
    """Bars of two instruments with everything that a bar can have."""
    made = random.Random(count)  # noqa: S311  # a seed, no secret
    return [
        {
            "instrument_id": f"I{n % 2}",
            "timeframe": "1h",
            "ts": f"2024-03-{1 + n // 24:02d}T{n % 24:02d}:00:00.{n:06d}Z",
            "open": made.choice([None, made.random()]),
            "high": 3.0 + made.random(),
            "low": made.random(),
            "close": made.choice([None, made.random(), 1.0]),
            "volume": made.choice([None, 0.0, 1e300 * made.random()]),
            "source": made.choice([None, "a", "b"]),
            "available_at": made.choice([None, "2024-05-01T00:00:00+02:00"]),
        }
        for n in range(count)
    ]


def test_the_same_bars_in_any_format_are_the_same_in_the_store(tmp_path: Path) -> None:
    rows = [*bars(40), GOOD_BAR | {"close": float("inf")}, GOOD_BAR | {"instrument_id": None}, *bars(40)[:3]]
    outcomes = [ingest(path) for path in written(tmp_path, rows)]
    assert len(outcomes[0].records) == 40
    assert outcomes[0].report.unchanged == 3
    for outcome in outcomes[1:]:
        assert outcome.records == outcomes[0].records
        assert outcome.report.reasons == outcomes[0].report.reasons
        assert (outcome.report.accepted, outcome.report.unchanged) == (40, 3)


def test_the_same_events_in_any_format_are_the_same_in_the_store(tmp_path: Path) -> None:
    flat = [
        {
            "event_id": f"e{n}",
            "enriched_at_utc": f"2024-03-01T12:{n:02d}:00Z",
            "tickers": ["A", "B"][: 1 + n % 2],
            "score": n / 20 - 1,
            "confidence": n / 20,
        }
        for n in range(20)
    ]
    outcomes = [ingest(path, kind="events") for path in written(tmp_path, flat)]
    assert len(outcomes[0].records) == 30
    assert all(outcome.records == outcomes[0].records for outcome in outcomes)


def test_a_compressed_text_file_is_read_as_the_text_in_it(tmp_path: Path) -> None:
    for ending in ("csv", "jsonl"):
        (plain,) = written(tmp_path, bars(5), [ending])
        packed = tmp_path / f"packed.{ending}.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        assert ingest(packed).records == ingest(plain).records


SHAPES: dict[str, dict[str, object]] = {
    "symbols and a nested sentiment": {"tickers": ["A", "B"], "sentiment": {"score": 0.5, "confidence": 0.25, "model": "m"}},
    "objects with a symbol": {
        "tickers": [{"symbol": "A", "confidence": 1}, {"symbol": "B"}],
        "sentiment": {"score": 0.5, "confidence": 0.25},
    },
    "a flat sentiment": {"tickers": ["A", "B"], "sentiment_score": 0.5, "sentiment_confidence": 0.25},
    "plain names": {"tickers": ["A", "B"], "score": 0.5, "confidence": 0.25},
    "symbols in one text": {"tickers": " A, B;", "score": 0.5, "confidence": 0.25},
    "the same symbol twice": {"tickers": ["B", "A", "B"], "score": 0.5, "confidence": 0.25},
}
"""The shapes in which an event says the same."""


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_event_counts_once_for_each_ticker_in_whatever_shape_it_comes(tmp_path: Path, shape: str, ending: str) -> None:
    row = {"event_id": "e", "enriched_at_utc": "2024-03-01T12:00:00Z", "event_time_utc": "2024-03-01T11:00:00Z"} | SHAPES[shape]
    (path,) = written(tmp_path, [row], [ending])
    at = datetime(2024, 3, 1, 12, tzinfo=UTC)
    expected = {
        "event_id": "e",
        "enriched_at_utc": at,
        "event_time_utc": at.replace(hour=11),
        "score": 0.5,
        "confidence": 0.25,
        "scored_at_utc": at,
        **dict.fromkeys(EVENT_DETAILS),
    }
    assert ingest(path, kind="events").records == [{"instrument_id": name} | expected for name in "AB"]


def test_an_event_may_name_its_one_instrument_and_the_name_is_taken_whole(tmp_path: Path) -> None:
    rows = [{"event_id": "e", "enriched_at_utc": "2024-03-01T12:00:00Z", "instrument_id": "BRK B, class", "score": 0, "confidence": 0}]
    for path in written(tmp_path, rows, ["jsonl", "parquet"]):
        assert [r["instrument_id"] for r in ingest(path, kind="events").records] == ["BRK B, class"]


def test_columns_are_mapped_by_name_and_by_path_into_objects(tmp_path: Path) -> None:
    rows = [{"s": "A", "when": {"open": "2024-03-01T12:00:00Z"}, "px": {"last.trade": 2.5}, "close": -7}]
    mapped = {"instrument_id": "s", "ts": "when.open", "close": "px.last.trade"}
    done = ingest(write_lines(tmp_path / "bars.jsonl", rows), columns=mapped, timeframe="1m", source="vendor")
    (found,) = done.records
    assert (found["instrument_id"], found["close"], found["timeframe"], found["source"]) == ("A", 2.5, "1m", "vendor")
    table = pa.table({"s": ["A"], "when": [{"open": "2024-03-01T12:00:00Z"}], "close": [2.5]})
    path = write_parquet(tmp_path / "bars.parquet", table)
    assert ingest(path, columns={"instrument_id": "s", "ts": "when.open"}, timeframe="1m").records[0]["ts"] == found["ts"]


def test_numbers_of_any_type_are_taken_as_they_are(tmp_path: Path) -> None:
    from decimal import Decimal

    prices = [pa.array([Decimal("1.25")]), pa.array(["1.25"]).dictionary_encode(), pa.array([1.25], pa.float32()), pa.array([" +125e-2 "])]
    base = {"ts": ["2024-03-01T12:00:00Z"], "timeframe": pa.array(["1d"]).dictionary_encode()}
    for n, price in enumerate(prices):
        path = write_parquet(tmp_path / f"{n}.parquet", pa.table(base | {"instrument_id": pa.array([600000]), "close": price}))
        assert [(r["instrument_id"], r["close"]) for r in ingest(path).records] == [("600000", 1.25)]
    big = write_parquet(tmp_path / "big.parquet", pa.table(base | {"instrument_id": ["A"], "close": [1.0], "volume": [2**53 + 1]}))
    assert ingest(big).records[0]["volume"] == float(2**53)


def test_a_missing_column_is_told_with_what_there_is_and_how_to_say_which_it_is(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "bars.csv", [{"instrument": "A", "ts": "2024-03-01T12:00:00Z", "close": 1}])
    with pytest.raises(
        DataError,
        match=r"bars.csv: there is no column 'instrument_id' for instrument_id; the file has instrument, ts, close;"
        r" did you mean 'instrument'\?\. Say which it is with --column instrument_id=<column>",
    ):
        ingest(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"close": [True]}, "close holds bool, not numbers"),
        ({"close": [[1.0]]}, "close holds list"),
        ({"ts": [b"x"]}, "ts holds binary, not times"),
        ({"instrument_id": [1.5]}, "instrument_id holds double, not text"),
        ({"instrument_id": [b"\xff"]}, "instrument_id holds binary, not text"),
    ],
)
def test_a_column_of_the_wrong_kind_is_refused_by_its_name_and_kind(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    good = {"instrument_id": ["A"], "ts": ["2024-03-01T12:00:00Z"], "close": [1.0]}
    path = write_parquet(tmp_path / "bars.parquet", pa.table(good | columns))
    with pytest.raises(DataError, match=message):
        ingest(path, timeframe="1d")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("instrument_id,ts,close,close\nA,2024-03-01T12:00:00Z,1,2\n")
    with pytest.raises(DataError, match="there are 2 columns 'close'"):
        ingest(path, timeframe="1d")


def test_bars_without_a_timeframe_need_one_and_those_of_another_are_refused(tmp_path: Path) -> None:
    bare = write_lines(tmp_path / "bare.jsonl", [{k: v for k, v in GOOD_BAR.items() if k != "timeframe"}])
    with pytest.raises(DataError, match=r"no timeframe column: say which they are, such as --timeframe 1d"):
        ingest(bare)
    daily = write_lines(tmp_path / "daily.jsonl", [GOOD_BAR])
    assert len(ingest(daily, timeframe="1d").records) == 1
    with pytest.raises(DataError, match="said to be 1m, but their timeframe column holds '1d'"):
        ingest(daily, timeframe="1m")


def broken(folder: Path, name: str, content: bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content)
    return path


def parquet_bytes(folder: Path) -> bytes:
    """A good Parquet file's content."""
    return write_parquet(folder / "whole.parquet", bars(50)).read_bytes()


def test_a_file_that_is_not_what_its_name_says_is_refused_by_what_it_is(tmp_path: Path) -> None:
    whole = parquet_bytes(tmp_path)
    text = "".join(json.dumps(row) + "\n" for row in bars(3)).encode()
    for name, content, message in (
        ("bars.csv", whole, "is named as CSV but is Parquet: rename it"),
        ("bars.jsonl", whole, "is named as JSON lines but is Parquet"),
        ("bars.arrow", whole, "is named as Arrow but is Parquet"),
        ("bars.parquet", b"instrument_id,ts\n", "is named as Parquet but does not begin as one"),
        ("bars.arrow", b"instrument_id,ts\n", "is named as Arrow but does not begin as one"),
        ("bars.csv", text, "is named as CSV but begins as JSON lines: rename it"),
        ("bars.jsonl", b"instrument_id,ts\nA,2024\n", "none of its first 2 is a JSON object; line 1:"),
        ("bars.jsonl", b"[" + text.strip().replace(b"\n", b",") + b"]", "none of its first 1 is a JSON object; line 1: .*not list"),
        ("bars.csv", gzip.compress(b"a,b\n"), "is named as CSV but is compressed with gzip"),
        ("bars.csv.gz", b"a,b\n1,2\n", "cannot be read as CSV: Not a gzipped file"),
        ("bars.xlsx", b"PK", r"is of no known kind; the name must end in one of .parquet"),
    ):
        with pytest.raises(DataError, match=message):
            ingest(broken(tmp_path, name, content))


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet", "bars.jsonl", "bars.arrow"])
def test_an_empty_file_is_refused_as_empty(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} is empty"):
        ingest(broken(tmp_path, name, b""))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("ending", ["parquet", "arrow", "arrows", "jsonl.gz"])
def test_a_file_that_is_cut_short_is_refused_and_nothing_of_it_goes_in(tmp_path: Path, ending: str, kept: float) -> None:
    packed = ending == "jsonl.gz"
    path = WRITERS["jsonl" if packed else ending](tmp_path / f"whole.{ending}", bars(50))
    content = gzip.compress(path.read_bytes()) if packed else path.read_bytes()
    cut = broken(tmp_path, f"cut.{ending}", content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"cut\.\S+ (cannot be read as|is named as)"):
        ingest(cut)


def test_a_file_that_is_damaged_inside_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in bars(500))))
    content[len(content) // 2 : len(content) // 2 + 40] = b"\0" * 40
    with pytest.raises(DataError, match="cannot be read as JSON lines"):
        ingest(broken(tmp_path, "bars.jsonl.gz", bytes(content)))


def test_a_folder_and_a_missing_file_are_refused_with_the_mend(tmp_path: Path) -> None:
    write_lines(tmp_path / "bars.jsonl", [GOOD_BAR])
    with pytest.raises(DataError, match="is a folder; name the files in it"):
        ingest(tmp_path)
    with pytest.raises(DataError, match=r"bar\.jsonl does not exist; did you mean 'bars\.jsonl'\?"):
        ingest(tmp_path / "bar.jsonl")
    with pytest.raises(DataError, match=r"does not exist$"):
        ingest(tmp_path / "no" / "bars.jsonl")


@pytest.mark.parametrize("ending", list(WRITERS))
def test_a_file_without_rows_is_no_error(tmp_path: Path, ending: str) -> None:
    if ending == "jsonl":
        path = broken(tmp_path, "rows.jsonl", b"\n \n")
    elif ending == "csv":
        path = broken(tmp_path, "rows.csv", b"instrument_id,ts,close\n")
    else:
        path = write_parquet(tmp_path / "rows.parquet", pa.Table.from_pylist(bars(1)).slice(0, 0))
    done = ingest(path)
    assert (done.records, done.report.refused) == ([], 0)


def test_malformed_json_is_refused_with_its_line_number_and_the_rest_goes_in(tmp_path: Path) -> None:
    good = json.dumps(GOOD_BAR).encode()
    bad = [b"{", b'"text"', b"[1]", b"null", b"\xff\xfe", b'{"close": "\\ud800"}', b"[" * 100_000, b'{"close": 1} {"close": 2}']
    lines = [b"\xef\xbb\xbf" + good, b"", *bad, b"   ", good]
    done = ingest(broken(tmp_path, "bars.jsonl", b"\r\n".join(lines)))
    assert done.refused == [("malformed_json", 3 + n) for n in range(len(bad))]
    assert all(f"line {entry['row']}: " in str(entry["detail"]) for entry in done.quarantine)
    assert done.quarantine[0]["record"] == "{\r\n"
    assert (done.report.accepted, done.report.unchanged) == (1, 1)


def test_a_line_with_too_many_or_too_few_columns_is_refused_with_its_line_number(tmp_path: Path) -> None:
    header, good = b"instrument_id,timeframe,ts,close\n", b"%s,1d,2024-03-01T12:00:00Z,1\n"
    lines = [
        good % b"A",
        b"\n",
        good.replace(b"Z,1", b"Z,1,2") % b"B",
        good % b"C",
        b"D,1d\n",
        b",,,\n",
        b"E,1d,yesterday,1\n",
        good % b"F",
    ]
    done = ingest(broken(tmp_path, "bars.csv", header + b"".join(lines)))
    assert done.refused == [("malformed_line", 4), ("malformed_line", 6), ("malformed_time", 8)]
    assert done.quarantine[0]["detail"] == "the line has 5 columns, the header 4"
    assert done.quarantine[0]["record"] == "B,1d,2024-03-01T12:00:00Z,1,2"
    assert [r["instrument_id"] for r in done.records] == ["A", "C", "F"]


def test_rows_of_a_csv_keep_their_line_numbers_over_many_blocks(tmp_path: Path) -> None:
    lines, refused = ["number,text"], []
    for n in range(2, 250_000):
        kind = n % 997
        refused += [n] if kind == 5 else []
        lines.append("a,b,c" if kind == 5 else "" if kind == 7 else f"{n},{'x' * 60}")
    path = tmp_path / "long.csv"
    path.write_text("\n".join(lines))
    batches = list(read_file(path))
    assert len(batches) > 2
    assert [line.row for batch in batches for line in batch.refused] == refused
    for batch in batches:
        assert batch.numbers.tolist() == [int(n) for n in batch.table["number"].to_pylist()]


def test_json_of_mixed_kinds_is_read_value_by_value(tmp_path: Path) -> None:
    closes = [1, 2.5, "3.5", None, 2**70, True, [1], "NaN", 1e308]
    rows = [GOOD_BAR | {"instrument_id": f"I{n}", "close": close, "extra": {"deep": [n, {"x": n}]}} for n, close in enumerate(closes)]
    done = ingest(write_lines(tmp_path / "bars.jsonl", rows))
    assert {r["instrument_id"]: r["close"] for r in done.records} == {
        "I0": 1.0,
        "I1": 2.5,
        "I2": 3.5,
        "I3": None,
        "I4": float(2**70),
        "I7": None,
        "I8": 1e308,
    }
    assert done.refused == [("not_a_number", 6), ("not_a_number", 7)]


def test_a_column_that_only_some_batches_have_is_missing_in_the_others(tmp_path: Path) -> None:
    full, bare = {"instrument_id": "A", "timeframe": "1m", "close": 1.0}, {"instrument_id": "B", "timeframe": "1m"}
    path = tmp_path / "bars.jsonl"
    with path.open("w") as file:
        for row in (full, bare):
            for n in range(LINES):
                file.write(json.dumps(row | {"ts": f"2024-03-{1 + n // 1440:02d}T{n // 60 % 24:02d}:{n % 60:02d}:00Z"}) + "\n")
    done = ingest(path)
    assert (done.report.accepted, done.report.missing_prices, done.refused) == (2 * LINES, LINES, [])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["instrument_id", "timeframe", "ts", "close", "volume", "available_at", "source", "other"])


@given(rows=st.lists(st.dictionaries(FIELDS, JSON_VALUES, max_size=5), min_size=1, max_size=8))
def test_whatever_json_comes_every_row_goes_in_or_is_refused_and_nothing_crashes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    path = write_lines(tmp_path_factory.mktemp("rows") / "bars.jsonl", [GOOD_BAR, *(GOOD_BAR | row for row in rows)])
    done = outcome(path)
    if isinstance(done, str):
        assert done.startswith(str(path))
    else:
        assert done.report.accepted + done.report.unchanged + done.report.refused == len(rows) + 1


EVENT_FIELDS = st.sampled_from(["event_id", "enriched_at_utc", "event_time_utc", "tickers", "sentiment", "other"])


@given(rows=st.lists(st.dictionaries(EVENT_FIELDS, JSON_VALUES, max_size=4), min_size=1, max_size=8))
def test_whatever_events_come_every_row_goes_in_or_is_refused_and_nothing_crashes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    path = write_lines(tmp_path_factory.mktemp("rows") / "events.jsonl", [GOOD_EVENT, *(GOOD_EVENT | row for row in rows)])
    done = outcome(path, "events")
    if isinstance(done, str):
        assert done.startswith(str(path))
    else:
        assert done.report.accepted + done.report.unchanged + done.report.refused >= len(rows) + 1


def outcome(path: Path, kind: str = "bars") -> Outcome | str:
    """What an ingestion does, or what it says where it refuses the file as a whole."""
    try:
        return ingest(path, kind=kind)
    except DataError as error:
        return str(error)
