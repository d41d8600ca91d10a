"""How vectors leave: as `features.v1` JSON lines, CSV, Parquet or Arrow."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache, reduce
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from asof.errors import DataError
from asof.features.feature_set import FeatureSet
from asof.records import one_chunk

SCHEMA_VERSION = "features.v1"
ARROW_ROWS = 1 << 17
"""Rows of a batch of an Arrow stream."""
_NAMESPACE = uuid.UUID("6f1f2f43-6e0b-5f2f-9d0a-a50f00000001")


def feature_id(instrument: str, timeframe: str, ts: str, version: str) -> str:
    """The id of a vector, derived from its key, so that a recompute keeps it: a UUID of version 5."""
    digest = hashlib.sha1(_NAMESPACE.bytes + f"{instrument}\x1f{timeframe}\x1f{ts}\x1f{version}".encode(), usedforsecurity=False)
    made = digest.hexdigest()
    return f"{made[:8]}-{made[8:12]}-5{made[13:16]}-{'89ab'[int(made[16], 16) & 3]}{made[17:20]}-{made[20:32]}"


def rfc3339(moment: datetime) -> str:
    """A UTC time, with fractions only where there are some."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond:06d}Z" if moment.microsecond else text + "Z"


def records(feature_set: FeatureSet, vectors: pa.Table) -> Iterator[dict[str, object]]:
    """Each vector as a `features.v1` record. One with no feature at all has no record, as the schema asks for one at least."""
    for _, line in lines(feature_set, vectors):
        yield json.loads(line)


def write_jsonl(feature_set: FeatureSet, vectors: pa.Table, out: BinaryIO) -> None:
    """One `features.v1` record a line."""
    out.writelines(line + b"\n" for _, line in lines(feature_set, vectors))


def recorded(feature_set: FeatureSet, vectors: pa.Table, names: tuple[str, ...] | None = None) -> pa.Table:
    """The vectors that have a record, which are those with a feature: one for each of `lines`."""
    return vectors.filter(reduce(pc.or_, (pc.is_valid(vectors[name]) for name in names or feature_set.features)))


def lines(feature_set: FeatureSet, vectors: pa.Table, names: tuple[str, ...] | None = None) -> Iterator[tuple[str, bytes]]:
    """Each vector that has a record as its instrument and that record in JSON, with all features or with those of `names`.

    A stream publishes thousands a second, so what many vectors share is written once, and nothing is looked up row by row.
    """
    version = feature_set.version
    for batch in vectors.to_batches(max_chunksize=10_000):
        instruments, frames, quoted = batch["instrument_id"].to_pylist(), batch["timeframe"].to_pylist(), _quoted(batch["instrument_id"])
        in_json, pipelines = _quoted(batch["timeframe"]), _quoted(batch["pipeline_version"])
        opens, computed_at = _times(batch["ts"]), _times(batch["computed_at"])
        rest = zip(
            _features(names or tuple(feature_set.features), batch),
            _flags(batch),
            computed_at,
            pipelines,
            _seen(feature_set, batch),
            strict=True,
        )
        for place, (features, flags, computed, pipeline, seen) in enumerate(rest):
            if not features:
                continue
            name, frame, ts = instruments[place], frames[place], opens[place]
            line = (
                f'{{"schema_version":"{SCHEMA_VERSION}","feature_id":"{feature_id(name, frame, ts, version)}"'
                f',"instrument_id":{quoted[place]},"timeframe":{in_json[place]},"ts_utc":"{ts}","feature_set_version":"{version}"'
                f',"features":{{{features}}},"quality_flags":[{flags}],"computed_at_utc":"{computed}","pipeline_version":{pipeline}'
                f',"source_refs":{{{seen}}}}}'
            )
            yield name, line.encode()


def _features(names: tuple[str, ...], batch: pa.RecordBatch) -> Iterator[str]:
    """The features of each row that are there: names and numbers, of which `repr` gives the shortest that read back exactly."""
    columns = [batch[name] for name in names]
    if any(pc.all(pc.is_finite(column), min_count=0).as_py() is False for column in columns):
        raise DataError("a feature is not finite, which no record can hold: one that is missing has to be null")
    if not any(column.null_count for column in columns):
        written = ",".join(f'"{name}":%r' for name in names)
        return (written % row for row in zip(*(column.to_numpy().tolist() for column in columns), strict=True))
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    keys = [f'"{name}":' for name in names]
    return (",".join([key + repr(value) for key, value in zip(keys, row, strict=True) if value is not None]) for row in rows)


def _flags(batch: pa.RecordBatch) -> Iterator[str]:
    """The flags of each row."""
    written = lru_cache(lambda flags: ",".join(map(json.dumps, flags)))
    return (written(tuple(flags)) for flags in batch["quality_flags"].to_pylist())


def _seen(feature_set: FeatureSet, batch: pa.RecordBatch) -> Iterator[str]:
    """What each row was computed from."""
    bars = [f'"ohlcv_count":{count}' for count in batch["ohlcv_count"].to_pylist()]
    if not feature_set.event_window:
        return iter(bars)
    begins = _times(pc.subtract(batch["ts"], pa.scalar(feature_set.event_window, pa.duration("us"))))
    rows = zip(bars, batch["event_count"].to_pylist(), begins, _times(batch["ts"]), strict=True)
    return (f'{seen},"event_count":{count},"event_window_start":"{first}","event_window_end":"{last}"' for seen, count, first, last in rows)


def _times(column: pa.Array) -> list[str]:
    """Times as `rfc3339` writes them, each of the distinct ones once."""
    coded = column.dictionary_encode()
    texts = [rfc3339(moment) for moment in coded.dictionary.to_pylist()]
    return [texts[code] for code in coded.indices.to_numpy().tolist()]


def _quoted(column: pa.Array) -> list[str]:
    """Texts in JSON, each of the distinct ones once."""
    coded = column.dictionary_encode()
    texts = [json.dumps(text) for text in coded.dictionary.to_pylist()]
    return [texts[code] for code in coded.indices.to_numpy().tolist()]


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
    pa.parquet.write_table(laid_out(table), out, compression="zstd")


def write_arrow(table: pa.Table, out: BinaryIO) -> None:
    """An Arrow IPC stream."""
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(laid_out(table), max_chunksize=ARROW_ROWS)


def laid_out(table: pa.Table) -> pa.Table:
    """The same table, whose bytes follow from its values alone: not from the pieces that it came in, nor from what lies beneath nulls."""
    return pa.table([_laid_out(one_chunk(column)) for column in table.columns], schema=table.schema)


def _laid_out(column: pa.Array) -> pa.Array:
    if not column.null_count:
        return column
    return column.take(pa.array(np.arange(len(column)), mask=np.asarray(column.is_null())))  # puts zeros where the mask is


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
