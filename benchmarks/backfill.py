"""Backfill of `fs_v1` over 10M stored bars and 2M events, end to end, beside the store's own bulk load of the finished vectors.

The bulk load is `INSERT INTO ... SELECT` from one Arrow table in memory into a fresh DuckDB file with the same table; ours reads the bars
and events, computes, compares with what is stored, and writes. Both include opening and closing the file.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import data
import duckdb
import pyarrow as pa
from measure import Candidate, Figure, Result, Settings, take_turns

import asof
from asof.stores.duckdb import DuckDBStore

TARGET = 0.7
KEPT = ("instrument_id", "timeframe", "ts", *asof.fs_v1.features, "quality_flags", "event_count", "ohlcv_count", "available_at")
_SUM = f"SELECT count(*), sum(hash({', '.join(KEPT)})::HUGEINT) FROM fs_v1"  # noqa: S608 - the names are those of our own feature set


def run(settings: Settings) -> Result:
    """Measure it."""
    wanted = data.size(10_000_000, 1_000, settings.scale)
    filled, empty, ours, theirs = (settings.folder / f"{name}.duckdb" for name in ("filled", "empty", "ours", "theirs"))
    data.fill(filled, wanted)
    with DuckDBStore(empty) as store:
        store.register(asof.fs_v1, datetime.now(UTC))
    groups = list(data.groups(wanted))
    bars, events = (pa.concat_tables(make(wanted, *group) for group in groups) for make in (data.bars, data.events))
    vectors = asof.compute(asof.fs_v1, bars, events, timeframe="1m").to_arrow()
    candidates = {
        "asof backfill": Candidate(lambda: _backfill(ours), lambda: _copy(filled, ours)),
        "DuckDB bulk load": Candidate(lambda: _load(theirs, vectors), lambda: _copy(empty, theirs)),
    }
    seconds = take_turns(candidates, settings.repeat)
    share = seconds["DuckDB bulk load"] / seconds["asof backfill"]
    problems = [] if _sums(ours) == _sums(theirs) else ["the two tables of vectors differ"]
    for path in (filled, empty, ours, theirs):
        path.unlink()
    return Result(
        f"backfill of fs_v1 into DuckDB, {wanted.rows:,} bars + {wanted.instruments * wanted.events:,} events",
        [Figure(name, found, wanted.rows) for name, found in seconds.items()],
        f"at least {TARGET:.0%} of the bulk load's rate",
        f"{share:.0%}",
        share >= TARGET,
        problems,
    )


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _backfill(path: Path) -> None:
    with asof.connect(str(path)) as store:
        store.backfill(asof.fs_v1, "1m")


def _load(path: Path, vectors: pa.Table) -> None:
    with duckdb.connect(str(path), config={"preserve_insertion_order": False}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("vectors", vectors)
        connection.execute("INSERT INTO main.fs_v1 SELECT *, now() FROM vectors")


def _sums(path: Path) -> list[tuple[int, int]]:
    """How many vectors a file has, and a sum over all their bits."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(_SUM).fetchall()
