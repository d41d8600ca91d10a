"""Ingest: files of bars, events, actions, memberships or points in time into a store.

1. Read a file in batches and turn each into canonical records; rows that cannot be used are set aside with their reason.
2. Stage the records in the store; one transaction a file compares them with what is there and writes what is new or corrected.
3. Rows that disagree with one another about one key are refused as well.
4. Everything refused goes to the quarantine, in the same transaction, and is counted by reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DataError, did_you_mean
from asof.jobs.level2 import DEPTH, Level2
from asof.records import QUARANTINE, Refusals
from asof.sources import lean, spells
from asof.sources.canonical import Batch, actions_of, bars_of, events_of, memberships_of
from asof.sources.columns import ColumnMapping, Reader
from asof.sources.files import RawBatch, read_file
from asof.sources.points import PointReader
from asof.sources.symbols import Symbols
from asof.stores.store import POINTS, RECORDS, Changes, Store, Table

TABLES: dict[str, Table] = {table.name: table for table in RECORDS}
"""Where each kind of record goes."""
POINT_KINDS = tuple(table.name for table in POINTS)
KNOWN_FROM = "known_from"
"""The column that, where it is mapped, tells when each row became known: of data that was published again and again."""

ACTION_FORMATS = ("table", "lean-factors")
"""What files of actions may be: tables with our columns, or Lean's factor files."""

MEMBERSHIP_FORMATS = ("table", "spells")
"""What files of memberships may be: tables with our columns, or of spells with `ts` and `until`."""
BOOK_FORMATS = ("table", "level2")
"""What files of books may be: tables with our columns, or level 2 updates."""

Progress = Callable[[int], None]
"""Told how many more rows are done."""


