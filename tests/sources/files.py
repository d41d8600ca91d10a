"""Files that the tests of the sources write, and what an ingestion makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from asof.jobs.ingest import TABLES, Ingestion, IngestReport
from asof.sources.columns import ColumnMapping
from asof.stores.store import Selection, Store
from asof.stores.urls import open_store

NOW = datetime(2024, 6, 1, tzinfo=UTC)
OPEN = "2024-03-01T14:30:00Z"
Rows = Sequence[dict[str, object]]

GOOD_BAR: dict[str, object] = {"instrument_id": "GOOD", "timeframe": "1d", "ts": OPEN, "close": 10.0}
GOOD_EVENT: dict[str, object] = {
    "event_id": "good",
    "enriched_at_utc": OPEN,
    "tickers": ["GOOD"],
    "sentiment": {"score": 0.5, "confidence": 0.5},
}


@dataclass
class Outcome:
    """What an ingestion of files left in a store."""

    report: IngestReport
    records: list[dict[str, object]]
    quarantine: list[dict[str, object]] = field(default_factory=list)

    @property
    def refused(self) -> list[tuple[str, int]]:
        """The reason and the row of everything in the quarantine."""
        return [(str(entry["reason"]), int(str(entry["row"]))) for entry in self.quarantine]


def records_in(store: Store, kind: str) -> list[dict[str, object]]:
    """All records of a kind that a store holds."""
    table = TABLES[kind]
    return [row for batch in store.read(table, Selection()) for row in batch.to_pylist()]


def quarantine_of(store: Store) -> list[dict[str, object]]:
    """Everything in the quarantine, as plain SQL reads it."""
    rows = store._connection.sql("SELECT * FROM quarantine ORDER BY source, row").to_arrow_table()  # type: ignore[attr-defined]
    return rows.to_pylist()


def ingest(
    *paths: Path,
    kind: str = "bars",
    store: Store | None = None,
    timezone: str | None = None,
    unit: str | None = None,
    columns: dict[str, str] | None = None,
    timeframe: str | None = None,
    source: str | None = None,
    strict: bool = False,
) -> Outcome:
    """Ingest files into a store, by default a new one in memory, and tell what came of it."""
    into = store or open_store("duckdb://")
    try:
        report = Ingestion(into, kind, NOW, ColumnMapping(columns or {}, timezone, unit), timeframe, source, strict).run(paths)
        return Outcome(report, records_in(into, kind), quarantine_of(into))
    finally:
        if store is None:
            into.close()


def write_lines(path: Path, rows: Rows) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    """CSV; None is an empty cell, lists are joined by `;`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    path.write_text("".join(",".join(cells) + "\n" for cells in lines))
    return path


def _cell(value: object) -> str:
    return "" if value is None else ";".join(map(str, value)) if isinstance(value, list) else str(value)


def write_parquet(path: Path, rows: Rows | pa.Table) -> Path:
    """Parquet."""
    pa.parquet.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows)), path)
    return path


def write_arrow(path: Path, rows: Rows) -> Path:
    """An Arrow file."""
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def write_arrow_stream(path: Path, rows: Rows) -> Path:
    """An Arrow stream."""
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


WRITERS = {
    "jsonl": write_lines,
    "csv": write_csv,
    "parquet": write_parquet,
    "arrow": write_arrow,
    "arrows": write_arrow_stream,
}
"""What writes a file with each ending."""


def written(folder: Path, rows: Rows, endings: Sequence[str] = tuple(WRITERS)) -> Iterator[Path]:
    """The same rows in a file of each kind."""
    for ending in endings:
        yield WRITERS[ending](folder / f"rows.{ending}", rows)
