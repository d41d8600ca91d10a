"""Reading vectors back: history, the newest ones, and training sets joined as of each row's time."""

from __future__ import annotations

from datetime import UTC as UTC_ZONE
from datetime import datetime, time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import NO_CALENDARS, Calendars
from asof.errors import DataError
from asof.features.feature_set import FeatureSet
from asof.jobs.ages import Age
from asof.jobs.panels import sort_bars
from asof.records import UTC, VECTOR_KEYS, VECTOR_REST, ArrowStream, micros, vector_schema
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
    max_age: Age | None = None,
    timezone: str | None = None,
    known_at: datetime | None = None,
    calendars: Calendars = NO_CALENDARS,
) -> pa.Table:
    """The entity rows, all of them and in their order, with the features that could be known at each `event_timestamp`.

    Added columns: the features, then `ts`, `available_at` and `quality_flags` of the vector found. They are null where no vector was
    available yet, or where the newest one is older than `max_age`, from `available_at` to `event_timestamp`: by the clock, or in the
    trading time of the instrument's calendar. `known_at` asks for the vectors as they were held to be true at that moment, the same
    for all rows. Raises `DataError` for missing columns, naive times without `timezone`, and columns that would be there twice, and
    `DefinitionError` for an age in trading time where there are no calendars.
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
        found = _forget(found, keys, max_age, calendars)
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


def _forget(found: pa.Table, keys: pa.Table, max_age: Age, calendars: Calendars) -> pa.Table:
    """The vectors that are no older, and nothing in place of the others."""
    at = keys["event_timestamp"]
    since = pc.coalesce(found["available_at"], at)
    fresh = pa.array(max_age.covers(calendars, keys["instrument_id"], micros(since), micros(at)))
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
