"""Files of memberships: rows from which on something holds, spells with an end, and what of both cannot be used."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from asof import connect
from asof.errors import DataError
from asof.jobs.ingest import IngestReport
from asof.stores.store import MEMBERSHIPS_TABLE, Selection
from tests.sources.files import ingest, write_csv, write_lines

GOOD: dict[str, object] = {"scheme": "index", "instrument_id": "GOOD", "ts": "2024-03-01T05:00:00Z", "value": "in"}
BAD: dict[str, tuple[str, dict[str, object], str]] = {
    "no scheme": ("scheme_name", {"scheme": None}, "scheme=None must be a letter"),
    "a scheme that is no name": ("scheme_name", {"scheme": "S&P 500"}, "scheme='S&P 500' must be a letter"),
    "no instrument": ("empty_instrument", {"instrument_id": " "}, "instrument_id is empty"),
    "no time": ("missing_time", {"ts": None}, "ts is missing"),
    "a naive time": ("naive_time", {"ts": "2024-03-01"}, "has no zone"),
    "a naive time of being known": ("naive_time", {"available_at": "2024-03-01"}, "has no zone"),
    "a unit mistaken for another": ("time_unit", {"available_at": "1970-01-20T18:00:00Z"}, "a unit mistaken for another"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_membership_that_cannot_be_used_is_refused_with_its_reason_and_the_rest_goes_in(tmp_path: Path, name: str) -> None:
    reason, wrong, detail = BAD[name]
    done = ingest(write_lines(tmp_path / "in.jsonl", [GOOD, GOOD | {"instrument_id": "BAD"} | wrong]), kind="memberships")
    assert done.refused == [(reason, 2)]
    assert detail in str(done.quarantine[0]["detail"])
    assert [row["instrument_id"] for row in done.records] == ["GOOD"]


def test_rows_that_agree_go_in_once_and_those_that_disagree_not_at_all(tmp_path: Path) -> None:
    other = GOOD | {"instrument_id": "X"}
    done = ingest(write_csv(tmp_path / "in.csv", [GOOD, GOOD, other, other | {"value": "out"}]), kind="memberships")
    assert done.refused == [("duplicate_disagrees", 4), ("duplicate_disagrees", 5)]
    assert "membership of X in index from 2024-03-01 05:00" in str(done.quarantine[0]["detail"])
    assert (done.report.accepted, done.report.unchanged) == (1, 1)


def day(n: int) -> datetime:
    return datetime(2024, 3, n, tzinfo=UTC)


def read(path: Path, **how: str) -> tuple[IngestReport, list[tuple[object, ...]]]:
    """What an ingestion tells, and the memberships that it leaves: instrument, day, value."""
    with connect("duckdb://") as store:
        report = store.ingest_memberships(path, timezone="UTC", **how)
        rows = [row for table in store.store.read(MEMBERSHIPS_TABLE, Selection()) for row in table.to_pylist()]
    return report, [(row["instrument_id"], row["ts"].day, row["value"]) for row in rows]


def test_an_empty_value_is_none_and_without_values_all_are_in(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("instrument_id,ts,value\nA,2024-03-01,Tech\nA,2024-03-05,\n")
    assert read(path, scheme="sector")[1] == [("A", 1, "Tech"), ("A", 5, None)]
    path.write_text("instrument_id,ts\nA,2024-03-01\n")
    assert read(path, scheme="index")[1] == [("A", 1, "in")]
    with pytest.raises(DataError, match="no scheme column: say which it is, such as --scheme sp500"):
        read(path)
    path.write_text("scheme,instrument_id,ts\nindex,A,2024-03-01\n")
    with pytest.raises(DataError, match="said to be of sp500, but their scheme column holds 'index'"):
        read(path, scheme="sp500")
    with pytest.raises(DataError, match="format 'spell' is none of table, spells; did you mean 'spells'"):
        read(path, file_format="spell")


def test_a_spell_begins_and_ends_unless_the_next_one_begins_there(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(
        "name,ts,until,value\n"
        "A,2024-03-01,2024-03-05,Tech\n"
        "A,2024-03-05,2024-03-09,Energy\n"
        "A,2024-03-20,,Tech\n"  # the symbol is another company's by now
        "A,2024-03-20,,Tech\n"
        "B,2024-03-02,2024-03-03,Tech\n"
    )
    done, rows = read(path, scheme="sector", file_format="spells", columns={"instrument_id": "name"})
    assert rows == [("A", 1, "Tech"), ("A", 5, "Energy"), ("A", 9, None), ("A", 20, "Tech"), ("B", 2, "Tech"), ("B", 3, None)]
    assert (done.accepted, done.refused) == (6, 0)


def test_spells_that_overlap_or_end_before_they_begin_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(
        "scheme,instrument_id,ts,until\n"
        "index,A,2024-03-01,\n"
        "index,A,2024-03-02,2024-03-03\n"
        "index,A,2024-03-08,\n"
        "other,A,2024-03-02,2024-03-03\n"
        "index,B,2024-03-03,2024-03-03\n"
        "index,C,,2024-03-03\n"
        "index,D,2024-03-31,2024-02-30\n"
    )
    done, rows = read(path, file_format="spells")
    assert rows == [("A", 2, "in"), ("A", 3, None)]
    assert dict(done.reasons) == {"overlapping_spells": 3, "ends_before_it_begins": 1, "missing_time": 1, "malformed_time": 1}
    assert done.examples["overlapping_spells"] == "in.csv row 2: another spell of A overlaps with this one"
