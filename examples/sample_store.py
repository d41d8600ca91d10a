"""What the examples begin with: a store with the sample's bars and news, and the vectors of `fs_v1`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

import asof
from asof.sources.sample import make_sample


@contextmanager
def sample_store() -> Iterator[asof.FeatureStore]:
    """A store in memory, filled in one backfill."""
    sample = make_sample()
    with TemporaryDirectory() as folder, asof.connect("duckdb://") as store:
        bars, events = Path(folder) / "bars.parquet", Path(folder) / "events.jsonl"
        pq.write_table(sample.bars, bars)
        events.write_text("\n".join(map(json.dumps, sample.events)))
        store.ingest_bars(bars)
        store.ingest_events(events)
        store.backfill("fs_v1", "1d")
        yield store
