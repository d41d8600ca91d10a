"""What every store does: Arrow in and Arrow out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from asof.features.feature_set import FeatureSet
from asof.records import ACTIONS, BARS, BOOKS, EVENT_DETAILS, EVENTS, MEMBERSHIPS, QUOTES, TRADES, UTC, one_chunk, vector_schema


@dataclass(frozen=True)
class Table:
    """A table of records: `key` finds a row, `compared` are the columns whose change makes a new revision of it.

    `time` is what `Selection.start` and `Selection.end` are about, and what changes are told by.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    compared: tuple[str, ...]
    time: str = "ts"

    @property
    def order(self) -> tuple[str, ...]:
        """The columns that rows of one timeframe are read by: instrument, time, and what tells rows of one time apart."""
        return tuple(dict.fromkeys(("instrument_id", self.time, *(name for name in self.key if name != "timeframe"))))


BARS_TABLE = Table("bars", BARS, ("instrument_id", "timeframe", "ts"), ("open", "high", "low", "close", "volume", "available_at"))
EVENTS_TABLE = Table(
    "events",
    EVENTS,
    ("instrument_id", "event_id"),
    ("enriched_at_utc", "event_time_utc", "score", "confidence", "scored_at_utc", *EVENT_DETAILS),
    time="enriched_at_utc",
)
ACTIONS_TABLE = Table("actions", ACTIONS, ("instrument_id", "ts"), ("split", "dividend_factor"))
MEMBERSHIPS_TABLE = Table("memberships", MEMBERSHIPS, ("scheme", "instrument_id", "ts"), ("value", "available_at"))


def _points(name: str, schema: pa.Schema) -> Table:
    """A table of points in time. They are selected, read and told of by when they could be known, which may be later than `ts`."""
    key = ("instrument_id", "ts", "seq")
    return Table(name, schema, key, tuple(column for column in schema.names if column not in key), time="available_at")


TRADES_TABLE = _points("trades", TRADES)
QUOTES_TABLE = _points("quotes", QUOTES)
BOOKS_TABLE = _points("books", BOOKS)
POINTS = (TRADES_TABLE, QUOTES_TABLE, BOOKS_TABLE)
RECORDS = (BARS_TABLE, EVENTS_TABLE, ACTIONS_TABLE, MEMBERSHIPS_TABLE, *POINTS)
"""What comes from sources, is followed, and has a table of its own in every store."""


def known_when_it_happened(table: Table, rows: pa.Table) -> pa.Table:
    """Points with their `available_at`: `ts` where it is null. Stores keep it so, and find them by it."""
    if table not in POINTS or not rows["available_at"].null_count:
        return rows
    place = rows.schema.get_field_index("available_at")
    return rows.set_column(place, rows.schema.field(place), one_chunk(pc.coalesce(rows["available_at"], rows["ts"])))


def revised(table: Table) -> pa.Schema:
    """The schema of a table's revisions: its columns, and from when and until when each was held to be true."""
    return pa.schema([*table.schema, ("known_from", UTC), ("known_to", UTC)])


def vectors_table(feature_set: FeatureSet) -> Table:
    """The table of a feature set's vectors. Who computed a vector, and when, does not make it another."""
    names = tuple(feature_set.features)
    compared = (*names, "quality_flags", "event_count", "ohlcv_count", "available_at")
    return Table(feature_set.version, vector_schema(names), ("instrument_id", "timeframe", "ts"), compared)


