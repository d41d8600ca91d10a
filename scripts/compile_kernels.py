"""Compile the kernels of every shipped feature set, so that what follows starts at full speed: `NUMBA_CACHE_DIR` says where they go.

They are compiled as the jobs use them: a sample is computed in memory, and ingested and backfilled in a store.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from asof import compute, connect
from asof.cli.init import write_sample
from asof.features.library import SHIPPED
from asof.sources.sample import make_sample


def main() -> None:
    began = time.perf_counter()
    sample = make_sample()
    minutes = sample.bars.drop_columns("timeframe")
    events = pa.Table.from_pylist([{**event, **event["sentiment"]} for event in sample.events]).drop_columns("sentiment")
    with tempfile.TemporaryDirectory() as folder, connect("duckdb://") as store:
        write_sample(Path(folder))
        store.ingest_bars(Path(folder, "bars.parquet"))
        store.ingest_events(Path(folder, "events.jsonl"))
        for feature_set in SHIPPED.values():
            store.backfill(feature_set, "1d")
            compute(feature_set, minutes, events, timeframe="1m")  # minutes are held to a grid, which days are not
    print(f"compiled {', '.join(SHIPPED)} in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