@dataclass
class IngestReport:
    """What an ingestion did, in records: an event that names three instruments is three."""

    accepted: int = 0
    unchanged: int = 0
    corrected: int = 0
    missing_prices: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Rows that did not go in."""
        return sum(self.reasons.values())


@dataclass(frozen=True)
class Ingestion:
    """One run of ingestion into a store: what the files hold, how their columns are read, and when the run knows of them."""

    store: Store
    kind: str
    known_at: datetime
    mapping: ColumnMapping
    timeframe: str | None = None
    source: str | None = None
    strict: bool = False
    reader: Callable[[Path], Iterator[RawBatch]] = read_file
    symbols: Symbols | None = None
    scheme: str | None = None
    missing_side: str | None = None
    report: IngestReport = field(default_factory=IngestReport)

    def run(self, paths: Iterable[Path], progress: Progress = lambda rows: None) -> IngestReport:
        """Ingest the files one after the other, each whole or not at all. Raises `DataError` where a file cannot be used."""
        table = TABLES[self.kind]
        for path in paths:
            with self.store.transaction():
                if KNOWN_FROM in self.mapping.columns:
                    self._upsert_as_they_became_known(table, path, progress)
                else:
                    self._count(self.store.upsert(table, self._records(path, progress), self.known_at), path)
        return self.report

    def _upsert_as_they_became_known(self, table: Table, path: Path, progress: Progress) -> None:
        """The rows of a file in the order in which they became known, those of each moment as revisions that begin then."""
        records = pa.concat_tables(self._records(path, progress)).sort_by([(KNOWN_FROM, "ascending"), ("row", "ascending")])
        times = np.asarray(records[KNOWN_FROM].cast(pa.int64()))
        starts = np.flatnonzero(np.diff(times, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(times)], strict=True):
            rows = records.slice(int(start), int(end - start))
            known_at = rows[KNOWN_FROM][0].as_py()
            self._count(self.store.upsert(table, iter([rows.drop_columns([KNOWN_FROM])]), known_at), path)

    @cached_property
    def _points(self) -> PointReader:
        """What reads trades, quotes and books; what it has seen in one file holds for the next."""
        return PointReader(self.kind, self.mapping, self.missing_side)

    def _records(self, path: Path, progress: Progress) -> Iterator[pa.Table]:
        if self.kind in POINT_KINDS:
            self._points.begin()
        for raw in self.reader(path):
            try:
                batch = self._canonical(raw.table)
            except (DataError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DataError(f"{path}: {error}") from None
            self._set_aside(path, raw, batch)
            self.report.missing_prices += batch.missing_prices
            numbers = pa.array(raw.numbers[batch.rows], pa.int64())
            table = batch.table
            if KNOWN_FROM in self.mapping.columns:
                table = table.append_column(KNOWN_FROM, self._known_from(path, raw).take(pa.array(np.arange(len(raw.table))[batch.rows])))
            yield table.append_column("row", numbers)
            progress(len(raw.table))

    def _known_from(self, path: Path, raw: RawBatch) -> pa.ChunkedArray:
        """When each row of a batch became known."""
        reader = Reader(raw.table, self.mapping)
        known = reader.times(KNOWN_FROM)
        wrong = np.asarray(pc.or_kleene(pc.is_null(known), pc.greater(known, pa.scalar(self.known_at, known.type))))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            why = reader.refusals.details[0] if reader.refusals.rows else "missing, or in the future"
            raise DataError(f"{path}, row {raw.numbers[row]}: {KNOWN_FROM} must tell when the row became known: {why}")
        return known

    def _canonical(self, table: pa.Table) -> Batch:
        if not len(table):
            return Batch(TABLES[self.kind].schema.empty_table(), np.zeros(0, np.int64), Refusals())
        if self.kind == "bars":
            return bars_of(table, self.mapping, self.timeframe, self.source, self.symbols)
        if self.kind == "memberships":
            return memberships_of(table, self.mapping, self.scheme)
        if self.kind in POINT_KINDS:
            return self._points.batch(table)
        return (events_of if self.kind == "events" else actions_of)(table, self.mapping)

    def _set_aside(self, path: Path, raw: RawBatch, batch: Batch) -> None:
        refusals = batch.refusals
        records = _shown(raw.table.take(pa.array(refusals.rows, pa.int64())))
        rows = [(line.reason, line.detail, line.row, line.record) for line in raw.refused] + [
            (reason, detail, int(raw.numbers[row]), json.dumps(record, default=str))
            for row, reason, detail, record in zip(refusals.rows, refusals.reasons, refusals.details, records, strict=True)
        ]
        self._quarantine(path, rows)

    def _count(self, changes: Changes, path: Path) -> None:
        self.report.accepted += changes.inserted
        self.report.corrected += changes.corrected
        self.report.unchanged += changes.unchanged
        if changes.refused is not None:
            rows = [
                ("duplicate_disagrees", _disagreement(record), record["row"], json.dumps(record, default=str))
                for record in changes.refused.to_pylist()
            ]
            self._quarantine(path, rows)

    def _quarantine(self, path: Path, rows: list[tuple[str, str, int, str]]) -> None:
        if not rows:
            return
        if self.strict:
            raise DataError(
                f"{path}, row {rows[0][2]}: {rows[0][1]} ({rows[0][0]}); --strict stops at the first, and nothing of the file went in"
            )
        for reason, detail, row, _ in rows:
            self.report.reasons[reason] += 1
            self.report.examples.setdefault(reason, f"{path.name} row {row}: {detail}")
        table = pa.Table.from_pylist(
            [
                {
                    "kind": self.kind,
                    "reason": reason,
                    "detail": detail,
                    "source": path.name,
                    "row": row,
                    "record": record,
                    "detected_at": self.known_at,
                }
                for reason, detail, row, record in rows
            ],
            schema=QUARANTINE,
        )
        self.store.append("quarantine", table)


def actions_into(
    store: Store, known_at: datetime, mapping: ColumnMapping, file_format: str = "table", *, strict: bool = False
) -> Ingestion:
    """An ingestion of actions. Raises `DataError` for a format that is not one."""
    _check_format(file_format, ACTION_FORMATS)
    if file_format == "table":
        return Ingestion(store, "actions", known_at, mapping, strict=strict)
    theirs = partial(lean.actions, mapping=mapping)  # what it yields has our names
    return Ingestion(store, "actions", known_at, ColumnMapping(timezone=mapping.timezone), strict=strict, reader=theirs)


def memberships_into(
    store: Store,
    known_at: datetime,
    mapping: ColumnMapping,
    scheme: str | None = None,
    file_format: str = "table",
    *,
    strict: bool = False,
) -> Ingestion:
    """An ingestion of memberships. Raises `DataError` for a format that is not one."""
    _check_format(file_format, MEMBERSHIP_FORMATS)
    if file_format == "table":
        return Ingestion(store, "memberships", known_at, mapping, strict=strict, scheme=scheme)
    theirs = partial(spells.memberships, mapping=mapping)  # what it yields has our names
    return Ingestion(store, "memberships", known_at, ColumnMapping(), strict=strict, reader=theirs, scheme=scheme)


def books_into(
    store: Store,
    known_at: datetime,
    mapping: ColumnMapping,
    file_format: str = "table",
    *,
    depth: int = DEPTH,
    snapshots: Iterable[Path] = (),
    strict: bool = False,
) -> Ingestion:
    """An ingestion of books. Raises `DataError` for a format that is not one."""
    _check_format(file_format, BOOK_FORMATS)
    if file_format == "table":
        return Ingestion(store, "books", known_at, mapping, strict=strict)
    theirs = Level2(mapping, depth, frozenset(snapshots))  # what it yields has our names
    return Ingestion(store, "books", known_at, ColumnMapping(), strict=strict, reader=theirs)


def _check_format(file_format: str, formats: tuple[str, ...]) -> None:
    if file_format not in formats:
        raise DataError(f"format {file_format!r} is none of {', '.join(formats)}{did_you_mean(file_format, list(formats))}")


def _shown(table: pa.Table) -> list[dict[str, object]]:
    """Rows as dictionaries; times as text, for one that is out of range is no Python time."""
    columns = [c.cast(pa.string()) if pa.types.is_temporal(c.type) else c for c in table.columns]
    return list(pa.table(columns, names=table.column_names).to_pylist())


def _disagreement(record: dict[str, object]) -> str:
    if "event_id" in record:
        what = f"event {record['event_id']} for {record['instrument_id']}"
    elif "scheme" in record:
        what = f"membership of {record['instrument_id']} in {record['scheme']} from {record['ts']} on"
    else:
        kind = "bar" if "timeframe" in record else "action" if "split" in record else f"point {record['seq']}"
        what = f"{kind} of {record['instrument_id']} at {record['ts']}"
    return f"another row disagrees with this one about the {what}"
