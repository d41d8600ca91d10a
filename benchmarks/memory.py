"""The most memory that `asof backfill --memory 2GB` holds for 50M bars and 10M events, measured from outside."""

from __future__ import annotations

import sys

import data
import duckdb
from measure import Figure, Result, Settings, peak_memory

LIMIT = 2 << 30
_ASOF = (sys.executable, "-c", "from asof.cli import main; main()")
_BACKFILL = ("backfill", "fs_v1", "--timeframe", "1m", "--memory", "2GB", "--json")


def run(settings: Settings) -> Result:
    """Measure it."""
    wanted = data.size(50_000_000, 1_000, settings.scale)
    path = settings.folder / "memory.duckdb"
    data.fill(path, wanted)
    seconds, peak = peak_memory(*_ASOF, *_BACKFILL, "--store", str(path))
    with duckdb.connect(str(path), read_only=True) as connection:
        stored = connection.execute("SELECT count(*) FROM fs_v1").fetchall()[0][0]
    path.unlink()
    shown = f"{peak / (1 << 30):.2f} GiB"
    return Result(
        f"memory of a backfill of {wanted.rows:,} bars + {wanted.instruments * wanted.events:,} events with --memory 2GB",
        [Figure("asof backfill", seconds, wanted.rows, shown, "peak of the whole process")],
        "at most 2 GiB",
        shown,
        peak <= LIMIT,
        [] if stored == wanted.rows else [f"{stored:,} vectors were stored"],
    )
