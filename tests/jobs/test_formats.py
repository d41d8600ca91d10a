"""Vectors as `features.v1` JSON lines, and tables whose bytes follow from their values."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from io import BytesIO

import pyarrow as pa
import pytest

from asof import FeatureSet, bars, events
from asof.errors import DataError
from asof.jobs.formats import TABLES, feature_id, lines, records
from asof.records import vector_schema

SET = FeatureSet("lined", {"a": bars.close, "b": events.window("1h").count()})
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def vectors(*rows: dict[str, object]) -> pa.Table:
    whole = {"instrument_id": "A", "timeframe": "1m", "ts": NOON, "a": 0.1, "b": 2.0, "quality_flags": [], "event_count": 2}
    rest = {"ohlcv_count": 1, "available_at": NOON, "computed_at": NOON.replace(microsecond=5), "pipeline_version": "t"}
    return pa.Table.from_pylist([whole | rest | row for row in rows], schema=vector_schema(("a", "b")))


def test_a_line_has_what_is_there_and_numbers_that_read_back_exactly() -> None:
    (name, line), (other, second) = lines(SET, vectors({"a": 1e-300}, {"instrument_id": 'Ø"株', "a": None, "quality_flags": ["X", "Y"]}))
    assert (name, other) == ("A", 'Ø"株')
    first = json.loads(line)
    assert first == {
        "schema_version": "features.v1",
        "feature_id": feature_id("A", "1m", "2024-03-01T12:00:00Z", "lined"),
        "instrument_id": "A",
        "timeframe": "1m",
        "ts_utc": "2024-03-01T12:00:00Z",
        "feature_set_version": "lined",
        "features": {"a": 1e-300, "b": 2.0},
        "quality_flags": [],
        "computed_at_utc": "2024-03-01T12:00:00.000005Z",
        "pipeline_version": "t",
        "source_refs": {
            "ohlcv_count": 1,
            "event_count": 2,
            "event_window_start": "2024-03-01T11:00:00Z",
            "event_window_end": "2024-03-01T12:00:00Z",
        },
    }
    changes = {"instrument_id": 'Ø"株', "features": {"b": 2.0}, "quality_flags": ["X", "Y"]}
    assert json.loads(second) == first | changes | {"feature_id": feature_id('Ø"株', "1m", "2024-03-01T12:00:00Z", "lined")}


def test_a_vector_without_any_feature_has_no_line() -> None:
    assert [one["ts_utc"] for one in records(SET, vectors({"a": None, "b": None}, {}))] == ["2024-03-01T12:00:00Z"]
    assert list(lines(SET, vectors())) == []


def test_what_no_record_can_hold_is_refused() -> None:
    with pytest.raises(DataError, match="a feature is not finite"):
        list(lines(SET, vectors({"a": float("inf")})))


def test_a_feature_id_is_a_uuid_of_its_key() -> None:
    space = uuid.UUID("6f1f2f43-6e0b-5f2f-9d0a-a50f00000001")
    for n in range(50):
        assert feature_id(f"I{n}", "1m", "t", "v") == str(uuid.uuid5(space, f"I{n}\x1f1m\x1ft\x1fv"))


@pytest.mark.parametrize("form", TABLES)
def test_the_bytes_of_a_table_tell_nothing_of_the_pieces_it_came_in_or_of_what_lies_beneath_nulls(form: str) -> None:
    there = [k % 7 != 0 for k in range(1000)]
    valid = pa.array(there).buffers()[1]
    beneath = [pa.array([k * 1.0 if v else garbage for k, v in enumerate(there)]).buffers()[1] for garbage in (0.0, 7.0, float("nan"))]
    columns = [pa.Array.from_buffers(pa.float64(), 1000, [valid, values]) for values in beneath]
    flags = pa.array([None if k % 5 == 0 else ["A"] * (k % 3) for k in range(1000)], pa.list_(pa.string()))
    whole, *others = (pa.table({"a": column, "flags": flags}) for column in columns)
    pieces = pa.concat_tables([others[0].slice(0, 333), others[1].slice(333, 1), others[0].slice(334)])
    assert len({written(form, table) for table in (whole, *others, pieces)}) == 1


def written(form: str, table: pa.Table) -> bytes:
    out = BytesIO()
    TABLES[form](table, out)
    return out.getvalue()
