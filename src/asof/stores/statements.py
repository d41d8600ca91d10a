"""The parts of SQL that are put together from a table's schema. Names come from our own schemas and are quoted; values never do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import pyarrow as pa

from asof.errors import StoreError
from asof.features.feature_set import NAME
from asof.records import FLAGS
from asof.stores.store import EVENTS_TABLE, Selection, Table

_TYPES = {
    pa.string(): "TEXT",
    pa.float64(): "DOUBLE PRECISION",
    pa.int64(): "BIGINT",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    pa.bool_(): "BOOLEAN",
    FLAGS: "TEXT[]",
    pa.list_(pa.float64()): "DOUBLE PRECISION[]",
}

Among = Callable[[list[str]], tuple[str, list[object]]]
"""A condition that an instrument is one of a sorted list, and its parameters."""


def quoted(name: str) -> str:
    """A table or column name for SQL; it has passed `NAME`, so it can hold no quote."""
    if not NAME.fullmatch(name):
        raise StoreError(f"{name!r} is not a name that a table can have")
    return f'"{name}"'


def column_type(kind: pa.DataType) -> str:
    """What SQL calls a type of ours."""
    return _TYPES[kind]


def column_types(schema: pa.Schema) -> str:
    """The columns of a schema as a table's definition has them."""
    return ", ".join(f"{quoted(f.name)} {_TYPES[f.type]}" for f in schema)


def listed(names: Iterable[str], of: str | None = None) -> str:
    """Names with commas between them, those of the table `of` if given."""
    return ", ".join(f"{of}.{quoted(n)}" if of else quoted(n) for n in names)


def clashing(table: Table, staged: str) -> str:
    """Staged rows that disagree with another one: of the same key, or for events of the same enrichment."""
    same = listed((*table.key, "scored_at_utc") if table is EVENTS_TABLE else table.key)
    compared = listed(c for c in table.compared if c != "scored_at_utc")
    return f"SELECT * FROM {staged} WHERE ({same}) IN (SELECT {same} FROM {staged} GROUP BY {same} HAVING count(DISTINCT ({compared})) > 1)"


def settled(table: Table, staged: str) -> str:
    """One staged row of each key: the first; for events the newest enrichment, at the place of the first."""
    key = listed(table.key)
    pick, first = ("scored_at_utc DESC, ", f"min(enriched_at_utc) OVER (PARTITION BY {key}) AS ") if table is EVENTS_TABLE else ("", "")
    columns = ", ".join(f"{first if c == 'enriched_at_utc' else ''}{quoted(c)}" for c in table.schema.names)
    numbered = f'SELECT {columns}, "row", row_number() OVER (PARTITION BY {key} ORDER BY {pick}"row") AS nth FROM {staged}'
    return f'SELECT {listed(table.schema.names)}, "row" FROM ({numbered}) AS numbered WHERE nth = 1'


def placed(column: str, new: str, old: str) -> str:
    """A column of an event merged with what is known of it: the earliest place, the newest scores."""
    if column == "enriched_at_utc":
        return f"least({new}.enriched_at_utc, {old}.enriched_at_utc)"
    newer = f"{old}.scored_at_utc IS NULL OR {new}.scored_at_utc >= {old}.scored_at_utc"
    return f"CASE WHEN {newer} THEN {new}.{quoted(column)} ELSE {old}.{quoted(column)} END"


def place_events() -> str:
    """Staged events merged with what is known of them."""
    merged = ", ".join(f"{placed(c, 's', 'm')} AS {quoted(c)}" for c in EVENTS_TABLE.compared)
    return (
        f"SELECT s.instrument_id, s.event_id, {merged}"
        " FROM staged s LEFT JOIN main.events m ON s.instrument_id = m.instrument_id AND s.event_id = m.event_id"
    )


def condition(table: Table, selection: Selection, time: str, among: Among, instrument: str = "instrument_id") -> tuple[str, list[object]]:
    """The condition of a selection, and its parameters; `among` is how a store asks for some instruments, `instrument` compares them."""
    parts, parameters = ["true"], list[object]()
    if selection.timeframe is not None and "timeframe" in table.schema.names:
        parts.append("timeframe = ?")
        parameters.append(selection.timeframe)
    if selection.instruments is not None:
        part, names = among(sorted(selection.instruments))
        parts.append(part)
        parameters += names
    if selection.span is not None:
        parts.append(f"{instrument} BETWEEN ? AND ?")
        parameters += selection.span
    for bound, symbol in ((selection.start, ">="), (selection.end, "<=")):
        if bound is not None:
            parts.append(f"{time} {symbol} ?")
            parameters.append(bound)
    return " AND ".join(parts), parameters


def revisions(table: Table, known_at: datetime | None, schema: str = "") -> tuple[str, list[object]]:
    """The rows that were held to be true at `known_at`: the current ones, which are in `schema`, where it is not given."""
    if known_at is None:
        return f"{schema}{quoted(table.name)}", []
    return f"({held(table, '?', schema)})", [known_at] * 3


def every_revision(table: Table, schema: str = "") -> str:
    """The rows that are held to be true, and all that were."""
    name, columns = quoted(table.name), listed(dict.fromkeys((*table.schema.names, "known_from")))
    current = f"SELECT {columns}, NULL::TIMESTAMPTZ AS known_to FROM {schema}{name}"
    return f"({current} UNION ALL SELECT {columns}, known_to FROM history.{name})"


def held(table: Table, known: str, schema: str = "") -> str:
    """The rows that were held to be true at a moment, which `known` stands for three times."""
    name, columns = quoted(table.name), listed(dict.fromkeys((*table.schema.names, "known_from")))
    current = f"SELECT {columns} FROM {schema}{name} WHERE known_from <= {known}"
    return f"{current} UNION ALL SELECT {columns} FROM history.{name} WHERE known_from <= {known} AND known_to > {known}"


def known_as(table: str) -> str:
    """What SQL calls the rows of a table as they were held at a moment: `fs_v1_at(known)`."""
    return f"{table}_at"