@dataclass(frozen=True)
class Selection:
    """Which rows to read: all of a timeframe, or of some instruments, in `[start, end]` of `Table.time`, as held at `known_at`.

    `span` is for instruments that stand next to one another: the first and the last.
    """

    timeframe: str | None = None
    instruments: tuple[str, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None
    known_at: datetime | None = None
    span: tuple[str, str] | None = None


@dataclass(frozen=True)
class Changes:
    """What an upsert did. `refused` are rows that disagree with one another about one key: none of them went in."""

    inserted: int = 0
    corrected: int = 0
    unchanged: int = 0
    refused: pa.Table | None = field(default=None, compare=False)

    def __add__(self, other: Changes) -> Changes:
        return Changes(self.inserted + other.inserted, self.corrected + other.corrected, self.unchanged + other.unchanged)


SPANS = pa.schema([("instrument_id", pa.string()), ("first", UTC), ("last", UTC)])
"""Spans of time, both ends included; an instrument may have several."""

CHANGES = pa.schema([("kind", pa.string()), ("instrument_id", pa.string()), ("timeframe", pa.string()), ("time", UTC)])
"""A changed record: `bars` of a timeframe by the open of the bar, or, of no timeframe, `events` by the time of their first enrichment,
`actions` by their ex-date, `memberships/` with the name of their scheme by the time from which they hold, and `trades`, `quotes` and
`books` by when they could be known."""

FOLLOWING = "changes/"
"""What the names of followers' positions begin with."""


@dataclass(frozen=True)
class Registered:
    """A feature set as the registry keeps it."""

    version: str
    fingerprint: str
    text: str
    applied_at: datetime


class Store(Protocol):
    """A place for records, vectors and the registry. Every write is one transaction; a reader never sees half of one."""

    url: str
    write_rows: int
    """How many rows a long upsert best has at a time."""

    def transaction(self) -> AbstractContextManager[None]:
        """A block whose writes are kept all together, or not at all where it raises."""
        ...

    def upsert(self, table: Table, rows: pa.Table | Iterable[pa.Table], known_at: datetime) -> Changes:
        """Insert new rows, open a new revision of changed ones, leave the rest alone.

        A `pa.Table` must hold each key once. A stream of tables is staged first: it may repeat keys (a trailing column `row` says
        where each came from), and goes in whole or not at all. Repeats that agree go in once and count as unchanged.
        """
        ...

    def read(
        self, table: Table, selection: Selection, columns: tuple[str, ...] | None = None, *, ordered: bool = True
    ) -> Iterator[pa.Table]:
        """The selected rows in the order of `Table.order`, or in any order if not `ordered`, in tables of bounded size."""
        ...

    def revisions(self, table: Table, selection: Selection) -> Iterator[pa.Table]:
        """Every revision of the selected rows, as `revised` says, in any order; `known_to` is null where it is in force."""
        ...

    def around(self, timeframe: str, spans: pa.Table, reach: int, columns: tuple[str, ...], known_at: datetime | None = None) -> pa.Table:
        """The bars in some spans of time (`SPANS`), with the `reach` bars before and after each, in any order, as held at `known_at`.

        A bar that is near two spans comes twice.
        """
        ...

    def as_of(
        self, table: Table, entities: pa.Table, timeframe: str, columns: tuple[str, ...], known_at: datetime | None = None
    ) -> pa.Table:
        """For each entity row (`instrument_id`, `event_timestamp`), in order, the newest vector available at that time, or nulls."""
        ...

    def latest(self, table: Table, selection: Selection) -> pa.Table:
        """The newest vector of each selected instrument, among those available at `selection.end` if that is given.

        As held at `selection.known_at`, if that is given.
        """
        ...

    def withdraw(self, table: Table, keys: pa.Table, known_at: datetime) -> int:
        """Take current rows with these keys away, so that only their revisions are left; how many were there."""
        ...

    def spans(self, timeframe: str | None = None, known_at: datetime | None = None) -> pa.Table:
        """For each instrument and timeframe with bars: `instrument_id, timeframe, bars, first, last`."""
        ...

    def cuts(
        self, timeframe: str, instrument: str, every: int, lookback: int, known_at: datetime | None = None
    ) -> list[tuple[datetime, datetime]]:
        """Where to cut a long history: for every `every`th bar its time, and the time `lookback - 1` bars earlier."""
        ...

    def register(self, feature_set: FeatureSet, applied_at: datetime) -> None:
        """Add a feature set to the registry, with a table for its vectors. One that is there already is left alone."""
        ...

    def registered(self) -> dict[str, Registered]:
        """The registry by version."""
        ...

    def append(self, log: str, rows: pa.Table) -> int:
        """Add rows to `quarantine` or `feature_quality_log`, those that are not there yet; how many were."""
        ...

    def follow(self, name: str) -> None:
        """Keep what changes from now on for the follower `name`. One that follows already goes on from where it is."""
        ...

    def changes(self, name: str) -> tuple[pa.Table, str]:
        """The records that were inserted, corrected or withdrawn since the follower last moved, as `CHANGES`, and where to.

        An event or a point that takes another place in time is there with both. A record that has changed twice may be there twice. Raises
        `NotFound` for a name that does not follow.
        """
        ...

    def positions(self, prefix: str) -> dict[str, str]:
        """How far readers whose names begin so have come in what they read."""
        ...

    def move(self, positions: Mapping[str, str], since: Mapping[str, str] | None = None) -> None:
        """Keep how far readers have come, in the transaction that this thread is in: with the rows that they made, or not at all.

        With `since`, only from there: raises `Overtaken` where one of them is elsewhere by now, or is there though `since` lacks it.
        """
        ...

    def refresh(self) -> None:
        """Bring up to date what the store keeps ready for reading beside the rows themselves."""
        ...

    def facts(self) -> Mapping[str, object]:
        """What `asof doctor` shows: `kind`, `version`, `layout`, `rows` by table, and `findings` (state, what, detail, mend)."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
