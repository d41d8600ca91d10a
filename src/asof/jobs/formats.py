"""How vectors leave: as `features.v1` JSON lines, CSV, Parquet or Arrow."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from asof.errors import DataError
from asof.features.feature_set import FeatureSet

SCHEMA_VERSION = "features.v1"
_NAMESPACE = uuid.UUID("6f1f2f43-6e0b-5f2f-9d0a-a50f00000001")


def feature_id(instrument: str, timeframe: str, ts: str, version: str) -> str:
    """The id of a vector, derived from its key, so that a recompute keeps it."""
    return str(uuid.uuid5(_NAMESPACE, f"{instrument}\x1f{timeframe}\x1f{ts}\x1f{version}"))


def rfc3339(moment: datetime) -> str:
    """A UTC time, with fractions only where there are some."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond:06d}Z" if moment.microsecond else text + "Z"


def records(feature_set: FeatureSet, vectors: pa.Table) -> Iterator[dict[str, object]]:
    """Each vector as a `features.v1` record. One with no feature at all has no record, as the schema asks for one at least."""
    names = tuple(feature_set.features)
    window = timedelta(microseconds=feature_set.event_window)
    for batch in vectors.to_batches(10_000):
        for row in batch.to_pylist():
            features = {name: row[name] for name in names if row[name] is not None}
            if not features:
                continue
            ts = rfc3339(row["ts"])
            references: dict[str, object] = {"ohlcv_count": row["ohlcv_count"]}
            if window:
                references |= {"event_count": row["event_count"], "event_window_start": rfc3339(row["ts"] - window), "event_window_end": ts}
            yield {
                "schema_version": SCHEMA_VERSION,
                "feature_id": feature_id(row["instrument_id"], row["timeframe"], ts, feature_set.version),
                "instrument_id": row["instrument_id"],
                "timeframe": row["timeframe"],
                "ts_utc": ts,
                "feature_set_version": feature_set.version,
                "features": features,
                "quality_flags": row["quality_flags"],
                "computed_at_utc": rfc3339(row["computed_at"]),
                "pipeline_version": row["pipeline_version"],
                "source_refs": references,
            }


def write_jsonl(feature_set: FeatureSet, vectors: pa.Table, out: BinaryIO) -> None:
    """One `features.v1` record a line."""
    out.writelines(line + b"\n" for _, line in lines(feature_set, vectors))


def lines(feature_set: FeatureSet, vectors: pa.Table) -> Iterator[tuple[str, bytes]]:
    """Each vector that has a record as its instrument and that record in JSON."""
    for record in records(feature_set, vectors):
        yield str(record["instrument_id"]), json.dumps(record, allow_nan=False, separators=(",", ":")).encode()


def write_csv(table: pa.Table, out: BinaryIO) -> None:
    """Comma-separated with a header; missing is empty, times are RFC 3339, flags are joined by `|`, numbers read back exactly.

    Raises `DataError` for columns that CSV cannot hold, such as structs.
    """
    columns = [_csv_column(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
    pa.csv.write_csv(pa.table(columns, names=table.column_names), out, pa.csv.WriteOptions(quoting_style="needed"))


def _csv_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.binary_join(column.cast(pa.list_(pa.string())), "|")
    if pa.types.is_nested(column.type):
        raise DataError(f"column {name} holds {column.type}, which CSV cannot hold: write .parquet or .arrow")
    if pa.types.is_timestamp(column.type) and column.type.tz:
        whole = pc.all(pc.equal(column, pc.floor_temporal(column, unit="second"))).as_py() is not False
        return pc.strftime(column.cast(pa.timestamp("s" if whole else "us", tz="UTC")), "%Y-%m-%dT%H:%M:%SZ")
    return column


def write_parquet(table: pa.Table, out: BinaryIO) -> None:
    """Parquet, compressed with zstd."""
    pa.parquet.write_table(table, out, compression="zstd")


def write_arrow(table: pa.Table, out: BinaryIO) -> None:
    """An Arrow IPC stream."""
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)


TABLES: dict[str, Callable[[pa.Table, BinaryIO], None]] = {"csv": write_csv, "parquet": write_parquet, "arrow": write_arrow}
"""What writes each tabular format."""

FORMATS = ("csv", "jsonl", "parquet", "arrow")
"""What vectors can be written as."""


def write(form: str, feature_set: FeatureSet, vectors: pa.Table, tabular: pa.Table, out: BinaryIO) -> None:
    """Vectors in one of `FORMATS`: JSON lines from the stored vectors, the others from the tabular ones."""
    if form == "jsonl":
        write_jsonl(feature_set, vectors, out)
    else:
        TABLES[form](tabular, out)
