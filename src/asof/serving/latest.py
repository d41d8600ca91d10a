"""The newest vectors: out of memory as ready-made bytes where that is all that is asked for, else from the store.

An answer in JSON has the vectors, how old each was when it was made (since it could be known), the instruments that have none, and those
whose newest is older than `max_age`, which is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fastapi.responses import Response

from asof.calendars import Calendars
from asof.features.feature_set import FeatureSet
from asof.jobs import reading
from asof.jobs.ages import Age
from asof.jobs.formats import lines, recorded, rfc3339
from asof.records import micros
from asof.serving.answers import ARROW, JSON, PARQUET, TABULAR, streamed
from asof.serving.newest import Entry, now
from asof.serving.questions import Question
from asof.serving.state import Serving

FORMATS = (JSON, ARROW, PARQUET)
ASKED = ("feature_set", "timeframe", "instruments", "features", "columns", "at", "known_at", "max_age")
"""What a question about the newest vectors may name."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_memory(serving: Serving, question: Question) -> bytes | None:
    """The answer in JSON, where memory has all that it takes; None where the store has to be asked."""
    if question.features or question.columns or question.at or question.known_at:
        return None
    held = serving.newest.of(question.feature_set, question.timeframe)
    if held is None:
        return None
    found = list(held.items()) if question.instruments is None else [(name, held.get(name)) for name in dict.fromkeys(question.instruments)]
    serving.limits.check_instruments(len(found))
    return _document(question, sorted(found) if question.instruments is None else found, serving.settings.market_calendars)


def _document(question: Question, found: Iterable[tuple[str, Entry | None]], calendars: Calendars) -> bytes:
    clock = now()
    missing = [name for name, entry in found if entry is None]
    there = {name: entry for name, entry in found if entry is not None}
    old = _old(there, question.max_age, clock, calendars) if question.max_age else ()
    shown = [entry for name, entry in there.items() if name not in old]
    ages = ",".join([f"{(clock - entry.available_at) / 1e6:.3f}" for entry in shown])
    return b'%b,"as_of":"%b","missing":%b,"stale":%b,"age_seconds":[%b],"vectors":[%b]}' % (
        _head(question.feature_set, question.timeframe),
        rfc3339(EPOCH + timedelta(microseconds=clock)).encode(),
        json.dumps(missing).encode() if missing else b"[]",
        json.dumps(list(old)).encode() if old else b"[]",
        ages.encode(),
        b",".join([entry.line for entry in shown]),
    )


@lru_cache(256)
def _head(version: str, timeframe: str) -> bytes:
    return json.dumps({"feature_set": version, "timeframe": timeframe}, separators=(",", ":"))[:-1].encode()


def _old(there: Mapping[str, Entry], max_age: str, clock: int, calendars: Calendars) -> tuple[str, ...]:
    """Those whose newest vector is too old."""
    since = np.array([entry.available_at for entry in there.values()], np.int64)
    names = pa.chunked_array([pa.array(list(there), pa.string())])
    fresh = Age.of(max_age).covers(calendars, names, since, np.full(len(since), clock))
    return tuple(name for name, good in zip(there, fresh.tolist(), strict=True) if not good)


def answered(serving: Serving, question: Question, kind: str) -> Response:
    """The answer to a question that is about the newest vectors, in a format."""
    if question.instruments is not None:
        serving.limits.check_instruments(len(question.instruments))
    if kind == JSON and question.columns is None and (document := from_memory(serving, question)) is not None:
        return Response(document, media_type=JSON)
    store = serving.opened()
    definition = question.definition(store)
    if kind != JSON:
        fresh = (_fresh(serving, table, question) for table in question.tables(store, definition))
        return streamed(kind, TABULAR[kind](question.schema(definition), fresh))
    names = definition.select(question.features or tuple(definition.features))
    _, asked = store.select(definition, question.timeframe, question.instruments, None, question.moment("at"), question.known_at)
    return Response(_stored(definition, names, reading.latest(store.store, definition, asked), question, serving), media_type=JSON)


def _stored(definition: FeatureSet, names: tuple[str, ...], vectors: pa.Table, question: Question, serving: Serving) -> bytes:
    """The same document of vectors that the store gave."""
    some = recorded(definition, vectors, names)
    times = zip(micros(some["ts"]).tolist(), micros(some["available_at"]).tolist(), strict=True)
    there = {name: Entry(ts, known, line) for (name, line), (ts, known) in zip(lines(definition, some, names), times, strict=True)}
    wanted = sorted(there) if question.instruments is None else dict.fromkeys(question.instruments)
    return _document(question, [(name, there.get(name)) for name in wanted], serving.settings.market_calendars)


def _fresh(serving: Serving, table: pa.Table, question: Question) -> pa.Table:
    """The vectors that are not too old."""
    if not question.max_age:
        return table
    clock, since = np.full(len(table), now()), micros(pc.coalesce(table["available_at"], table["ts"]))
    return table.filter(pa.array(Age.of(question.max_age).covers(serving.settings.market_calendars, table["instrument_id"], since, clock)))
