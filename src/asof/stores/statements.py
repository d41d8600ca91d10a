"""The parts of SQL that are put together from a table's schema. Names come from our own schemas and are quoted; values never do."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from asof.errors import StoreError
from asof.features.feature_set import NAME
from asof.records import FLAGS
from asof.stores.store import Selection, Table

_TYPES = {
    pa.string(): "VARCHAR",
    pa.float64(): "DOUBLE",
    pa.int64(): "BIGINT",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    FLAGS: "VARCHAR[]",
}


def quoted(name: str) -> str:
    """A table or column name for SQL; it has passed `NAME`, so it can hold no quote."""
    if not NAME.fullmatch(name):
        raise StoreError(f"{name!r} is not a name that a table can have")
    return f'"{name}"'


def column_types(schema: pa.Schema) -> str:
    """The columns of a schema as a table's definition has them."""
    return ", ".join(f"{quoted(f.name)} {_TYPES[f.type]}" for f in schema)


def listed(names: Iterable[str], of: str | None = None) -> str:
    """Names with commas between them, those of the table `of` if given."""
    return ", ".join(f"{of}.{quoted(n)}" if of else quoted(n) for n in names)


def place_events() -> str:
    """Staged events merged with what is known of them: the earliest place, the newest scores."""
    newer = "m.scored_at_utc IS NULL OR s.scored_at_utc >= m.scored_at_utc"
    taken = ("event_time_utc", "score", "confidence", "scored_at_utc")
    scores = ", ".join(f"CASE WHEN {newer} THEN s.{c} ELSE m.{c} END AS {c}" for c in taken)
    return (
        f"SELECT s.instrument_id, s.event_id, least(s.enriched_at_utc, m.enriched_at_utc) AS enriched_at_utc, {scores}"
        " FROM staged s LEFT JOIN main.events m ON s.instrument_id = m.instrument_id AND s.event_id = m.event_id"
    )


def condition(table: Table, selection: Selection, time: str) -> tuple[str, list[object]]:
    """The condition of a selection, and its parameters."""
    parts, parameters = ["true"], list[object]()
    if selection.timeframe is not None and "timeframe" in table.schema.names:
        parts.append("timeframe = ?")
        parameters.append(selection.timeframe)
    if selection.instruments is not None:
        names = sorted(selection.instruments)
        parts.append("instrument_id BETWEEN ? AND ? AND instrument_id IN (SELECT unnest(?::VARCHAR[]))")
        parameters += [names[0] if names else "", names[-1] if names else "", names]
    if selection.span is not None:
        parts.append("instrument_id BETWEEN ? AND ?")
        parameters += selection.span
    for bound, symbol in ((selection.start, ">="), (selection.end, "<=")):
        if bound is not None:
            parts.append(f"{time} {symbol} ?")
            parameters.append(bound)
    return " AND ".join(parts), parameters


def revisions(table: Table, selection: Selection) -> tuple[str, list[object]]:
    """The rows that were held to be true at `known_at`: the current ones where it is not given."""
    name, columns = quoted(table.name), listed(table.schema.names)
    if selection.known_at is None:
        return f"main.{name}", []
    current = f"SELECT {columns} FROM main.{name} WHERE known_from <= ?"
    past = f"SELECT {columns} FROM history.{name} WHERE known_from <= ? AND known_to > ?"
    return f"({current} UNION ALL {past})", [selection.known_at] * 3
