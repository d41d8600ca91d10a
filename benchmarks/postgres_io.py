"""Vectors into PostgreSQL and out of it: `asof` beside the bare COPY of the same rows, and beside other ways from Arrow to a table.

The server is private, in a temporary folder, without the waits for its disk. Every writer puts the same new rows into the same table,
with its indexes and triggers; the readers read the same rows back, by key, with the same query.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import adbc_driver_postgresql.dbapi
import numpy as np
import pgpq
import psycopg
import pyarrow as pa
from measure import Candidate, Figure, Result, Settings, take_turns

import asof
from asof.records import vector_schema
from asof.stores.postgres import PostgresStore
from asof.stores.postgres_copy import encoded
from asof.stores.postgres_tables import Vectors
from asof.stores.store import Selection, vectors_table

sys.path.append(str(Path(__file__).parents[1]))
from tests.servers.postgres import Postgres, private, programs

FEATURES = 30
TARGET = 0.7
NOW = datetime(2024, 6, 1, tzinfo=UTC)
WIDE = asof.FeatureSet("wide", {f"f{n}": asof.bars.close + n for n in range(FEATURES)})
TABLE = vectors_table(WIDE)
LAYOUT = Vectors("wide", tuple(WIDE.features), 0)
FLAGS = ([], ["NO_EVENTS"], ["LOW_EVENT_COUNT", "LOW_SENTIMENT_CONFIDENCE"])


def write(settings: Settings) -> Result:
    """Measure an upsert of new vectors."""
    vectors = _vectors(settings)
    stored = LAYOUT.rows(vectors).append_column("known_from", pa.repeat(pa.scalar(NOW, pa.timestamp("us", tz="UTC")), len(vectors)))
    ready = list(encoded([stored]))
    with private_server() as server:
        urls = _Latest(server)
        candidates = {
            "asof upsert": Candidate(lambda: _upsert(urls.latest, vectors), urls.renew),
            "bare COPY of ready bytes": Candidate(lambda: _copy(urls.latest, stored.column_names, lambda: iter(ready)), urls.renew),
            "psycopg and pgpq": Candidate(lambda: _copy(urls.latest, stored.column_names, lambda: _by_pgpq(stored)), urls.renew),
            "ADBC": Candidate(lambda: _ingest(urls.latest, stored), urls.renew),
        }
        counts = {}
        seconds = take_turns(
            candidates, settings.repeat, lambda name, _: counts.update({name: server.run("SELECT count(*) FROM wide", urls.latest)})
        )
    share = seconds["bare COPY of ready bytes"] / seconds["asof upsert"]
    wrong = [f"{name} wrote {count[0][0]} rows" for name, count in counts.items() if count != [(len(vectors),)]]
    return Result(
        f"{len(vectors):,} new vectors of {FEATURES} features into PostgreSQL",
        [Figure(name, found, len(vectors)) for name, found in seconds.items()],
        f"at least {TARGET:.0%} of the bare COPY's rate",
        f"{share:.0%}",
        share >= TARGET,
        wrong,
    )


def read(settings: Settings) -> Result:
    """Measure a read of all vectors, by key."""
    vectors = _vectors(settings)
    sql = f'SELECT {LAYOUT.columns(TABLE.schema.names, "m")} FROM feature_vectors m ORDER BY instrument_id COLLATE "C", ts'  # noqa: S608 - our own names
    with private_server() as server:
        url = _Latest(server).renew()
        _upsert(url, vectors)
        server.run("VACUUM ANALYZE feature_vectors", url)
        candidates = {
            "asof read": Candidate(lambda: _read(url)),
            "ADBC": Candidate(lambda: _read_by_adbc(url, sql)),
            "psycopg, row by row": Candidate(lambda: _read_rows(url, sql)),
        }
        rows = dict[str, int]()
        seconds = take_turns(candidates, settings.repeat, rows.__setitem__)
    return Result(
        f"{len(vectors):,} vectors of {FEATURES} features out of PostgreSQL",
        [Figure(name, found, len(vectors)) for name, found in seconds.items()],
        measured=f"{seconds['ADBC'] / seconds['asof read']:.0%} of ADBC's rate",
        problems=[f"{name} read {count} rows" for name, count in rows.items() if count != len(vectors)],
    )


class _Latest:
    """New databases, and the URL of the latest."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.latest = ""

    def renew(self) -> str:
        """Drop the latest and make another, with the feature set registered."""
        if self.latest:
            self._server.run(f"DROP DATABASE {self._server.made.pop()} WITH (FORCE)")
        self.latest = self._server.database()
        with PostgresStore(self.latest) as store:
            store.register(WIDE, NOW)
        self._server.run("CHECKPOINT")
        return self.latest


@contextmanager
def private_server() -> Iterator[Postgres]:
    if programs() is None:
        sys.exit("there is no PostgreSQL: make servers")
    with private() as server:
        yield server


def _vectors(settings: Settings) -> pa.Table:
    """Minute bars' vectors of many instruments, a few values missing."""
    rng, count = np.random.default_rng(1), max(1_000, int(1_000_000 * settings.scale))
    minutes = np.arange(count, dtype=np.int64) % 5_000 * 60_000_000 + 1_700_000_040_000_000
    times = pa.array(minutes).cast(pa.timestamp("us", tz="UTC"))
    columns = {"instrument_id": [f"I{n // 5_000:04d}" for n in range(count)], "timeframe": pa.repeat("1m", count), "ts": times}
    columns |= {name: pa.array(rng.normal(size=count), mask=rng.random(count) < 0.02) for name in WIDE.features}
    columns |= {"quality_flags": [FLAGS[n] for n in rng.integers(0, 3, count)], "event_count": rng.integers(0, 9, count)}
    columns |= {"ohlcv_count": pa.repeat(21, count), "available_at": times, "computed_at": pa.repeat(pa.scalar(NOW), count)}
    return pa.table(columns | {"pipeline_version": pa.repeat("benchmark", count)}).cast(vector_schema(tuple(WIDE.features)))


def _upsert(url: str, vectors: pa.Table) -> None:
    with PostgresStore(url) as store:
        assert store.upsert(TABLE, vectors, NOW).inserted == len(vectors)


def _copy(url: str, names: list[str], pieces: Callable[[], Iterator[bytes]]) -> None:
    sql = f"COPY feature_vectors ({', '.join(names)}) FROM STDIN (FORMAT binary)"
    with psycopg.connect(url) as connection, connection.cursor() as cursor, cursor.copy(sql.encode()) as copy:
        for piece in pieces():
            copy.write(piece)


def _by_pgpq(stored: pa.Table) -> Iterator[bytes]:
    encoder = pgpq.ArrowToPostgresBinaryEncoder(stored.schema)
    yield encoder.write_header()
    for batch in stored.to_batches(max_chunksize=16_384):
        yield encoder.write_batch(batch)
    yield encoder.finish()


def _ingest(url: str, stored: pa.Table) -> None:
    with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("feature_vectors", stored, mode="append")
        connection.commit()


def _read(url: str) -> int:
    with closing(PostgresStore(url)) as store:
        return sum(map(len, store.read(TABLE, Selection())))


def _read_by_adbc(url: str, sql: str) -> int:
    with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return sum(map(len, cursor.fetch_record_batch()))


def _read_rows(url: str, sql: str) -> int:
    with psycopg.connect(url) as connection, connection.cursor("rows", binary=True) as cursor:
        cursor.itersize = 20_000
        return sum(1 for _ in cursor.execute(sql.encode()))
