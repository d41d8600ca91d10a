"""A store with a few vectors, for those who answer from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import asof
from asof.records import UTC

DAY = 86_400_000_000
FIRST = 1_704_067_200_000_000
"""2024-01-01T00:00:00Z."""


def sample_bars(instruments: int = 3, bars: int = 60) -> pa.Table:
    """Daily bars; the first instrument lacks a price."""
    rng = np.random.default_rng(7)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (instruments, bars)), axis=1)).ravel()
    names = [f"I{k}" for k in range(instruments)]
    return pa.table(
        {
            "instrument_id": pa.array(np.repeat(names, bars)),
            "ts": pa.array(np.tile(FIRST + DAY * np.arange(bars), instruments)).cast(UTC),
            "close": pa.array(close, mask=np.arange(len(close)) == 30),
        }
    )


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[asof.FeatureStore]:
    """A store with vectors of `fs_v1`, and a copy of `cross_v1` that nobody has computed. It is read alone."""
    folder: Path = tmp_path_factory.mktemp("serving")
    pa.parquet.write_table(sample_bars(), folder / "bars.parquet")
    with asof.connect(str(folder / "store.duckdb")) as store:
        store.ingest_bars(folder / "bars.parquet", timeframe="1d")
        store.backfill("fs_v1", "1d")
        store.apply("ta_v1")
        yield store
