"""History over HTTP: streamed as it is read, or a page at a time.

A page ends with a cursor: the instrument and time of its last row, and the moment as known at which the first page was read, so that all
pages together are one history though the store goes on. The next page begins behind it, without reading what came before.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from fastapi.responses import Response

from asof.errors import DataError
from asof.feature_store import FeatureStore
from asof.features.feature_set import FeatureSet
from asof.jobs import reading
from asof.jobs.formats import lines
from asof.records import VECTOR_KEYS, VECTOR_REST
from asof.serving.answers import ARROW, JSON, LINES, PARQUET, TABULAR, streamed
from asof.serving.questions import Question
from asof.serving.state import Serving
from asof.stores.store import Selection, vectors_table

FORMATS = (JSON, LINES, ARROW, PARQUET)
MOST_PAGE = 1_000_000
"""Rows of a page."""
NEXT = "asof-next-cursor"
"""The header that has the cursor, where the format has no place for it."""
BEYOND = "\U0010ffff"


@dataclass(frozen=True)
class Cursor:
    """Behind which row to go on, and as known when."""

    instrument: str
    ts: datetime
    known_at: str

    def text(self) -> str:
        """As clients bring it back."""
        return base64.urlsafe_b64encode(json.dumps([self.instrument, self.ts.isoformat(), self.known_at]).encode()).decode()

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Raises `DataError` for a text that is none."""
        try:
            instrument, ts, known_at = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
            return cls(str(instrument), datetime.fromisoformat(ts).astimezone(UTC), str(known_at))
        except (ValueError, TypeError, binascii.Error, OverflowError, RecursionError):
            raise DataError(f"cursor {text[:40]!r} is none that was given out: take the one of the page before, or none to begin") from None


def answered(serving: Serving, question: Question, kind: str, limit: int | None = None, cursor: str | None = None) -> Response:
    """The vectors that answer a question, in a format: all of them, or a page."""
    if question.instruments is not None:
        serving.limits.check_instruments(len(question.instruments))
    store = serving.opened()
    definition = question.definition(store)
    _, asked = store.select(definition, question.timeframe, question.instruments, question.start, question.end, question.known_at)
    serving.limits.check_range(asked.start, asked.end)
    if limit is None and cursor is None:
        return _whole(store, definition, question, asked, kind)
    wanted = MOST_PAGE if limit is None else limit
    if not 1 <= wanted <= MOST_PAGE:
        raise DataError(f"limit is {limit:,}, and has to be from 1 to {MOST_PAGE:,}")
    behind = None if cursor is None else Cursor.read(cursor)
    known_at = behind.known_at if behind else question.known_at or datetime.now(UTC).isoformat()
    rows = _page(store, definition, question, replace(asked, known_at=reading.parse_time(known_at, "known_at")), behind, wanted)
    following = None
    if len(rows) > wanted:
        rows = rows.slice(0, wanted)
        last = rows.slice(wanted - 1).select(["instrument_id", "ts"]).to_pylist()[0]
        following = Cursor(last["instrument_id"], last["ts"], known_at).text()
    answer = streamed(kind, _written(definition, question, iter([rows]), kind, following))
    if following:
        answer.headers[NEXT] = following
    return answer


def _columns(definition: FeatureSet, question: Question) -> tuple[str, ...]:
    return (*VECTOR_KEYS.names, *definition.select(question.features or tuple(definition.features)), *VECTOR_REST.names)


def _whole(store: FeatureStore, definition: FeatureSet, question: Question, asked: Selection, kind: str) -> Response:
    if kind in TABULAR:
        return streamed(kind, TABULAR[kind](question.schema(definition), question.tables(store, definition)))
    tables = store.store.read(vectors_table(definition), asked, _columns(definition, question))
    return streamed(kind, _written(definition, question, tables, kind, None))


def _page(
    store: FeatureStore, definition: FeatureSet, question: Question, asked: Selection, behind: Cursor | None, wanted: int
) -> pa.Table:
    """The next rows, and one more where there is one."""
    parts = [asked] if behind is None else _behind(asked, behind)
    columns, found, rows = _columns(definition, question), list[pa.Table](), 0
    for part in parts:
        for table in store.store.read(vectors_table(definition), part, columns):
            found.append(table.slice(0, wanted + 1 - rows))
            rows += len(found[-1])
            if rows > wanted:
                return pa.concat_tables(found)
    schema = pa.schema([vectors_table(definition).schema.field(name) for name in columns])
    return pa.concat_tables([schema.empty_table(), *found])


def _behind(asked: Selection, cursor: Cursor) -> Iterator[Selection]:
    """What is left: of the instrument of the cursor, and of those behind it. No name has a character below U+0001."""
    later = cursor.ts + timedelta(microseconds=1)
    if asked.instruments is None or cursor.instrument in asked.instruments:
        start = later if asked.start is None else max(asked.start, later)
        yield replace(asked, instruments=(cursor.instrument,), start=start)
    yield replace(asked, span=(cursor.instrument + "\x01", BEYOND))


def _written(definition: FeatureSet, question: Question, tables: Iterator[pa.Table], kind: str, following: str | None) -> Iterator[bytes]:
    if kind in TABULAR:
        shown = (reading.tabular(definition, table) for table in tables)
        first = next(shown)
        yield from TABULAR[kind](first.schema, iter([first]))
        return
    names = definition.select(question.features or tuple(definition.features))
    if kind == LINES:
        for table in tables:
            yield b"".join([line + b"\n" for _, line in lines(definition, table, names)])
        return
    about = json.dumps({"feature_set": definition.version, "timeframe": question.timeframe, "next_cursor": following})
    yield about[:-1].encode() + b', "vectors": ['
    comma = b""
    for table in tables:
        if part := b",".join([line for _, line in lines(definition, table, names)]):
            yield comma + part
            comma = b","
    yield b"]}\n"


__all__ = ["ARROW", "FORMATS", "PARQUET", "Cursor", "answered"]
