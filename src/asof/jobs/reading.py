"""Reading vectors back: history, the newest ones, and training sets joined as of each row's time."""

from __future__ import annotations

from datetime import UTC as UTC_ZONE
from datetime import datetime, time, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DataError
from asof.features.feature_set import FeatureSet
from asof.jobs.panels import sort_bars
from asof.records import UTC, VECTOR_KEYS, VECTOR_REST, ArrowStream, vector_schema
from asof.sources.columns import ColumnMapping, Reader
from asof.stores.store import Selection, Store, vectors_table

MARKS = ("ts", "available_at", "quality_flags")
"""What a join adds beside the features: which vector was found, and what was wrong with it."""


def tabular(feature_set: FeatureSet, vectors: pa.Table) -> pa.Table:
    """Vectors as every tabular format shows them: key, version, the features that were read, flags, counts, times."""
    versions = pa.repeat(pa.scalar(feature_set.version), len(vectors))
    named = vectors.append_column("feature_set_version", versions)
    features = [name for name in vectors.column_names if name in feature_set.features]
    rest = ("quality_flags", "event_count", "ohlcv_count", "available_at", "computed_at")
    return named.select(["instrument_id", "timeframe", "ts", "feature_set_version", *features, *rest])


def history(store: Store, feature_set: FeatureSet, selection: Selection, features: tuple[str, ...] | None = None) -> pa.Table:
    """The stored vectors of a selection, by instrument and time: with all of their features, or with these, in this order."""
    chosen = feature_set.select(features or tuple(feature_set.features))
    columns = (*VECTOR_KEYS.names, *chosen, *VECTOR_REST.names)
    rows = store.read(vectors_table(feature_set), selection, columns, ordered=False)
    return sort_bars(pa.concat_tables([vector_schema(chosen).empty_table(), *rows])).table  # mostly they are in order as they come


def latest(store: Store, feature_set: FeatureSet, selection: Selection) -> pa.Table:
    """The newest stored vector of each selected instrument."""
    return store.latest(vectors_table(feature_set), selection)


def join(
    store: Store,
    feature_set: FeatureSet,
    timeframe: str,
    entities: ArrowStream,
    features: tuple[str, ...] | None = None,
    max_age: timedelta | None = None,
    timezone: str | None = None,
    known_at: datetime | None = None,
) -> pa.Table:
    """The entity rows, all of them and in their order, with the features that could be known at each `event_timestamp`.

    Added columns: the features, then `ts`, `available_at` and `quality_flags` of the vector found. They are null where no vector was
    available yet, or where the newest one is older than `max_age` (`event_timestamp - available_at`). `known_at` asks for the vectors
    as they were held to be true at that moment, the same for all rows.
    Raises `DataError` for missing columns, naive times without `timezone`, and columns that would be there twice.
    """
    given = pa.table(entities)
    chosen = feature_set.select(features or tuple(feature_set.features))
    clash = sorted({*chosen, *MARKS} & set(given.column_names))
    if clash:
        raise DataError(f"the entities already have {', '.join(clash)}: rename what they hold, or leave it out")
    keys = keys_of(given, ("instrument_id", "event_timestamp"), "entities", timezone)
    keys = keys.append_column("row", pa.array(np.arange(len(keys))))
    found = store.as_of(vectors_table(feature_set), keys, timeframe, (*chosen, *MARKS), known_at)
    if max_age is not None:
        found = _forget(found, keys["event_timestamp"], max_age)
    for name in (*chosen, *MARKS):
        given = given.append_column(name, found[name])
    return given


TIMES = ("ts", "event_timestamp")
"""The key columns that are times; the others are texts."""


def keys_of(rows: ArrowStream, names: tuple[str, ...], what: str = "keys", timezone: str | None = None) -> pa.Table:
    """Key columns of a table. Raises `DataError` where one is not there, or a row lacks its value."""
    reader = Reader(pa.table(rows), ColumnMapping(timezone=timezone))
    keys = pa.table({name: reader.times(name) if name in TIMES else reader.text(name) for name in names})
    if reader.refusals.rows:
        raise DataError(f"{what}, row {reader.refusals.rows[0] + 1}: {reader.refusals.details[0]}")
    for name in names:
        if keys[name].null_count:
            row = int(np.flatnonzero(np.asarray(keys[name].is_null()))[0])
            raise DataError(f"{what}, row {row + 1}: {name} is missing")
    return keys


def _forget(found: pa.Table, at: pa.ChunkedArray, max_age: timedelta) -> pa.Table:
    if max_age < timedelta(0):
        raise DataError(f"max_age must not be negative, not {max_age}")
    age = pc.subtract(at.cast(pa.int64()), found["available_at"].cast(pa.int64()))
    fresh = pc.fill_null(pc.less_equal(age, pa.scalar(max_age // timedelta(microseconds=1))), False)
    columns = [pc.if_else(fresh, column, pa.scalar(None, column.type)) for column in found.columns]
    return pa.table(columns, names=found.column_names)


def parse_time(text: str, what: str, *, through: bool = False) -> datetime:
    """A moment written as ISO 8601 with its zone, or as a date, which is midnight UTC, or its last moment if `through`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"{what} {text!r} is not a time such as 2024-01-31 or 2024-01-31T14:30:00Z") from None
    if moment.tzinfo is None:
        if len(text) > len("2024-01-31"):
            raise DataError(f"{what} {text!r} has no zone: write {text}Z for UTC")
        return datetime.combine(moment, time.max if through else time.min, UTC_ZONE)
    return moment


__all__ = ["MARKS", "UTC", "history", "join", "latest", "parse_time", "tabular"]
