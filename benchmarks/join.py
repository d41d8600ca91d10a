"""100k entity rows joined as of their times to 1M stored vectors: a DuckDB file store beside DuckDB's own ASOF JOIN in memory.

DuckDB has its rows in memory and may answer in any order; ours come from the file, in the order of the entities.
"""

from __future__ import annotations

import data
import duckdb
import numpy as np
import pyarrow as pa
from measure import Candidate, Figure, Result, Settings, take_turns

import asof

TARGET = 1.5
FOUND = (*asof.fs_v1.features, "ts", "available_at", "quality_flags")
_JOIN = f"""
SELECT e.*, {", ".join(f"v.{name}" for name in FOUND)} FROM entities e
ASOF LEFT JOIN vectors v ON e.instrument_id = v.instrument_id AND e.event_timestamp >= v.available_at
"""  # noqa: S608 - the names are those of our own feature set


def run(settings: Settings) -> Result:
    """Measure it."""
    wanted = data.size(1_000_000, 100, settings.scale)
    path = settings.folder / "join.duckdb"
    data.fill(path, wanted)
    entities = _entities(wanted, round(100_000 * settings.scale))
    answers: dict[str, pa.Table] = {}
    with asof.connect(str(path)) as store:
        store.backfill(asof.fs_v1, "1m")
        ours = Candidate(lambda: store.get_historical_features(entities, asof.fs_v1, "1m").to_arrow())
        ours.run()
        peer = _peer(store, entities)
        seconds = take_turns({"asof, file store": ours, "DuckDB ASOF JOIN, in memory": peer}, settings.repeat, answers.__setitem__)
    path.unlink()
    ratio = seconds["asof, file store"] / seconds["DuckDB ASOF JOIN, in memory"]
    return Result(
        f"as-of join, {len(entities):,} entity rows over {wanted.rows:,} vectors",
        [Figure(name, found, len(entities)) for name, found in seconds.items()],
        f"at most {TARGET} x DuckDB's time",
        f"{ratio:.2f} x",
        ratio <= TARGET,
        [] if _same(*answers.values()) else ["the two answers differ"],
    )


def _entities(wanted: data.Size, rows: int) -> pa.Table:
    """Random instruments and moments, from a little before the first vector on."""
    rng = np.random.default_rng(3)
    who = rng.integers(0, wanted.instruments, rows)
    when = data.START + rng.integers(-10 * data.MINUTE, data.MINUTE * wanted.bars, rows)
    return pa.table(
        {
            "instrument_id": data.names(0, wanted.instruments).take(pa.array(who)),
            "event_timestamp": pa.array(when).cast(data.UTC),
            "label": np.arange(rows),
        }
    )


def _peer(store: asof.FeatureStore, entities: pa.Table) -> Candidate:
    """DuckDB in memory, with the same vectors and entities as tables of its own."""
    connection = duckdb.connect(config={"preserve_insertion_order": False})
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("vectors_given", store.history(asof.fs_v1, "1m").to_arrow()).register("entities_given", entities)
    for name in ("vectors", "entities"):
        connection.execute(f"CREATE TABLE {name} AS FROM {name}_given")
    connection.unregister("vectors_given")
    return Candidate(lambda: connection.sql(_JOIN).to_arrow_table())


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    wanted = pa.schema([f if f.name != "quality_flags" else f.with_type(pa.list_(pa.string())) for f in ours.schema])
    theirs = theirs.sort_by("label").select(ours.column_names)
    return bool(ours.cast(wanted) == theirs.cast(wanted))
